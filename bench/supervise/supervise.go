// Package supervise runs jobs in worker processes. The parent keeps every event as it
// arrives, and it is the last rung of the watchdog. A worker that crashes, hangs or
// writes garbage costs only its current test. Another worker does the rest.
//
// The protocol: the parent writes the job as one line of JSON to the worker's
// standard input. The worker writes events, one line each, to file descriptor 3.
// After each event it waits for one byte on its standard input, with which the parent
// acknowledges that the event is safe. Another byte, 'r', says that the event was not kept,
// because a process was stopped during the step, and that the step is to be repeated. So every
// burst of repetitions (bench.BurstTime) is on disk before the next one starts, and the parent
// is idle while the clock runs. The end of standard input tells the worker that the parent is
// gone.
package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Options say how to run workers.
type Options struct {
	Command  []string  // the worker's program and arguments
	Program  string    // file of the program; empty: Command's first
	Env      []string  // added to the environment, "KEY=value"
	Version  string    // of this program, for the records
	Deadline time.Time // of the run; zero: none

	// StartupLimit is how long a worker may take to open back-ends, which may start a
	// GPU's driver. 0 is two minutes.
	StartupLimit time.Duration

	Log *slog.Logger

	// OOMKills counts the processes that the kernel has killed because memory ran
	// out. It may be nil.
	OOMKills func() (count uint64, ok bool)

	// Observe is called with every event of a worker, while the worker waits. It
	// returns events of the parent, which come before that event. It may be nil.
	Observe func(bench.Stamped) []bench.Event

	// CoolDown waits before a test until the machine has cooled down, or until ctx ends.
	// It is called if the job wants it, and may be nil.
	CoolDown func(ctx context.Context) bench.CoolDownDone
	// Meter reads the conditions of the machine while the worker waits. It may be nil.
	Meter Meter

	// Downloaded returns how many bytes were downloaded since its last call, or since the
	// burst began. It is called after each burst, whose repetitions get equal parts, and
	// may be nil.
	Downloaded func() int64

	// Stops stops workers together with this process. It may be nil.
	Stops *Stops

	// Apart: the models are not in the order of their sizes, so none rules out another.
	Apart bool

	// Consumers take every event before the worker continues, and every outcome.
	Consumers Consumers
}

// Probe starts a worker without tests and returns its engine's facts, for the job's
// settings. A run probes before it downloads anything if there is an NVIDIA GPU or if
// settings name devices, because only the library knows its devices. The error wraps
// ErrStart, ErrEngine, or bench.ErrWorkerLost if the worker ended before it answered.
func Probe(ctx context.Context, job bench.Job, o Options) (bench.EngineFacts, error) {
	job.Tests = nil
	var facts bench.EngineFacts
	o.Consumers = Consumers{factsConsumer{&facts}}
	lost, err := newAttempt(job, o).run(ctx)
	switch {
	case err != nil:
		return facts, err
	case ctx.Err() != nil:
		return facts, context.Cause(ctx)
	case lost != nil:
		return facts, lostError{lost.Reason, lost.Code}
	}
	return facts, nil
}

// factsConsumer keeps the engine's facts.
type factsConsumer struct{ facts *bench.EngineFacts }

func (f factsConsumer) Event(s bench.Stamped) error {
	if ready, ok := s.Event.(bench.EngineReady); ok {
		*f.facts = ready.Facts
	}
	return nil
}

func (factsConsumer) Outcome(*result.Outcome) error { return nil }

// lostError is a bench.ErrWorkerLost that says how the worker was lost.
type lostError struct {
	reason string
	code   bench.Code
}

func (e lostError) Error() string { return e.reason }
func (e lostError) Is(target error) bool {
	return target == bench.ErrWorkerLost || target == ErrLimit && e.code == bench.ProcessLimit
}

// model is the run of one job, over all its workers.
type model struct {
	*record.Remaining
	options Options
	loads   time.Duration  // spent on loading
	started bool           // an engine has started, for this model or another
	limits  *record.Limits // that workers of the run have measured
}

func newModel(job bench.Job, o Options) *model {
	return &model{Remaining: record.NewRemaining(job), options: o, limits: &record.Limits{}}
}

