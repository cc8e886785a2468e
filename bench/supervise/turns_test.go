package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// each counts the repetitions and outcomes of one of several jobs.
type each struct {
	name string
	into *[]string
	on   func(bench.Stamped) error // may be nil
}

func (e each) Event(s bench.Stamped) error {
	if done, ok := s.Event.(bench.RepetitionDone); ok {
		*e.into = append(*e.into, fmt.Sprintf("%s %d", e.name, done.Sample.Repetition))
	}
	if e.on != nil {
		return e.on(s)
	}
	return nil
}

func (e each) Outcome(o *result.Outcome) error {
	*e.into = append(*e.into, fmt.Sprintf("%s %v %s", e.name, o.Test, o.Status))
	return nil
}

func runInTurns(ctx context.Context, t *testing.T, scenario string, n int, on func(bench.Stamped) error) (all []string, err error) {
	t.Helper()
	h := &history{dir: t.TempDir()}
	var jobs []bench.Job
	for i := range n {
		job := jobOf(0)
		job.Model.Name = string(rune('a' + i))
		job.Tests = job.Tests[:2]
		jobs = append(jobs, job)
	}
	o := h.options(scenario)
	o.Consumers = nil
	err = supervise.RunInTurns(ctx, jobs, func(i int) supervise.Consumers {
		return supervise.Consumers{each{jobs[i].Model.Name, &all, on}}
	}, o)
	return all, err
}

// Workers take turns repetition by repetition, or by bursts of short ones.
func TestRunInTurns(t *testing.T) {
	all, err := runInTurns(t.Context(), t, "slower than a burst", 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	slow := []string{"a 1", "b 1", "a 2", "b 2", "a 3", "b 3", "a pp16 ok"}
	if diff := cmp.Diff(slow, all[:min(len(slow), len(all))]); diff != "" {
		t.Error(diff)
	}
	if len(all) != 2*(3+1+3+1) { // the short repetitions of pp32 come in bursts
		t.Errorf("%q", all)
	}
}

// A worker that crashes is replaced, also in its turn.
func TestRunInTurnsCrash(t *testing.T) {
	all, err := runInTurns(t.Context(), t, "segv once", 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"a pp16 ok", "a pp32 ok", "b pp16 ok", "b pp32 ok"} {
		if !slices.Contains(all, end) {
			t.Errorf("no %q in %q", end, all)
		}
	}
}

// The end of the context ends all workers soon, and an error of a consumer is returned.
func TestRunInTurnsEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	repetitions := 0
	all, err := runInTurns(ctx, t, "obedient", 3, func(s bench.Stamped) error {
		if _, ok := s.Event.(bench.RepetitionDone); ok {
			if repetitions++; repetitions == 4 {
				cancel()
			}
		}
		return nil
	})
	if err != nil || len(all) < 4 || time.Since(began) > time.Minute {
		t.Errorf("%q, %v after %v", all, err, time.Since(began))
	}
	full := errors.New("the disk is full")
	_, err = runInTurns(t.Context(), t, "untroubled", 2, func(s bench.Stamped) error {
		if _, ok := s.Event.(bench.RepetitionDone); ok {
			return full
		}
		return nil
	})
	if !errors.Is(err, full) {
		t.Error(err)
	}
}
