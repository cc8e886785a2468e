//go:build cgo && linux && amd64 && !cpu

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// cudaRun is a run with ggml's own CUDA back-end, on a CUDA that computes nothing
// (benchtest.FakeCUDA), and a driver's library to go with it. NVML's settings are
// those of nvml.c.
func cudaRun(t *testing.T, settings []string, args ...string) faulty {
	t.Helper()
	r := newFaulty(t, withUsual(args, "-r", "2")...)
	fakeNVML(t, &r, settings...)
	r.Env = append(r.Env, benchtest.FakeCUDA(t)...)
	return r
}

// gpus is so many devices.
func gpus(n int) []string {
	return []string{"FAKECUDA_DEVICES=" + strconv.Itoa(n), "NVML_DEVICES=" + strconv.Itoa(n)}
}

// What a record says of the CUDA devices is what the back-end did with them.
func TestCUDARecords(t *testing.T) {
	t.Parallel()
	all := []string{"-p", "8", "-n", "2"}
	for _, tt := range []struct {
		name     string
		settings []string
		args     []string
		code     int
		backends string   // of all records; "": there is none
		layers   []int    // on each device that holds some
		kernels  string   // of the first device
		warnings []string // that every record has, prefixes
		stderr   string   // part of it
	}{
		{name: "native kernels", args: all, backends: "CUDA", layers: []int{31}, kernels: gpu.NativeKernels},
		{
			name: "PTX", settings: []string{"FAKECUDA_CAPABILITY=90", "NVML_CAPABILITY=90"}, args: all, backends: "CUDA", layers: []int{31}, kernels: gpu.PTXKernels,
		},
		{
			name: "a driver too old for the PTX", settings: []string{"FAKECUDA_CAPABILITY=75", "NVML_CAPABILITY=75", "NVML_CUDA=12030"}, args: all, backends: "CPU",
			warnings: []string{"gpu_not_used: measured on the CPU although there is a GPU: CUDA0 (Fake GPU 0): driver 550.54.15 supports CUDA 12.3, but compiling kernels " +
				"for compute capability 7.5 needs CUDA 12.4 or newer"},
		},
		{
			name: "a driver too old for the back-end", settings: []string{"FAKECUDA_CODE=35"}, args: all, backends: "CPU",
			warnings: []string{"gpu_not_used: measured on the CPU although there is a GPU: ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient"},
		},
		{
			name: "no device", settings: []string{"FAKECUDA_CODE=100", "NVML_CODE=9"}, args: all, backends: "CPU",
			warnings: []string{"no_gpu: measured on the CPU: the CUDA back-end has no device: ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"},
			stderr:   "INF the CUDA back-end has no device",
		},
		{
			name: "no device, and one is required", settings: []string{"FAKECUDA_CODE=100", "NVML_CODE=9"}, args: append([]string{"--require-gpu"}, all...), code: exitLibrary,
			stderr: "benchmark-llm: no GPU is used: the CUDA back-end has no device: ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device",
		},
		{
			name: "a device that another process has for itself", settings: []string{"FAKECUDA_BUSY=1"}, args: all, backends: "CPU",
			warnings: []string{"gpu_not_used: measured on the CPU although there is a GPU: CUDA0 (Fake GPU 0): no memory can be allocated on it: allocating 1.00 MiB on device 0: " +
				"cudaMalloc failed: CUDA-capable device(s) is/are busy"},
		},
		{
			name: "the same, and a GPU is required", settings: []string{"FAKECUDA_BUSY=1"}, args: append([]string{"--require-gpu"}, all...), code: exitLibrary,
			stderr: "benchmark-llm: no GPU is used: CUDA0 (Fake GPU 0): no memory can be allocated on it",
		},
		{
			name: "one of two is too old", settings: append(gpus(2), "FAKECUDA_CAPABILITIES=35,89", "NVML_CAPABILITIES=35,89"), args: all, backends: "CUDA", layers: []int{31},
			stderr:   "WRN a GPU is left out reason=\"CUDA0 (Fake GPU 0): the CUDA back-end has no kernels",
			kernels:  gpu.NativeKernels,
			warnings: []string{"gpu_not_used: measured without one of the GPUs: CUDA0 (Fake GPU 0): the CUDA back-end has no kernels for compute capability 3.5"},
		},
		{
			name: "more than the back-end takes", settings: gpus(17), args: all, backends: "CUDA", layers: []int{3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, kernels: gpu.NativeKernels,
			warnings: []string{"devices_limited: 15 of 17 NVIDIA GPUs are used"},
		},
		{
			name: "too little memory for all layers", settings: []string{"FAKECUDA_MEMORY_MIB=320"}, args: all, backends: "CUDA", layers: []int{14}, kernels: gpu.NativeKernels,
			warnings: []string{"partial_offload: 14 of 31 layers on devices: with 15, "},
		},
		{
			name: "memory that is said to be free and is not", settings: []string{"FAKECUDA_MEMORY_MIB=1000", "FAKECUDA_RESERVED_MIB=680"}, args: all, backends: "CUDA",
			layers: []int{14}, kernels: gpu.NativeKernels, warnings: []string{"partial_offload: 14 of 31 layers on devices: with 15, "},
		},
		{
			name: "one test's context does not fit", settings: []string{"FAKECUDA_MEMORY_MIB=500"}, args: []string{"-ngl", "99", "-p", "8,60000", "-n", "0"},
			backends: "CUDA", layers: []int{31}, kernels: gpu.NativeKernels,
		},
		{name: "split by layer", settings: gpus(3), args: append([]string{"--tensor-split", "1/0/2"}, all...), backends: "CUDA", layers: []int{11, 20}, kernels: gpu.NativeKernels},
		{name: "one of three", settings: gpus(3), args: append([]string{"--device", "CUDA2"}, all...), backends: "CUDA", layers: []int{31}, kernels: gpu.NativeKernels},
		{name: "the main one", settings: gpus(2), args: append([]string{"--split-mode", "none", "--main-gpu", "1"}, all...), backends: "CUDA", layers: []int{31}, kernels: gpu.NativeKernels},
		{name: "split by tensor", settings: gpus(2), args: append([]string{"--split-mode", "tensor"}, all...), backends: "CUDA", layers: []int{31, 31}, kernels: gpu.NativeKernels},
		{
			name: "split by row", settings: gpus(2), args: append([]string{"--split-mode", "row"}, all...), code: exitUsage,
			stderr: "split mode row on CUDA0, whose back-end does not split rows",
		},
		{
			name: "less memory in use than the weights", settings: []string{"NVML_USED_MIB=50"}, args: all, backends: "CPU",
			warnings: []string{"gpu_not_used: measured on the CPU: the driver reports less memory in use than the weights need on CUDA0"},
		},
		{
			name: "another process computes there", settings: []string{"NVML_OTHERS=2"}, args: all, backends: "CUDA", layers: []int{31}, kernels: gpu.NativeKernels,
			warnings: []string{"gpu_shared: CUDA0 is also used by 2 other processes"},
		},
		{
			name: "an error of the device", settings: []string{"FAKECUDA_FAIL=1500"}, args: []string{"-p", "8", "-n", "0"}, code: exitNothing,
			stderr: "the worker crashed (exit code 2): CUDA error: an illegal memory access was encountered",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := cudaRun(t, tt.settings, tt.args...)
			r.start()
			r.over(tt.code)
			if !strings.Contains(r.stderr.String(), tt.stderr) {
				t.Errorf("stderr:\n%s", r.stderr.String())
			}
			// The library says it whenever it is asked for its devices.
			if n := strings.Count(r.stderr.String(), "cudaMemGetInfo failed"); n > 1 {
				t.Errorf("the same warning %d times:\n%s", n, r.stderr.String())
			}
			records := 0
			for line := range strings.Lines(r.stdout.String()) {
				var rec result.Record
				if err := json.Unmarshal([]byte(line), &rec); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				records++
				if rec.Backends != tt.backends {
					t.Errorf("back-ends %s, want %s", rec.Backends, tt.backends)
				}
				var layers []int
				if g := rec.Ext.GPU; g != nil {
					for _, d := range g.Devices {
						layers = append(layers, d.Layers)
						if d.Kernels != tt.kernels {
							t.Errorf("kernels %q of %s, want %q", d.Kernels, d.Name, tt.kernels)
						}
					}
				}
				if !slices.Equal(layers, tt.layers) || (layers == nil) != (rec.GPUInfo == "") {
					t.Errorf("layers %v on %q, want %v", layers, rec.GPUInfo, tt.layers)
				}
				for _, want := range tt.warnings {
					if !slices.ContainsFunc(rec.Ext.Warnings, func(w result.Warning) bool { return strings.HasPrefix(w.Code+": "+w.Message, want) }) {
						t.Errorf("no warning %q in %q", want, rec.Ext.Warnings)
					}
				}
			}
			if (records > 0) != (tt.backends != "") {
				t.Errorf("%d records; stderr:\n%s", records, r.stderr.String())
			}
		})
	}
}

