package estimate_test

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

func shape(t *testing.T, name string) *gguf.File {
	t.Helper()
	s, err := synth.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func options(t *testing.T, tests ...result.Test) estimate.Options {
	return estimate.Options{
		Tests: tests, Rounds: 3, Context: gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16}, Dir: t.TempDir(),
		Job: bench.Job{Repetitions: 1, Seed: 1, Settings: bench.DefaultSettings(2)}, AvailableBytes: 24 << 30, CacheBytes: 300 << 20,
	}
}

// clock is a machine: bytes and operations take time, and each test has a fixed part.
func clock(f *gguf.File, t result.Test) time.Duration {
	w := f.Work(t, gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16})
	if t.Gen > 0 && t.Prompt == 0 {
		return time.Duration(1e5*t.Gen) + time.Duration(float64(w.WeightBytes)/20+float64(w.CacheBytes)/15)
	}
	return time.Millisecond + time.Duration(float64(w.Operations)/1000+float64(w.AttentionOps)/400)
}

// run gives a plan the repetitions of its models on such a machine, whose speed drifts by
// a share from one repetition to the next. The models take turns.
func run(t *testing.T, p *estimate.Plan, rounds, repetitions int, drift float64) (depths []int) {
	t.Helper()
	slower := 1.0
	for round := range rounds {
		jobs, err := p.Jobs(round)
		if err != nil {
			t.Fatal(err)
		}
		files := make(map[string]*gguf.File)
		takers := make(map[string]supervise.Consumer)
		for _, job := range jobs {
			if files[job.Model.Name], err = synth.ReadHeaderFile(job.Model.Path); err != nil {
				t.Fatal(err)
			}
			takers[job.Model.Name] = p.Taker(round, job)
			depths = append(depths, job.Model.Layers-1)
		}
		for i := range max(len(jobs[0].Tests), len(jobs[len(jobs)-1].Tests)) {
			for n := range repetitions {
				for _, job := range jobs {
					if i >= len(job.Tests) {
						continue
					}
					elapsed := time.Duration(float64(clock(files[job.Model.Name], job.Tests[i].Test)) * slower)
					for _, e := range []bench.Event{bench.TestStarted{Test: job.Tests[i].Test}, bench.RepetitionDone{Sample: result.Sample{Repetition: n + 1, Elapsed: elapsed}}} {
						if err := takers[job.Model.Name].Event(bench.Stamped{Event: e}); err != nil {
							t.Fatal(err)
						}
					}
					slower *= 1 + drift
				}
			}
		}
	}
	return depths
}

// On a machine whose time is linear in bytes and operations, the estimate of every
// default model is what the full model takes, and its interval holds it.
func TestEstimate(t *testing.T) {
	tests := []result.Test{{Prompt: 128}, {Prompt: 512}, {Prompt: 16384}, {Gen: 32}, {Gen: 128}, {Gen: 4096}, {Prompt: 256, Depth: 4096}, {Prompt: 2048, Gen: 64}}
	for _, name := range synth.Names() {
		f := shape(t, name)
		p, err := estimate.New(name, f, options(t, tests...))
		if err != nil {
			t.Fatal(err)
		}
		run(t, p, 3, 1, 0)
		for i, row := range p.Rows() {
			want := float64(tests[i].Tokens()) / clock(f, tests[i]).Seconds()
			if tests[i].Prompt > 0 && tests[i].Gen > 0 {
				want = float64(tests[i].Tokens()) / (clock(f, result.Test{Prompt: tests[i].Prompt}) + clock(f, result.Test{Gen: tests[i].Gen, Depth: tests[i].Prompt})).Seconds()
			}
			if off := row.Speed/want - 1; math.Abs(off) > 0.02 || want < row.Low || want > row.High {
				t.Errorf("%s, %v: %.4g t/s (%.4g to %.4g), want %.4g: %+.2f %%", name, tests[i], row.Speed, row.Low, row.High, want, 100*off)
			}
			if !row.Estimated || row.Kind != "estimate" || row.Needs < f.TensorBytes() || *row.Fits != (row.Needs < 24<<30) {
				t.Errorf("%s, %v: %+v", name, tests[i], row)
			}
		}
	}
}

