package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// reports are the reports of a job's passes: when they came, then the passes with the time
// at which each ended, such as "550ms: warm-up 50ms, 1 150ms".
type reports struct {
	start  time.Time // of the test
	lines  []string
	more   int
	refuse func(bench.Stamped) bool // nil: none
}

func (r *reports) emit(s bench.Stamped) error {
	if r.refuse != nil && r.refuse(s) {
		r.lines, r.more = append(r.lines, "refused"), 0
		return bench.ErrRepeat
	}
	pass := ""
	switch e := s.Event.(type) {
	case bench.TestStarted:
		r.start = s.At
		r.lines = append(r.lines, fmt.Sprintf("started after %d", len(e.Done)))
	case bench.WarmupDone:
		pass = fmt.Sprintf("warm-up %v", s.At.Sub(r.start))
	case bench.RepetitionDone:
		pass = fmt.Sprintf("%d %v", e.Sample.Repetition, s.At.Sub(r.start))
	case bench.AbortRequested:
		r.lines = append(r.lines, "abort")
	case bench.AbortReturned:
		r.lines = append(r.lines, "returned")
	case bench.TestDone:
		r.lines = append(r.lines, string(e.Status))
	}
	if pass == "" {
		return nil
	}
	if r.more > 0 {
		r.lines[len(r.lines)-1] += ", " + pass
	} else {
		r.lines = append(r.lines, fmt.Sprintf("%v: %s", time.Since(r.start), pass))
	}
	r.more = s.More
	return nil
}

// passes is a script with these times of the warm-up and of a repetition.
func passes(warmup, repetition time.Duration) benchtest.Script {
	return func(c benchtest.Call) benchtest.Step {
		return benchtest.Step{Takes: map[benchtest.Method]time.Duration{benchtest.Warmup: warmup, benchtest.Repeat: repetition}[c.Method]}
	}
}

