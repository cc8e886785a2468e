package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
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
// model of job i ready and returns the job to run; its error is a *Missing, or
// ends the run. What a model shows counts for larger ones: where the shortest
// test of a kind took too long, or the model did not fit into memory, they are
// not run.
func RunModels(ctx context.Context, jobs []bench.Job, ready func(ctx context.Context, i int) (bench.Job, error), o Options) error {
	var ended *ending
	started := false
	for i, job := range jobs {
		m := &model{job: job, options: o, crashed: make(map[result.Test]int), started: started}
		look := &ending{model: job.Model.Name, job: job}
		for _, past := range job.Past {
			look.saw(past.Test, past.Status)
		}
		l := ended.loss()
		switch {
		case len(job.Tests) == 0: // an earlier run did them
		case l != nil:
		case ctx.Err() != nil:
			l = &loss{result.Aborted, stopReason(ctx)}
		case !o.Deadline.IsZero() && time.Until(o.Deadline) <= 0:
			l = &loss{result.TimeLimit, "not started: the time limit of the run has ended"}
		default:
			made, err := ready(ctx, i)
			var missing *Missing
			switch {
			case errors.As(err, &missing):
				l = &loss{missing.Status, missing.Reason}
			case err != nil:
				return err
			default:
				m.job = made
			}
		}
		m.options.Outcome = func(out *result.Outcome) error {
			look.saw(out.Test, out.Status)
			return o.Outcome(out)
		}
		var err error
		if l != nil {
			err = m.giveUp(m.job.Tests, *l)
		} else {
			err = m.run(ctx)
		}
		if err != nil {
			return err
		}
		started = started || m.started
		if ended.loss() == nil && l == nil {
			ended = look
		}
	}
	return nil
}

// ending is what a model's tests mean for larger models.
type ending struct {
	model    string
	job      bench.Job
	decisive *bench.PastTest // ends the models
	tests    int
	noMemory int
}

func (e *ending) saw(t result.Test, status result.Status) {
	e.tests++
	if status == result.OutOfMemory {
		e.noMemory++
	}
	if e.decisive == nil && e.counts(t) && suite.After(status, e.shortest(t)) == suite.EndModels {
		e.decisive = &bench.PastTest{Test: t, Status: status}
	}
}

// counts tells whether a test may end the models. An end-to-end test may where
// there is no other: it has a budget of its own, and does not stand in the way of
// what others measure.
func (e *ending) counts(t result.Test) bool {
	return !t.E2E || !slices.ContainsFunc(e.job.Tests, func(b bench.TestBudget) bool { return !b.Test.E2E })
}

func (e *ending) shortest(t result.Test) bool {
	shorter := func(other result.Test) bool { return like(other, t) == 1 && other.Tokens() < t.Tokens() }
	return !slices.ContainsFunc(e.job.Tests, func(b bench.TestBudget) bool { return shorter(b.Test) }) &&
		!slices.ContainsFunc(e.job.Past, func(p bench.PastTest) bool { return shorter(p.Test) })
}

// loss is that of larger models; nil when they are run.
func (e *ending) loss() *loss {
	switch {
	case e == nil:
		return nil
	case e.decisive != nil:
		status := e.decisive.Status
		if status == result.Timeout {
			status = result.PredictedTimeout
		}
		return &loss{status, fmt.Sprintf("not started: %v of the smaller %s ended as %s", e.decisive.Test, e.model, e.decisive.Status)}
	case e.tests > 0 && e.noMemory == e.tests:
		return &loss{result.OutOfMemory, fmt.Sprintf("not started: the smaller %s did not fit into memory", e.model)}
	default:
		return nil
	}
}
