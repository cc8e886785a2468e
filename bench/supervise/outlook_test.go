package supervise_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// forecast is a Forecast of a run and the time that the run still took.
type forecast struct {
	supervise.Forecast
	at, left time.Duration
}

// forecasts runs jobs one after another in fake time and returns a forecast for every
// fifth of a second.
func forecasts(t *testing.T, jobs []bench.Job, sizes []uint64, script func(model int) benchtest.Script) (all []forecast, took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		o := supervise.NewOutlook(jobs, sizes, time.Time{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i, job := range jobs {
				a := record.Assembler{Job: job}
				e := benchtest.New(script(i), bench.EngineFacts{}, bench.ModelFacts{})
				err := bench.RunJob(context.Background(), e, job, policy.Default(), func(s bench.Stamped) error {
					_ = o.Event(s)
					if r := a.Add(s); r != nil {
						_ = o.Outcome(r)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for running := true; running; {
			select {
			case <-tick.C:
				all = append(all, forecast{Forecast: o.At(time.Now()), at: time.Since(start)})
			case <-done:
				running = false
			}
		}
		took = time.Since(start)
	})
	for i := range all {
		all[i].left = took - all[i].at
	}
	return all, took
}

// TestOutlook: in the second half of a run of steady speed the forecast is less than
// 30 % wrong.
func TestOutlook(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 0))
		prompt := 20 + 2000*random.Float64()
		gen := prompt // or slower
		if seed%2 == 1 {
			gen /= 1 + 20*random.Float64()
		}
		var jobs []bench.Job
		var sizes []uint64
		tests := []result.Test{pp(16), pp(128), pp(512), pp(1024), tg(16), tg(64), tg(256), {Prompt: 128, Gen: 32}}
		for i := range 1 + random.IntN(3) {
			job := bench.Job{Model: bench.Model{Name: fmt.Sprintf("%d.gguf", i)}, Repetitions: 2 + random.IntN(6), Settings: bench.DefaultSettings(2), NoWarmup: random.IntN(4) == 0}
			for _, test := range tests {
				if random.IntN(2) == 0 || test == tests[0] {
					job.Tests = append(job.Tests, bench.TestBudget{Test: test, Budget: time.Duration(random.IntN(2)) * 100 * time.Hour})
				}
			}
			jobs, sizes = append(jobs, job), append(sizes, uint64(1+i)<<30)
		}
		script := func(model int) benchtest.Script {
			slow := float64(1 + model)
			return benchtest.AtSpeed(prompt / slow).Except(func(c benchtest.Call) (benchtest.Step, bool) {
				switch c.Method {
				case benchtest.Load:
					return benchtest.Step{Takes: time.Duration(slow) * time.Second}, true
				case benchtest.Repeat:
					s := (float64(c.Test.Prompt)/prompt + float64(c.Test.Gen)/gen) * slow
					return benchtest.Step{Takes: time.Duration(s * float64(time.Second))}, true
				default:
					return benchtest.Step{}, false
				}
			})
		}
		all, took := forecasts(t, jobs, sizes, script)
		known := 0
		for _, f := range all {
			if f.at < took/2 || f.Left == 0 { // nothing is known before the first pass
				continue
			}
			switch off := (f.Left - f.left).Abs(); {
			case f.AtLeast && gen < prompt: // nothing was generated yet, and how much slower that is nobody knows
				if f.Left > f.left+f.left/10 {
					t.Errorf("seed %d: at %s of %s at least %s are left, in fact %s", seed, f.at, took, f.Left, f.left)
				}
			case off > f.left*3/10+100*time.Millisecond:
				t.Errorf("seed %d: at %s of %s about %s are left, in fact %s", seed, f.at, took, f.Left, f.left)
			default:
				known++
			}
		}
		if known == 0 && took > time.Second {
			t.Errorf("seed %d: nothing is known in the second half of %s", seed, took)
		}
	}
}

// TestOutlookOf: what a forecast says besides the time left.
func TestOutlookOf(t *testing.T) {
	began := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(s float64, e bench.Event) bench.Stamped {
		return bench.Stamped{At: began.Add(time.Duration(s * float64(time.Second))), Event: e}
	}
	job := bench.Job{Model: bench.Model{Name: "m"}, Repetitions: 3, Tests: []bench.TestBudget{{Test: pp(16), Budget: 40 * time.Second}, {Test: tg(16), Budget: 40 * time.Second}}}
	loaded := []bench.Stamped{at(0, bench.LoadStarted{Model: job.Model}), at(1, bench.LoadDone{Status: result.OK, Elapsed: time.Second})}
	warm := append(loaded, at(1, bench.TestStarted{Test: pp(16), Budget: 40 * time.Second, Repetitions: 3}), at(1, bench.ContextReady{}), at(11, bench.WarmupDone{}))
	quick := append(loaded, at(1, bench.TestStarted{Test: pp(16), Budget: 40 * time.Second, Repetitions: 3}), at(1, bench.ContextReady{}), at(2, bench.WarmupDone{}))
	resumed := job
	resumed.Tests = job.Tests[1:]
	resumed.Past = []bench.PastTest{{Test: tg(8), Status: result.OK, Repetitions: []time.Duration{time.Second}}}
	for _, tt := range []struct {
		name   string
		job    bench.Job
		limit  time.Duration
		events []bench.Stamped
		at     float64 // seconds
		want   supervise.Forecast
	}{
		{"nothing is known", job, 0, loaded, 1, supervise.Forecast{}},
		{"only a prompt is known", job, 0, quick, 2, supervise.Forecast{Left: 3*time.Second + 49*time.Second/16, AtLeast: true}},
		{"its budget is close", job, 0, warm, 21, supervise.Forecast{Left: 20*time.Second + 490*time.Second/16, AtLeast: true, Budget: 20 * time.Second}},
		{"the run's limit is closer", job, 20 * time.Second, warm, 15, supervise.Forecast{Left: 5 * time.Second, AtLeast: true, Budget: 26 * time.Second, Limit: 5 * time.Second}},
		{"a test is being stopped", job, 0, append(quick, at(3, bench.AbortRequested{})), 3, supervise.Forecast{Left: 49 * time.Second / 16, AtLeast: true}},
		{"from an interrupted run", resumed, 0, loaded, 1, supervise.Forecast{Left: 6 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var deadline time.Time
			if tt.limit > 0 {
				deadline = began.Add(tt.limit)
			}
			o := supervise.NewOutlook([]bench.Job{tt.job}, []uint64{1 << 30}, deadline)
			for _, e := range tt.events {
				_ = o.Event(e)
			}
			got := o.At(at(tt.at, nil).At)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
