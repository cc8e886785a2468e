package suite_test

import (
	"math"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// The buffers that libllama 0.7.0 logged for synthetic models, in MiB, with all
// weights on a CPU with AMX, ubatch 512 and a KV cache of f16: "model buffer
// size" of CPU and AMX, "KV buffer size", "compute buffer size".
func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		model                       string
		test                        result.Test
		weights, kvCache, computing float64
	}{
		{"SmolLM-135M.Q4_K_M.gguf", result.Test{Prompt: 16}, 131.32, 5.625, 3.18},
		{"SmolLM-135M.Q4_K_M.gguf", result.Test{Prompt: 512}, 131.32, 11.25, 102.14},
		{"SmolLM-135M.Q4_K_M.gguf", result.Test{Gen: 4096}, 131.32, 90, 106.77},
		{"SmolLM-135M.Q4_K_M.gguf", result.Test{Prompt: 16384}, 131.32, 360, 117.64},
		{"SmolLM-135M.Q4_K_M.gguf", result.Test{Prompt: 512, Depth: 16384}, 131.32, 371.25, 118.14},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", result.Test{Prompt: 16}, 386.51, 24, 9.59},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", result.Test{Prompt: 4096}, 386.51, 384, 312.77},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", result.Test{Prompt: 16384}, 386.51, 1536, 322.77},
		{"gemma-2b.Q4_K_M.gguf", result.Test{Prompt: 16}, 1701.32, 4.5, 16.26}, // on a CPU without AMX
		{"gemma-2b.Q4_K_M.gguf", result.Test{Prompt: 512}, 1734.10, 9, 520.52},
		{"gemma-2b.Q4_K_M.gguf", result.Test{Prompt: 16384}, 1734.10, 288, 536.02},
	} {
		shape, err := synth.Lookup(tt.model)
		if err != nil {
			t.Fatal(err)
		}
		header, err := shape.File()
		if err != nil {
			t.Fatal(err)
		}
		p := suite.Plan{Tests: []suite.PlannedTest{{Test: result.Test{Gen: 1}}, {Test: tt.test}}}
		got := p.Memory(header, 512, gguf.F16, gguf.F16)
		for _, part := range []struct {
			name          string
			bytes         uint64
			want, percent float64
		}{
			{"weights", got.Weights, tt.weights, 3},
			{"KV cache", got.Cache, tt.kvCache, 0},
			{"compute", got.Compute, tt.computing, 1},
			{"total", got.Total(), tt.weights + tt.kvCache + tt.computing, 3},
		} {
			mib := float64(part.bytes) / (1 << 20)
			if off := 100 * (mib/part.want - 1); math.Abs(off) > part.percent {
				t.Errorf("%s %v: %s %.2f MiB, logged %.2f: %.1f %% off", tt.model, tt.test, part.name, mib, part.want, off)
			}
		}
	}
}

func TestUpperBoundAndLikely(t *testing.T) {
	s := suite.Suite{Repetitions: 5, Targets: suite.DefaultTargets()}
	m := suite.Entry{Tests: []result.Test{{Prompt: 16}, {Gen: 16}, {Gen: 128}}}
	p := s.Plan(m, 1<<30, nil, 1)
	// 5 s + 80/2, 5 s + 80/1, 5 s + 640/5 for the tests, and to load what the first
	// of them gets.
	if bound, ok := p.UpperBound(); !ok || bound != 308*time.Second {
		t.Errorf("%v, %v", bound, ok)
	}
	if longest := p.Longest(); longest != m.Tests[2] {
		t.Errorf("longest is %v", longest)
	}
	likely, tests := p.Likely(map[result.Test]time.Duration{
		{Prompt: 16}:  time.Second,     // and once to warm up
		{Gen: 128}:    time.Minute,     // does not fit: its budget
		{Prompt: 512}: 9 * time.Second, // is not planned
	})
	if want := 6*time.Second + p.Tests[2].Budget; likely != want || tests != 2 {
		t.Errorf("likely %v of %d tests, want %v", likely, tests, want)
	}
	p = suite.Plan{LoadBudget: time.Second, Repetitions: 2, Tests: []suite.PlannedTest{
		{Test: result.Test{Gen: 64}, Budget: time.Minute},
		{Test: result.Test{Prompt: 128}}, // no limit
		{Test: result.Test{Gen: 128}, Budget: time.Minute},
		{Test: result.Test{Gen: 8}, Budget: time.Minute},
	}}
	if longest := p.Longest(); longest != p.Tests[1].Test {
		t.Errorf("longest is %v", longest)
	}
	if bound, ok := p.UpperBound(); ok {
		t.Errorf("a test without a limit, and a bound of %v", bound)
	}
	if likely, tests := p.Likely(map[result.Test]time.Duration{{Prompt: 128}: time.Minute, {Gen: 8}: time.Second}); likely != 182*time.Second || tests != 2 {
		t.Errorf("likely %v of %d tests", likely, tests)
	}
	p = suite.Plan{Tests: []suite.PlannedTest{{Test: result.Test{Gen: 8}, Budget: time.Minute}}}
	if bound, ok := p.UpperBound(); ok {
		t.Errorf("loading has no limit, and a bound of %v", bound)
	}
	none, minute := time.Duration(0), time.Minute
	if _, ok := s.Plan(m, 1<<30, &none, 1).UpperBound(); ok {
		t.Error("tests without a limit have a bound")
	}
	if bound, ok := s.Plan(m, 0, &minute, 1).UpperBound(); !ok || bound != 221*time.Second {
		t.Errorf("%v, %v", bound, ok)
	}
	if bound, ok := s.Plan(m, 1<<60, nil, 1e300).UpperBound(); !ok || bound <= 0 {
		t.Errorf("a large scale overflows: %v", bound)
	}
}
