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

// Missing is the error of a model that cannot be run: no test of it has a
// result, and the run goes on.
type Missing struct {
	Status result.Status
	Reason string
}

func (m *Missing) Error() string { return m.Reason }

// RunModels runs the jobs of several models one after another, smallest model
// first, each as Run does, and reports an outcome for every test. ready makes the
// model of job i ready and returns the job to run. Its error is a *Missing, or
// ends the run. What a model shows counts for larger ones: they are not run where
// the shortest test of a series took too long, or the model did not fit into
// memory.
func RunModels(ctx context.Context, jobs []bench.Job, ready func(ctx context.Context, i int) (bench.Job, error), o Options) error {
	var smaller *shown // of the smaller model that ends the run of larger ones, or the last one run
	started := false
	for i, job := range jobs {
		m := newModel(job, o)
		m.started = started
		shows := newShown(job)
		m.options.Consumers = append(Consumers{shows}, o.Consumers...)
		l := smaller.endsLarger()
		switch {
		case len(job.Tests) == 0: // an earlier run did them
		case l != nil:
		case ctx.Err() != nil:
			l = &record.Loss{Status: result.Aborted, Reason: stopReason(ctx)}
		case !o.Deadline.IsZero() && time.Until(o.Deadline) <= 0:
			l = &record.Loss{Status: result.TimeLimit, Reason: "not started: the time limit of the run has ended"}
		default:
			made, err := ready(ctx, i)
			var missing *Missing
			switch {
			case errors.As(err, &missing):
				l = &record.Loss{Status: missing.Status, Reason: missing.Reason}
			case err != nil:
				return err
			default:
				m.Job = made
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
		if smaller.endsLarger() == nil && l == nil {
			smaller = shows
		}
	}
	return nil
}

// shown is what a model's tests show for larger models. It consumes the outcomes
// of the model.
type shown struct {
	job      bench.Job
	decisive *bench.PastTest // too slow for larger models to be run
	tests    int
	noMemory int // of them
}

func newShown(job bench.Job) *shown {
	s := &shown{job: job}
	for _, past := range job.Past {
		s.add(past.Test, past.Status)
	}
	return s
}

func (*shown) Event(bench.Stamped) error { return nil }

func (s *shown) Outcome(o *result.Outcome) error {
	s.add(o.Test, o.Status)
	return nil
}

func (s *shown) add(t result.Test, status result.Status) {
	s.tests++
	if status == result.OutOfMemory {
		s.noMemory++
	}
	if s.decisive == nil && s.counts(t) && policy.After(status, s.shortest(t)) == policy.EndModels {
		s.decisive = &bench.PastTest{Test: t, Status: status}
	}
}

// counts tells whether a test may end the run of larger models. An end-to-end
// test does so only if there are no other tests: it has a budget of its own.
func (s *shown) counts(t result.Test) bool {
	return !t.E2E || !slices.ContainsFunc(s.job.Tests, func(b bench.TestBudget) bool { return !b.Test.E2E })
}

func (s *shown) shortest(t result.Test) bool {
	shorter := func(other result.Test) bool { return other.SameSeries(t) && other.Tokens() < t.Tokens() }
	return !slices.ContainsFunc(s.job.Tests, func(b bench.TestBudget) bool { return shorter(b.Test) }) &&
		!slices.ContainsFunc(s.job.Past, func(p bench.PastTest) bool { return shorter(p.Test) })
}

// endsLarger is why larger models are not run; nil when they are. A nil shown
// ends nothing.
func (s *shown) endsLarger() *record.Loss {
	switch {
	case s == nil:
		return nil
	case s.decisive != nil:
		status := s.decisive.Status
		if status == result.Timeout {
			status = result.PredictedTimeout
		}
		return &record.Loss{Status: status, Reason: fmt.Sprintf("not started: %v of the smaller %s ended as %s", s.decisive.Test, s.job.Model.Name, s.decisive.Status)}
	case s.tests > 0 && s.noMemory == s.tests:
		return &record.Loss{Status: result.OutOfMemory, Reason: fmt.Sprintf("not started: the smaller %s did not fit into memory", s.job.Model.Name)}
	default:
		return nil
	}
}
