//go:build cgo

package llamacpp

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// If the token embedding is also the output, the library keeps it once without
// repacking, and at most twice with it. The estimate of memory counts on this.
func TestWeightsInMemory(t *testing.T) {
	const margin = 2 * 0.01 * (1 << 20) // two buffers, as the library rounds them
	for _, name := range []string{synth.Tiny, "SmolLM-135M.Q4_K_M.gguf"} {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		header, err := shape.File()
		if err != nil {
			t.Fatal(err)
		}
		twice := float64(header.Memory(1, 1, gguf.F16, gguf.F16).Weights)
		once := twice - float64(header.TiedBytes())
		for what, most := range map[string]float64{
			"repacked":     1.03 * twice, // AMX pads, by 2 % of gemma-2b
			"not repacked": once + margin,
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				job := tinyJob(false, nil)
				job.Model.Name, job.Settings.NoRepack = name, what == "not repacked"
				var got float64
				for _, b := range tinyEngine(t, job).model.Allocation().Buffers {
					if b.Kind == "model" {
						got += float64(b.SizeBytes)
					}
				}
				if got < once-margin || got > most {
					t.Errorf("%.0f bytes, estimated %.0f, or %.0f with a second embedding", got, once, twice)
				}
			})
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
	long, short := measure(result.Test{Prompt: 256, Depth: 256}), measure(result.Test{Prompt: 16})
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
	if long.CacheBytes < 11*mib || short.CacheBytes > 6*mib || long.ComputeBytes < 100*mib || short.ComputeBytes > 4*mib ||
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
