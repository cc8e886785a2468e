package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// RunJob loads the job's model and runs its tests, in order, on one goroutine,
// but for those that judge finds not worth their time; a nil judge runs all.
// Every step is an event; emit must have it safe when it returns, and is called
// from one goroutine at a time. A test that fails costs itself, not the job: an
// error is returned only when emit failed or the engine could not go on.
//
// The caller's goroutine is quiet while a repetition runs: the garbage collector
// works between repetitions only.
func RunJob(ctx context.Context, e Engine, job Job, judge Judge, emit func(Event) error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	emit = serialised(emit) // engines may report progress from any goroutine
	c := newCourse(e, job, judge)

	model, err := load(ctx, e, c, emit)
	if err != nil {
		return err
	}
	if err := c.compile(ctx, e, model, emit); err != nil {
		return err
	}
	for _, t := range job.Tests {
		if ctx.Err() != nil {
			break
		}
		skipped, reason := c.skip(t)
		if skipped != nil {
			c.past = append(c.past, PastTest{Test: t.Test, Status: skipped.Status})
			if err := emit(*skipped); err != nil {
				return err
			}
			continue
		}
		past, err := c.run(ctx, e, t, reason, emit)
		if err != nil {
			return err
		}
		c.past = append(c.past, past)
	}
	return emit(JobDone{})
}

func newCourse(e Engine, job Job, judge Judge) *course {
	c := &course{judge: judge, job: job, gpu: e.Facts().GPUInfo != "", past: slices.Clone(job.Past)}
	if job.TimeLeft > 0 {
		c.deadline = time.Now().Add(job.TimeLeft)
	}
	return c
}

// NotOnGPU is why a model that the library kept off every GPU is not run where
// one is required.
const NotOnGPU = "the library put no layer of it on a GPU, and one is required"

// ErrNoModel is a job whose model could not be loaded; its LoadDone event says
// why.
var ErrNoModel = errors.New("model not loaded")

func load(ctx context.Context, e Engine, c *course, emit func(Event) error) (ModelFacts, error) {
	budget, limit := c.job.LoadBudget, result.Timeout
	if left, limited := c.left(); limited && (budget == 0 || left < budget) {
		budget, limit = max(left, 1), result.TimeLimit
	}
	if err := emit(LoadStarted{Model: c.job.Model, Budget: budget, Settings: c.job.Gentler, Warnings: c.job.Warnings}); err != nil {
		return ModelFacts{}, err
	}
	loadCtx := ctx
	if budget > 0 {
		var cancel context.CancelFunc
		loadCtx, cancel = context.WithTimeoutCause(ctx, budget, errors.New(overdue("loaded", budget, limit)))
		defer cancel()
	}
	var tenths atomic.Int64 // told so far: enough to see it move
	start := time.Now()
	facts, err := e.Load(loadCtx, func(ev Event) {
		if p, ok := ev.(LoadProgress); ok {
			now, told := int64(p.Share*10), tenths.Load()
			if now <= told || !tenths.CompareAndSwap(told, now) {
				return
			}
		}
		_ = emit(ev) // a broken pipe shows at the next event
	})
	done := LoadDone{Status: result.OK, Facts: facts, Elapsed: time.Since(start)}
	if err != nil {
		done.Status, done.Reason = statusOf(err), err.Error()
		if cause := context.Cause(loadCtx); errors.Is(err, ErrAborted) && cause != nil {
			done.Reason = cause.Error()
			if ctx.Err() == nil {
				done.Status = limit
			}
		}
	} else if c.job.RequireGPU && len(facts.Placed) == 0 {
		done.Status, done.Reason = result.Failed, NotOnGPU
	}
	if err := emit(done); err != nil {
		return facts, err
	}
	if done.Status != result.OK {
		return facts, fmt.Errorf("%w: %s", ErrNoModel, done.Reason)
	}
	return facts, nil
}

// overdue says which limit a step passed.
func overdue(what string, budget time.Duration, limit result.Status) string {
	if limit == result.TimeLimit {
		return fmt.Sprintf("not %s within the time limit of the run, of which %s were left", what, budget.Round(time.Millisecond))
	}
	return fmt.Sprintf("not %s within its budget of %s", what, budget.Round(time.Millisecond))
}

