package bench_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// repeats is a script whose repetitions take these times, and the last one from then
// on.
func repeats(times ...time.Duration) benchtest.Script {
	return steady.Except(func(c benchtest.Call) (benchtest.Step, bool) {
		if c.Method != benchtest.Repeat {
			return benchtest.Step{}, false
		}
		return benchtest.Step{Takes: times[min(c.N, len(times))-1]}, true
	})
}

// With Until, a test is repeated until its speed is known, and a repetition too many
// costs nothing.
func TestUntil(t *testing.T) {
	alternating := []time.Duration{}
	for range 30 {
		alternating = append(alternating, 900*ms, 1100*ms)
	}
	for name, tt := range map[string]struct {
		script  benchtest.Script
		until   policy.Until
		test    bench.TestBudget
		outcome string
		by      result.StoppedBy
	}{
		"steady":         {repeats(s), policy.DefaultUntil(0.01), bench.TestBudget{Test: pp512}, "pp512 ok 7", result.StoppedByPrecision},
		"continued":      {repeats(s), policy.DefaultUntil(0.01), bench.TestBudget{Test: pp512, Done: []result.Sample{sample(1, 0, s), sample(2, s, s), sample(3, 2*s, s)}}, "pp512 ok 7", result.StoppedByPrecision},
		"noise":          {repeats(alternating...), policy.DefaultUntil(0.001), bench.TestBudget{Test: pp512}, "pp512 ok 20", result.StoppedByNoise},
		"the most":       {repeats(alternating...), policy.Until{Within: 0.01, MaxRepetitions: 9}, bench.TestBudget{Test: pp512}, "pp512 ok 9", result.StoppedByRepetitions},
		"time":           {repeats(alternating...), policy.Until{Within: 0.01, MaxRepetitions: 99, MaxTime: 8 * s}, bench.TestBudget{Test: pp512}, "pp512 ok 8", result.StoppedByTime},
		"budget":         {repeats(alternating...), policy.DefaultUntil(0.01), bench.TestBudget{Test: pp512, Budget: 12500 * ms}, "pp512 ok 11", result.StoppedByTime},
		"budget, too":    {repeats(s, s, s, s, s, 9*s), policy.DefaultUntil(0.01), bench.TestBudget{Test: pp512, Budget: 8 * s}, "pp512 ok 5", result.StoppedByTime},
		"less than five": {repeats(s, s, s, 9*s), policy.DefaultUntil(0.01), bench.TestBudget{Test: pp512, Budget: 8 * s}, "pp512 predicted_timeout 3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				job := jobOf(tt.test)
				job.Until = &tt.until
				if err := bench.RunJob(t.Context(), benchtest.New(tt.script, engineFacts, modelFacts), job, policy.Default(), l.emit); err != nil {
					t.Fatal(err)
				}
				outcomes := l.outcomes(job)
				if diff := cmp.Diff([]string{tt.outcome}, brief(outcomes)); diff != "" {
					t.Fatal(diff)
				}
				if tt.by == "" {
					return
				}
				p := outcomes[0].Record.Ext.Precision
				if p == nil || p.StoppedBy != tt.by || p.Wanted != tt.until.Within {
					t.Errorf("precision %+v, want %s", p, tt.by)
				}
			})
		})
	}
}

// A user who stops the run keeps the repetitions, and the test is not complete.
func TestUntilInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		job := jobOf(bench.TestBudget{Test: pp512})
		u := policy.DefaultUntil(0.001)
		job.Until = &u
		ctx, cancel := context.WithTimeoutCause(t.Context(), 8500*ms, errors.New("the user pressed Ctrl-C"))
		defer cancel()
		noise := make([]time.Duration, 0, 40)
		for range 20 {
			noise = append(noise, 900*ms, 1100*ms)
		}
		if err := bench.RunJob(ctx, benchtest.New(repeats(noise...), engineFacts, modelFacts), job, nil, l.emit); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"pp512 aborted 6"}, brief(l.outcomes(job))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWarmups(t *testing.T) {
	slowStart := repeats(s)
	passes := []time.Duration{2 * s, 1500 * ms, 1010 * ms, s}
	settles := steady.Except(func(c benchtest.Call) (benchtest.Step, bool) {
		if c.Method != benchtest.Repeat || len(passes) == 0 {
			return benchtest.Step{Takes: s}, c.Method == benchtest.Repeat
		}
		took := passes[0]
		passes = passes[1:]
		return benchtest.Step{Takes: took}, true
	})
	swings := time.Second
	never := steady.Except(func(c benchtest.Call) (benchtest.Step, bool) {
		swings = 3*s - swings
		return benchtest.Step{Takes: swings}, c.Method == benchtest.Repeat
	})
	for name, tt := range map[string]struct {
		script benchtest.Script
		change func(*bench.Job)
		want   string // calls of the engine
	}{
		"one":          {slowStart, func(*bench.Job) {}, "load|begin pp512|warmup pp512|repeat 1 pp512|end pp512"},
		"none":         {slowStart, func(j *bench.Job) { j.NoWarmup = true }, "load|begin pp512|repeat 1 pp512|end pp512"},
		"three":        {slowStart, func(j *bench.Job) { j.Warmups = 3 }, "load|begin pp512|warmup pp512|warmup pp512|warmup pp512|repeat 1 pp512|end pp512"},
		"until stable": {settles, func(j *bench.Job) { j.WarmUntilStable = true }, "load|begin pp512|warmup pp512|repeat 1 pp512|repeat 1 pp512|repeat 1 pp512|repeat 1 pp512|repeat 1 pp512|end pp512"},
		"never stable": {never, func(j *bench.Job) { j.WarmUntilStable = true }, "load|begin pp512|warmup pp512|" + strings.Repeat("repeat 1 pp512|", bench.MaxStablePasses+1) + "end pp512"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				job := jobOf(bench.TestBudget{Test: pp512})
				job.Repetitions = 1
				tt.change(&job)
				e := benchtest.New(tt.script, engineFacts, modelFacts)
				if err := bench.RunJob(t.Context(), e, job, nil, l.emit); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(strings.Split(tt.want, "|"), e.Calls()); diff != "" {
					t.Error(diff)
				}
				o := l.outcomes(job)
				if n := len(o[0].Samples); n != 1 {
					t.Errorf("%d samples: a warm-up was counted", n)
				}
				want := strings.Count(tt.want, "warmup") + strings.Count(tt.want, "repeat") - 1
				if want < 2 {
					want = 0 // one is not said
				}
				if got := o[0].Record.Ext.Warmups; got != want {
					t.Errorf("record says %d warm-ups, want %d", got, want)
				}
			})
		})
	}
}

// The worker asks to cool down before the clock of the test's budget starts.
func TestCoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		job := jobOf(bench.TestBudget{Test: pp512, Budget: 7 * s}, bench.TestBudget{Test: tg128, Budget: 7 * s})
		job.Repetitions, job.CoolDown = 1, true
		emit := func(e bench.Stamped) error {
			if _, ok := e.Event.(bench.CoolDownStarted); ok {
				time.Sleep(time.Minute)
			}
			return l.emit(e)
		}
		if err := bench.RunJob(t.Context(), benchtest.New(steady, engineFacts, modelFacts), job, nil, emit); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"pp512 ok 1", "tg128 ok 1"}, brief(l.outcomes(job))); diff != "" {
			t.Error(diff)
		}
		if want := "CoolDownStarted TestStarted ContextReady"; strings.Count(l.names(), want) != 2 {
			t.Errorf("%s\nwant twice %s", l.names(), want)
		}
	})
}