func (m *model) run(ctx context.Context) error {
	for len(m.Job.Tests) > 0 {
		if ctx.Err() != nil {
			return m.giveUp(m.Job.Tests, record.Loss{Status: result.Aborted, Reason: stopReason(ctx)})
		}
		if spent := m.loadBudgetSpent(); spent != nil {
			return m.giveUp(m.Job.Tests, *spent)
		}
		a, lost, err := m.attempt(ctx)
		switch {
		case errors.Is(err, ErrEngine) && (m.started || m.Job.Model.Load != ""): // for example, a device has disappeared
			return m.giveUp(m.Job.Tests, record.Loss{Status: result.Crashed, Reason: err.Error()})
		case err != nil:
			return err
		}
		m.started = true
		failed := a.worker.LoadFailed()
		switch pending := m.Job.Tests; {
		case len(pending) == 0:
			return nil
		case ctx.Err() != nil:
			return m.lose(a, pending, record.Loss{Status: result.Aborted, Reason: stopReason(ctx)})
		case failed != nil:
			loss := record.Loss{Status: failed.Status, Reason: failed.Reason}
			if m.recover(a, loss) {
				continue
			}
			return m.giveUp(pending, loss)
		case lost == nil: // the worker stopped, but the run did not stop it
			return m.giveUp(pending, record.Loss{Status: result.Aborted, Reason: "another process sent SIGTERM to the worker"})
		case m.recover(a, *lost):
		default:
			if err := m.goOnWithout(a, *lost); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadBudgetSpent is the loss of the remaining tests if loading has used up its
// budget; otherwise nil.
func (m *model) loadBudgetSpent() *record.Loss {
	if m.Job.LoadBudget == 0 || m.loads < m.Job.LoadBudget {
		return nil
	}
	return &record.Loss{Status: result.Timeout, Reason: fmt.Sprintf("model not loaded again: its load budget of %s is used up",
		m.Job.LoadBudget.Round(time.Millisecond))}
}

// attempt runs the pending tests in one worker.
func (m *model) attempt(ctx context.Context) (*attempt, *record.Loss, error) {
	job := m.Job
	if job.LoadBudget > 0 {
		job.LoadBudget -= m.loads
	}
	if !m.options.Deadline.IsZero() {
		job.TimeLeft = max(time.Until(m.options.Deadline), 1)
	}
	job.LimitsKnown = slices.Concat(job.LimitsKnown, m.limits.Of(job))
	a := newAttempt(job, m.options)
	a.limits = m.limits
	a.outcome = func(o *result.Outcome) error {
		m.Done(a.worker.Past(o))
		return m.options.Consumers.Outcome(o)
	}
	lost, err := a.run(ctx)
	m.loads += a.loading
	return a, lost, err
}

// recover looks for a remedy and tells whether there is one.
func (m *model) recover(a *attempt, l record.Loss) bool {
	remedy, ok := m.Recover(a.worker, l)
	if ok {
		args := []any{"model", m.Job.Model.Name}
		if hit := m.Hit(a.worker); a.worker.Loaded() && len(hit) == 1 {
			args = append(args, "test", hit[0].Test)
		}
		m.options.Log.Warn("trying again", append(args, "remedy", remedy, "reason", l.Reason)...)
	}
	return ok
}

// goOnWithout records the tests that were lost with a worker.
func (m *model) goOnWithout(a *attempt, l record.Loss) error {
	hit := m.Hit(a.worker)
	if err := m.lose(a, hit, l); err != nil {
		return err
	}
	if len(hit) != 1 {
		return nil
	}
	if rest, why := m.GivenUp(hit[0].Test.Settings, l); len(rest) > 0 {
		return m.giveUp(rest, why)
	}
	m.Postpone(hit[0].Test)
	return nil
}

// giveUp records tests that are not run.
func (m *model) giveUp(tests []bench.TestBudget, l record.Loss) error {
	for _, t := range slices.Clone(tests) {
		skipped := bench.TestSkipped{Model: m.Job.Model.Name, Test: t.Test, Status: l.Status, Reason: l.Reason}
		if err := m.options.Consumers.Event(bench.Stamped{At: time.Now(), Event: skipped}); err != nil {
			return err
		}
		m.Done(bench.PastTest{Test: t.Test, Status: l.Status})
		o := &result.Outcome{Model: m.Job.Model.Name, Test: t.Test, Status: l.Status, Reason: l.Reason, Samples: t.Done}
		if err := m.options.Consumers.Outcome(o); err != nil {
			return err
		}
	}
	return nil
}

// skipUnsupported records the tests that the library cannot run, so that no worker
// gets them.
func (m *model) skipUnsupported() error {
	for _, t := range slices.Clone(m.Job.Tests) {
		if t.Unsupported == "" {
			continue
		}
		if err := m.giveUp([]bench.TestBudget{t}, record.Loss{Status: result.Unsupported, Reason: t.Unsupported}); err != nil {
			return err
		}
	}
	return nil
}

// lose records tests as lost. The current test of the worker keeps its samples.
func (m *model) lose(a *attempt, tests []bench.TestBudget, l record.Loss) error {
	tests = slices.Clone(tests)
	if current := a.worker.Lost(l); current != nil {
		m.Done(bench.PastTest{Test: current.Test, Status: current.Status})
		if err := m.options.Consumers.Outcome(current); err != nil {
			return err
		}
		tests = slices.DeleteFunc(tests, func(t bench.TestBudget) bool { return t.Test == current.Test })
	}
	return m.giveUp(tests, l)
}

func stopReason(ctx context.Context) string { return fmt.Sprintf("stopped: %v", context.Cause(ctx)) }

// attempt is the run of one worker.
type attempt struct {
	job     bench.Job
	options Options
	worker  *record.Worker              // follows its events
	outcome func(*result.Outcome) error // called with each outcome
	loading time.Duration               // spent on loading
	began   time.Time                   // of the current load; zero: none
	ladder  ladder
	stops   stopCount     // that the attempt has noticed
	paused  time.Duration // stopped during the current load
	spoiled bool          // the current step, by a stop
	burst   burst
	limits  *record.Limits // gets those that the worker measures; nil: nothing does
}

// burst is what is known of a burst whose events are arriving.
type burst struct {
	begun      bool               // more of its events follow
	conditions *result.Conditions // nil: not known, or a repetition has them
	rest       int                // repetitions that follow
	bytes      int64              // downloaded beside them
}

// part takes the part of the bytes that belongs to the next repetition. more is the number
// of repetitions that follow it. bytes returns those of the burst.
func (b *burst) part(more int, bytes func() int64) int64 {
	if b.rest == 0 {
		b.rest, b.bytes = more+1, bytes()
	}
	part := b.bytes / int64(b.rest)
	b.rest, b.bytes = b.rest-1, b.bytes-part
	return part
}

func newAttempt(job bench.Job, o Options) *attempt {
	return &attempt{job: job, options: o, worker: record.NewWorker(o.Version, job), outcome: o.Consumers.Outcome, stops: o.Stops.count()}
}

// run starts a worker and follows it to its end. lost is nil if the worker finished.
func (a *attempt) run(ctx context.Context) (lost *record.Loss, err error) {
	w, err := start(a.options, a.job)
	if err != nil {
		return nil, err
	}
	defer w.end()
	defer a.loadEnded()
	limit := cmp.Or(a.options.StartupLimit, startupLimit)
	a.ladder.set(limit, result.Crashed, "did not start")
	if left := a.job.TimeLeft; left > 0 && left < limit {
		a.ladder.set(left+margin, result.TimeLimit, "did not start within the time limit of the run")
	}
	defer a.ladder.stop()

	end := func(l record.Loss) {
		lost = &l
		w.kill()
		a.ladder.set(killLimit, l.Status, "could not be killed")
	}
	lines, stop := w.lines, ctx.Done()
	var exited <-chan struct{} // nil until everything that the worker wrote has been read
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				lines, exited = nil, w.exited
				if lost == nil {
					a.ladder.exiting()
				}
				continue
			}
			if lost != nil {
				continue // ignore events of a worker that was killed
			}
			var ev bench.Stamped
			if err := ev.UnmarshalLine(line); err != nil {
				end(record.Loss{Status: result.Crashed, Reason: fmt.Sprintf("the worker wrote something that is not an event (%v)", err), Gone: true})
				continue
			}
			if err := a.noticeStops(); err != nil {
				return nil, err
			}
			if a.spoiled && bench.Spoiled(ev.Event) {
				w.repeat()
				continue
			}
			ev = a.meter(ev)
			if err := a.observe(ev); err != nil {
				return nil, err
			}
			if err := a.take(ev); err != nil {
				return nil, err
			}
			if _, expired := ev.Event.(bench.GraceExpired); expired {
				end(a.ladder.loss)
				continue
			}
			if _, starts := ev.Event.(bench.TestStarted); starts {
				w.output.testStarts()
			}
			if _, wait := ev.Event.(bench.CoolDownStarted); wait && a.options.CoolDown != nil {
				waited := a.options.CoolDown(ctx)
				if err := a.take(bench.Stamped{At: time.Now(), Event: waited}); err != nil {
					return nil, err
				}
			}
			w.acknowledge()
		case <-a.options.Stops.C():
			if err := a.noticeStops(); err != nil {
				return nil, err
			}
		case <-exited:
			return a.gone(w, lost)
		case <-a.ladder.C():
			if a.ladder.late() {
				a.spoiled = true
				a.ladder.again()
				continue
			}
			if lost != nil {
				return a.gone(w, lost) // SIGKILL did not end it
			}
			end(a.ladder.loss)
		case <-stop:
			stop = nil
			if lost == nil {
				w.terminate()
				a.ladder.stopWithin(StopWithin)
			}
		}
	}
}

