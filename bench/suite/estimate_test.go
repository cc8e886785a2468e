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

// The buffers that libllama 0.7.0 logged for synthetic models, in MiB, with ubatch 512
// and a KV cache of f16: "model buffer size", "KV buffer size", and the sum of
// "compute buffer size" and "output buffer size". The log has two decimals.
func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		model                       string
		repack                      gguf.Repack
		test                        result.Test
		weights, kvCache, computing float64
	}{
		{"SmolLM-135M.Q4_K_M.gguf", gguf.RepackAMX, result.Test{Prompt: 16}, 131.32, 5.625, 3.18 + 0.19},
		{"SmolLM-135M.Q4_K_M.gguf", gguf.RepackAVX2, result.Test{Prompt: 512}, 98.86, 11.25, 102.14 + 0.19},
		{"SmolLM-135M.Q4_K_M.gguf", gguf.RepackNone, result.Test{Gen: 4096}, 98.86, 90, 106.77 + 0.19},
		{"SmolLM-135M.Q4_K_M.gguf", gguf.RepackAMX, result.Test{Prompt: 16384}, 131.32, 360, 117.64 + 0.19},
		{"SmolLM-135M.Q4_K_M.gguf", gguf.RepackAMX, result.Test{Prompt: 512, Depth: 16384}, 131.32, 371.25, 118.14 + 0.19},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", gguf.RepackAMX, result.Test{Prompt: 16}, 386.51, 24, 9.59 + 0.58},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", gguf.RepackAVX2, result.Test{Prompt: 4096}, 382.62, 384, 312.77 + 0.58},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", gguf.RepackAVX2, result.Test{Prompt: 16384}, 382.62, 1536, 322.77 + 0.58},
		{"gemma-2b.Q4_K_M.gguf", gguf.RepackAVX2, result.Test{Prompt: 16}, 1701.32, 4.5, 16.26 + 0.98},
		{"gemma-2b.Q4_K_M.gguf", gguf.RepackAMX, result.Test{Prompt: 512}, 1734.10, 9, 520.52 + 0.98},
		{"gemma-2b.Q4_K_M.gguf", gguf.RepackUnknown, result.Test{Prompt: 16384}, 1701.32, 288, 536.02 + 0.98},
		{"llama-7b.Q4_K_M.gguf", gguf.RepackNone, result.Test{Prompt: 16384}, 3891.24, 8192, 126.52 + 0.12},
		{"phi-4-q4.gguf", gguf.RepackNone, result.Test{Prompt: 16384}, 8630.33, 3200, 262.02 + 0.38},
		{"Llama-3.3-70B-Instruct-Q4_K_M.gguf", gguf.RepackNone, result.Test{Prompt: 16384}, 40543.11, 5120, 346.52 + 0.49},
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
		got := p.Memory(header, gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16, Repack: tt.repack})
		for _, part := range []struct {
			name  string
			bytes uint64
			want  float64
		}{{"weights", got.Weights, tt.weights}, {"KV cache", got.Cache, tt.kvCache}, {"compute", got.Compute, tt.computing}} {
			mib := float64(part.bytes) / (1 << 20)
			if math.Abs(mib-part.want) > 0.0101 {
				t.Errorf("%s %v: %s %.3f MiB, logged %.2f", tt.model, tt.test, part.name, mib, part.want)
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