// A price gives the cost of tokens, with the interval of the speed.
func TestCost(t *testing.T) {
	o := options(t, result.Test{Gen: 32})
	o.Price = &result.Price{PerHour: 0.36, Currency: "€"}
	p, err := estimate.New("llama-7b.Q4_K_M.gguf", shape(t, "llama-7b.Q4_K_M.gguf"), o)
	if err != nil {
		t.Fatal(err)
	}
	run(t, p, 3, 1, 0)
	row := p.Rows()[0]
	if c := row.Cost; math.Abs(c.PerMillion-100/row.Speed) > 1e-9 || math.Abs(c.Low-100/row.High) > 1e-9 || math.Abs(c.High-100/row.Low) > 1e-9 {
		t.Errorf("%+v of %+v", c, row)
	}
	for format, want := range map[string]string{"table": "cost of 10⁶ tokens", "md": " €", "json": `"currency": "€"`} {
		var b strings.Builder
		if err := estimate.Write(&b, format, append(p.Rows(), estimate.Row{Reason: "x"}), 0); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%s: no %q in\n%s", format, want, b.String())
		}
	}
}

// Thin models take turns, forwards and backwards, so a drift of the machine's speed
// cancels. The full model, in turn with them, tells how far the estimate is off.
func TestDriftCancels(t *testing.T) {
	const name = "llama-7b.Q4_K_M.gguf"
	f, test := shape(t, name), result.Test{Gen: 32}
	o := options(t, test)
	o.Check = true
	p, err := estimate.New(name, f, o)
	if err != nil {
		t.Fatal(err)
	}
	depths := run(t, p, 4, 3, 0.01)
	if diff := cmp.Diff([]int{6, 18, 32, 32, 18, 6, 6, 18, 32, 32, 18, 6}, depths); diff != "" {
		t.Error(diff)
	}
	row := p.Rows()[0]
	if full := row.Full; full == nil || math.Abs(full.Off) > 0.01 || full.Again < 0.1 || math.Abs(row.Speed/full.Speed/(1+full.Off)-1) > 0.02 {
		t.Errorf("%+v of %+v", full, row)
	}
}

