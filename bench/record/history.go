package record

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Span is what one process did of a run.
type Span struct {
	Program      string // version of this program, for the records
	Started      time.Time
	EventsBefore int // lines of the events file that earlier spans wrote
}

// Left is what an interrupted run left.
type Left struct {
	Outcomes []result.Outcome // final ones, in the order in which they came
	// Jobs are the run's jobs, in its order. Tests have no final outcome yet, and
	// Past those with one. Model, settings, warnings and limits are those of the
	// last worker.
	Jobs    []bench.Job
	Account Account // of all spans; Begin continues it
}

// Unfinished is the number of tests without a final outcome.
func (l *Left) Unfinished() (n int) {
	for _, job := range l.Jobs {
		n += len(job.Tests)
	}
	return n
}

// History reads the events of a run, of all its spans, and tells what is final
// and what is left. It is used from one goroutine.
type History struct {
	left      Left
	remaining map[string]*Remaining // by model
	order     []string              // of the jobs
	planned   map[string][]bench.TestBudget
	spans     []Span // that have not begun yet

	program string         // of the span
	engine  *bench.Stamped // EngineReady of the worker
	worker  *Worker        // nil: no model is being loaded or is loaded
	model   string         // of the worker
	lost    *lostTest      // final, unless the run was being stopped
}

// lostTest is a test that was lost with its worker and is not tried again.
type lostTest struct {
	outcome result.Outcome
	past    bench.PastTest
}

// NewHistory reads a run of jobs, one per model.
func NewHistory(jobs []bench.Job, spans []Span) *History {
	h := &History{remaining: map[string]*Remaining{}, planned: map[string][]bench.TestBudget{}, spans: spans}
	for _, job := range jobs {
		name := job.Model.Name
		h.order, h.remaining[name], h.planned[name] = append(h.order, name), NewRemaining(job), job.Tests
	}
	return h
}

// Add takes the event of a line, from 1. The error is that of an event that
// cannot be of this run.
func (h *History) Add(line int, s bench.Stamped) error {
	for len(h.spans) > 0 && line > h.spans[0].EventsBefore {
		h.interrupted()
		h.program = h.spans[0].Program
		h.left.Account.Begin(h.spans[0].Started)
		h.spans = h.spans[1:]
	}
	h.left.Account.Add(s)

	switch e := s.Event.(type) {
	case bench.EngineReady:
		h.cut()
		h.engine = &s
		return nil
	case bench.LoadStarted:
		r, ok := h.remaining[e.Model.Name]
		if !ok {
			return fmt.Errorf("model %q is not of this run", e.Model.Name)
		}
		h.cut()
		h.settle()
		h.begin(r, e)
	case bench.TestStarted:
		if h.worker == nil {
			return fmt.Errorf("%s starts without a model", e.Test)
		}
		if err := h.check(h.model, e.Test); err != nil {
			return err
		}
		h.cutTest()
		h.settle()
	case bench.TestSkipped:
		if err := h.check(e.Model, e.Test); err != nil {
			return err
		}
		h.skipped(e)
		return nil
	case bench.WorkerLost:
		h.workerLost(e)
		return nil
	}
	if h.worker == nil {
		return nil
	}
	if o := h.worker.Add(s); o != nil {
		h.over(*o, h.worker.Past(o))
	}
	if e, ok := s.Event.(bench.LoadDone); ok && e.Status != result.OK {
		h.remaining[h.model].Recover(h.worker, Loss{Status: e.Status, Reason: e.Reason})
	}
	return nil
}

// begin starts to follow a worker that loads a model.
func (h *History) begin(r *Remaining, e bench.LoadStarted) {
	if e.Model.Weights != "" { // older events do not tell
		if e.Model.Weights != r.Job.Model.Weights { // what was measured with a file is no part of the fallback
			r.Job.Tests = slices.Clone(r.Job.Tests)
			for i := range r.Job.Tests {
				r.Job.Tests[i].Done = nil
			}
		}
		r.Job.Model = e.Model
	}
	r.Job.Adjusted, r.Job.Warnings = e.Settings, e.Warnings
	h.worker, h.model = NewWorker(h.program, r.Job), e.Model.Name
	if h.engine != nil {
		h.worker.Add(*h.engine)
	}
}

