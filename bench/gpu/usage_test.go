package gpu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestUsage(t *testing.T) {
	packaged := CUDACode{
		Machine: []Capability{{8, 6}, {8, 9}},
		PTX:     []Capability{{5, 0}, {7, 5}, {9, 0}},
		ISA:     Capability{8, 4},
	}
	cublas := CUDACode{Machine: []Capability{{7, 5}, {8, 6}, {8, 9}, {9, 0}}}
	debian := libraries{&packaged, &cublas, nil}
	facts := func(address, cuda, capability string) Facts {
		return Facts{PCIVendor: nvidia, PCIAddress: address, Model: "a GPU", Driver: "nvidia", DriverVersion: "550.1", CUDAVersion: cuda, ComputeCapability: capability}
	}
	machine := func(gpus ...Facts) Machine { return Machine{GPUs: gpus} }
	engine := func(gpus ...bench.EngineGPU) bench.EngineFacts {
		return bench.EngineFacts{CUDAModule: "/lib/libggml-cuda.so", GPUs: gpus}
	}
	const address0, address1 = "0000:01:00.0", "0000:02:00.0"
	cuda0 := bench.EngineGPU{Name: "CUDA0", Model: "NVIDIA A", Backend: "CUDA", PCIAddress: address0}
	cuda1 := bench.EngineGPU{Name: "CUDA1", Model: "NVIDIA B", Backend: "CUDA", PCIAddress: address1}
	busy := cuda0
	busy.Problem = "busy"
	kernels := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	const noBackend = "the CUDA back-end (libggml-cuda.so) is not installed, or this build does not open it"
	const noDriver = "no NVIDIA driver is loaded, or this container has no access to it"
	for _, tt := range []struct {
		name    string
		machine Machine
		engine  bench.EngineFacts
		libs    libraries
		limit   string // why the engine was shown only some devices
		want    Usage
	}{
		{"no GPU", Machine{}, engine(), libraries{}, "", Usage{Kernels: kernels()}},
		{"a remote console", machine(Facts{PCIVendor: "1a03"}), engine(), debian, "", Usage{Kernels: kernels()}},
		{"native", machine(facts(address0, "12.4", "8.9")), engine(cuda0), debian, "", Usage{Kernels: kernels(address0, "native")}},
		{"PTX", machine(facts(address0, "12.4", "9.0")), engine(cuda0), debian, "", Usage{Kernels: kernels(address0, "ptx")}},
		{"device unknown", machine(facts(address0, "", "")), engine(cuda0), debian, "", Usage{Kernels: kernels()}},
		{"library unknown", machine(facts(address0, "12.4", "8.9")), engine(cuda0), libraries{}, "", Usage{Kernels: kernels()}},
		{"driver too old for the PTX", machine(facts(address0, "12.2", "9.0")), engine(cuda0), debian, "", Usage{
			UnusedReason: "CUDA0 (NVIDIA A): driver 550.1 supports CUDA 12.2, but compiling kernels for compute capability 9.0 needs CUDA 12.4 or newer",
			Visible:      "-1", LeftOut: []string{"CUDA0"}, Kernels: kernels(address0, "ptx"),
		}},
		{"old driver and machine code", machine(facts(address0, "12.2", "8.6")), engine(cuda0), debian, "", Usage{Kernels: kernels(address0, "native")}},
		{"older than all kernels", machine(facts(address0, "12.4", "3.5")), engine(cuda0), debian, "", Usage{
			UnusedReason: "CUDA0 (NVIDIA A): the CUDA back-end has no kernels for compute capability 3.5", Visible: "-1", LeftOut: []string{"CUDA0"}, Kernels: kernels(),
		}},
		{"newer than cuBLAS", machine(facts(address0, "12.8", "12.0")), engine(cuda0), debian, "", Usage{
			UnusedReason: "CUDA0 (NVIDIA A): the installed cuBLAS does not support compute capability 12.0", Visible: "-1", LeftOut: []string{"CUDA0"}, Kernels: kernels(address0, "ptx"),
		}},
		{"newer than cuBLAS, whose PTX may do", machine(facts(address0, "12.8", "12.0")), engine(cuda0),
			libraries{&packaged, &CUDACode{Machine: cublas.Machine, PTX: []Capability{{9, 0}}}, nil}, "", Usage{
				Doubts:  []string{"CUDA0 (NVIDIA A): the installed cuBLAS is older than compute capability 12.0 and has no machine code for it"},
				Kernels: kernels(address0, "ptx"),
			}},
		{"one of two", machine(facts(address0, "12.4", "3.5"), facts(address1, "12.4", "8.9")), engine(cuda0, cuda1), debian, "", Usage{
			LeftOutReason: "CUDA0 (NVIDIA A): the CUDA back-end has no kernels for compute capability 3.5", LeftOut: []string{"CUDA0"}, Visible: "1",
			Kernels: kernels(address1, "native"),
		}},
		{"one of two that the user names", Machine{GPUs: []Facts{facts(address0, "12.4", "3.5"), facts(address1, "12.4", "8.9")}, KeepNames: true},
			engine(cuda0, cuda1), debian, "", Usage{
				Doubts: []string{"CUDA0 (NVIDIA A): the CUDA back-end has no kernels for compute capability 3.5"}, Kernels: kernels(address1, "native"),
			}},
		{"another process has one for itself", Machine{GPUs: []Facts{facts(address0, "12.4", "8.9"), facts(address1, "12.4", "8.9")}, Visible: []string{"3", "GPU-2"}},
			engine(busy, cuda1), debian, "", Usage{
				LeftOutReason: "CUDA0 (NVIDIA A): no memory can be allocated on it: busy", LeftOut: []string{"CUDA0"}, Visible: "GPU-2",
				Kernels: kernels(address0, "native", address1, "native"),
			}},
		{"more than the back-end takes", Machine{DeviceNode: true, Visible: []string{"0", "1"}}, engine(cuda0), libraries{}, "2 of 3", Usage{
			Visible: "0,1", LimitReason: "2 of 3", Kernels: kernels(),
		}},
		{"another back-end uses it", machine(facts(address0, "12.4", "8.9")), bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "Vulkan0", Backend: "Vulkan"}}}, debian, "",
			Usage{Kernels: kernels()}},
		{"devices of other machines are not this one's", machine(facts(address0, "12.4", "8.9")), bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "RPC0", Backend: "RPC"}}}, debian, "",
			Usage{UnusedReason: noBackend, Kernels: kernels()}},
		{"no back-end", machine(facts(address0, "12.4", "8.9")), bench.EngineFacts{}, debian, "", Usage{UnusedReason: noBackend, Kernels: kernels()}},
		{"no driver", machine(Facts{PCIVendor: nvidia}), engine(), debian, "", Usage{UnusedReason: noDriver, Kernels: kernels()}},
		{"kept for a guest", machine(Facts{PCIVendor: nvidia, Driver: "vfio-pci", DriverVersion: "0.2"}), engine(), debian, "", Usage{UnusedReason: noDriver, Kernels: kernels()}},
		{"broken driver and no back-end", Machine{NVMLProblem: "Driver/library version mismatch"}, bench.EngineFacts{}, libraries{}, "", Usage{
			UnusedReason: "the driver's library does not work: Driver/library version mismatch; " + noBackend, Kernels: kernels(),
		}},
		{"initialisation failed", Machine{DeviceNode: true}, bench.EngineFacts{
			CUDAModule: "/lib/libggml-cuda.so", Problems: []string{"no vulkan here", "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version"},
		}, libraries{}, "", Usage{
			UnusedReason: "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version", Kernels: kernels(),
		}},
		{"hidden by the environment", Machine{DeviceNode: true, Hidden: true}, engine(), libraries{}, "", Usage{UnusedReason: "CUDA_VISIBLE_DEVICES hides all GPUs", Kernels: kernels()}},
		{"no device and no reason", Machine{DeviceNode: true}, engine(), libraries{}, "", Usage{UnusedReason: "the CUDA back-end lists no device", Kernels: kernels()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.machine.judge(tt.engine, tt.libs, tt.limit)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestLimitVisible(t *testing.T) {
	gpus := func(n int) (all []Facts) {
		for range n {
			all = append(all, Facts{PCIVendor: nvidia})
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		machine Machine
		want    int // visible devices; -1: as in the environment
	}{
		{"as many as the back-end takes", Machine{GPUs: gpus(15)}, -1},
		{"more", Machine{GPUs: gpus(16)}, 15},
		{"the user's choice", Machine{GPUs: gpus(17), Visible: []string{"16"}}, -1},
		{"all hidden", Machine{GPUs: gpus(17), Hidden: true}, -1},
	} {
		visible, reason := tt.machine.limitVisible()
		want := tt.want
		if want < 0 {
			want = len(tt.machine.Visible)
		}
		if len(visible) != want || (reason != "") != (tt.want >= 0) {
			t.Errorf("%s: %q, %q", tt.name, visible, reason)
		}
	}
}

// A worker that is lost is asked again with the GPU hidden. Any other failure is
// the caller's.
func TestAsk(t *testing.T) {
	lost := errors.Join(errors.New("crashed"), bench.ErrWorkerLost)
	refused := errors.New("no such device")
	many := make([]Facts, maxVisible+1)
	for i := range many {
		many[i].PCIVendor = nvidia
	}
	one := many[:1]
	const all15 = "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14"
	for _, tt := range []struct {
		name    string
		machine Machine
		errs    []error  // of the probes, in order
		env     []string // of each probe
		visible string
		want    Usage
		err     error
	}{
		{"it answers", Machine{}, []error{nil}, []string{""}, "", Usage{Kernels: map[string]string{}}, nil},
		{"more than the library takes", Machine{GPUs: many}, []error{nil}, []string{"CUDA_VISIBLE_DEVICES=" + all15}, all15, Usage{
			UnusedReason: "no NVIDIA driver is loaded, or this container has no access to it; the CUDA back-end (libggml-cuda.so) is not installed, or this build does not open it",
			LimitReason:  "15 of 16 NVIDIA GPUs are used, because the library takes no more; set CUDA_VISIBLE_DEVICES to choose others",
			Visible:      all15, Kernels: map[string]string{},
		}, nil},
		{"it is lost", Machine{GPUs: one}, []error{lost, nil}, []string{"", "CUDA_VISIBLE_DEVICES=-1"}, "-1",
			Usage{UnusedReason: "the GPU cannot be opened: " + lost.Error(), Visible: "-1"}, nil},
		{"it is lost again", Machine{GPUs: one}, []error{lost, lost}, []string{"", "CUDA_VISIBLE_DEVICES=-1"}, "-1",
			Usage{UnusedReason: "the GPU cannot be opened: " + lost.Error(), Visible: "-1"}, lost},
		{"it is lost without a GPU", Machine{}, []error{lost}, []string{""}, "", Usage{}, lost},
		{"it refuses", Machine{GPUs: one}, []error{refused}, []string{""}, "", Usage{}, refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var env []string
			a, err := tt.machine.Ask(t.Context(), func(_ context.Context, e []string) (bench.EngineFacts, error) {
				env = append(env, strings.Join(e, " "))
				return bench.EngineFacts{}, tt.errs[len(env)-1]
			})
			if !errors.Is(err, tt.err) || !slices.Equal(env, tt.env) || a.Visible != tt.visible {
				t.Errorf("error %v, environments %q, visible %q", err, env, a.Visible)
			}
			if diff := cmp.Diff(tt.want, a.Usage); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestRequired(t *testing.T) {
	installed := bench.EngineFacts{CUDAModule: "libggml-cuda.so", Problems: []string{"CUDA: no device"}}
	for _, tt := range []struct {
		name   string
		answer Answer
		want   string
	}{
		{"used", Answer{Engine: bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "RPC0", Backend: "RPC"}}}}, ""},
		{"none", Answer{}, "no GPU is used: the library lists none"},
		{"a back-end without a device", Answer{Engine: installed}, "no GPU is used: the CUDA back-end has no device: CUDA: no device"},
		{"not used", Answer{Engine: installed, Usage: Usage{UnusedReason: "why"}}, "no GPU is used: why"},
	} {
		switch err := tt.answer.Required(); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (!errors.Is(err, ErrNotUsed) || err.Error() != tt.want):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestUsageWarnings(t *testing.T) {
	if w := (Usage{UnusedReason: vulkanNotOpened + "why"}).Warnings(); len(w) != 1 || w[0].Message != "measured on the CPU: a Vulkan driver cannot be opened: why" {
		t.Errorf("a driver that may be without a GPU: %q", w)
	}
	got := Usage{UnusedReason: "a", LeftOutReason: "b", LimitReason: "c"}.Warnings()
	want := []result.Warning{
		{Code: "devices_limited", Message: "c"},
		{Code: "gpu_not_used", Message: "measured without one of the GPUs: b"},
		{Code: "gpu_not_used", Message: "measured on the CPU although there is a GPU: a"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// NewMachine finds device nodes and reads CUDA_VISIBLE_DEVICES.
func TestNewMachine(t *testing.T) {
	root := t.TempDir()
	if NewMachine(root, nil, "").HasNVIDIA() {
		t.Error("a GPU without a sign of one")
	}
	if err := os.MkdirAll(root+"/dev", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/dev/nvidia3", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !NewMachine(root, nil, "").HasNVIDIA() {
		t.Error("a device node is overlooked")
	}
	for visible, want := range map[string]struct {
		hidden  bool
		visible []string
	}{"0": {false, []string{"0"}}, "GPU-8932f937,1": {false, []string{"GPU-8932f937", "1"}}, "": {true, nil}, "-1": {true, nil}} {
		t.Setenv("CUDA_VISIBLE_DEVICES", visible)
		if m := NewMachine(root, nil, ""); m.Hidden != want.hidden || !slices.Equal(m.Visible, want.visible) {
			t.Errorf("CUDA_VISIBLE_DEVICES=%q: %+v", visible, m)
		}
	}
}

// The driver's cache of compiled kernels is beside the models, unless the user has
// a place for it. Without a GPU nothing is set.
func TestCacheEnv(t *testing.T) {
	dir := t.TempDir()
	exists := func(dir string) {
		t.Helper()
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			t.Errorf("the driver finds no directory: %v", err)
		}
	}
	if env := (Machine{}).CacheEnv(dir); len(env) > 0 {
		t.Errorf("without a GPU: %q", env)
	}
	m := Machine{GPUs: []Facts{{PCIVendor: nvidia}}}
	if diff := cmp.Diff([]string{"CUDA_CACHE_PATH=" + dir + "/cuda-cache", "CUDA_CACHE_MAXSIZE=4294967296"}, m.CacheEnv(dir)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	exists(dir + "/cuda-cache")
	elsewhere := t.TempDir() + "/else/where"
	t.Setenv("CUDA_CACHE_PATH", elsewhere)
	t.Setenv("CUDA_CACHE_MAXSIZE", "1")
	if env := m.CacheEnv(dir); len(env) > 0 {
		t.Errorf("the user's values are replaced: %q", env)
	}
	exists(elsewhere)
}

// Nodes of drivers tell whether weights may go to a GPU.
func TestMayHold(t *testing.T) {
	for _, tt := range []struct {
		node, unused string
		want         bool
	}{{"", "", false}, {"nvidia3", "", true}, {"kfd", "", true}, {"dri", "", true}, {"dxg", "", true}, {"null", "", false}, {"kfd", "why", false}} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "dev", tt.node), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := NewMachine(root, nil, "").MayHold(tt.unused); got != tt.want {
			t.Errorf("%q, unused %q: %v", tt.node, tt.unused, got)
		}
	}
}