// Run runs one test of a job: context, warm-up, repetitions, under a watchdog.
// It returns an error only when emit failed; what became of the test is in its
// events.
func Run(ctx context.Context, e Engine, job Job, t TestBudget, emit func(Event) error) error {
	_, err := newCourse(e, job, nil).run(ctx, e, t, "", serialised(emit)) // the watchdog emits too
	return err
}

// run runs one test and tells what it was like. reason is why it is run.
func (c *course) run(ctx context.Context, e Engine, t TestBudget, reason string, emit func(Event) error) (PastTest, error) {
	past := PastTest{Test: t.Test}
	r := testRun{engine: e, job: c.job, test: t, emit: emit}
	budget, limit := c.budget(t)
	started := TestStarted{Test: t.Test, Budget: budget, Repetitions: c.job.Repetitions, Done: t.Done, Reason: reason}
	if err := emit(started); err != nil {
		return past, err
	}
	start := time.Now()
	e.ClearAbort()
	prospect := c.prospect(t)
	prospect.Budget = budget
	r.dog = watch(ctx, e, c.judge, prospect, limit, emit)
	err := r.run()
	returned := time.Now()
	status, reason, requested := r.dog.stop()
	if r.emitErr != nil {
		return past, r.emitErr
	}

	done := TestDone{Test: t.Test, Status: result.OK}
	switch {
	case err == nil:
		// Barked too late: everything was measured within the budget, or as good
		// as, and a completed test is never thrown away.
	case status != result.OK && errors.Is(err, ErrAborted):
		done.Status, done.Reason = status, reason
		if err := emit(AbortReturned{Latency: returned.Sub(requested)}); err != nil {
			return past, err
		}
	default:
		done.Status, done.Reason = statusOf(err), err.Error()
	}
	if err := e.End(); err != nil && done.Status == result.OK {
		done.Status, done.Reason = result.Failed, err.Error()
	}
	done.Elapsed = time.Since(start)
	past.Status, past.Repetitions, past.Setup = done.Status, r.repetitions, r.setup
	return past, emit(done)
}

// testRun is the state of one test while it runs.
type testRun struct {
	engine  Engine
	job     Job
	test    TestBudget
	emit    func(Event) error
	emitErr error
	dog     *watchdog

	setup       time.Duration // before the first pass
	repetitions []time.Duration
}

// run returns the engine's error; an error of emit is kept in emitErr and ends
// the test.
func (r *testRun) run() error {
	for _, s := range r.test.Done {
		r.repetitions = append(r.repetitions, s.Elapsed)
	}
	if len(r.test.Done) >= r.job.Repetitions {
		return nil
	}
	start := time.Now()
	if err := r.engine.Begin(r.test.Test); err != nil {
		return err
	}
	r.setup = time.Since(start)
	if !r.tell(ContextReady{Elapsed: r.setup}) {
		return nil
	}
	if !r.job.NoWarmup {
		// The warm-up of a prompt is a whole pass; that of a generation one token.
		whole := r.test.Test.Kind() == result.PromptProcessing
		if whole {
			r.dog.passBegins(time.Since(start))
		}
		elapsed, err := r.engine.Warmup()
		if err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		if whole {
			r.dog.passEnds()
		} else {
			r.setup = time.Since(start)
		}
		if !r.tell(WarmupDone{Elapsed: elapsed, UBatch: r.dog.saw(r.passTime(elapsed, true))}) {
			return nil
		}
	}
	for n := len(r.test.Done) + 1; n <= r.job.Repetitions; n++ {
		// Whatever the steps before left behind is collected now, not while the
		// clock runs.
		runtime.GC()
		r.dog.passBegins(time.Since(start))
		at := time.Now().UTC()
		elapsed, err := r.engine.Repeat(n)
		if err != nil {
			return fmt.Errorf("repetition %d: %w", n, err)
		}
		r.dog.passEnds()
		r.repetitions = append(r.repetitions, elapsed)
		s := result.Sample{Repetition: n, Start: at, Elapsed: elapsed, Generated: r.engine.Generated()}
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
	prompt := (r.test.Test.Prompt + ubatch - 1) / ubatch
	switch {
	case prompt == 0 && warmup:
		return elapsed
	case prompt == 0:
		return elapsed / time.Duration(max(r.test.Test.Gen, 1))
	case r.test.Test.Gen > 0 && !warmup:
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