// skipped takes a test that was not run. It may be the one that was lost.
func (h *History) skipped(e bench.TestSkipped) {
	o := result.Outcome{Model: e.Model, Test: e.Test, Status: e.Status, Reason: e.Reason}
	switch {
	case h.lost == nil:
	case h.lost.outcome.Model == o.Model && h.lost.outcome.Test == o.Test:
		o.Samples, h.lost = h.lost.outcome.Samples, nil
	case !final(e.Status): // the run was being stopped
		h.keepLost()
	default:
		h.settle()
	}
	if o.Samples == nil {
		for _, t := range h.remaining[o.Model].Job.Tests {
			if t.Test == o.Test {
				o.Samples = t.Done
			}
		}
	}
	h.over(o, bench.PastTest{Test: o.Test, Status: o.Status})
}

// workerLost decides as the parent did.
func (h *History) workerLost(e bench.WorkerLost) {
	if h.worker != nil {
		r, l := h.remaining[h.model], Loss{Status: e.Status, Reason: e.Reason, Gone: true}
		if _, ok := r.Recover(h.worker, l); !ok {
			hit := r.culprit(h.worker)
			if o := h.worker.Lost(l); o != nil {
				h.lost = &lostTest{*o, bench.PastTest{Test: o.Test, Status: o.Status}}
			}
			r.Postpone(hit)
		}
	}
	h.worker, h.engine = nil, nil
}

// check refuses a test that is not of this run.
func (h *History) check(model string, t result.Test) error {
	if !slices.ContainsFunc(h.planned[model], func(b bench.TestBudget) bool { return b.Test == t }) {
		return fmt.Errorf("%s of %q is not of this run", t, model)
	}
	return nil
}

// final tells whether a test with the status is over, also for a run that is
// continued.
func final(s result.Status) bool { return s != result.Aborted && s != result.TimeLimit }

// over takes the outcome of a test. A later one replaces an earlier one.
func (h *History) over(o result.Outcome, past bench.PastTest) {
	r := h.remaining[o.Model]
	if !final(o.Status) {
		r.Keep(o.Test, o.Samples)
		return
	}
	is := func(other result.Outcome) bool { return other.Model == o.Model && other.Test == o.Test }
	if i := slices.IndexFunc(h.left.Outcomes, is); i >= 0 {
		h.left.Outcomes[i] = o
		r.Job.Past = slices.DeleteFunc(slices.Clone(r.Job.Past), func(p bench.PastTest) bool { return p.Test == o.Test })
	} else {
		h.left.Outcomes = append(h.left.Outcomes, o)
	}
	r.Done(past)
}

// settle makes the outcome of the test that was lost final, if there is one:
// something else came after it.
func (h *History) settle() {
	if h.lost != nil {
		h.over(h.lost.outcome, h.lost.past)
		h.lost = nil
	}
}

// keepLost leaves the test that was lost to be continued.
func (h *History) keepLost() {
	if h.lost != nil {
		h.remaining[h.lost.outcome.Model].Keep(h.lost.outcome.Test, h.lost.outcome.Samples)
		h.lost = nil
	}
}

// cutTest ends the test under way without an event that says so.
func (h *History) cutTest() {
	if h.worker == nil {
		return
	}
	if o := h.worker.Lost(Loss{Status: result.Aborted}); o != nil {
		h.remaining[h.model].Keep(o.Test, o.Samples)
	}
}

// cut ends the worker in the same way.
func (h *History) cut() {
	h.cutTest()
	h.worker = nil
}

// interrupted ends a span: what was under way is not final. Crashes of this span
// do not count in the next.
func (h *History) interrupted() {
	h.cut()
	h.engine = nil
	h.keepLost()
	for _, r := range h.remaining {
		r.forgetCrashes()
	}
}

// End ends the last span.
func (h *History) End() Left {
	h.interrupted()
	for _, name := range h.order {
		h.left.Jobs = append(h.left.Jobs, h.remaining[name].Job)
	}
	return h.left
}

// ReadEvents hands each event of a file to each, with the number of its line
// from 1. It leaves out events that this version does not know, and a last line
// that was cut off or is damaged, as after a power cut. good is the number of
// bytes before such a line, lines the number of lines in them. Any other line
// that is no event is an error, and so is an error of each; both name the line.
func ReadEvents(r io.Reader, each func(line int, e bench.Stamped) error) (good int64, lines int, err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		line, n, err := readLine(b)
		if errors.Is(err, io.EOF) {
			return good, lines, nil // the last line has no end
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
// line that is too long for an event, it keeps enough to see that. The error is
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
