package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A pass that was stopped is given up, and the test goes on at its repetition with what
// its budget had left. The time of the stop is not the test's.
func TestContinued(t *testing.T) {
	for _, tt := range []struct {
		name   string
		at     benchtest.Call // during which the process is stopped for an hour
		stopAt time.Duration  // since its start
		calls  []string
		events []string
	}{
		{
			"in a repetition", benchtest.Call{Method: benchtest.Repeat, Test: pp512, N: 2}, time.Second / 2,
			[]string{"repeat 1 pp512", "repeat 2 pp512", "begin pp512", "warmup pp512", "repeat 2 pp512", "repeat 3 pp512"},
			[]string{"started 0 20s", "repetition 1", "abort", "returned", "started 1 19s", "repetition 2", "repetition 3", "pp512 ok"},
		},
		{
			"in the warm-up", benchtest.Call{Method: benchtest.Warmup, Test: pp512}, time.Second / 2,
			[]string{"begin pp512", "warmup pp512", "repeat 1 pp512", "repeat 2 pp512", "repeat 3 pp512"},
			[]string{"started 0 20s", "abort", "returned", "started 0 20s", "repetition 1", "repetition 2", "repetition 3", "pp512 ok"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				continued := make(chan os.Signal, 1)
				continued <- syscall.SIGCONT // of an earlier stop
				stopped := false
				e := benchtest.New(steady.Except(func(c benchtest.Call) (benchtest.Step, bool) {
					if c != tt.at || stopped {
						return benchtest.Step{}, false
					}
					stopped = true
					return benchtest.Step{Do: func() {
						time.Sleep(tt.stopAt)
						continued <- syscall.SIGCONT
					}, Takes: time.Hour}, true
				}), engineFacts, modelFacts)
				job := jobOf(bench.TestBudget{Test: pp512, Budget: 20 * time.Second})
				job.Repetitions = 3
				l := newLog(t)
				if err := bench.RunJob(bench.WithContinued(t.Context(), continued), e, job, policy.Default(), l.emit); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.events, story(l)); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if got := e.Calls(); len(got) < len(tt.calls) || cmp.Diff(tt.calls, got[len(got)-1-len(tt.calls):len(got)-1]) != "" {
					t.Errorf("calls %q, want at the end %q", got, tt.calls)
				}
			})
		})
	}
}

// story are the events of tests in short.
func story(l *log) []string {
	var all []string
	for _, e := range l.events {
		switch e := e.Event.(type) {
		case bench.LoadDone:
			if e.Status != result.OK {
				all = append(all, "load "+string(e.Status))
			}
		case bench.TestStarted:
			all = append(all, fmt.Sprintf("started %d %v", len(e.Done), e.Budget))
		case bench.RepetitionDone:
			all = append(all, fmt.Sprintf("repetition %d", e.Sample.Repetition))
		case bench.AbortRequested:
			if !e.Stopped {
				all = append(all, "abort "+string(e.Status))
				continue
			}
			all = append(all, "abort")
		case bench.AbortReturned:
			all = append(all, "returned")
		case bench.TestDone:
			all = append(all, fmt.Sprintf("%v %s", e.Test, e.Status))
		}
	}
	return all
}

// A step whose end the parent did not keep is repeated: the parent knows of stops that
// the worker has not noticed yet.
func TestErrRepeat(t *testing.T) {
	slowOnce := func(call benchtest.Call) func(benchtest.Call) (benchtest.Step, bool) {
		slow := false
		return func(c benchtest.Call) (benchtest.Step, bool) {
			if c != call || slow {
				return benchtest.Step{}, false
			}
			slow = true
			return benchtest.Step{Takes: time.Hour}, true
		}
	}
	third := benchtest.Call{Method: benchtest.Repeat, Test: pp512, N: 3}
	isRepetition := func(e bench.Event) bool { _, is := e.(bench.RepetitionDone); return is }
	isTestDone := func(e bench.Event) bool { _, is := e.(bench.TestDone); return is }
	isLoadDone := func(e bench.Event) bool { _, is := e.(bench.LoadDone); return is }
	for _, tt := range []struct {
		name   string
		change func(benchtest.Call) (benchtest.Step, bool)
		drop   func(bench.Event) bool // the first such event
		events []string
	}{
		{
			"a repetition", nil, isRepetition,
			[]string{"started 0 20s", "started 0 20s", "repetition 1", "repetition 2", "repetition 3", "pp512 ok"},
		},
		{
			"a test that was too slow", slowOnce(third), isTestDone,
			[]string{"started 0 20s", "repetition 1", "repetition 2", "abort timeout", "returned", "started 2 18s", "repetition 3", "pp512 ok"},
		},
		{
			"a load that was too slow", slowOnce(benchtest.Call{Method: benchtest.Load}), isLoadDone,
			[]string{"started 0 20s", "repetition 1", "repetition 2", "repetition 3", "pp512 ok"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script := steady
				if tt.change != nil {
					script = steady.Except(tt.change)
				}
				e := benchtest.New(script, engineFacts, modelFacts)
				job := jobOf(bench.TestBudget{Test: pp512, Budget: 20 * time.Second})
				job.Repetitions, job.LoadBudget = 3, time.Minute
				l, dropped := newLog(t), false
				emit := func(e bench.Stamped) error {
					if !dropped && tt.drop(e.Event) {
						dropped = true
						if !bench.Spoiled(e.Event) {
							return errors.New("kept, because a stop does not spoil it")
						}
						return bench.ErrRepeat
					}
					return l.emit(e)
				}
				if err := bench.RunJob(context.Background(), e, job, nil, emit); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.events, story(l)); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		})
	}
}
