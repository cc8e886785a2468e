package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// RunJob loads the job's model and runs its tests in order on the caller's
// goroutine. policy decides which tests are worth their time; nil runs all. Every
// step is an event. emit must have stored the event when it returns, or return ErrRepeat
// for one that is Spoiled. It is called from one goroutine at a time. Passes run in bursts
// of BurstTime: their events come together, in order, each with its own time. If a test
// fails, the others still run: RunJob returns an error only if emit fails or the model
// cannot be loaded.
//
// The garbage collector runs before bursts only. The heap of a worker is a few
// megabytes, so it stays small without it.
func RunJob(ctx context.Context, e Engine, job Job, policy Policy, emitted func(Stamped) error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	j := newJobRun(e, job, policy, emitted)
	emit := j.reports.report

	if err := MeasureLimits(ctx, e, job, emit); err != nil {
		return err
	}
	model, err := load(ctx, e, j, emit)
	for errors.Is(err, ErrRepeat) {
		model, err = load(ctx, e, j, emit)
	}
	if err != nil {
		return err
	}
	err = j.precompile(ctx, e, model, emit)
	for errors.Is(err, ErrRepeat) {
		err = j.precompile(ctx, e, model, emit)
	}
	if err != nil {
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
		past, err := j.run(ctx, e, t, reason)
		if err != nil {
			return err
		}
		j.past = append(j.past, past)
	}
	return emit(JobDone{})
}

func newJobRun(e Engine, job Job, policy Policy, emit func(Stamped) error) *jobRun {
	j := &jobRun{policy: policy, job: job, reports: newReporter(emit), gpu: e.Facts().GPUInfo != "", past: slices.Clone(job.Past)}
	if job.TimeLeft > 0 {
		j.deadline = time.Now().Add(job.TimeLeft)
	}
	return j
}

// notOnGPU is the reason of a load with the code NotOnGPU.
const notOnGPU = "a GPU is required, but the library put no layer of the model on one"

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
		done.Status, done.Reason = result.Failed, notOnGPU
		done.Code = NotOnGPU
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
// why the policy started it. If the process was stopped, the test goes on at the
// repetition that was running, like one that is tried again after a crash.
func (j *jobRun) run(ctx context.Context, e Engine, t TestBudget, reason string) (PastTest, error) {
	for {
		j.reports.restart()
		r := testRun{engine: e, job: j.job, test: t, reports: j.reports}
		past, err := j.try(ctx, &r, reason)
		if !errors.Is(err, ErrRepeat) {
			return past, err
		}
		t.Done = slices.Concat(t.Done, j.reports.repetitions())
		reason = "repeated, because the process was stopped"
	}
}