// Every kernel is compiled before the first test: none is launched for the first
// time in one. Which kernels those are depends on the model, the lengths and the
// compute capability.
func TestCUDAKernelsAreCompiledBefore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		model      string
		capability int
		args       []string
	}{
		{embedded, 75, []string{"-p", "16,100,512,600", "-n", "4"}},
		{embedded, 89, []string{"-p", "16,512,2100", "-n", "4", "-d", "0,700"}},
		{"qwen1_5-0_5b-chat-q4_k_m.gguf", 90, []string{"-p", "16,512", "-n", "300"}},
		{"gemma-2b.Q4_K_M.gguf", 80, []string{"-p", "16,512", "-n", "4", "-d", "0,8192"}}, // eight heads share one of the cache
		{"gemma-2b.Q4_K_M.gguf", 120, []string{"-p", "512", "-n", "4", "-d", "8192"}},
	} {
		t.Run(fmt.Sprintf("%s, %d", tt.model, tt.capability), func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "launches")
			capability := strconv.Itoa(tt.capability)
			r := cudaRun(t, []string{"NVML_CAPABILITY=" + capability, "FAKECUDA_CAPABILITY=" + capability, "NVML_USED_MIB=9000", "FAKECUDA_DISCARD=1", "FAKECUDA_LOG=" + log},
				append([]string{"-m", tt.model}, tt.args...)...)
			r.start()
			r.over(exitOK)
			var ready time.Time
			for line := range strings.Lines(r.events()) {
				var s bench.Stamped
				if err := s.UnmarshalLine([]byte(strings.TrimSuffix(line, "\n"))); err != nil {
					t.Fatal(err)
				}
				if done, ok := s.Event.(bench.PrecompileDone); ok {
					if ready = s.At; done.Status != result.OK {
						t.Errorf("kernels were not compiled: %+v", done)
					}
				}
			}
			launches, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			kernels := 0
			for line := range strings.Lines(string(launches)) {
				var at int64
				var name string
				if _, err := fmt.Sscan(line, &at, &name); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				kernels++
				if ready.IsZero() || time.Unix(0, at).After(ready) {
					t.Errorf("compiled in a test: %s", name)
				}
			}
			if kernels < 10 {
				t.Errorf("%d kernels", kernels)
			}
		})
	}
}