// noticeStops takes account of the stops of this process since its last call: what the
// worker does may have been late only because it stood still.
func (a *attempt) noticeStops() error {
	now := a.options.Stops.count()
	if now.n == a.stops.n {
		return nil
	}
	stopped := now.total - a.stops.total
	a.stops, a.spoiled = now, true
	if !a.began.IsZero() {
		a.began, a.paused = a.began.Add(stopped), a.paused+stopped
	}
	a.ladder.again()
	return a.take(bench.Stamped{At: time.Now(), Event: bench.Continued{Stopped: stopped}})
}

// A Meter reads what else the machine does. It is called from one goroutine.
type Meter interface {
	Worker(pid int)            // another worker has started
	Begin(kind result.Kind)    // the next burst of such a test may begin
	Burst() *result.Conditions // since the last call of Begin or Burst; nil: not known
}

// meter reads the conditions when the events of a burst begin to arrive, and adds them to
// its first repetition. It runs before everything else that the parent does at an event,
// which would count as work of another process.
func (a *attempt) meter(s bench.Stamped) bench.Stamped {
	if a.options.Meter == nil {
		return s
	}
	switch e := s.Event.(type) {
	case bench.EngineReady:
		a.options.Meter.Worker(e.PID)
	case bench.ContextReady:
		if t, ok := a.worker.Running(); ok {
			a.options.Meter.Begin(t.Kind())
		}
	case bench.WarmupDone:
		a.readBurst(s)
	case bench.RepetitionDone:
		a.readBurst(s)
		if c := a.burst.conditions; c != nil {
			if s.More > 0 { // only repetitions follow one
				c.Repetitions = s.More + 1
			}
			e.Sample.Conditions, a.burst.conditions = c, nil
			s.Event = e
		}
	}
	return s
}

