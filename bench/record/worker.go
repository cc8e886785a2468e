package record

import (
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Worker follows the events of one worker process. They show what the process does
// and how its tests end. Events may come from the process or from a file. It is used
// from one goroutine.
type Worker struct {
	assembler Assembler

	loaded       bool            // a model is loaded
	loadFailed   *bench.LoadDone // nil: no load failed
	limiting     bool            // it measures limits
	offload      int             // layers tried on devices by the current load; 0: none
	precompiling *result.Test    // the shape of the current precompile pass; nil: none
	setup        time.Duration   // of the current test, before its first pass
	ended        bool            // JobDone came
}

// NewWorker follows a worker that runs a job. program is the version of this
// program, for the records.
func NewWorker(program string, job bench.Job) *Worker {
	return &Worker{assembler: Assembler{Version: program, Job: job}}
}

// Add takes the next event. It returns the outcome that the event completes, or nil.
func (w *Worker) Add(s bench.Stamped) *result.Outcome {
	switch e := s.Event.(type) {
	case bench.LimitsStarted:
		w.limiting = true
	case bench.LimitsDone:
		w.limiting = false
	case bench.OffloadTry:
		w.offload = e.Layers
	case bench.LoadDone:
		w.offload = 0
		if w.loaded = e.Status == result.OK; !w.loaded {
			w.loadFailed = &e
		}
	case bench.PrecompilePass:
		w.precompiling = &e.Shape
	case bench.PrecompileDone:
		w.precompiling = nil
	case bench.ContextReady:
		w.setup = e.Elapsed
	case bench.WarmupDone:
		// The warm-up of a prompt is a pass like a repetition. Others have one token.
		if t, ok := w.assembler.Running(); ok && t.Kind() != result.PromptProcessing {
			w.setup += e.Elapsed
		}
	case bench.JobDone:
		w.ended = true
	}
	return w.assembler.Add(s)
}

// Running returns the current test; ok is false between tests.
func (w *Worker) Running() (t result.Test, ok bool) { return w.assembler.Running() }

// Loaded tells whether the worker has a model.
func (w *Worker) Loaded() bool { return w.loaded }

// LoadFailed returns the load that failed; nil: none did.
func (w *Worker) LoadFailed() *bench.LoadDone { return w.loadFailed }

// Finished tells whether the worker reported that its job is done or that its model
// cannot be loaded.
func (w *Worker) Finished() bool { return w.ended || w.loadFailed != nil }

// Lost ends the current test. It returns nil if there is none.
func (w *Worker) Lost(l Loss) *result.Outcome { return w.assembler.Lost(l.Status, l.Reason) }

// Past returns what later workers must know about a test with outcome o.
func (w *Worker) Past(o *result.Outcome) bench.PastTest {
	p := bench.PastTest{Test: o.Test, Status: o.Status}
	if o.Status == result.OK {
		p.Setup, p.Repetitions = w.setup, result.Elapsed(o.Samples)
	}
	return p
}
