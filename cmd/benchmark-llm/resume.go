package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// resumed is what an earlier run left.
type resumed struct {
	about    runDescription
	outcomes []result.Outcome      // final ones, in the order in which they came; those of interrupted tests are not
	begun    map[testKey]begunTest // tests without a final outcome that have completed repetitions
	account  bench.Account         // of the earlier spans; Begin it to go on

	replaced map[string]bench.LoadStarted // by model: its file could not be had and its weights were generated
}

// begunTest is what was measured of a test that was interrupted.
type begunTest struct {
	samples []result.Sample // repetitions 1, 2, …
	spent   time.Duration   // of the test's budget, by them; what has to be done again is not counted
}

// errFinished is a run of which nothing is left to do.
var errFinished = errors.New("the run is finished")

// openRunDir opens an earlier run's directory to continue it: its description,
// the final outcomes so far, and what had been measured of tests without one.
// results.jsonl is written anew from the events, and run.json has a new span.
// The error is errRunning when another process runs it, and errFinished when
// every test has its final outcome and the report is written.
func openRunDir(path string) (*runDir, resumed, error) {
	d := &runDir{path: path}
	switch err := d.openEvents(0); {
	case errors.Is(err, errRunning):
		return nil, resumed{}, usage("wait for its end, or interrupt it", "%s: %w", path, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, resumed{}, notRunDir(path)
	case err != nil:
		return nil, resumed{}, fail(exitOutput, err, "the directory must be writable to continue its run")
	}
	r, err := d.resume()
	if err != nil {
		_ = d.events.Close()
		return nil, resumed{}, err
	}
	return d, r, nil
}

func notRunDir(path string) error {
	return usage("a run's directory is below --results-dir and has a run.json", "%s is not the directory of a run", path)
}

// resume reads what there is and makes the directory ready to go on.
func (d *runDir) resume() (resumed, error) {
	about, err := d.readAbout()
	if err != nil {
		return resumed{}, err
	}
	info, err := d.events.Stat()
	if err != nil {
		return resumed{}, fail(exitOutput, err, "")
	}
	h := newHistory(about)
	good, lines, err := readEvents(d.events, h.add)
	if err != nil {
		return resumed{}, fail(exitNothing, fmt.Errorf("%s: %w", d.events.Name(), err), "only an unbroken run can be continued; start a new one")
	}
	r := h.end()
	if about.last().Ended != nil && r.unfinished() == 0 {
		return resumed{}, usage("its report is "+d.file("report.md"), "%s: %w, nothing is left to do", d.path, errFinished)
	}
	if good < info.Size() {
		slog.Warn("the last event was cut off and is left out", "file", d.events.Name(), "bytes", info.Size()-good)
		if err := d.events.Truncate(good); err != nil {
			return resumed{}, notKept(err)
		}
	}
	d.removePending()
	if err := d.rewriteResults(r.outcomes); err != nil {
		return resumed{}, notKept(err)
	}

	d.all = slices.Clone(r.outcomes)
	span := newSpan(redactAll(os.Args))
	span.Events = lines
	if before := about.last().Version; before != span.Version {
		slog.Warn("the run was begun with another version, figures may differ", "before", before, "now", span.Version)
	}
	about.Continued = append(slices.Clone(about.Continued), span)
	d.about, r.about = about, about
	if err := d.writeAbout(); err != nil {
		_ = d.results.Close()
		return resumed{}, notKept(err)
	}
	return r, nil
}

// unfinished is the number of tests without a final outcome.
func (r *resumed) unfinished() int {
	n := -len(r.outcomes)
	for _, job := range r.about.Jobs {
		n += len(job.Tests)
	}
	return n
}

// maxAboutBytes bounds run.json: a longer one is garbage.
const maxAboutBytes = 16 << 20

// readAbout reads run.json and refuses what this program cannot continue.
func (d *runDir) readAbout() (runDescription, error) {
	var about runDescription
	f, err := os.Open(d.file("run.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return about, notRunDir(d.path)
	}
	if err != nil {
		return about, fail(exitOutput, err, "")
	}
	defer f.Close()
	broken := func(err error) error {
		return fail(exitNothing, fmt.Errorf("%s: %w", f.Name(), err), "only an unbroken run can be continued; start a new one")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAboutBytes+1))
	if err != nil {
		return about, broken(err)
	}
	if len(b) > maxAboutBytes {
		return about, broken(fmt.Errorf("longer than %d bytes", maxAboutBytes))
	}
	// The schema first: with another one the rest may look different.
	var schema struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &schema); err != nil {
		return about, broken(err)
	}
	if schema.Schema != runSchema {
		return about, usage("continue it with the version that began it", "%s: schema %d, this program knows schema %d", f.Name(), schema.Schema, runSchema)
	}
	if err := json.Unmarshal(b, &about); err != nil {
		return about, broken(err)
	}
	if err := about.check(); err != nil {
		return about, broken(err)
	}
	return about, nil
}

