package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
)

func TestJudgeGPU(t *testing.T) {
	packaged := host.CUDACode{
		Machine: []host.Capability{{Major: 8, Minor: 6}, {Major: 8, Minor: 9}},
		PTX:     []host.Capability{{Major: 5, Minor: 0}, {Major: 7, Minor: 5}, {Major: 9, Minor: 0}},
		ISA:     host.Capability{Major: 8, Minor: 4},
	}
	cublas := host.CUDACode{Machine: []host.Capability{{Major: 7, Minor: 5}, {Major: 8, Minor: 6}, {Major: 8, Minor: 9}, {Major: 9, Minor: 0}}}
	gpu := func(address, cuda, capability string) host.GPU {
		return host.GPU{PCIVendor: "10de", PCIAddress: address, Model: "a GPU", Driver: "nvidia", DriverVersion: "550.1", CUDAVersion: cuda, ComputeCapability: capability}
	}
	engine := func(gpus ...bench.EngineGPU) bench.EngineFacts {
		return bench.EngineFacts{CUDAModule: "/lib/libggml-cuda.so", GPUs: gpus}
	}
	cuda0 := bench.EngineGPU{Name: "CUDA0", Model: "NVIDIA A", Backend: "CUDA", PCIAddress: "0000:01:00.0"}
	cuda1 := bench.EngineGPU{Name: "CUDA1", Model: "NVIDIA B", Backend: "CUDA", PCIAddress: "0000:02:00.0"}
	with := func(e bench.EngineFacts, gpus ...host.GPU) gpuFacts {
		return gpuFacts{host: host.Facts{GPUs: gpus}, engine: e, cuda: &packaged, cublas: &cublas}
	}
	kernels := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, tt := range []struct {
		name  string
		facts gpuFacts
		want  gpuVerdict
	}{
		{"no GPU", gpuFacts{engine: engine()}, gpuVerdict{kernels: kernels()}},
		{"a remote console", with(engine(), host.GPU{PCIVendor: "1a03"}), gpuVerdict{kernels: kernels()}},
		{"native", with(engine(cuda0), gpu("0000:01:00.0", "12.4", "8.9")), gpuVerdict{kernels: kernels("0000:01:00.0", "native")}},
		{"PTX", with(engine(cuda0), gpu("0000:01:00.0", "12.4", "9.0")), gpuVerdict{kernels: kernels("0000:01:00.0", "ptx")}},
		{"nothing known of the device", with(engine(cuda0), gpu("0000:01:00.0", "", "")), gpuVerdict{kernels: kernels()}},
		{"nothing known of the library", gpuFacts{host: host.Facts{GPUs: []host.GPU{gpu("0000:01:00.0", "12.4", "8.9")}}, engine: engine(cuda0)}, gpuVerdict{kernels: kernels()}},
		{"a driver too old for the PTX", with(engine(cuda0), gpu("0000:01:00.0", "12.2", "9.0")), gpuVerdict{
			unused:  "CUDA0 (NVIDIA A): its driver 550.1 knows CUDA 12.2, and kernels for compute capability 9.0 must be compiled by one for CUDA 12.4 or newer",
			visible: "-1", left: []string{"CUDA0"}, kernels: kernels("0000:01:00.0", "ptx"),
		}},
		{"an old driver and machine code", with(engine(cuda0), gpu("0000:01:00.0", "12.2", "8.6")), gpuVerdict{kernels: kernels("0000:01:00.0", "native")}},
		{"older than all kernels", with(engine(cuda0), gpu("0000:01:00.0", "12.4", "3.5")), gpuVerdict{
			unused: "CUDA0 (NVIDIA A): the CUDA back-end has no kernels for compute capability 3.5", visible: "-1", left: []string{"CUDA0"}, kernels: kernels(),
		}},
		{"newer than cuBLAS", with(engine(cuda0), gpu("0000:01:00.0", "12.8", "12.0")), gpuVerdict{
			unused: "CUDA0 (NVIDIA A): the cuBLAS at hand does not know compute capability 12.0", visible: "-1", left: []string{"CUDA0"}, kernels: kernels("0000:01:00.0", "ptx"),
		}},
		{"newer than cuBLAS, whose PTX may do", gpuFacts{
			host: host.Facts{GPUs: []host.GPU{gpu("0000:01:00.0", "12.8", "12.0")}}, engine: engine(cuda0), cuda: &packaged,
			cublas: &host.CUDACode{Machine: cublas.Machine, PTX: []host.Capability{{Major: 9, Minor: 0}}},
		}, gpuVerdict{
			doubts:  []string{"CUDA0 (NVIDIA A): the cuBLAS at hand is older than compute capability 12.0 and has no machine code for it"},
			kernels: kernels("0000:01:00.0", "ptx"),
		}},
		{"one of two", with(engine(cuda0, cuda1), gpu("0000:01:00.0", "12.4", "3.5"), gpu("0000:02:00.0", "12.4", "8.9")), gpuVerdict{
			without: "CUDA0 (NVIDIA A): the CUDA back-end has no kernels for compute capability 3.5", left: []string{"CUDA0"}, visible: "1",
			kernels: kernels("0000:02:00.0", "native"),
		}},
		{"one of two that the user names", gpuFacts{
			host: host.Facts{GPUs: []host.GPU{gpu("0000:01:00.0", "12.4", "3.5"), gpu("0000:02:00.0", "12.4", "8.9")}}, named: true,
			engine: engine(cuda0, cuda1), cuda: &packaged, cublas: &cublas,
		}, gpuVerdict{doubts: []string{"CUDA0 (NVIDIA A): the CUDA back-end has no kernels for compute capability 3.5"}, kernels: kernels("0000:02:00.0", "native")}},
		{"one that another process has for itself", gpuFacts{
			host: host.Facts{GPUs: []host.GPU{gpu("0000:01:00.0", "12.4", "8.9"), gpu("0000:02:00.0", "12.4", "8.9")}}, visible: []string{"3", "GPU-2"},
			engine: engine(bench.EngineGPU{Name: "CUDA0", Model: "NVIDIA A", Backend: "CUDA", PCIAddress: "0000:01:00.0", Problem: "busy"}, cuda1), cuda: &packaged, cublas: &cublas,
		}, gpuVerdict{
			without: "CUDA0 (NVIDIA A): it gives no memory: busy", left: []string{"CUDA0"}, visible: "GPU-2",
			kernels: kernels("0000:01:00.0", "native", "0000:02:00.0", "native"),
		}},
		{"more than the back-end takes", gpuFacts{node: true, engine: engine(cuda0), visible: []string{"0", "1"}, limited: "2 of 3"}, gpuVerdict{
			visible: "0,1", limited: "2 of 3", kernels: kernels(),
		}},
		{"another back-end uses it", with(bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "Vulkan0", Backend: "Vulkan"}}}, gpu("0000:01:00.0", "12.4", "8.9")),
			gpuVerdict{kernels: kernels()}},
		{"devices of other machines are not this one's", with(bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "RPC0", Backend: "RPC"}}}, gpu("0000:01:00.0", "12.4", "8.9")), gpuVerdict{
			unused: "the CUDA back-end (libggml-cuda.so) is not installed, or not opened by this build", kernels: kernels(),
		}},
		{"no back-end", with(bench.EngineFacts{}, gpu("0000:01:00.0", "12.4", "8.9")), gpuVerdict{
			unused: "the CUDA back-end (libggml-cuda.so) is not installed, or not opened by this build", kernels: kernels(),
		}},
		{"no driver", with(engine(), host.GPU{PCIVendor: "10de"}), gpuVerdict{
			unused: "no NVIDIA driver is loaded, or none reaches this container", kernels: kernels(),
		}},
		{"kept for a guest", with(engine(), host.GPU{PCIVendor: "10de", Driver: "vfio-pci", DriverVersion: "0.2"}), gpuVerdict{
			unused: "no NVIDIA driver is loaded, or none reaches this container", kernels: kernels(),
		}},
		{"a broken driver and no back-end", gpuFacts{host: host.Facts{NVMLProblem: "Driver/library version mismatch"}}, gpuVerdict{
			unused:  "the driver's library does not work: Driver/library version mismatch; the CUDA back-end (libggml-cuda.so) is not installed, or not opened by this build",
			kernels: kernels(),
		}},
		{"initialisation failed", gpuFacts{node: true, engine: bench.EngineFacts{
			CUDAModule: "/lib/libggml-cuda.so", Problems: []string{"no vulkan here", "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version"},
		}}, gpuVerdict{
			unused: "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version", kernels: kernels(),
		}},
		{"hidden by the environment", gpuFacts{node: true, hidden: true, engine: engine()}, gpuVerdict{unused: "CUDA_VISIBLE_DEVICES names none", kernels: kernels()}},
		{"no device and no word", gpuFacts{node: true, engine: engine()}, gpuVerdict{unused: "the CUDA back-end lists no device", kernels: kernels()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, judgeGPU(tt.facts), cmp.AllowUnexported(gpuVerdict{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestLimitGPUs(t *testing.T) {
	gpus := func(n int) (all []host.GPU) {
		for range n {
			all = append(all, host.GPU{PCIVendor: "10de"})
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		facts gpuFacts
		want  int // that are visible; -1: as it is
	}{
		{"as many as the back-end takes", gpuFacts{host: host.Facts{GPUs: gpus(15)}}, -1},
		{"more", gpuFacts{host: host.Facts{GPUs: gpus(16)}}, 15},
		{"the user's choice", gpuFacts{host: host.Facts{GPUs: gpus(17)}, visible: []string{"16"}}, -1},
		{"none to be seen", gpuFacts{host: host.Facts{GPUs: gpus(17)}, hidden: true}, -1},
	} {
		before := len(tt.facts.visible)
		tt.facts.limit()
		if n := len(tt.facts.visible); tt.want >= 0 && n != tt.want || tt.want < 0 && n != before || (tt.facts.limited != "") != (tt.want >= 0) {
			t.Errorf("%s: %q, %q", tt.name, tt.facts.visible, tt.facts.limited)
		}
	}
}

// Workers cache compiled kernels beside the models, unless the user has a place
// for them; without a GPU nothing is set. What the user hides is known.
func TestWorkerEnv(t *testing.T) {
	o := &runOptions{}
	o.modelsDir = t.TempDir()
	has := func(want string) {
		t.Helper()
		if !slices.Contains(o.workerEnv(), want) {
			t.Errorf("no %s in %q", want, o.workerEnv())
		}
	}
	if env := o.workerEnv(); len(env) != 1 {
		t.Errorf("without a GPU: %q", env)
	}
	o.host.GPUs = []host.GPU{{PCIVendor: "10de"}}
	has("CUDA_CACHE_PATH=" + o.modelsDir + "/cuda-cache")
	made := func(dir string) {
		t.Helper()
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			t.Errorf("the driver finds no directory: %v", err)
		}
	}
	made(o.modelsDir + "/cuda-cache")
	has("CUDA_CACHE_MAXSIZE=4294967296")
	for visible, want := range map[string]bool{"0": false, "GPU-8932f937": false, "": true, "-1": true} {
		if t.Setenv("CUDA_VISIBLE_DEVICES", visible); gpuFactsHere(o.host).hidden != want {
			t.Errorf("CUDA_VISIBLE_DEVICES=%q hides the devices: %v", visible, !want)
		}
	}
	elsewhere := t.TempDir() + "/else/where"
	t.Setenv("CUDA_CACHE_PATH", elsewhere)
	t.Setenv("CUDA_CACHE_MAXSIZE", "1")
	if env := strings.Join(o.workerEnv(), " "); strings.Contains(env, "CUDA_") {
		t.Errorf("the user's are replaced: %s", env)
	}
	made(elsewhere)
	o.gpus.visible = "-1"
	has("CUDA_VISIBLE_DEVICES=-1")
}

// The memory of the host decides where nothing is offloaded, be it that a GPU is
// there and cannot be used.
func TestOffloads(t *testing.T) {
	here := drivers
	defer func() { drivers = here }()
	node := t.TempDir() + "/nvidia3"
	drivers = []string{node[:len(node)-1] + "[0-9]*"}
	o := &runOptions{settings: bench.DefaultSettings(1)}
	m := &models{options: o}
	if m.offloads() {
		t.Error("offloaded without a driver")
	}
	o.host.GPUs = []host.GPU{{PCIVendor: "10de"}}
	if !m.offloads() {
		t.Error("not offloaded to a GPU that the machine shows")
	}
	o.host.GPUs = nil
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !m.offloads() {
		t.Error("not offloaded with one")
	}
	o.gpus.unused = "why"
	if m.offloads() {
		t.Error("offloaded to a GPU that cannot be used")
	}
	o.settings.RPC = []string{"host:50052"}
	if !m.offloads() {
		t.Error("not offloaded to an RPC server")
	}
	if o.settings.GPULayers = 0; m.offloads() {
		t.Error("offloaded, though no layer is to be")
	}
}