// CUDA does not look at an abort while it computes: a pass of 512 tokens is ended
// after a ubatch, a generation after a token, and the worker lives on.
func TestCUDAAbort(t *testing.T) {
	t.Parallel()
	// Some 500 kernels of 1 ms: a ubatch or a token takes half a second.
	r := cudaRun(t, []string{"FAKECUDA_KERNEL_NS=1000000"}, "-p", "16384", "-n", "4096", "--timeout", "4s", "--no-warmup")
	r.start()
	r.over(exitNothing)
	aborts := 0
	for _, e := range r.steps() {
		switch e := e.(type) {
		case bench.AbortReturned:
			aborts++
		case bench.WorkerLost: // the whole prompt would have taken longer than its grace
			t.Errorf("the worker was lost: %s", e.Reason)
		}
	}
	if aborts == 0 {
		t.Errorf("nothing was aborted:\n%s", r.events())
	}
}

// A kernel that never ends costs its worker, and a signal ends the run at once.
func TestCUDAHang(t *testing.T) {
	t.Parallel()
	r := cudaRun(t, []string{"FAKECUDA_HANG=1700"}, "-p", "8", "-n", "0", "-r", "50")
	r.start()
	r.untilEvent("test_started", 1)
	time.Sleep(500 * time.Millisecond) // until it hangs
	r.kill(r.Process.Pid, syscall.SIGTERM)
	r.over(exitSignal + int(syscall.SIGTERM))
}
