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
	// Forget tells that the conditions had changed since the span before. Repetitions
	// of tests without an outcome do not count from here on.
	Forget bool
}

// Left is what an interrupted run did, and what is left to do.
type Left struct {
	Outcomes []result.Outcome // final ones, in the order in which they came
	// Jobs are the run's jobs, in the order in which they run. Their Tests have no
	// final outcome yet; their Past tests have one. Model, settings, warnings and
	// limits are those of the last worker.
	Jobs    []bench.Job
	Account Account // of all spans; call Begin to continue it
}

// Unfinished returns the number of tests without a final outcome.
func (l *Left) Unfinished() (n int) {
	for _, job := range l.Jobs {
		n += len(job.Tests)
	}
	return n
}

// History reads the events of all spans of a run. It finds out which outcomes are
// final and what is left to do. It is used from one goroutine.
type History struct {
	left      Left
	remaining map[string]*Remaining  // by bench.Model.Key
	order     []string               // of the jobs, by the same key
	planned   map[plannedTest]string // the key of each test's job
	spans     []Span                 // that have not begun yet

	program  string          // version of this program in the current span
	engine   *bench.Stamped  // EngineReady of the current worker
	worker   *Worker         // nil: no load has begun
	model    string          // name of the current worker's model
	key      string          // of the current worker's job
	lost     *lostTest       // nil: none
	limits   Limits          // that workers have measured
	measured []bench.Stamped // LimitsDone of the current worker, which comes before its load
}

// plannedTest is a test of a model.
type plannedTest struct {
	model string
	test  result.Test
}

// lostTest is a test that was lost with its worker. The next events tell whether its
// outcome is final: it is not if the test is tried again or the run was being stopped.
type lostTest struct {
	outcome result.Outcome
	past    bench.PastTest
}

// NewHistory returns a History of a run of jobs, one per model and its load settings.
func NewHistory(jobs []bench.Job, spans []Span) *History {
	h := &History{remaining: map[string]*Remaining{}, planned: map[plannedTest]string{}, spans: spans}
	for _, job := range jobs {
		key := job.Model.Key()
		h.order, h.remaining[key] = append(h.order, key), NewRemaining(job)
		for _, t := range job.Tests {
			h.planned[plannedTest{job.Model.Name, t.Test}] = key
		}
	}
	return h
}

// Add takes the event of a line, from 1. It returns an error if the event cannot
// belong to this run.
func (h *History) Add(line int, s bench.Stamped) error {
	for len(h.spans) > 0 && line > h.spans[0].EventsBefore {
		h.interrupted()
		if h.spans[0].Forget {
			for _, r := range h.remaining {
				r.Job.ForgetRepetitions()
			}
		}
		h.program = h.spans[0].Program
		h.left.Account.Begin(h.spans[0].Started)
		h.spans = h.spans[1:]
	}
	h.left.Account.Add(s)

	switch e := s.Event.(type) {
	case bench.EngineReady:
		h.cut()
		h.engine, h.measured = &s, nil
		return nil
	case bench.LimitsDone:
		h.measured = append(h.measured, s)
		return nil
	case bench.LoadStarted:
		r, ok := h.remaining[e.Model.Key()]
		if !ok {
			return fmt.Errorf("model %q does not belong to this run", e.Model.Name)
		}
		h.cut()
		if h.lost != nil && h.jobOf(h.lost.outcome.Model, h.lost.outcome.Test) != r {
			h.settle()
		}
		h.begin(r, e)
	case bench.TestStarted:
		if h.worker == nil {
			return fmt.Errorf("%s starts before a model is loaded", e.Test)
		}
		if err := h.check(h.model, e.Test); err != nil {
			return err
		}
		h.cutTest()
		if h.lost != nil && h.lost.outcome.Model == h.model && h.lost.outcome.Test == e.Test {
			h.keepLost() // tried again
		}
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
		h.remaining[h.key].Recover(h.worker, Loss{Status: e.Status, Reason: e.Reason})
	}
	return nil
}

// begin starts to follow a worker that loads a model.
func (h *History) begin(r *Remaining, e bench.LoadStarted) {
	if e.Model.Weights != "" { // events of older versions have none
		// Repetitions with a file do not count for the fallback, nor for another file.
		if changed, _ := e.Model.FilesChanged(r.Job.Model); changed != "" || e.Model.Weights != r.Job.Model.Weights {
			r.Job.ForgetRepetitions()
		}
		largest := r.Job.Model.LargestBytes
		r.Job.Model = e.Model
		if e.Model.LargestBytes == 0 { // events of older versions have another name for it
			r.Job.Model.LargestBytes = largest
		}
	}
	r.Job.Adjusted, r.Job.Warnings = e.Settings, e.Warnings
	r.Job.LimitsKnown = h.limits.Of(r.Job)
	h.worker, h.model, h.key = NewWorker(h.program, r.Job), e.Model.Name, e.Model.Key()
	if h.engine != nil {
		h.worker.Add(*h.engine)
	}
	for _, s := range h.measured {
		h.worker.Add(s)
		h.limits.Add(r.Job, s.Event)
	}
	h.measured = nil
}

