//go:build cgo && linux && (amd64 || arm64) && !cpu

package llamacpp

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// onVulkan runs the calling test again in a process of its own with n Vulkan devices
// that really compute (benchtest.Lavapipe). It returns true in that process.
func onVulkan(t *testing.T, n int, settings ...string) bool {
	t.Helper()
	const mark = "BENCHMARK_LLM_TEST_VULKAN"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
	c.Env = append(append(os.Environ(), mark+"="+t.Name()), benchtest.Lavapipe(t, n, settings...)...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// vulkanEngine is an engine with the model of two layers loaded.
func vulkanEngine(t *testing.T, change func(*bench.Job)) (*Engine, bench.ModelFacts, error) {
	t.Helper()
	job := tinyJob(false, nil)
	change(&job)
	e, err := New(job, Options{})
	if err != nil {
		return nil, bench.ModelFacts{}, err
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	facts, err := e.Load(t.Context(), func(bench.Event) {})
	return e, facts, err
}

// Layers go to Vulkan devices as the settings ask, over one device or two, and a test
// computes there.
func TestVulkanOffload(t *testing.T) {
	if !onVulkan(t, 2) {
		return
	}
	for _, tt := range []struct {
		name   string
		change func(*bench.Settings)
		on     map[string]int // layers
	}{
		{"all on two", func(*bench.Settings) {}, map[string]int{"Vulkan0": 2, "Vulkan1": 1}},
		{"all on one", func(s *bench.Settings) { s.Devices = []string{"Vulkan1"} }, map[string]int{"Vulkan1": 3}},
		{"one layer", func(s *bench.Settings) { s.GPULayers, s.Devices = 1, []string{"Vulkan0"} }, map[string]int{"Vulkan0": 1}},
		{"none", func(s *bench.Settings) { s.GPULayers = 0 }, nil},
		{"no device", func(s *bench.Settings) { s.Devices = []string{bench.NoDevice} }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, facts, err := vulkanEngine(t, func(j *bench.Job) { tt.change(&j.Settings) })
			if err != nil {
				t.Fatal(err)
			}
			on := map[string]int{}
			for _, p := range facts.Placed {
				if on[p.Device] = p.Layers; p.WeightsBytes == 0 {
					t.Errorf("no weights on %s", p.Device)
				}
			}
			if len(on) != len(tt.on) {
				t.Errorf("layers %v, want %v", on, tt.on)
			}
			for name, n := range tt.on {
				if on[name] != n {
					t.Errorf("layers %v, want %v", on, tt.on)
				}
			}
			if err := e.Begin(result.Test{Prompt: 8}); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Repeat(1, true); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// With too little memory for the model, as many layers as fit are put on the device.
func TestVulkanMemory(t *testing.T) {
	if !onVulkan(t, 1, "FAKEVULKAN_MEMORY_MIB=192") {
		return
	}
	e, facts, err := vulkanEngine(t, func(j *bench.Job) {
		j.Model.Name = "SmolLM-135M.Q4_K_M.gguf"
		j.Tests = []bench.TestBudget{{Test: result.Test{Prompt: 8}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if o := facts.Offload; o == nil || o.Layers == 0 || o.Layers >= o.Of {
		t.Errorf("offload %+v, want a part", o)
	}
	if !slices.ContainsFunc(facts.Warnings, func(w result.Warning) bool { return w.Code == result.WarnPartialOffload }) {
		t.Errorf("warnings %q", facts.Warnings)
	}
	if err := errors.Join(e.Begin(result.Test{Prompt: 8}), second(e.Repeat(1, true))); err != nil {
		t.Error(err)
	}
}

// With too little memory for a test's context, that test is out of memory and others run.
func TestVulkanMemoryOfContext(t *testing.T) {
	if !onVulkan(t, 1, "FAKEVULKAN_MEMORY_MIB=400") {
		return
	}
	e, _, err := vulkanEngine(t, func(j *bench.Job) { j.Model.Name, j.Settings.GPULayers = "SmolLM-135M.Q4_K_M.gguf", 99 })
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Begin(result.Test{Prompt: 60000}); !errors.Is(err, bench.ErrOutOfMemory) {
		t.Errorf("a context that does not fit: %v", err)
	}
	if err := errors.Join(e.Begin(result.Test{Prompt: 8}), second(e.Repeat(1, true))); err != nil {
		t.Errorf("one that fits: %v", err)
	}
}

// Layers that the settings ask for and that do not fit are out of memory at load.
func TestVulkanMemoryAtLoad(t *testing.T) {
	if !onVulkan(t, 1, "FAKEVULKAN_MEMORY_MIB=48") {
		return
	}
	_, _, err := vulkanEngine(t, func(j *bench.Job) { j.Model.Name, j.Settings.GPULayers = "SmolLM-135M.Q4_K_M.gguf", 99 })
	if !errors.Is(err, bench.ErrOutOfMemory) {
		t.Errorf("%v, want out of memory", err)
	}
}

// An aborted prompt ends between two ubatches and an aborted generation between two
// tokens, and the context stays usable.
func TestVulkanAbort(t *testing.T) {
	if !onVulkan(t, 1) {
		return
	}
	e, _, err := vulkanEngine(t, func(j *bench.Job) { j.Settings.UBatch, j.Settings.Batch = 32, 64 })
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []result.Test{{Prompt: 8192}, {Gen: 8000}} {
		if err := errors.Join(e.Begin(result.Test{Prompt: 32, Gen: 1}), second(e.Warmup())); err != nil {
			t.Fatal(err) // shaders are compiled here
		}
		if err := e.Begin(test); err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(300*time.Millisecond, e.Abort)
		_, err := e.Repeat(1, true)
		stop.Stop()
		if !errors.Is(err, bench.ErrAborted) || e.Tokens() >= test.Tokens() {
			t.Errorf("%v: %v after %d tokens", test, err, e.Tokens())
		}
		e.ClearAbort()
		if err := errors.Join(e.Begin(result.Test{Prompt: 8, Gen: 2}), second(e.Repeat(1, true))); err != nil {
			t.Errorf("after an abort: %v", err)
		}
	}
}

func second(_ time.Duration, err error) error { return err }

// The logits of a prompt on Vulkan agree with those on the CPU, for every architecture.
// A device computes in half precision where the CPU uses 8-bit integers, so they differ
// by a few percent of their spread.
func TestVulkanLogits(t *testing.T) {
	if !onVulkan(t, 1) {
		return
	}
	for _, arch := range []string{"llama", "qwen2", "gemma", "phi3", "moe"} {
		t.Run(arch, func(t *testing.T) {
			header := small(t, arch)
			cpu, vulkan := logitsOn(t, header, arch, 0), logitsOn(t, header, arch, 99)
			var sum, squares, difference float64
			for i, v := range cpu {
				sum += float64(v)
				d := float64(vulkan[i]) - float64(v)
				difference += d * d
			}
			mean := sum / float64(len(cpu))
			for _, v := range cpu {
				squares += (float64(v) - mean) * (float64(v) - mean)
			}
			relative := math.Sqrt(difference / squares)
			t.Logf("%d logits differ by %.4f of their spread", len(cpu), relative)
			if len(cpu) == 0 || len(cpu) != len(vulkan) || math.IsNaN(relative) || relative > 0.1 || relative == 0 { // 0: both computed on the CPU
				t.Errorf("%d and %d logits differ by %g of their spread", len(cpu), len(vulkan), relative)
			}
		})
	}
}

// logitsOn computes a prompt with so many layers on the device and returns its logits.
func logitsOn(t *testing.T, header *gguf.File, name string, layers int) (logits []float32) {
	t.Helper()
	const tokens = 24
	stream, err := synth.FromHeader(name, header, 1, Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		if err = llama.LoadBackends(llama.AllBackends); err != nil {
			return
		}
		var m *llama.Model
		p := llama.ModelParams{LoadMode: llama.LoadNone, GPULayers: layers}
		if layers == 0 {
			p.Devices = []string{}
		}
		if m, err = llama.LoadModelStream(name, stream, p, nil); err != nil {
			return
		}
		defer m.Close() //nolint:errcheck // its context is closed
		var c *llama.Context
		if c, err = m.NewContext(llama.ContextParams{Context: tokens, Threads: 2, FlashAttention: llama.FlashOn}); err != nil {
			return
		}
		defer c.Close() //nolint:errcheck // on its thread
		prompt := make([]llama.Token, tokens)
		for i := range prompt {
			prompt[i] = int32(i * 7919 % m.Facts().Vocab)
		}
		if _, err = c.Timed().Repetition(prompt, nil, tokens); err == nil {
			logits, err = c.Logits()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(logits)
}
