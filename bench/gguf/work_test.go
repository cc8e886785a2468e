package gguf_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// cached is the default context.
var cached = gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16}

// The work of every default model. The wanted numbers are computed from what the models'
// publishers say: the size and parameters of the file without the embedding that is only
// looked up, and layers, heads and widths of the attention.
func TestWorkOfDefaultModels(t *testing.T) {
	for _, m := range []struct {
		name                          string
		bytes, params                 uint64 // all
		lookedUpBytes, lookedUpParams uint64 // the embedding, and rope_freqs' no product
		vectors                       uint64 // parameters that are no factor of a product
		outputBytes, outputParams     uint64
		layers, heads, headsKV, head  uint64
	}{
		{"SmolLM-135M.Q4_K_M.gguf", 103_668_480, 134_515_008, 0, 0, 61 * 576, 576 / 32 * 34 * 49152, 576 * 49152, 30, 9, 3, 64},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", 401_210_368, 619_570_176, 1024 / 256 * 144 * 151936, 1024 * 151936, 49*1024 + 24*3*1024, 1024 / 256 * 210 * 151936, 1024 * 151936, 24, 16, 16, 64},
		{"gemma-2b.Q4_K_M.gguf", 1_489_055_744, 2_506_172_416, 0, 0, 37 * 2048, 2048 / 256 * 144 * 256000, 2048 * 256000, 18, 8, 1, 256},
		{"llama-7b.Q4_K_M.gguf", 4_080_263_168, 6_738_415_616, 4096 / 256 * 144 * 32000, 4096 * 32000, 65 * 4096, 4096 / 256 * 210 * 32000, 4096 * 32000, 32, 32, 32, 128},
		{"phi-4-q4.gguf", 9_049_559_040, 14_659_507_200, 5120 / 256 * 144 * 100352, 5120 * 100352, 81 * 5120, 5120 / 256 * 210 * 100352, 5120 * 100352, 40, 40, 10, 128},
		{"Llama-3.3-70B-Instruct-Q4_K_M.gguf", 42_512_531_712, 70_553_706_560, 8192 / 256 * 144 * 128256, 8192 * 128256, 161*8192 + 64, 8192 / 256 * 210 * 128256, 8192 * 128256, 80, 64, 8, 128},
	} {
		t.Run(m.name, func(t *testing.T) {
			shape, err := synth.Lookup(m.name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := shape.File()
			if err != nil {
				t.Fatal(err)
			}
			weights, ops := m.bytes-m.lookedUpBytes, 2*(m.params-m.lookedUpParams-m.vectors)
			cell, pair := m.layers*m.headsKV*m.head*2*2, m.layers*m.heads*m.head*2*2
			body, bodyOps := weights-m.outputBytes, ops-2*m.outputParams
			for test, want := range map[result.Test]gguf.Work{
				{Gen: 1}:               {WeightBytes: weights, CacheBytes: cell, Operations: ops, AttentionOps: pair},
				{Gen: 128}:             {WeightBytes: 128 * weights, CacheBytes: 128 * 129 / 2 * cell, Operations: 128 * ops, AttentionOps: 128 * 129 / 2 * pair},
				{Gen: 1, Depth: 4096}:  {WeightBytes: weights, CacheBytes: 4097 * cell, Operations: ops, AttentionOps: 4097 * pair},
				{Prompt: 512}:          {WeightBytes: weights, CacheBytes: 512 * cell, Operations: 512*bodyOps + 2*m.outputParams, AttentionOps: 512 * 513 / 2 * pair},
				{Prompt: 1024}:         {WeightBytes: 2*body + m.outputBytes, CacheBytes: (512 + 1024) * cell, Operations: 1024*bodyOps + 2*m.outputParams, AttentionOps: 1024 * 1025 / 2 * pair},
				{Prompt: 512, Gen: 16}: {WeightBytes: 17 * weights, CacheBytes: (512 + 16*512 + 16*17/2) * cell, Operations: 512*bodyOps + 2*m.outputParams + 16*ops, AttentionOps: (512*513/2 + 16*512 + 16*17/2) * pair},
			} {
				if diff := cmp.Diff(want, f.Work(test, cached)); diff != "" {
					t.Errorf("%v (-want +got):\n%s", test, diff)
				}
			}
		})
	}
}

// odd is a header with two layers of 256 elements and tensors besides.
func odd(t *testing.T, arch string, layers int, change keys, tensors ...gguf.Tensor) *gguf.File {
	t.Helper()
	change["block_count"] = uint32(layers)
	f := hparams(t, arch, change)
	all := []gguf.Tensor{{Name: "token_embd.weight", Dims: []uint64{256, 1000}, Type: gguf.F16}, {Name: "output.weight", Dims: []uint64{256, 1000}, Type: gguf.F16}}
	f, err := gguf.New(f.KV, append(all, tensors...))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Of a mixture of experts, each pass reads the experts that its tokens choose. A layer
// that only predicts further tokens does not run.
func TestWorkOfExperts(t *testing.T) {
	experts := func(layer int) gguf.Tensor {
		return gguf.Tensor{Name: fmt.Sprintf("blk.%d.ffn_down_exps.weight", layer), Dims: []uint64{256, 256, 8}, Type: gguf.F16}
	}
	f := odd(t, "glm4moe", 2, keys{"expert_count": uint32(8), "expert_used_count": uint32(2), "nextn_predict_layers": uint32(1)}, experts(0), experts(1))
	const output, all = 2 * 256 * 1000, 2 * 256 * 256 * 8
	cell := uint64(2 * 2 * 2 * 64) // keys and values, two heads of 64, f16
	for test, want := range map[result.Test]gguf.Work{
		{Gen: 1}:    {WeightBytes: output + all/4, CacheBytes: cell, Operations: 2*256*1000 + 2*2*256*256, AttentionOps: 2 * 4 * 128},
		{Prompt: 2}: {WeightBytes: output + all*7/16, CacheBytes: 2 * cell, Operations: 2*256*1000 + 2*2*2*256*256, AttentionOps: 3 * 2 * 4 * 128},
	} {
		if diff := cmp.Diff(want, f.Work(test, cached)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test, diff)
		}
	}
}

// In layers with a sliding window, a token attends to no more tokens than that.
func TestWorkOfWindows(t *testing.T) {
	const cell, pair = 2 * 2 * 2 * 64, 2 * 4 * 128
	for name, tt := range map[string]struct {
		arch          string
		change        keys
		windowed, all uint64 // layers, of three
	}{
		"every second":     {"gemma2", keys{"attention.sliding_window": uint32(100)}, 2, 1},
		"of six":           {"gemma3", keys{"attention.sliding_window": uint32(100)}, 3, 0},
		"by a key":         {"gemma3", keys{"attention.sliding_window": uint32(100), "attention.sliding_window_pattern": uint32(3)}, 2, 1},
		"layer by layer":   {"gemma4", keys{"attention.sliding_window": uint32(100), "attention.sliding_window_pattern": []bool{false, true, false}}, 1, 2},
		"ignored":          {"phi3", keys{"attention.sliding_window": uint32(100)}, 0, 3},
		"none":             {"gemma2", keys{}, 0, 3},
		"unknown, so none": {"new", keys{"attention.sliding_window": uint32(100)}, 0, 3},
	} {
		f := odd(t, tt.arch, 3, tt.change)
		for _, test := range []struct {
			result.Test
			reads, sees, windowReads, windowSees uint64
		}{
			{result.Test{Prompt: 64}, 64, 64 * 65 / 2, 64, 64 * 65 / 2},
			{result.Test{Prompt: 256}, 256, 256 * 257 / 2, 256, 100*101/2 + 156*100},
			{result.Test{Gen: 1, Depth: 500}, 501, 501, 100, 100},
			{result.Test{Prompt: 100, Depth: 50}, 150, 100*50 + 100*101/2, 150, 50*50 + 50*51/2 + 50*100},
		} {
			got := f.Work(test.Test, cached)
			if want := (tt.all*test.reads + tt.windowed*test.windowReads) * cell; got.CacheBytes != want {
				t.Errorf("%s, %v: %d bytes of cache, want %d", name, test.Test, got.CacheBytes, want)
			}
			if want := (tt.all*test.sees + tt.windowed*test.windowSees) * pair; got.AttentionOps != want {
				t.Errorf("%s, %v: %d operations of attention, want %d", name, test.Test, got.AttentionOps, want)
			}
		}
	}
}
