package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Missing is the error of a model that cannot be run. None of its tests has a result,
// and the run continues with the next model.
type Missing struct {
	Status result.Status
	Reason string
}

func (m *Missing) Error() string { return m.Reason }

// RunModels runs the jobs of several models one after another, the smallest model
// first. It runs the tests of each in worker processes, in order, and reports an
// outcome for every test. ready makes the model of job i ready and returns the job to
// run. Tests that ready marks as unsupported are not run. An error of ready ends the
// run, unless it is a *Missing. If a test crashes, longer tests of its series come last.
// Unless o.Apart is set, larger models are not run if the shortest test of a series
// takes too long, or if a model does not fit into memory.
//
// RunModels returns an error if a worker or its engine cannot be started, or a consumer
// fails. No worker is left when it returns. When ctx ends, the worker is told to stop.
// It is killed if it does not stop within StopWithin. Tests that are not completed are
// Aborted.
func RunModels(ctx context.Context, jobs []bench.Job, ready func(ctx context.Context, i int) (bench.Job, error), o Options) error {
	var smaller *findings // of the model that rules out larger ones, or of the last one that ran
	started := false
	var limits record.Limits
	for i, job := range jobs {
		m := newModel(job, o)
		m.started, m.limits = started, &limits
		found := newFindings(job)
		m.options.Consumers = append(Consumers{found}, o.Consumers...)
		l := smaller.lossOfLarger()
		switch {
		case len(job.Tests) == 0: // an earlier process ran them
		case l != nil:
		case ctx.Err() != nil:
			l = &record.Loss{Status: result.Aborted, Reason: stopReason(ctx)}
		case !o.Deadline.IsZero() && time.Until(o.Deadline) <= 0:
			l = &record.Loss{Status: result.TimeLimit, Reason: fmt.Sprintf("not started: %v", bench.ErrTimeLimit)}
		default:
			readyJob, err := ready(ctx, i)
			var missing *Missing
			switch {
			case errors.As(err, &missing):
				l = &record.Loss{Status: missing.Status, Reason: missing.Reason}
			case err != nil:
				return err
			default:
				m.Job = readyJob
				if err := m.skipUnsupported(); err != nil {
					return err
				}
			}
		}
		var err error
		if l != nil {
			err = m.giveUp(m.Job.Tests, *l)
		} else {
			err = m.run(ctx)
		}
		if err != nil {
			return err
		}
		started = started || m.started
		if smaller.lossOfLarger() == nil && l == nil && !o.Apart {
			smaller = found
		}
	}
	return nil
}

// findings are what a model's tests mean for larger models. It consumes the outcomes
// of the model.
type findings struct {
	job      bench.Job
	decisive *bench.PastTest // the test that rules out larger models; nil: none
	tests    int             // that have ended
	noMemory int             // tests that ended as OutOfMemory
}

func newFindings(job bench.Job) *findings {
	f := &findings{job: job}
	for _, past := range job.Past {
		f.add(past.Test, past.Status)
	}
	return f
}

func (*findings) Event(bench.Stamped) error { return nil }

func (f *findings) Outcome(o *result.Outcome) error {
	f.add(o.Test, o.Status)
	return nil
}

func (f *findings) add(t result.Test, status result.Status) {
	f.tests++
	if status == result.OutOfMemory {
		f.noMemory++
	}
	if f.decisive == nil && f.counts(t) && policy.After(status, f.job.Shortest(t)) == policy.EndModels {
		f.decisive = &bench.PastTest{Test: t, Status: status}
	}
}

// counts tells whether a test may rule out larger models. An end-to-end test does so
// only if there are no other tests, because it has a budget of its own.
func (f *findings) counts(t result.Test) bool {
	return !t.E2E || !slices.ContainsFunc(f.job.Tests, func(b bench.TestBudget) bool { return !b.Test.E2E })
}

// lossOfLarger says why larger models are not run; nil if they are. The receiver may
// be nil.
func (f *findings) lossOfLarger() *record.Loss {
	switch {
	case f == nil:
		return nil
	case f.decisive != nil:
		return &record.Loss{Status: policy.StatusAfter(f.decisive.Status), Reason: fmt.Sprintf("not started: %v of the smaller %s ended as %s", f.decisive.Test, f.job.Model.Name, f.decisive.Status)}
	case f.tests > 0 && f.noMemory == f.tests:
		return &record.Loss{Status: result.OutOfMemory, Reason: fmt.Sprintf("not started: the smaller %s did not fit into memory", f.job.Model.Name)}
	default:
		return nil
	}
}