// readBurst reads the conditions if the event is the first of a burst.
func (a *attempt) readBurst(s bench.Stamped) {
	if !a.burst.begun {
		a.burst.conditions = a.options.Meter.Burst()
	}
	a.burst.begun = s.More > 0
}

// observe takes the events of the parent that come before a worker's event.
func (a *attempt) observe(s bench.Stamped) error {
	if a.options.Observe == nil {
		return nil
	}
	for _, e := range a.options.Observe(s) {
		if err := a.take(bench.Stamped{At: s.At, Event: e}); err != nil {
			return err
		}
	}
	return nil
}

// take gives an event to the consumers, sets the ladder, and reports the outcome that
// the event completes.
func (a *attempt) take(s bench.Stamped) error {
	switch e := s.Event.(type) {
	case bench.ContextReady:
		a.burst = burst{} // the rest of one that was spoiled does not arrive
	case bench.RepetitionDone:
		if a.options.Downloaded != nil {
			e.Sample.DownloadedBytes = a.burst.part(s.More, a.options.Downloaded)
			s.Event = e
		}
	case bench.LoadDone:
		e.Elapsed -= a.paused
		if e.Status == result.OutOfMemory && addressSpaceLimited() {
			e.Code = bench.ProcessLimit
		}
		s.Event = e
	}
	if err := a.options.Consumers.Event(s); err != nil {
		return err
	}
	a.ladder.follow(s.Event)
	switch e := s.Event.(type) {
	case bench.EngineFailed:
		return fmt.Errorf("%w: %w", ErrEngine, &EngineError{e.Code, e.Reason})
	case bench.LimitsDone:
		if a.limits != nil {
			a.limits.Add(a.job, e)
		}
	case bench.LoadStarted:
		a.began, a.paused, a.spoiled = time.Now(), 0, false
	case bench.LoadDone:
		a.loadEnded()
	case bench.LimitsStarted, bench.PrecompileStarted, bench.TestStarted:
		a.spoiled = false
	case bench.AbortRequested:
		a.spoiled = a.spoiled || e.Stopped
	}
	if o := a.worker.Add(s); o != nil {
		return a.outcome(o)
	}
	return nil
}

// loadEnded adds up the time spent on loading.
func (a *attempt) loadEnded() {
	if !a.began.IsZero() {
		a.loading, a.began = a.loading+time.Since(a.began), time.Time{}
	}
}

// gone returns how a worker was lost; nil if it finished. killed says why the parent
// killed the worker; nil: it did not.
func (a *attempt) gone(w *worker, killed *record.Loss) (*record.Loss, error) {
	output, recent := w.output.lines()
	loss := killed
	switch {
	case killed != nil:
	case a.worker.Finished():
		return nil, nil
	default:
		loss = w.describe(recent)
	}
	e := bench.WorkerLost{Status: loss.Status, Reason: loss.Reason, Code: loss.Code, Output: output}
	return loss, a.options.Consumers.Event(bench.Stamped{At: time.Now(), Event: e})
}

// EngineError is the error of a worker's engine. It is wrapped with ErrEngine.
type EngineError struct {
	Code   bench.Code // empty: none that the parent tells apart
	Reason string
}

func (e *EngineError) Error() string { return e.Reason }

// Errors of Run that affect all tests.
var (
	ErrStart  = errors.New("start worker")
	ErrEngine = errors.New("start engine")
	ErrLimit  = errors.New("a limit on processes, threads or address space") // also of Probe
)