// Passes follow one another directly until a burst has lasted long enough. Then their
// events come together, in order, each with its own time.
func TestBursts(t *testing.T) {
	settling := []time.Duration{300 * ms, 200 * ms, 100 * ms, 100 * ms}
	for _, tt := range []struct {
		name   string
		script benchtest.Script
		change func(*bench.Job)
		want   []string
		rested []int // repetitions that followed a rest
	}{
		{
			"a short test is one burst", passes(20*ms, 90*ms), func(j *bench.Job) { j.Repetitions = 5 },
			[]string{"started after 0", "470ms: warm-up 20ms, 1 110ms, 2 200ms, 3 290ms, 4 380ms, 5 470ms", "ok"}, nil,
		},
		{
			"bursts", passes(50*ms, 100*ms), func(j *bench.Job) { j.Repetitions = 12 },
			[]string{
				"started after 0", "550ms: warm-up 50ms, 1 150ms, 2 250ms, 3 350ms, 4 450ms, 5 550ms",
				"1.05s: 6 650ms, 7 750ms, 8 850ms, 9 950ms, 10 1.05s", "1.25s: 11 1.15s, 12 1.25s", "ok",
			}, []int{6, 11},
		},
		{
			"long passes", passes(700*ms, 600*ms), func(j *bench.Job) { j.Repetitions = 2 },
			[]string{"started after 0", "700ms: warm-up 700ms", "1.3s: 1 1.3s", "1.9s: 2 1.9s", "ok"}, []int{1, 2},
		},
		{
			"a short generation", passes(10*ms, 100*ms), func(j *bench.Job) { j.Tests[0].Test, j.Repetitions = result.Test{Gen: 16}, 2 },
			[]string{"started after 0", "210ms: warm-up 10ms, 1 110ms, 2 210ms", "ok"}, nil,
		},
		{
			// The parent learns the time of a token before a repetition that takes long.
			"a long generation", passes(10*ms, 900*ms), func(j *bench.Job) { j.Tests[0].Test, j.Repetitions = result.Test{Gen: 200}, 2 },
			[]string{"started after 0", "10ms: warm-up 10ms", "910ms: 1 910ms", "1.81s: 2 1.81s", "ok"}, []int{1, 2},
		},
		{
			"exactly a burst", passes(0, bench.BurstTime), func(j *bench.Job) { j.Repetitions = 2 },
			[]string{"started after 0", "500ms: warm-up 0s, 1 500ms", "1s: 2 1s", "ok"}, []int{2},
		},
		{
			"no warm-up", passes(0, 300*ms), func(j *bench.Job) { j.Repetitions, j.NoWarmup = 3, true },
			[]string{"started after 0", "600ms: 1 300ms, 2 600ms", "900ms: 3 900ms", "ok"}, []int{1, 3},
		},
		{
			"three warm-ups", passes(200*ms, 100*ms), func(j *bench.Job) { j.Repetitions, j.Warmups = 2, 3 },
			[]string{"started after 0", "600ms: warm-up 200ms, warm-up 400ms, warm-up 600ms", "800ms: 1 700ms, 2 800ms", "ok"}, []int{1},
		},
		{
			"warm until stable", passes(100*ms, 0).Except(func(c benchtest.Call) (benchtest.Step, bool) {
				if c.Method != benchtest.Repeat {
					return benchtest.Step{}, false
				}
				takes := settling[0]
				settling = settling[min(1, len(settling)-1):]
				return benchtest.Step{Takes: takes}, true
			}), func(j *bench.Job) { j.Repetitions, j.WarmUntilStable = 2, true },
			[]string{
				"started after 0", "600ms: warm-up 100ms, warm-up 400ms, warm-up 600ms",
				"1s: warm-up 700ms, warm-up 800ms, 1 900ms, 2 1s", "ok",
			}, []int{1},
		},
		{
			"continued", passes(50*ms, 100*ms), func(j *bench.Job) {
				j.Repetitions, j.Tests[0].Done = 3, []result.Sample{sample(1, 0, 100*ms)}
			},
			[]string{"started after 1", "250ms: warm-up 50ms, 2 150ms, 3 250ms", "ok"}, nil,
		},
		{
			"a repetition fails", passes(50*ms, 100*ms).Except(on(benchtest.Repeat, pp512, 3, benchtest.Step{Err: errors.New("odd")})),
			func(j *bench.Job) { j.Repetitions = 5 },
			[]string{"started after 0", "250ms: warm-up 50ms, 1 150ms, 2 250ms", "failed"}, nil,
		},
		{
			// The watchdog's event comes after the passes that ended before it.
			"a repetition is aborted", passes(50*ms, 100*ms).Except(on(benchtest.Repeat, pp512, 3, benchtest.Step{Takes: time.Hour})),
			func(j *bench.Job) { j.Repetitions, j.Tests[0].Budget = 5, 10*s },
			[]string{"started after 0", "10s: warm-up 50ms, 1 150ms, 2 250ms", "abort", "returned", "timeout"}, nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := jobOf(bench.TestBudget{Test: pp512})
				tt.change(&job)
				e := benchtest.New(tt.script, engineFacts, modelFacts)
				var r reports
				if err := bench.RunJob(t.Context(), e, job, nil, r.emit); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, r.lines); diff != "" {
					t.Errorf("reports (-want +got):\n%s", diff)
				}
				var rested []string
				for _, n := range tt.rested {
					rested = append(rested, fmt.Sprintf("repeat %d %v", n, job.Tests[0].Test))
				}
				if diff := cmp.Diff(rested, e.AfterRest()); diff != "" {
					t.Errorf("repetitions after a rest (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What the parent has not kept of a burst is dropped, and the test goes on after what it
// has kept.
func TestBurstRepeated(t *testing.T) {
	repetition := func(n int) func(bench.Stamped) bool {
		return func(s bench.Stamped) bool {
			e, ok := s.Event.(bench.RepetitionDone)
			return ok && e.Sample.Repetition == n
		}
	}
	for _, tt := range []struct {
		name   string
		refuse func(bench.Stamped) bool // once
		stopIn int                      // repetition during which the process is stopped for an hour; 0: none
		want   []string
	}{
		{
			"a repetition in the middle", repetition(3), 0,
			[]string{
				"started after 0", "450ms: warm-up 50ms, 1 150ms, 2 250ms", "refused",
				"started after 2", "250ms: warm-up 50ms, 3 150ms, 4 250ms", "ok",
			},
		},
		{
			"the warm-up", func(s bench.Stamped) bool { _, ok := s.Event.(bench.WarmupDone); return ok }, 0,
			[]string{"started after 0", "refused", "started after 0", "450ms: warm-up 50ms, 1 150ms, 2 250ms, 3 350ms, 4 450ms", "ok"},
		},
		{
			// The parent did not notice the stop: what ended before it is kept.
			"stopped alone", nil, 3,
			[]string{
				"started after 0", "1h0m0.25s: warm-up 50ms, 1 150ms, 2 250ms", "abort", "returned",
				"started after 2", "250ms: warm-up 50ms, 3 150ms, 4 250ms", "ok",
			},
		},
		{
			"stopped with its parent", repetition(1), 3,
			[]string{
				"started after 0", "1h0m0.25s: warm-up 50ms", "refused", "abort", "returned",
				"started after 0", "450ms: warm-up 50ms, 1 150ms, 2 250ms, 3 350ms, 4 450ms", "ok",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := jobOf(bench.TestBudget{Test: pp512})
				job.Repetitions = 4
				continued := make(chan os.Signal, 1)
				stopped, refused := false, false
				e := benchtest.New(passes(50*ms, 100*ms).Except(func(c benchtest.Call) (benchtest.Step, bool) {
					if c.N != tt.stopIn || c.N == 0 || stopped {
						return benchtest.Step{}, false
					}
					stopped = true
					return benchtest.Step{Do: func() {
						time.Sleep(time.Hour)
						continued <- syscall.SIGCONT
					}, Takes: time.Hour}, true
				}), engineFacts, modelFacts)
				r := reports{refuse: func(s bench.Stamped) bool {
					if refused || tt.refuse == nil || !tt.refuse(s) {
						return false
					}
					refused = true
					if !bench.Spoiled(s.Event) {
						t.Errorf("a stop does not spoil %v", s.Event)
					}
					return true
				}}
				if err := bench.RunJob(bench.WithContinued(context.Background(), continued), e, job, nil, r.emit); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, r.lines); diff != "" {
					t.Errorf("reports (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A test that is repeated twice, after another one, has each of its repetitions once.
func TestBurstRepeatedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg2 := result.Test{Gen: 2}
		job := jobOf(bench.TestBudget{Test: pp512}, bench.TestBudget{Test: tg2})
		job.Repetitions = 4
		refusals := map[int]int{2: 1, 3: 1} // by repetition of the second test
		second := false
		r := reports{refuse: func(s bench.Stamped) bool {
			switch e := s.Event.(type) {
			case bench.TestStarted:
				second = e.Test == tg2
			case bench.RepetitionDone:
				if n := e.Sample.Repetition; second && refusals[n] > 0 {
					refusals[n]--
					return true
				}
			}
			return false
		}}
		if err := bench.RunJob(t.Context(), benchtest.New(passes(50*ms, 100*ms), engineFacts, modelFacts), job, nil, r.emit); err != nil {
			t.Fatal(err)
		}
		want := []string{
			"started after 0", "450ms: warm-up 50ms, 1 150ms, 2 250ms, 3 350ms, 4 450ms", "ok",
			"started after 0", "450ms: warm-up 50ms, 1 150ms", "refused",
			"started after 1", "350ms: warm-up 50ms, 2 150ms", "refused",
			"started after 2", "250ms: warm-up 50ms, 3 150ms, 4 250ms", "ok",
		}
		if diff := cmp.Diff(want, r.lines); diff != "" {
			t.Errorf("reports (-want +got):\n%s", diff)
		}
	})
}

// The event of a repetition has the time of the pass that primed it.
func TestPriming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := jobOf(bench.TestBudget{Test: pp512})
		job.Repetitions = 3
		e := benchtest.New(passes(50*ms, 300*ms).Except(func(c benchtest.Call) (benchtest.Step, bool) {
			return benchtest.Step{Takes: 300 * ms, Primes: 40 * ms}, c.Method == benchtest.Repeat
		}), engineFacts, modelFacts)
		l := newLog(t)
		if err := bench.RunJob(t.Context(), e, job, nil, l.emit); err != nil {
			t.Fatal(err)
		}
		var got []time.Duration
		for _, e := range l.events {
			if e, ok := e.Event.(bench.RepetitionDone); ok {
				got = append(got, e.Priming)
			}
		}
		if diff := cmp.Diff([]time.Duration{0, 0, 40 * ms}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if calls := strings.Join(e.Calls(), " "); !slices.Equal(e.AfterRest(), []string{"repeat 3 pp512"}) {
			t.Errorf("after a rest %v of %s", e.AfterRest(), calls)
		}
	})
}
