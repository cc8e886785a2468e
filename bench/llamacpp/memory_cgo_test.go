//go:build cgo

package llamacpp

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// rounding is the largest error of the report of two buffers, in bytes.
const rounding = 2 * 0.0051 * (1 << 20)

// The prediction agrees with the library's report, for each type of the cache, with
// and without flash attention. The library rounds each buffer to 0.01 MiB.
func TestMemoryPredicted(t *testing.T) {
	var tests []result.Test
	for _, n := range []int{1, 16, 300, 512, 1024, 4096, 16384} {
		tests = append(tests, result.Test{Gen: n})
	}
	for _, name := range append(synth.Names(), synth.Tiny) {
		for _, s := range []struct {
			k, v  string
			flash int
		}{{"f16", "f16", 1}, {"q8_0", "f32", 0}, {"q8_0", "q4_0", -1}} {
			t.Run(fmt.Sprint(name, s), func(t *testing.T) {
				job := bench.Job{Model: bench.Model{Name: name, Weights: result.SyntheticWeights, Seed: 1}, Settings: testSettings()}
				job.Settings.TypeK, job.Settings.TypeV, job.Settings.FlashAttn = s.k, s.v, s.flash
				reported, err := Report(job, tests)
				if err != nil {
					t.Fatal(err)
				}
				for i, test := range tests {
					got, want := predicted(t, job, test, gguf.RepackUnknown), reported[i]
					if off := math.Abs(float64(got.Cache) - float64(want.CacheBytes)); off > rounding {
						t.Errorf("%v: a cache of %d bytes, reported %d", test, got.Cache, want.CacheBytes)
					}
					if off := math.Abs(float64(got.Compute) - float64(want.ComputeBytes)); off > rounding {
						t.Errorf("%v: compute buffers of %d bytes, reported %d: %+.0f", test, got.Compute, want.ComputeBytes, float64(got.Compute)-float64(want.ComputeBytes))
					}
				}
			})
		}
	}
}

// The compute buffers of other architectures are within 1 %: normalised queries, experts,
// sliding windows.
func TestMemoryOfArchitectures(t *testing.T) {
	type keys = map[string]int
	for _, tt := range []struct {
		name, arch                                        string
		embedding, wide, vocabulary, heads, headsKV, head int
		more                                              keys
	}{
		{"Qwen3", "qwen3", 1024, 3072, 4096, 16, 8, 128, nil},
		{"Qwen3 with a large vocabulary", "qwen3", 1024, 3072, 100000, 16, 8, 128, nil},
		{"Qwen3 30B", "qwen3moe", 2048, 6144, 151936, 32, 4, 128, keys{"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768}},
		{"Mixtral", "llama", 4096, 14336, 32000, 32, 8, 128, keys{"expert_count": 8, "expert_used_count": 2}},
		{"Gemma 3", "gemma3", 1152, 6912, 4096, 4, 1, 256, keys{"attention.sliding_window": 512}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const layers = 7 // Gemma 3 has a layer without a window among each six
			kv := []gguf.KeyValue{
				{Key: "general.architecture", Value: tt.arch}, {Key: "tokenizer.ggml.model", Value: "none"},
				{Key: tt.arch + ".attention.layer_norm_rms_epsilon", Value: float32(1e-5)},
			}
			all := keys{
				"vocab_size": tt.vocabulary, "block_count": layers, "context_length": 4096, "embedding_length": tt.embedding, "feed_forward_length": tt.wide,
				"attention.head_count": tt.heads, "attention.head_count_kv": tt.headsKV,
				"attention.key_length": tt.head, "attention.value_length": tt.head, "rope.dimension_count": tt.head,
			}
			maps.Copy(all, tt.more)
			for key, n := range all {
				kv = append(kv, gguf.KeyValue{Key: tt.arch + "." + key, Value: uint32(n)})
			}
			var tensors []gguf.Tensor
			add := func(name string, dims ...uint64) {
				typ := gguf.F16
				if len(dims) == 1 {
					typ = gguf.F32
				}
				tensors = append(tensors, gguf.Tensor{Name: name + ".weight", Dims: dims, Type: typ})
			}
			embedding, wide, head := uint64(tt.embedding), uint64(tt.wide), uint64(tt.head)
			queries, keysAndValues := uint64(tt.heads)*head, uint64(tt.headsKV)*head
			add("token_embd", embedding, uint64(tt.vocabulary))
			add("output_norm", embedding)
			add("output", embedding, uint64(tt.vocabulary))
			for layer := range layers {
				layer := fmt.Sprintf("blk.%d.", layer)
				add(layer+"attn_norm", embedding)
				add(layer+"attn_q", embedding, queries)
				add(layer+"attn_k", embedding, keysAndValues)
				add(layer+"attn_v", embedding, keysAndValues)
				add(layer+"attn_output", queries, embedding)
				add(layer+"ffn_norm", embedding)
				if tt.arch != "llama" {
					add(layer+"attn_q_norm", head)
					add(layer+"attn_k_norm", head)
				}
				if tt.arch == "gemma3" {
					add(layer+"post_attention_norm", embedding)
					add(layer+"post_ffw_norm", embedding)
				}
				if experts := uint64(tt.more["expert_count"]); experts > 0 {
					wide := wide
					if n := tt.more["expert_feed_forward_length"]; n > 0 {
						wide = uint64(n)
					}
					add(layer+"ffn_gate_inp", embedding, experts)
					add(layer+"ffn_gate_exps", embedding, wide, experts)
					add(layer+"ffn_up_exps", embedding, wide, experts)
					add(layer+"ffn_down_exps", wide, embedding, experts)
				} else {
					add(layer+"ffn_gate", embedding, wide)
					add(layer+"ffn_up", embedding, wide)
					add(layer+"ffn_down", wide, embedding)
				}
			}
			header, err := gguf.New(kv, tensors)
			if err != nil {
				t.Fatal(err)
			}
			b, err := header.Header()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "header.gguf")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			job := bench.Job{Model: bench.Model{Name: "m.gguf", Path: path, Weights: result.SyntheticWeights, Seed: 1}, Settings: testSettings()}
			tests := []result.Test{{Prompt: 16}, {Prompt: 512}, {Prompt: 4096}}
			reported, err := Report(job, tests)
			if err != nil {
				t.Fatal(err)
			}
			for i, test := range tests {
				got, want := predicted(t, job, test, gguf.RepackUnknown), reported[i]
				if off := float64(got.Compute)/float64(want.ComputeBytes) - 1; math.Abs(off) > 0.01 {
					t.Errorf("%v: compute buffers of %d bytes, reported %d: %+.1f %%", test, got.Compute, want.ComputeBytes, 100*off)
				}
				if off := float64(got.Cache) - float64(want.CacheBytes); off < -rounding || off > rounding && tt.more["attention.sliding_window"] == 0 {
					t.Errorf("%v: a cache of %d bytes, reported %d", test, got.Cache, want.CacheBytes)
				}
			}
		})
	}
}