// Depths are chosen by caches and memory. A model of which none fits is refused.
func TestDepths(t *testing.T) {
	for name, tt := range map[string]struct {
		model            string
		available, cache uint64
		want             []int
		err              error
	}{
		"small caches":                 {"llama-7b.Q4_K_M.gguf", 64 << 30, 32 << 20, []int{1, 3}, nil},
		"large caches":                 {"llama-7b.Q4_K_M.gguf", 64 << 30, 2 << 30, []int{24, 30}, nil},
		"a small model":                {"SmolLM-135M.Q4_K_M.gguf", 64 << 30, 32 << 20, []int{23, 28}, nil},
		"a model larger than all":      {"Llama-3.3-70B-Instruct-Q4_K_M.gguf", 24 << 30, 300 << 20, []int{2, 6}, nil},
		"memory for one after another": {"Llama-3.3-70B-Instruct-Q4_K_M.gguf", 3300 << 20, 300 << 20, []int{1, 2}, nil},
		"memory for none":              {"Llama-3.3-70B-Instruct-Q4_K_M.gguf", 1 << 30, 300 << 20, nil, estimate.ErrMemory},
		"too few layers":               {synth.Tiny, 1 << 30, 1 << 20, nil, synth.ErrThin},
	} {
		o := options(t, result.Test{Gen: 32})
		o.Rounds, o.AvailableBytes, o.CacheBytes = 1, tt.available, tt.cache
		p, err := estimate.New(tt.model, shape(t, tt.model), o)
		if tt.err != nil {
			if !errors.Is(err, tt.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, run(t, p, 1, 1, 0)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A thin model that fails, and times that do not rise, give a row with the reason.
func TestNoEstimate(t *testing.T) {
	const name = "llama-7b.Q4_K_M.gguf"
	test := result.Test{Gen: 32}
	for reason, outcome := range map[string]result.Outcome{
		"tg32 of 6 layers: it crashed": {Test: test, Status: result.Crashed, Reason: "it crashed"},
		"tg32: models with more layers were not slower, because other processes disturbed them": {Status: result.OK},
	} {
		p, err := estimate.New(name, shape(t, name), options(t, test))
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := p.Jobs(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{1, 0} {
			taker := p.Taker(0, jobs[i])
			if err := taker.Event(bench.Stamped{Event: bench.TestStarted{Test: test}}); err != nil {
				t.Fatal(err)
			}
			if outcome.Status == result.OK {
				err = taker.Event(bench.Stamped{Event: bench.RepetitionDone{Sample: result.Sample{Elapsed: time.Second}}})
			}
			if err := errors.Join(err, taker.Outcome(&outcome)); err != nil {
				t.Fatal(err)
			}
		}
		if row := p.Rows()[0]; row.Speed != 0 || row.Reason != reason {
			t.Errorf("%+v, want %q", row, reason)
		}
	}
	if _, err := estimate.New(name, shape(t, name), options(t, result.Test{Prompt: 1, Gen: 1, E2E: true})); !errors.Is(err, estimate.ErrTest) {
		t.Error(err)
	}
}

// Every format says that the speeds are estimated, and why there is none.
func TestWrite(t *testing.T) {
	fits := false
	off := 0.0125
	rows := []estimate.Row{
		{Kind: "estimate", Estimated: true, Model: "m.gguf", Test: "tg128", Speed: 9.21, Low: 8.8, High: 9.65, Level: 0.95, Layers: 32, Measured: []int{4, 12}, From: []string{"tg32"}, CheckOff: &off, Needs: 4 << 30, Fits: &fits, Full: &estimate.Full{Speed: 9.3, Off: -0.0097}, GPUs: []string{"CUDA0", "CUDA1"}},
		{Kind: "estimate", Estimated: true, Model: "m.gguf", Test: "pp512", Layers: 32, Measured: []int{4, 12}, Reason: "it crashed"},
	}
	want := map[string][]string{
		"table": {"≈ 9.21", "8.80 … 9.65", "4 and 12 of 32 layers", "4.0 GiB", "no", "measured t/s", "9.300", "-1.0 %", "estimated from models with fewer layers, not measured", "pp512: not estimated: it crashed", "off by +1.2 %", "m.gguf, tg128: estimated as if CUDA0 and CUDA1 had the memory for all layers"},
		"md":    {"| m.gguf | tg128 | ≈ 9.21 |", "not measured", "pp512: not estimated: it crashed"},
		"json":  {`"estimated": true`, `"kind": "estimate"`, `"ts": 9.21`, `"reason": "it crashed"`},
	}
	for _, format := range estimate.Formats() {
		var b strings.Builder
		if err := estimate.Write(&b, format, rows, 0); err != nil {
			t.Fatal(err)
		}
		for _, text := range want[format] {
			if !strings.Contains(b.String(), text) {
				t.Errorf("%s: no %q in\n%s", format, text, b.String())
			}
		}
	}
}

// Headers are written below the directory of the options.
func TestJobs(t *testing.T) {
	o := options(t, result.Test{Prompt: 16})
	p, err := estimate.New("dir/llama-7b.Q4_K_M.gguf", shape(t, "llama-7b.Q4_K_M.gguf"), o)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := p.Jobs(0)
	if err != nil {
		t.Fatal(err)
	}
	want := bench.Model{Name: "dir/llama-7b.Q4_K_M.gguf (6 of 32 layers)", Path: filepath.Join(o.Dir, "llama-7b.Q4_K_M.gguf.6.gguf-header"), Weights: result.SyntheticWeights, Seed: 1, Layers: 7}
	if diff := cmp.Diff(want, jobs[0].Model); diff != "" || len(jobs) != 2 || len(jobs[0].Tests) != 1 {
		t.Errorf("%d jobs: %s", len(jobs), diff)
	}
}
