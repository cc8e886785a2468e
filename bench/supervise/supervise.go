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
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Options are how to run workers.
type Options struct {
	Command []string // the worker's program and arguments
	Env     []string // added to the environment, "KEY=value"
	Version string   // of this program, for the records
	Log     *slog.Logger

	// Event is called with every event before the worker goes on; it has the
	// event safe when it returns. Outcome is called with every outcome, in the
	// order of the tests. An error of either ends the run.
	Event   func(bench.Stamped) error
	Outcome func(*result.Outcome) error
}

// The crash rule: a test is not retried after its second crash; after the third
// crash of a model its remaining tests are recorded as crashed. Loading counts
// as a test here, for it would crash again.
const (
	crashesOfTest  = 2
	crashesOfModel = 3
)

// Run runs the job's tests in worker processes and reports an outcome for each.
// It returns an error when a worker could not be started, or Event or Outcome
// failed. When ctx ends, the worker is told to stop, and ended if it does not
// within StopWithin; the tests not completed are Aborted.
func Run(ctx context.Context, job bench.Job, o Options) error {
	crashes := 0                    // of the model
	crashed := make(map[string]int) // of each test, by name; "" is loading
	pending := job.Tests
	for len(pending) > 0 {
		if ctx.Err() != nil {
			return giveUp(o, job, pending, result.Aborted, stopReason(ctx))
		}
		rest := job
		rest.Tests = pending
		a := &attempt{job: rest, options: o, assembler: bench.Assembler{Version: o.Version, Job: rest}}
		lost, err := a.run(ctx)
		if err != nil {
			return err
		}
		pending = pending[a.completed:]
		switch {
		case a.loadFailed != nil:
			return giveUp(o, job, pending, a.loadFailed.Status, a.loadFailed.Reason)
		case lost == nil:
			if ctx.Err() == nil && len(pending) > 0 {
				return fmt.Errorf("the worker ended with %d tests not run", len(pending))
			}
			continue
		case ctx.Err() != nil: // ended because it was told to stop
			if running := a.assembler.Lost(result.Aborted, stopReason(ctx)); running != nil {
				pending = pending[1:]
				if err := o.Outcome(running); err != nil {
					return err
				}
			}
			continue
		}

		test, running := a.assembler.Running()
		name := ""
		if running {
			name = test.String()
		}
		if lost.status == result.Timeout && !running {
			return giveUp(o, job, pending, lost.status, lost.reason)
		}
		if lost.status != result.Timeout {
			crashes++
			crashed[name]++
			if crashed[name] < crashesOfTest && crashes < crashesOfModel {
				o.Log.Warn("the worker was lost, trying again", "test", name, "reason", lost.reason)
				continue
			}
		}
		if running {
			if err := o.Outcome(a.assembler.Lost(lost.status, lost.reason)); err != nil {
				return err
			}
			pending = pending[1:]
		}
		if crashes >= crashesOfModel || !running {
			return giveUp(o, job, pending, lost.status, fmt.Sprintf("not run after %d crashes: %s", crashes, lost.reason))
		}
	}
	return nil
}

// giveUp records tests that were not run.
func giveUp(o Options, job bench.Job, tests []bench.TestBudget, status result.Status, reason string) error {
	for _, t := range tests {
		err := o.Outcome(&result.Outcome{Model: job.Model.Name, Test: t.Test, Status: status, Reason: reason})
		if err != nil {
			return err
		}
	}
	return nil
}

func stopReason(ctx context.Context) string { return fmt.Sprintf("stopped: %v", context.Cause(ctx)) }

// loss is how a worker was lost.
type loss struct {
	status result.Status // Timeout, Crashed or OutOfMemory
	reason string
}

// attempt is one worker's life.
type attempt struct {
	job        bench.Job
	options    Options
	assembler  bench.Assembler
	completed  int // tests with an outcome
	loadFailed *bench.LoadDone
	done       bool // JobDone arrived
	ladder     ladder
}

// run starts a worker and follows it to its end. lost is nil when it did all it
// could.
func (a *attempt) run(ctx context.Context) (lost *loss, err error) {
	w, err := start(a.options, a.job)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil { // the run is over: nobody will read its events
			w.kill()
			_ = w.wait()
		}
	}()
	a.ladder.set(startupLimit, "did not start")
	defer a.ladder.stop()

	stop := ctx.Done()
	var ended *loss
	for {
		select {
		case line, ok := <-w.lines:
			if !ok {
				return a.ended(w, ended)
			}
			if ended != nil {
				continue // what it still says after it was ended counts for nothing
			}
			var ev bench.Stamped
			if err := ev.UnmarshalLine(line); err != nil {
				ended = &loss{result.Crashed, fmt.Sprintf("the worker wrote something that is not an event (%v)", err)}
				w.kill()
				continue
			}
			if err := a.take(ev); err != nil {
				return nil, err
			}
			if _, expired := ev.Event.(bench.GraceExpired); expired {
				ended = a.ladder.expired()
				w.kill()
				continue
			}
			w.acknowledge()
		case <-a.ladder.C():
			ended = a.ladder.expired()
			w.kill()
		case <-stop:
			stop = nil
			w.terminate()
			a.ladder.set(StopWithin, "did not stop when told to")
		}
	}
}

// StopWithin is how long a worker may take to stop when the run ends.
const StopWithin = 1500 * time.Millisecond

// take keeps an event, moves the ladder, and reports the outcome that the event
// completes.
func (a *attempt) take(s bench.Stamped) error {
	if err := a.options.Event(s); err != nil {
		return err
	}
	a.ladder.follow(s.Event)
	switch e := s.Event.(type) {
	case bench.LoadDone:
		if e.Status != result.OK {
			a.loadFailed = &e
		}
	case bench.JobDone:
		a.done = true
	}
	if o := a.assembler.Add(s); o != nil {
		a.completed++
		return a.options.Outcome(o)
	}
	return nil
}

// ended tells how a worker whose events have ended was lost; because is why the
// parent ended it, nil when it did not.
func (a *attempt) ended(w *worker, because *loss) (*loss, error) {
	exit := w.wait()
	switch {
	case because != nil:
	case a.done, a.loadFailed != nil:
		return nil, nil
	default:
		because = describe(exit, w.output.lines())
	}
	lost := bench.WorkerLost{Reason: because.reason, Output: w.output.lines()}
	return because, a.options.Event(bench.Stamped{At: time.Now(), Event: lost})
}

// ErrStart is a worker that could not be started.
var ErrStart = errors.New("start worker")