// predicted is the predicted memory of a default model.
func predicted(t *testing.T, job bench.Job, test result.Test, r gguf.Repack) gguf.Memory {
	t.Helper()
	header, err := headerOf(job.Model)
	if err != nil {
		t.Fatal(err)
	}
	c := gguf.Context{Tokens: test.Context(), UBatch: job.Settings.UBatch, FlashOff: job.Settings.FlashAttn == 0, Repack: r}
	for of, name := range map[*gguf.Type]string{&c.K: job.Settings.TypeK, &c.V: job.Settings.TypeV} {
		if *of, err = gguf.ParseType(name); err != nil {
			t.Fatal(err)
		}
	}
	return header.Memory(c)
}

// Weights are predicted exactly. Which copies the library makes depends on the CPU,
// and it makes none without repacking.
func TestWeightsPredicted(t *testing.T) {
	layouts := map[string]gguf.Repack{"sapphirerapids": gguf.RepackAMX}
	for _, variant := range []string{"haswell", "skylakex", "cannonlake", "cascadelake", "icelake", "cooperlake", "zen4", "alderlake"} {
		layouts[variant] = gguf.RepackAVX2
	}
	_, facts, err := Devices(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{synth.Tiny, smolLM, "qwen1_5-0_5b-chat-q4_k_m.gguf", "gemma-2b.Q4_K_M.gguf"} {
		for r, noRepack := range map[gguf.Repack]bool{gguf.RepackNone: true, layouts[facts.CPUVariant]: false} {
			job := bench.Job{Model: bench.Model{Name: name, Weights: result.SyntheticWeights, Seed: 1}, Settings: testSettings()}
			job.Settings.NoRepack = noRepack
			test := result.Test{Prompt: 1}
			reported, err := Report(job, []result.Test{test})
			if err != nil {
				t.Fatal(err)
			}
			got, want := float64(predicted(t, job, test, r).Weights), float64(reported[0].WeightsBytes)
			if got < want-rounding || got > want+rounding && r != gguf.RepackUnknown {
				t.Errorf("%s, layout %d: predicted %.0f bytes, reported %.0f", name, r, got, want)
			}
		}
	}
}

// Each test has the buffers that the library made for it, and a peak of its own.
func TestMemoryOfTests(t *testing.T) {
	e := loaded(t, smolJob())
	if m := e.Memory(); m != nil {
		t.Errorf("memory of no test: %+v", m)
	}
	measure := func(test result.Test) result.Memory {
		t.Helper()
		if err := e.Begin(test); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Repeat(1, true); err != nil {
			t.Fatal(err)
		}
		return *e.Memory()
	}
	long, short := measure(result.Test{Gen: 1, Depth: 300}), measure(result.Test{Prompt: 16})
	if err := e.End(); err != nil {
		t.Fatal(err)
	}
	if m := e.Memory(); m != nil {
		t.Errorf("memory of a test that ended: %+v", m)
	}
	const mib = 1 << 20
	for _, m := range []result.Memory{long, short} {
		if len(m.Devices) != 1 || m.Devices[0].Name != "CPU" || m.Devices[0].WeightsBytes != m.WeightsBytes || m.Devices[0].CacheBytes != m.CacheBytes || m.Devices[0].ComputeBytes != m.ComputeBytes {
			t.Errorf("not all memory is the CPU's: %+v", m)
		}
		if m.WeightsBytes < 98*mib || m.PeakResidentBytes < m.WeightsBytes || m.PeakSince != result.SinceTest {
			t.Errorf("memory %+v", m)
		}
	}
	if long.CacheBytes < 11*mib || short.CacheBytes > 6*mib || long.ComputeBytes < 60*mib || short.ComputeBytes > 4*mib ||
		long.PeakResidentBytes <= short.PeakResidentBytes {
		t.Errorf("a long test took %+v, a short one after it %+v", long, short)
	}
}

// Buffers count for the device whose memory they are, all others for the host.
func TestMemoryByDevice(t *testing.T) {
	devices := []llama.Device{
		{Name: "CUDA0", Type: llama.GPUDevice, BufferType: "CUDA0"}, {Name: "RPC1", Type: llama.GPUDevice, BufferType: "RPC0[host:1]"},
		{Name: "CPU", Type: llama.CPUDevice, BufferType: "CPU"},
	}
	buffers := func(b ...llama.Buffer) llama.Allocation { return llama.Allocation{Buffers: b} }
	got := memoryOf(devices,
		buffers(
			llama.Buffer{Kind: "model", Type: "CUDA0", SizeBytes: 1}, llama.Buffer{Kind: "model", Type: "AMX", SizeBytes: 2},
			llama.Buffer{Kind: "model", Type: "CPU_Mapped", SizeBytes: 4}, llama.Buffer{Kind: "model", Type: "RPC0[host:1]", SizeBytes: 8},
		),
		buffers(
			llama.Buffer{Kind: "output", Type: "CUDA_Host", SizeBytes: 16}, llama.Buffer{Kind: "KV", Type: "CUDA0", SizeBytes: 32},
			llama.Buffer{Kind: "RS", Type: "CUDA0", SizeBytes: 64}, llama.Buffer{Kind: "DSV4 index state", Type: "CPU", SizeBytes: 128},
			llama.Buffer{Kind: "compute", Type: "CUDA0", SizeBytes: 256}, llama.Buffer{Kind: "compute", Type: "CUDA_Host", SizeBytes: 512},
		),
	)
	want := result.Memory{
		WeightsBytes: 15, CacheBytes: 224, ComputeBytes: 784,
		Devices: []result.DeviceMemory{
			{Name: "CUDA0", WeightsBytes: 1, CacheBytes: 96, ComputeBytes: 256},
			{Name: "CPU", WeightsBytes: 6, CacheBytes: 128, ComputeBytes: 528},
			{Name: "RPC1", WeightsBytes: 8},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPeakIn(t *testing.T) {
	for status, want := range map[string]uint64{
		"Name:\tx\nVmHWM:\t   12345 kB\nVmRSS:\t     100 kB\n": 12345 << 10,
		"VmHWM:\t12 kB":                   12 << 10,
		"VmRSS:\t     100 kB\n":           0,
		"VmHWM:\t-1 kB\n":                 0,
		"VmHWM:\t12 pages\n":              0,
		"VmHWM:\t18446744073709551615 kB": 0,
		"":                                0,
	} {
		if got := peakIn(status); got != want {
			t.Errorf("%q: %d bytes, want %d", status, got, want)
		}
	}
}
