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
	"github.com/sparecores/benchmark-llm/bench/result"
)

var onGPU = bench.ModelFacts{Layers: 30, Placed: []bench.Placement{{Device: "CUDA0", Layers: 31, WeightsBytes: 9}}}

// compiled runs the job on an engine with a script and gives what the passes
// before the first test were, and what was said of them.
func compiled(t *testing.T, ctx context.Context, job bench.Job, script benchtest.Script, model bench.ModelFacts) (calls string, started *bench.PrecompileStarted, done *bench.PrecompileDone) {
	t.Helper()
	e := benchtest.New(script, engineFacts, model)
	first := false
	err := bench.RunJob(ctx, e, job, nil, func(ev bench.Stamped) error {
		switch ev := ev.Event.(type) {
		case bench.PrecompileStarted:
			started = &ev
		case bench.PrecompileDone:
			done = &ev
		case bench.TestStarted:
			if !first {
				calls, first = strings.Join(e.Calls(), ", "), true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !first {
		calls = strings.Join(e.Calls(), ", ")
	}
	return calls, started, done
}

// Before the first budget begins, every shape is computed once; on the CPU none.
func TestCompile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tests []bench.TestBudget
		for _, test := range []result.Test{{Prompt: 16}, {Prompt: 512}, {Prompt: 600}, {Prompt: 5000}, {Gen: 128}, {Gen: 512, Depth: 40}, {Prompt: 16, Gen: 8}} {
			tests = append(tests, bench.TestBudget{Test: test})
		}
		job := jobOf(tests...)
		job.Settings = bench.DefaultSettings(4)
		calls, started, done := compiled(t, t.Context(), job, benchtest.AtSpeed(1000), onGPU)
		want := "load, begin pp512, warmup pp512, begin pp392, warmup pp392, begin pp88, warmup pp88, begin pp40, warmup pp40, begin pp16, warmup pp16, begin tg1, warmup tg1, end tg1"
		if diff := cmp.Diff(want, calls); diff != "" {
			t.Errorf("calls before the first test (-want +got)\n%s", diff)
		}
		if started == nil || len(started.Shapes) != 6 || done == nil || done.Status != result.OK || done.Elapsed != 1049*ms {
			t.Errorf("%+v, %+v", started, done)
		}
		job.PrecompileSkip = &result.Test{Prompt: 512}
		if calls, started, _ := compiled(t, t.Context(), job, benchtest.AtSpeed(1000), onGPU); calls != strings.Replace(want, "begin pp512, warmup pp512, ", "", 1) || len(started.Shapes) != 5 {
			t.Errorf("without the pass that cost a worker: %s", calls)
		}
		job.NoPrecompile = true
		if calls, started, _ := compiled(t, t.Context(), job, benchtest.AtSpeed(1000), onGPU); calls != "load" || started != nil {
			t.Errorf("without passes: %s", calls)
		}
		if calls, started, done := compiled(t, t.Context(), jobOf(tests...), benchtest.AtSpeed(1000), modelFacts); calls != "load" || started != nil || done != nil {
			t.Errorf("on the CPU: %s, %+v, %+v", calls, started, done)
		}
	})
}

// A pass that fails or takes too long costs no test.
func TestCompileFails(t *testing.T) {
	for _, tt := range []struct {
		name   string
		step   benchtest.Step
		left   time.Duration
		status result.Status
		reason string
	}{
		{"error", benchtest.Step{Err: errors.New("no kernel image")}, 0, result.Failed, "pp512: no kernel image"},
		{"too long", benchtest.Step{Takes: time.Hour}, 0, result.Timeout, "precompile passes exceeded 15m0s"},
		{"the run ends", benchtest.Step{Takes: time.Hour}, time.Minute, result.Timeout, "precompile passes exceeded 59s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				job := jobOf(bench.TestBudget{Test: pp512})
				job.TimeLeft = tt.left
				passes := 0
				script := benchtest.AtSpeed(1000).Except(func(c benchtest.Call) (benchtest.Step, bool) {
					if c.Method != benchtest.Warmup {
						return benchtest.Step{}, false
					}
					passes++
					return tt.step, passes == 1
				})
				_, _, done := compiled(t, t.Context(), job, script, onGPU)
				if done == nil || done.Status != tt.status || done.Reason != tt.reason {
					t.Errorf("%+v", done)
				}
			})
		})
	}
}

func TestCompileIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*s, func() { cancel(errors.New("interrupt")) })
		job := jobOf(bench.TestBudget{Test: pp512})
		calls, _, done := compiled(t, ctx, job, benchtest.AtSpeed(10), onGPU)
		if done == nil || done.Status != result.Aborted || done.Reason != "stopped: interrupt" || calls != "load, begin pp512, warmup pp512, end pp512" {
			t.Errorf("%s, %+v", calls, done)
		}
	})
}