// skipped takes a test that was not run. It may be the lost test.
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
		for _, t := range h.jobOf(o.Model, o.Test).Job.Tests {
			if t.Test == o.Test {
				o.Samples = t.Done
			}
		}
	}
	h.over(o, bench.PastTest{Test: o.Test, Status: o.Status})
}

// workerLost changes the job as the parent of the run did. The next events tell whether
// the parent tried the lost test again, so an older version's rule need not be known.
func (h *History) workerLost(e bench.WorkerLost) {
	if h.worker != nil {
		r, l := h.remaining[h.key], Loss{Status: e.Status, Reason: e.Reason, Gone: true}
		culprit := r.culprit(h.worker)
		_, recovered := r.Recover(h.worker, l)
		if o := h.worker.Lost(l); o != nil {
			h.lost = &lostTest{*o, bench.PastTest{Test: o.Test, Status: o.Status}}
		}
		if !recovered && final(l.Status) {
			r.Postpone(culprit)
		}
	}
	h.worker, h.engine = nil, nil
}

// check returns an error if a test does not belong to this run.
func (h *History) check(model string, t result.Test) error {
	if h.jobOf(model, t) == nil {
		return fmt.Errorf("test %s of model %q does not belong to this run", t, model)
	}
	return nil
}

// jobOf returns what is left of the job of a test; nil if the test does not belong to the
// run.
func (h *History) jobOf(model string, t result.Test) *Remaining {
	return h.remaining[h.planned[plannedTest{model, t}]]
}

// final tells whether a test with this status is not run again when the run is
// continued.
func final(s result.Status) bool { return s != result.Aborted && s != result.TimeLimit }

// over takes the outcome of a test. A later outcome replaces an earlier one.
func (h *History) over(o result.Outcome, past bench.PastTest) {
	r := h.jobOf(o.Model, o.Test)
	if !final(o.Status) {
		r.Keep(o.Test, o.Samples)
		return
	}
	sameTest := func(other result.Outcome) bool { return other.Model == o.Model && other.Test == o.Test }
	if i := slices.IndexFunc(h.left.Outcomes, sameTest); i >= 0 {
		h.left.Outcomes[i] = o
		r.Job.Past = slices.DeleteFunc(slices.Clone(r.Job.Past), func(p bench.PastTest) bool { return p.Test == o.Test })
	} else {
		h.left.Outcomes = append(h.left.Outcomes, o)
	}
	r.Done(past)
}

// settle makes the outcome of the lost test final, if there is one, because the run
// went on after it.
func (h *History) settle() {
	if h.lost != nil {
		h.over(h.lost.outcome, h.lost.past)
		h.lost = nil
	}
}

// keepLost keeps the lost test as one to continue.
func (h *History) keepLost() {
	if h.lost != nil {
		h.jobOf(h.lost.outcome.Model, h.lost.outcome.Test).Keep(h.lost.outcome.Test, h.lost.outcome.Samples)
		h.lost = nil
	}
}

// cutTest ends the current test, whose end has no event.
func (h *History) cutTest() {
	if h.worker == nil {
		return
	}
	if o := h.worker.Lost(Loss{Status: result.Aborted}); o != nil {
		h.remaining[h.key].Keep(o.Test, o.Samples)
	}
}

// cut ends the current worker, whose end has no event.
func (h *History) cut() {
	h.cutTest()
	h.worker = nil
}

// interrupted ends a span. What is unfinished has no final outcome. Crashes of this
// span do not count in the next.
func (h *History) interrupted() {
	h.cut()
	h.engine = nil
	h.keepLost()
	for _, r := range h.remaining {
		r.forgetCrashes()
	}
}

// End ends the last span and returns what is left.
func (h *History) End() Left {
	h.interrupted()
	for _, name := range h.order {
		job := h.remaining[name].Job
		job.LimitsKnown = h.limits.Of(job)
		h.left.Jobs = append(h.left.Jobs, job)
	}
	return h.left
}

// ReadEvents calls each with every event of a file and its line, from 1. It leaves out
// events that this version does not know. It also leaves out a last line that was cut
// off or is damaged, as after a power cut. good is the number of bytes before such a
// line, and lines the number of lines in them. ReadEvents returns an error that names
// the line if another line is not an event, or if each fails.
func ReadEvents(r io.Reader, each func(line int, e bench.Stamped) error) (good int64, lines int, err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		line, n, err := readLine(b)
		if errors.Is(err, io.EOF) {
			return good, lines, nil // the last line is cut off
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

// readLine reads one line. n is its length in bytes with the newline. line is cut if
// it is too long for an event, but stays too long. The error is io.EOF if the newline
// is missing.
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
