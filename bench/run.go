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

// RunJob loads the job's model and runs its tests in order on the caller's
// goroutine. policy decides which tests are worth their time; nil runs all. Every
// step is an event. emit must have stored the event when it returns. It is called
// from one goroutine at a time. If a test fails, the others still run: RunJob
// returns an error only if emit fails or the model cannot be loaded.
//
// The garbage collector runs between repetitions only. The heap of a worker is a few
// megabytes, so it stays small without it.
func RunJob(ctx context.Context, e Engine, job Job, policy Policy, emit func(Event) error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	emit = serialised(emit) // an engine may report progress from any goroutine
	j := newJobRun(e, job, policy)

	model, err := load(ctx, e, j, emit)
	if err != nil {
		return err
	}
	if err := j.precompile(ctx, e, model, emit); err != nil {
		return err
	}
	for _, t := range job.Tests {
		if ctx.Err() != nil {
			break
		}
		skipped, reason := j.skip(t)
		if skipped != nil {
			j.past = append(j.past, PastTest{Test: t.Test, Status: skipped.Status})
			if err := emit(*skipped); err != nil {
				return err
			}
			continue
		}
		past, err := j.run(ctx, e, t, reason, emit)
		if err != nil {
			return err
		}
		j.past = append(j.past, past)
	}
	return emit(JobDone{})
}

func newJobRun(e Engine, job Job, policy Policy) *jobRun {
	j := &jobRun{policy: policy, job: job, gpu: e.Facts().GPUInfo != "", past: slices.Clone(job.Past)}
	if job.TimeLeft > 0 {
		j.deadline = time.Now().Add(job.TimeLeft)
	}
	return j
}

// NotOnGPU is the reason why a model is not run if a GPU is required and the library
// put no layer on one.
const NotOnGPU = "a GPU is required, but the library put no layer of the model on one"

// ErrNoModel means that the model could not be loaded. The event LoadDone says why.
var ErrNoModel = errors.New("model not loaded")

func load(ctx context.Context, e Engine, j *jobRun, emit func(Event) error) (ModelFacts, error) {
	budget, limit := j.job.LoadBudget, result.Timeout
	if left, limited := j.left(); limited && (budget == 0 || left < budget) {
		budget, limit = max(left, 1), result.TimeLimit
	}
	if err := emit(LoadStarted{Model: j.job.Model, Budget: budget, Settings: j.job.Adjusted, Warnings: j.job.Warnings}); err != nil {
		return ModelFacts{}, err
	}
	loadCtx := ctx
	if budget > 0 {
		var cancel context.CancelFunc
		loadCtx, cancel = context.WithTimeoutCause(ctx, budget, errors.New(overdue("loaded", budget, limit)))
		defer cancel()
	}
	var tenths atomic.Int64 // of the load that events have reported
	start := time.Now()
	facts, err := e.Load(loadCtx, func(ev Event) {
		if p, ok := ev.(LoadProgress); ok {
			now, reported := int64(p.Share*10), tenths.Load()
			if now <= reported || !tenths.CompareAndSwap(reported, now) {
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
	} else if j.job.RequireGPU && len(facts.Placed) == 0 {
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

// overdue is the reason of a step that exceeded a limit. done is a past participle,
// for example "loaded".
func overdue(done string, budget time.Duration, limit result.Status) string {
	if limit == result.TimeLimit {
		return fmt.Sprintf("not %s within the time limit of the run, of which %s were left", done, budget.Round(time.Millisecond))
	}
	return fmt.Sprintf("not %s within its budget of %s", done, budget.Round(time.Millisecond))
}

// run runs one test and returns what later tests need to know about it. reason says
// why the policy started it.
func (j *jobRun) run(ctx context.Context, e Engine, t TestBudget, reason string, emit func(Event) error) (PastTest, error) {
	past := PastTest{Test: t.Test}
	r := testRun{engine: e, job: j.job, test: t, emit: emit}
	budget, limit := j.budget(t)
	started := TestStarted{Test: t.Test, Budget: budget, Repetitions: j.job.Repetitions, Done: t.Done, Reason: reason}
	if err := emit(started); err != nil {
		return past, err
	}
	start := time.Now()
	e.ClearAbort()
	prospect := j.prospect(t)
	prospect.Budget = budget
	r.dog = watch(ctx, e, j.policy, prospect, limit, emit)
	err := r.run()
	returned := time.Now()
	status, reason, requested := r.dog.stop()
	if r.emitErr != nil {
		return past, r.emitErr
	}

	done := TestDone{Test: t.Test, Status: result.OK, Memory: e.Memory()}
	switch {
	case err == nil:
		// A completed test is kept, even if the watchdog aborted the engine at its very end.
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

// testRun is the state of one running test. Only the goroutine of RunJob uses it.
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

// run returns the error of the engine. An error of emit ends the test too; emitErr
// keeps it.
func (r *testRun) run() error {
	r.repetitions = result.Elapsed(r.test.Done)
	if len(r.test.Done) >= r.job.Repetitions {
		return nil
	}
	start := time.Now()
	if err := r.engine.Begin(r.test.Test); err != nil {
		return err
	}
	r.setup = time.Since(start)
	if !r.report(ContextReady{Elapsed: r.setup}) {
		return nil
	}
	if !r.job.NoWarmup {
		// The warm-up of a prompt is a whole pass. That of a generation is one token.
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
		if !r.report(WarmupDone{Elapsed: elapsed, UBatch: r.dog.saw(r.ubatchTime(elapsed, true))}) {
			return nil
		}
	}
	for n := len(r.test.Done) + 1; n <= r.job.Repetitions; n++ {
		// Collect the garbage of earlier steps now, before the clock runs.
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
		if !r.report(RepetitionDone{Sample: s, UBatch: r.dog.saw(r.ubatchTime(elapsed, false))}) {
			return nil
		}
	}
	return nil
}

// report emits an event. It returns false if emit fails.
func (r *testRun) report(e Event) bool {
	r.emitErr = r.emit(e)
	return r.emitErr == nil
}

// ubatchTime estimates the time of one micro-batch of the prompt, or of one token,
// from the time of a repetition or warm-up. Later micro-batches see a longer context
// and take longer than this mean; Grace allows for it. The estimate is 0 for a
// repetition of prompt and generation together, whose two parts cannot be told apart.
// The warm-up of such a test has a single token and gives an estimate.
func (r *testRun) ubatchTime(elapsed time.Duration, warmup bool) time.Duration {
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

// statusOf is the status of a test or of a load that ended with err.
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

// serialised returns an emit that several goroutines may call. Its lock is a
// channel, because testing/synctest sees a goroutine wait on a channel but not on
// a mutex.
func serialised(emit func(Event) error) func(Event) error {
	lock := make(chan struct{}, 1)
	return func(e Event) error {
		lock <- struct{}{}
		defer func() { <-lock }()
		return emit(e)
	}
}
