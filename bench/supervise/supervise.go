// Package supervise runs a job in a worker process and outlives it. The parent
// keeps every event as it arrives and is the last rung of the watchdog: a
// worker that crashes, hangs, stops writing or writes garbage costs the test it
// happened in, and another one does the rest.
//
// The protocol: the parent writes the job as one line of JSON to the worker's
// standard input. The worker writes events, one line each, to file descriptor 3
// and waits after each for one byte on its standard input, by which the parent
// says that the event is safe. So no repetition starts before the one before it
// is on disk, and the parent is idle while the clock runs. Standard input at its
// end tells the worker that the parent is gone.
package supervise

import (
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

// Options are how to run workers.
type Options struct {
	Command  []string  // the worker's program and arguments
	Env      []string  // added to the environment, "KEY=value"
	Version  string    // of this program, for the records
	Deadline time.Time // of the run; zero: none
	Log      *slog.Logger

	// OOMKills counts the processes that the kernel ended for memory so far; nil
	// when nobody counts.
	OOMKills func() (count uint64, ok bool)

	// Observe is called with every event of a worker, while it waits; what it
	// returns are events of the parent's own, which come before it. May be nil.
	Observe func(bench.Stamped) []bench.Event

	// Downloaded is how many bytes downloads took since the repetition before, or
	// since the warm-up. It is called after each repetition and may be nil.
	Downloaded func() int64

	// Consumers take every event before the worker goes on, and every outcome.
	Consumers Consumers
}

// Run runs the job's tests in worker processes and reports an outcome for each:
// in the order of the tests, but for longer tests of a kind that crashed, which
// come last. It returns an error when a worker or its engine could not be
// started, or a consumer failed; no worker is left then. When ctx ends, the
// worker is told to stop, and ended if it does not within StopWithin; the tests
// not completed are Aborted.
func Run(ctx context.Context, job bench.Job, o Options) error {
	return newModel(job, o).run(ctx)
}

// Probe starts a worker to ask what its engine says of itself, with the job's
// settings and nothing to run. The error wraps ErrStart, ErrEngine, or
// bench.ErrWorkerLost if the worker ended before it answered.
func Probe(ctx context.Context, job bench.Job, o Options) (bench.EngineFacts, error) {
	job.Tests = nil
	var facts bench.EngineFacts
	o.Consumers = Consumers{factsOf{&facts}}
	lost, err := newAttempt(job, o).run(ctx)
	switch {
	case err != nil:
		return facts, err
	case ctx.Err() != nil:
		return facts, context.Cause(ctx)
	case lost != nil:
		return facts, lostError{lost.Reason}
	}
	return facts, nil
}

// factsOf keeps what the engine says of itself.
type factsOf struct{ facts *bench.EngineFacts }

func (f factsOf) Event(s bench.Stamped) error {
	if ready, ok := s.Event.(bench.EngineReady); ok {
		*f.facts = ready.Facts
	}
	return nil
}

func (factsOf) Outcome(*result.Outcome) error { return nil }

// lostError says how a worker was lost. It is a bench.ErrWorkerLost.
type lostError struct{ reason string }

func (e lostError) Error() string        { return e.reason }
func (e lostError) Is(target error) bool { return target == bench.ErrWorkerLost }

// model is the tests of one job, over all its workers.
type model struct {
	*record.Remaining
	options Options
	loads   time.Duration // spent on loading
	started bool          // an engine has worked, of this model or another
}

func newModel(job bench.Job, o Options) *model {
	return &model{Remaining: record.NewRemaining(job), options: o}
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
		case errors.Is(err, ErrEngine) && m.started: // a device that was there is gone
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
		case lost == nil: // a signal that was not ours
			return m.giveUp(pending, record.Loss{Status: result.Aborted, Reason: "the worker was told to stop by another process"})
		case m.recover(a, *lost):
		default:
			if err := m.goOnWithout(a, *lost); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadBudgetSpent is the loss of the remaining tests when loading has taken all
// of its budget; nil while it has not.
func (m *model) loadBudgetSpent() *record.Loss {
	if m.Job.LoadBudget == 0 || m.loads < m.Job.LoadBudget {
		return nil
	}
	return &record.Loss{Status: result.Timeout, Reason: fmt.Sprintf("no time to load the model again: its budget of %s is spent",
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
	a := newAttempt(job, m.options)
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
	how, ok := m.Recover(a.worker, l)
	if ok {
		args := []any{"model", m.Job.Model.Name}
		if hit := m.Hit(a.worker); a.worker.Loaded() && len(hit) == 1 {
			args = append(args, "test", hit[0].Test)
		}
		m.options.Log.Warn("trying again", append(args, "how", how, "reason", l.Reason)...)
	}
	return ok
}

// goOnWithout records the tests that a lost worker cost.
func (m *model) goOnWithout(a *attempt, l record.Loss) error {
	hit := m.Hit(a.worker)
	if err := m.lose(a, hit, l); err != nil {
		return err
	}
	if all, givenUp := m.GivenUp(l); givenUp {
		return m.giveUp(m.Job.Tests, all)
	}
	if len(hit) == 1 {
		m.Postpone(hit[0].Test)
	}
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

// lose records tests as lost, the first one with its samples when it had begun.
func (m *model) lose(a *attempt, tests []bench.TestBudget, l record.Loss) error {
	tests = slices.Clone(tests)
	if begun := a.worker.Lost(l); begun != nil {
		m.Done(bench.PastTest{Test: begun.Test, Status: begun.Status})
		if err := m.options.Consumers.Outcome(begun); err != nil {
			return err
		}
		tests = slices.DeleteFunc(tests, func(t bench.TestBudget) bool { return t.Test == begun.Test })
	}
	return m.giveUp(tests, l)
}

func stopReason(ctx context.Context) string { return fmt.Sprintf("stopped: %v", context.Cause(ctx)) }

// attempt is one worker's life.
type attempt struct {
	job     bench.Job
	options Options
	worker  *record.Worker              // what its events tell
	outcome func(*result.Outcome) error // called with each outcome
	loading time.Duration               // spent on loading
	began   time.Time                   // of the load; zero when it is over
	ladder  ladder
}

func newAttempt(job bench.Job, o Options) *attempt {
	return &attempt{job: job, options: o, worker: record.NewWorker(o.Version, job), outcome: o.Consumers.Outcome}
}

// run starts a worker and follows it to its end. lost is nil when it did all it
// could.
func (a *attempt) run(ctx context.Context) (lost *record.Loss, err error) {
	w, err := start(a.options, a.job)
	if err != nil {
		return nil, err
	}
	defer w.end()
	defer a.loadEnded()
	a.ladder.set(startupLimit, result.Crashed, "did not start")
	defer a.ladder.stop()

	end := func(because record.Loss) {
		lost = &because
		w.kill()
		a.ladder.set(killLimit, because.Status, "could not be killed")
	}
	lines, stop := w.lines, ctx.Done()
	var exited <-chan struct{} // looked at when all that the worker wrote was read
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
				continue // what it still says after it was ended counts for nothing
			}
			var ev bench.Stamped
			if err := ev.UnmarshalLine(line); err != nil {
				end(record.Loss{Status: result.Crashed, Reason: fmt.Sprintf("the worker wrote something that is not an event (%v)", err), Gone: true})
				continue
			}
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
			w.acknowledge()
		case <-exited:
			return a.gone(w, lost)
		case <-a.ladder.C():
			if lost != nil {
				return a.gone(w, lost) // not even SIGKILL ends it
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

// observe takes what the parent itself has seen until a worker's event.
func (a *attempt) observe(s bench.Stamped) error {
	if a.options.Observe == nil {
		return nil
	}
	for _, own := range a.options.Observe(s) {
		if err := a.take(bench.Stamped{At: s.At, Event: own}); err != nil {
			return err
		}
	}
	return nil
}

// take keeps an event, moves the ladder, and reports the outcome that the event
// completes.
func (a *attempt) take(s bench.Stamped) error {
	if e, ok := s.Event.(bench.RepetitionDone); ok && a.options.Downloaded != nil {
		e.Sample.DownloadedBytes = a.options.Downloaded()
		s.Event = e
	}
	if err := a.options.Consumers.Event(s); err != nil {
		return err
	}
	a.ladder.follow(s.Event)
	switch e := s.Event.(type) {
	case bench.EngineFailed:
		return fmt.Errorf("%w: %s", ErrEngine, e.Reason)
	case bench.LoadStarted:
		a.began = time.Now()
	case bench.LoadDone:
		a.loadEnded()
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

// gone tells how a worker was lost. because is why the parent ended it; nil when
// the parent did not.
func (a *attempt) gone(w *worker, because *record.Loss) (*record.Loss, error) {
	output := w.output.lines()
	switch {
	case because != nil:
	case a.worker.Finished():
		return nil, nil
	default:
		because = w.describe(output)
	}
	lost := bench.WorkerLost{Status: because.Status, Reason: because.Reason, Output: output}
	return because, a.options.Consumers.Event(bench.Stamped{At: time.Now(), Event: lost})
}

// Errors of Run that concern no single test.
var (
	ErrStart  = errors.New("start worker")
	ErrEngine = errors.New("start engine")
)
