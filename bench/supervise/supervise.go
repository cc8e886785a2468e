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
// as a test here, whose loss is that of all others.
const (
	crashesOfTest  = 2
	crashesOfModel = 3
)

// Run runs the job's tests in worker processes and reports an outcome for each.
// It returns an error when a worker or its engine could not be started, or Event
// or Outcome failed; no worker is left then. When ctx ends, the worker is told to stop, and
// ended if it does not within StopWithin; the tests not completed are Aborted.
func Run(ctx context.Context, job bench.Job, o Options) error {
	crashes := 0                         // of the model
	crashed := make(map[result.Test]int) // of each test; the zero Test is loading
	pending := job.Tests
	for len(pending) > 0 {
		if ctx.Err() != nil {
			return giveUp(o, job, pending, loss{result.Aborted, stopReason(ctx)})
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
		case len(pending) == 0:
			return nil
		case ctx.Err() != nil:
			return a.lose(pending, loss{result.Aborted, stopReason(ctx)})
		case a.loadFailed != nil:
			return giveUp(o, job, pending, loss{a.loadFailed.Status, a.loadFailed.Reason})
		case lost == nil: // a signal that was not ours
			return giveUp(o, job, pending, loss{result.Aborted, "the worker was told to stop by another process"})
		}

		// What is lost: the test under way or the next one, and without a model
		// all of them.
		hit, culprit := pending[:1], pending[0].Test
		if !a.loaded {
			hit, culprit = pending, result.Test{}
		}
		if lost.status != result.Timeout {
			crashes++
			crashed[culprit]++
			if crashed[culprit] < crashesOfTest && crashes < crashesOfModel {
				o.Log.Warn("the worker was lost, trying again", "test", pending[0].Test, "reason", lost.reason)
				continue
			}
		}
		if err := a.lose(hit, *lost); err != nil {
			return err
		}
		pending = pending[len(hit):]
		if crashes >= crashesOfModel {
			return giveUp(o, job, pending, loss{result.Crashed, fmt.Sprintf("not run after %d crashes: %s", crashes, lost.reason)})
		}
	}
	return nil
}

// giveUp records tests that were not run.
func giveUp(o Options, job bench.Job, tests []bench.TestBudget, l loss) error {
	for _, t := range tests {
		err := o.Outcome(&result.Outcome{Model: job.Model.Name, Test: t.Test, Status: l.status, Reason: l.reason})
		if err != nil {
			return err
		}
	}
	return nil
}

func stopReason(ctx context.Context) string { return fmt.Sprintf("stopped: %v", context.Cause(ctx)) }

// loss is why tests have no result.
type loss struct {
	status result.Status
	reason string
}

// attempt is one worker's life.
type attempt struct {
	job        bench.Job
	options    Options
	assembler  bench.Assembler
	completed  int  // tests with an outcome
	loaded     bool // LoadDone arrived, with a model
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
	defer w.end()
	a.ladder.set(startupLimit, result.Crashed, "did not start")
	defer a.ladder.stop()

	end := func(because loss) {
		lost = &because
		w.kill()
		a.ladder.set(killLimit, because.status, "could not be killed")
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
				end(loss{result.Crashed, fmt.Sprintf("the worker wrote something that is not an event (%v)", err)})
				continue
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
			return a.ended(w, lost)
		case <-a.ladder.C():
			if lost != nil {
				return a.ended(w, lost) // not even SIGKILL ends it
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

// take keeps an event, moves the ladder, and reports the outcome that the event
// completes.
func (a *attempt) take(s bench.Stamped) error {
	if err := a.options.Event(s); err != nil {
		return err
	}
	a.ladder.follow(s.Event)
	switch e := s.Event.(type) {
	case bench.EngineFailed:
		return fmt.Errorf("%w: %s", ErrEngine, e.Reason)
	case bench.LoadDone:
		if a.loaded = e.Status == result.OK; !a.loaded {
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

// ended tells how a worker was lost; because is why the parent ended it, nil
// when it did not.
func (a *attempt) ended(w *worker, because *loss) (*loss, error) {
	output := w.output.lines()
	switch {
	case because != nil:
	case a.done, a.loadFailed != nil:
		return nil, nil
	default:
		because = describe(w.cmd.ProcessState, output)
	}
	lost := bench.WorkerLost{Status: because.status, Reason: because.reason, Output: output}
	return because, a.options.Event(bench.Stamped{At: time.Now(), Event: lost})
}

// lose reports tests as lost, the first one with its samples when it had begun.
func (a *attempt) lose(tests []bench.TestBudget, l loss) error {
	if begun := a.assembler.Lost(l.status, l.reason); begun != nil {
		if err := a.options.Outcome(begun); err != nil {
			return err
		}
		tests = tests[1:]
	}
	return giveUp(a.options, a.job, tests, l)
}

// Errors of Run that concern no single test.
var (
	ErrStart  = errors.New("start worker")
	ErrEngine = errors.New("start engine")
)
