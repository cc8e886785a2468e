package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// RunJob loads the job's model and runs its tests, in order, on one goroutine.
// Every step is an event; emit must have it safe when it returns, and is called
// from one goroutine at a time. A test that fails costs itself, not the job: an
// error is returned only when emit failed or the engine could not go on.
//
// The caller's goroutine is quiet while a repetition runs: the garbage collector
// works between repetitions only.
func RunJob(ctx context.Context, e Engine, job Job, emit func(Event) error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	emit = serialised(emit) // engines may report progress from any goroutine

	if err := load(ctx, e, job, emit); err != nil {
		return err
	}
	for _, t := range job.Tests {
		if ctx.Err() != nil {
			break
		}
		if err := Run(ctx, e, job, t, emit); err != nil {
			return err
		}
	}
	return emit(JobDone{})
}

// ErrNoModel is a job whose model could not be loaded; its LoadDone event says
// why.
var ErrNoModel = errors.New("model not loaded")

func load(ctx context.Context, e Engine, job Job, emit func(Event) error) error {
	if err := emit(LoadStarted{Model: job.Model, Budget: job.LoadBudget}); err != nil {
		return err
	}
	loadCtx := ctx
	if job.LoadBudget > 0 {
		var cancel context.CancelFunc
		loadCtx, cancel = context.WithTimeoutCause(ctx, job.LoadBudget,
			fmt.Errorf("not loaded within its budget of %s", job.LoadBudget.Round(time.Millisecond)))
		defer cancel()
	}
	var tenths atomic.Int64 // told so far: enough to see it move
	start := time.Now()
	facts, err := e.Load(loadCtx, func(share float64) {
		now, told := int64(share*10), tenths.Load()
		if now > told && tenths.CompareAndSwap(told, now) {
			_ = emit(LoadProgress{Share: share}) // a broken pipe shows at the next event
		}
	})
	done := LoadDone{Status: result.OK, Facts: facts, Elapsed: time.Since(start)}
	if err != nil {
		done.Status, done.Reason = statusOf(err), err.Error()
		if cause := context.Cause(loadCtx); errors.Is(err, ErrAborted) && cause != nil {
			done.Reason = cause.Error()
			if ctx.Err() == nil {
				done.Status = result.Timeout
			}
		}
	}
	if err := emit(done); err != nil {
		return err
	}
	if done.Status != result.OK {
		return fmt.Errorf("%w: %s", ErrNoModel, done.Reason)
	}
	return nil
}

// Run runs one test of a job: context, warm-up, repetitions, under a watchdog.
// It returns an error only when emit failed; what became of the test is in its
// events.
func Run(ctx context.Context, e Engine, job Job, t TestBudget, emit func(Event) error) error {
	emit = serialised(emit) // the watchdog emits too
	r := testRun{engine: e, job: job, test: t.Test, emit: emit}
	if err := emit(TestStarted{Test: t.Test, Budget: t.Budget, Repetitions: job.Repetitions}); err != nil {
		return err
	}
	start := time.Now()
	e.ClearAbort()
	r.dog = watch(ctx, e, t.Budget, emit)
	err := r.run()
	returned := time.Now()
	status, reason, requested := r.dog.stop()
	if r.emitErr != nil {
		return r.emitErr
	}

	done := TestDone{Test: t.Test, Status: result.OK}
	switch {
	case err == nil:
		// Barked too late: everything was measured within the budget, or as good
		// as, and a completed test is never thrown away.
	case status != result.OK && errors.Is(err, ErrAborted):
		done.Status, done.Reason = status, reason
		if err := emit(AbortReturned{Latency: returned.Sub(requested)}); err != nil {
			return err
		}
	default:
		done.Status, done.Reason = statusOf(err), err.Error()
	}
	if err := e.End(); err != nil && done.Status == result.OK {
		done.Status, done.Reason = result.Failed, err.Error()
	}
	done.Elapsed = time.Since(start)
	return emit(done)
}

// testRun is the state of one test while it runs.
type testRun struct {
	engine  Engine
	job     Job
	test    result.Test
	emit    func(Event) error
	emitErr error
	dog     *watchdog
}

// run returns the engine's error; an error of emit is kept in emitErr and ends
// the test.
func (r *testRun) run() error {
	start := time.Now()
	if err := r.engine.Begin(r.test); err != nil {
		return err
	}
	if !r.tell(ContextReady{Elapsed: time.Since(start)}) {
		return nil
	}
	if !r.job.NoWarmup {
		elapsed, err := r.engine.Warmup()
		if err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		if !r.tell(WarmupDone{Elapsed: elapsed, UBatch: r.dog.saw(r.passTime(elapsed, true))}) {
			return nil
		}
	}
	for i := range r.job.Repetitions {
		// Whatever the steps before left behind is collected now, not while the
		// clock runs.
		runtime.GC()
		at := time.Now().UTC()
		elapsed, err := r.engine.Repeat()
		if err != nil {
			return fmt.Errorf("repetition %d: %w", i+1, err)
		}
		s := result.Sample{Repetition: i + 1, Start: at, Elapsed: elapsed}
		if !r.tell(RepetitionDone{Sample: s, UBatch: r.dog.saw(r.passTime(elapsed, false))}) {
			return nil
		}
	}
	return nil
}

func (r *testRun) tell(e Event) bool {
	r.emitErr = r.emit(e)
	return r.emitErr == nil
}

// passTime estimates one pass through the graph from the time of a repetition
// or warm-up: a ubatch of the prompt, or one token. Later ubatches see a longer
// context and take longer than the mean; Grace has room for that. It is 0 for a
// repetition of prompt and generation together, which does not tell how long a
// pass of either takes; the warm-up with its single token does.
func (r *testRun) passTime(elapsed time.Duration, warmup bool) time.Duration {
	ubatch := max(r.job.Settings.UBatch, 1)
	prompt := (r.test.Prompt + ubatch - 1) / ubatch
	switch {
	case prompt == 0 && warmup:
		return elapsed
	case prompt == 0:
		return elapsed / time.Duration(max(r.test.Gen, 1))
	case r.test.Gen > 0 && !warmup:
		return 0
	default:
		return elapsed / time.Duration(prompt)
	}
}

// statusOf is the status of a test or load that ended with err.
func statusOf(err error) result.Status {
	switch {
	case errors.Is(err, ErrAborted):
		return result.Aborted
	case errors.Is(err, ErrOutOfMemory):
		return result.OutOfMemory
	case errors.Is(err, ErrUnsupported):
		return result.Unsupported
	default:
		return result.Failed
	}
}

// serialised lets emit be called by several goroutines. The lock is a channel,
// on which a test's fake clock can see a goroutine wait.
func serialised(emit func(Event) error) func(Event) error {
	lock := make(chan struct{}, 1)
	return func(e Event) error {
		lock <- struct{}{}
		defer func() { <-lock }()
		return emit(e)
	}
}
