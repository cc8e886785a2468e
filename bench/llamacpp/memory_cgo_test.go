//go:build cgo

package llamacpp

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// The prediction agrees with the library's report, for each type of the cache, with
// and without flash attention. The library rounds each buffer to 0.01 MiB.
func TestMemoryPredicted(t *testing.T) {
	const rounding = 0.0051 * (1 << 20)
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
					if off := math.Abs(float64(got.Cache) - float64(want.CacheBytes)); off > 2*rounding {
						t.Errorf("%v: a cache of %d bytes, reported %d", test, got.Cache, want.CacheBytes)
					}
					if off := math.Abs(float64(got.Compute) - float64(want.ComputeBytes)); off > 2*rounding {
						t.Errorf("%v: compute buffers of %d bytes, reported %d: %+.0f", test, got.Compute, want.ComputeBytes, float64(got.Compute)-float64(want.ComputeBytes))
					}
				}
			})
		}
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
	const rounding = 2 * 0.0051 * (1 << 20) // two buffers
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
		if _, err := e.Repeat(1); err != nil {
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