// try runs a test, or what is left of it. The error is one of emit, or ErrRepeat.
func (j *jobRun) try(ctx context.Context, r *testRun, reason string) (PastTest, error) {
	e, t, emit := r.engine, r.test, j.reports.report
	past := PastTest{Test: t.Test}
	budget, limit := j.budget(t)
	if j.job.CoolDown {
		if err := emit(CoolDownStarted{Test: t.Test}); err != nil {
			return past, err
		}
		budget, limit = j.budget(t) // the run may have less time left
	}
	started := TestStarted{Test: t.Test, Budget: budget, Repetitions: j.job.Repetitions, Done: t.Done, Reason: reason, Work: t.Work}
	if j.job.Until != nil {
		started.Most = j.job.MostRepetitions()
	}
	if err := emit(started); err != nil {
		return past, err
	}
	start := time.Now()
	if budget > 0 {
		r.deadline = start.Add(budget)
	}
	e.ClearAbort()
	prospect := j.prospect(t)
	prospect.Budget = budget
	r.dog = watch(ctx, e, j.policy, prospect, limit, emit)
	err := r.run()
	returned := time.Now()
	status, reason, requested := r.dog.stop()
	reported := cmp.Or(r.emitErr, j.reports.flush())

	done := TestDone{Test: t.Test, Status: result.OK, Memory: e.Memory()}
	enough := j.job.Until != nil && len(r.repetitions) >= j.job.Repetitions
	switch {
	case reported != nil && !errors.Is(reported, ErrRepeat):
		return past, reported
	case r.dog.stopped && errors.Is(err, ErrAborted): // the watchdog has ended
		if err := emit(AbortReturned{Latency: returned.Sub(requested)}); err != nil {
			return past, err
		}
		return past, ErrRepeat
	case reported != nil:
		return past, reported
	case err == nil:
		// A completed test is kept, even if the watchdog aborted the engine at its very end.
	case status != result.OK && errors.Is(err, ErrAborted):
		done.Status, done.Reason = status, reason
		if enough && (status == result.Timeout || status == result.TimeLimit) { // of a repetition more than it needs
			done.Status, done.Reason = result.OK, ""
			r.precision.StoppedBy = result.StoppedByTime
		}
		if err := emit(AbortReturned{Latency: returned.Sub(requested)}); err != nil {
			return past, err
		}
	default:
		done.Status, done.Reason = statusOf(err), err.Error()
	}
	if err := e.End(); err != nil && done.Status == result.OK {
		done.Status, done.Reason = result.Failed, err.Error()
	}
	if done.Status == result.OK {
		done.Precision = r.precision
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
	reports *reporter
	emitErr error
	dog     *watchdog

	setup       time.Duration // before the first pass
	repetitions []time.Duration
	deadline    time.Time         // zero: none
	precision   *result.Precision // so far; nil: the number of repetitions is fixed
}

// enough tells whether the test has all its repetitions.
func (r *testRun) enough() bool {
	if r.job.Until == nil {
		return len(r.repetitions) >= r.job.Repetitions
	}
	var left time.Duration
	if !r.deadline.IsZero() {
		left = time.Until(r.deadline)
	}
	p, enough := r.job.Until.Enough(r.repetitions, r.job.Repetitions, left, !r.deadline.IsZero())
	r.precision = &p
	return enough
}

// run returns the error of the engine. An error of emit ends the test too; emitErr
// keeps it.
func (r *testRun) run() error {
	r.repetitions = result.Elapsed(r.test.Done)
	if r.enough() {
		return nil
	}
	start := time.Now()
	if err := r.engine.Begin(r.test.Test); err != nil {
		return err
	}
	r.setup = time.Since(start)
	if !r.report(ContextReady{Elapsed: r.setup, Facts: r.engine.Context()}) {
		return nil
	}
	for range r.job.WarmupPasses() {
		// The warm-up of a prompt is a whole pass. That of a generation is one token.
		whole := r.test.Test.Kind() == result.PromptProcessing
		r.collect()
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
		if !r.hold(WarmupDone{Elapsed: elapsed, UBatch: r.dog.saw(r.ubatchTime(elapsed, true))}) {
			return nil
		}
		// A long repetition would keep the parent waiting for the warm-up, whose time tells how
		// soon the worker must answer. The first token may take four times as long as later ones.
		if !whole && elapsed*time.Duration(r.test.Test.Gen) >= 4*BurstTime && !r.flush() {
			return nil
		}
	}
	if r.job.WarmUntilStable {
		if err := r.warmUntilStable(); err != nil || r.emitErr != nil {
			return err
		}
		r.setup = time.Since(start)
	}
	for n := len(r.test.Done) + 1; !r.enough(); n++ {
		rested := r.collect()
		r.dog.passBegins(time.Since(start))
		at := time.Now().UTC()
		elapsed, err := r.engine.Repeat(n, rested)
		if err != nil {
			return fmt.Errorf("repetition %d: %w", n, err)
		}
		r.dog.passEnds()
		r.repetitions = append(r.repetitions, elapsed)
		s := result.Sample{Repetition: n, Start: at, Elapsed: elapsed, Generated: r.engine.Generated()}
		if !r.hold(RepetitionDone{Sample: s, UBatch: r.dog.saw(r.ubatchTime(elapsed, false)), Priming: r.engine.Priming()}) {
			return nil
		}
	}
	return nil
}

// collect collects the garbage of earlier steps if a burst begins. rested tells whether
// one does.
func (r *testRun) collect() (rested bool) {
	if rested = r.reports.rested(); rested {
		runtime.GC()
	}
	return rested
}

// warmUntilStable runs whole passes until two in a row are equally fast. They are no
// samples. The policy does not judge them: for it they are part of the setup.
func (r *testRun) warmUntilStable() error {
	var passes []time.Duration
	for len(passes) < MaxStablePasses && !policy.Stable(passes) {
		elapsed, err := r.engine.Repeat(1, r.collect())
		if err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		passes = append(passes, elapsed)
		if !r.hold(WarmupDone{Elapsed: elapsed, UBatch: r.dog.saw(r.ubatchTime(elapsed, false)), Priming: r.engine.Priming()}) {
			return nil
		}
	}
	return nil
}

// report reports an event, and hold one that ends a pass. They return false if that
// fails.
func (r *testRun) report(e Event) bool {
	r.emitErr = r.reports.report(e)
	return r.emitErr == nil
}

// flush reports what is held. It returns false if that fails.
func (r *testRun) flush() bool {
	r.emitErr = r.reports.flush()
	return r.emitErr == nil
}

func (r *testRun) hold(e Event) bool {
	r.emitErr = r.reports.hold(e)
	return r.emitErr == nil
}

// ubatchTime estimates the time of one micro-batch of the prompt, or of one token,
// from the time of a repetition or warm-up. Later micro-batches see a longer context
// and take longer than this mean; Grace allows for it. The estimate is 0 for a
// repetition of prompt and generation together, whose two parts cannot be told apart.
// The warm-up of such a test has a single token and gives an estimate.
func (r *testRun) ubatchTime(elapsed time.Duration, warmup bool) time.Duration {
	ubatch := max(r.job.For(r.test.Test).UBatch, 1)
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
	case errors.Is(err, ErrDeviceLost):
		return result.Crashed
	default:
		return result.Failed
	}
}