// check tells what of a description from a file cannot be.
func (a *runDescription) check() error {
	if len(a.Jobs) == 0 {
		return errors.New("no model")
	}
	if n := len(a.Sources); n > 0 && n != len(a.Jobs) {
		return fmt.Errorf("%d sources of %d models", n, len(a.Jobs))
	}
	seen := map[testKey]bool{}
	for i, job := range a.Jobs {
		if slices.ContainsFunc(a.Jobs[:i], func(j bench.Job) bool { return j.Model.Name == job.Model.Name }) {
			return fmt.Errorf("model %q twice", job.Model.Name)
		}
		if job.Repetitions < 1 || job.Repetitions > suite.MaxRepetitions {
			return fmt.Errorf("%s: %d repetitions, not 1…%d", job.Model.Name, job.Repetitions, suite.MaxRepetitions)
		}
		for _, t := range job.Tests {
			key := testKey{job.Model.Name, t.Test}
			if err := t.Test.Validate(); err != nil {
				return fmt.Errorf("%s: %w", job.Model.Name, err)
			}
			if seen[key] {
				return fmt.Errorf("%s: %s twice", job.Model.Name, t.Test)
			}
			seen[key] = true
		}
	}
	return nil
}

// rewriteResults replaces results.jsonl by the records of outcomes and opens it
// for those to come.
func (d *runDir) rewriteResults(outcomes []result.Outcome) error {
	f, err := pendingFile(d.file("results.jsonl"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // after the rename it does nothing
	w, err := report.New("jsonl", f, report.Options{})
	if err != nil {
		return err
	}
	for _, o := range outcomes {
		if err := w.Write(o); err != nil {
			return err
		}
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return d.openResults()
}

// readEvents hands each event of a file to each, with the number of its line
// from 1, and leaves out events that this version does not know. A last line
// that was cut off or is damaged, as after a power cut, is left out too; good is
// the number of bytes before it, lines that of the lines. Any other line that is
// no event is an error, and so is an error of each; both name the line.
func readEvents(r io.Reader, each func(line int, e bench.Stamped) error) (good int64, lines int, err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		line, n, err := readLine(b)
		if errors.Is(err, io.EOF) {
			return good, lines, nil // what is before the end of the file has no end itself
		}
		if err != nil {
			return good, lines, err
		}
		var e bench.Stamped
		switch err := e.UnmarshalLine(line); {
		case errors.Is(err, bench.ErrUnknownEvent):
		case err != nil:
			if _, peek := b.Peek(1); errors.Is(peek, io.EOF) {
				return good, lines, nil
			}
			return good, lines, fmt.Errorf("line %d: %w", lines+1, err)
		default:
			if err := each(lines+1, e); err != nil {
				return good, lines, fmt.Errorf("line %d: %w", lines+1, err)
			}
		}
		good, lines = good+n, lines+1
	}
}

// readLine reads one line and tells its length in bytes with its newline. Of a
// line that is too long for an event it keeps enough to see that. The error is
// io.EOF when the newline is missing.
func readLine(b *bufio.Reader) (line []byte, n int64, err error) {
	for {
		part, err := b.ReadSlice('\n')
		n += int64(len(part))
		if room := bench.MaxEventBytes + 2 - len(line); room > 0 {
			line = append(line, part[:min(room, len(part))]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return bytes.TrimSuffix(line, []byte("\n")), n, err
	}
}

// history turns the events of a run, of all its spans, into what is final and
// what is not.
type history struct {
	resumed
	jobs  map[string]bench.Job
	spans []runSpan // that have not begun yet

	program   string           // of the span
	engine    *bench.Stamped   // EngineReady of the worker
	assembler *bench.Assembler // nil: no model is being loaded or is loaded
	lost      *result.Outcome  // of a test whose worker was lost: final unless it is tried again
}

func newHistory(about runDescription) *history {
	h := &history{jobs: map[string]bench.Job{}, spans: about.spans()}
	h.about, h.begun, h.replaced = about, map[testKey]begunTest{}, map[string]bench.LoadStarted{}
	for _, job := range about.Jobs {
		h.jobs[job.Model.Name] = job
	}
	return h
}

// add takes the event of a line. The error is that of an event that cannot be
// of this run.
func (h *history) add(line int, s bench.Stamped) error {
	for len(h.spans) > 0 && line > h.spans[0].Events {
		h.interrupted()
		h.program = h.spans[0].Program
		h.account.Begin(h.spans[0].Started)
		h.spans = h.spans[1:]
	}
	h.account.Add(s)

	switch e := s.Event.(type) {
	case bench.EngineReady:
		h.cut()
		h.engine = &s
		return nil
	case bench.LoadStarted:
		job, ok := h.jobs[e.Model.Name]
		if !ok {
			return fmt.Errorf("model %q is not of this run", e.Model.Name)
		}
		h.cut()
		if e.Model.Weights == result.SyntheticWeights && job.Model.Weights == result.FileWeights {
			h.replaced[e.Model.Name] = e
		}
		if h.lost != nil && h.lost.Model != e.Model.Name {
			h.settle()
		}
		h.assembler = &bench.Assembler{Version: h.program, Job: job}
		if h.engine != nil {
			h.assembler.Add(*h.engine)
		}
	case bench.TestStarted:
		if h.assembler == nil {
			return fmt.Errorf("%s starts without a model", e.Test)
		}
		key := testKey{h.assembler.Job.Model.Name, e.Test}
		if err := h.check(key); err != nil {
			return err
		}
		h.cutTest()
		if h.lost != nil && keyOf(*h.lost) == key {
			h.keep(*h.lost) // tried again
			h.lost = nil
		}
		h.settle()
	case bench.TestSkipped:
		o := result.Outcome{Model: e.Model, Test: e.Test, Status: e.Status, Reason: e.Reason}
		if err := h.check(keyOf(o)); err != nil {
			return err
		}
		switch {
		case h.lost == nil:
		case keyOf(*h.lost) == keyOf(o):
			o.Samples, h.lost = h.lost.Samples, nil
		case !final(e.Status): // the run was being stopped
			h.keep(*h.lost)
			h.lost = nil
		default:
			h.settle()
		}
		if o.Samples == nil {
			o.Samples = h.begun[keyOf(o)].samples
		}
		h.over(o)
		return nil
	case bench.WorkerLost:
		if h.assembler != nil {
			if o := h.assembler.Lost(e.Status, e.Reason); o != nil {
				h.lost = o
			}
		}
		h.assembler, h.engine = nil, nil
		return nil
	}
	if h.assembler != nil {
		if o := h.assembler.Add(s); o != nil {
			h.over(*o)
		}
	}
	return nil
}

// check refuses a test that is not of this run.
func (h *history) check(key testKey) error {
	is := func(t bench.TestBudget) bool { return t.Test == key.test }
	if !slices.ContainsFunc(h.jobs[key.model].Tests, is) {
		return fmt.Errorf("%s of %q is not of this run", key.test, key.model)
	}
	return nil
}

// final tells whether a test with the status is over, also for a run that goes
// on.
func final(s result.Status) bool { return s != result.Aborted && s != result.TimeLimit }

// over takes the outcome of a test. A later one replaces an earlier one.
func (h *history) over(o result.Outcome) {
	if !final(o.Status) {
		h.keep(o)
		return
	}
	delete(h.begun, keyOf(o))
	is := func(other result.Outcome) bool { return keyOf(other) == keyOf(o) }
	if i := slices.IndexFunc(h.outcomes, is); i >= 0 {
		h.outcomes[i] = o
		return
	}
	h.outcomes = append(h.outcomes, o)
}

// settle makes the outcome of the test whose worker was lost final, if there is
// one: something else came after it.
func (h *history) settle() {
	if h.lost != nil {
		h.over(*h.lost)
		h.lost = nil
	}
}

// keep remembers the repetitions of a test that is not over, unless more of them
// are known.
func (h *history) keep(o result.Outcome) {
	if slices.ContainsFunc(h.outcomes, func(other result.Outcome) bool { return keyOf(other) == keyOf(o) }) {
		return
	}
	var b begunTest
	for i, s := range o.Samples {
		if s.Repetition != i+1 || s.Elapsed <= 0 || i >= h.jobs[o.Model].Repetitions {
			break
		}
		b.samples = append(b.samples, s)
		b.spent += s.Elapsed
	}
	if len(b.samples) > len(h.begun[keyOf(o)].samples) {
		h.begun[keyOf(o)] = b
	}
}

// cutTest ends the test under way without an event that says so.
func (h *history) cutTest() {
	if h.assembler != nil {
		if o := h.assembler.Lost(result.Aborted, ""); o != nil {
			h.keep(*o)
		}
	}
}

// cut ends the worker in the same way.
func (h *history) cut() {
	h.cutTest()
	h.assembler = nil
}

// interrupted ends a span: what was under way is not final.
func (h *history) interrupted() {
	h.cut()
	h.engine = nil
	if h.lost != nil {
		h.keep(*h.lost)
		h.lost = nil
	}
}

// end ends the last span.
func (h *history) end() resumed {
	h.interrupted()
	return h.resumed
}
