//go:build cgo && linux && !cpu

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// fakeNVML makes the run's processes find a stand-in for NVIDIA's management
// library. settings configure it.
func fakeNVML(t *testing.T, r *faulty, settings ...string) {
	t.Helper()
	r.Env = append(append(r.Env, "LD_LIBRARY_PATH="+filepath.Dir(nvmlLibrary(t))), settings...)
}

// nvmlLibrary builds the stand-in and returns its path.
func nvmlLibrary(t *testing.T) string {
	t.Helper()
	return sharedLibrary(t, gpu.NVMLName, "../../bench/gpu/testdata/nvml/nvml.c")
}

func sharedLibrary(t *testing.T, name, source string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", path, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s(sudo apt-get install gcc)", err, out)
	}
	return path
}

// The reason why a GPU is not used is given before the run, in every record, in the
// report and at the end.
func TestGPUNotUsed(t *testing.T) {
	t.Parallel()
	const noBackend = "the CUDA back-end (libggml-cuda.so) is not installed"
	for _, tt := range []struct {
		name, setting string
		devices       int // that are watched
		reason        string
	}{
		{"the CUDA back-end is absent", "NVML_DEVICES=2", 2, noBackend},
		{"the driver's library is broken", "NVML_CODE=18", 0, "the driver's library does not work: libnvidia-ml.so.1 cannot be started: Driver/library version mismatch; " + noBackend},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, "-p", "8", "-n", "0", "-r", "1")
			fakeNVML(t, &r, tt.setting)
			r.start()
			r.over(exitOK)
			line := r.stdout.String()
			for _, want := range []string{`"backends":"CPU"`, `"gpu_info":""`, `"code":"` + result.WarnGPUNotUsed + `"`, tt.reason} {
				if !strings.Contains(line, want) {
					t.Errorf("the record has no %s: %s", want, line)
				}
			}
			if n := strings.Count(r.stderr.String(), tt.reason); n < 2 {
				t.Errorf("%d times on stderr, want one at the start and one at the end:\n%s", n, r.stderr.String())
			}
			// The devices were read beside the test, and rested.
			if n := strings.Count(r.events(), `"pci_address":"0000:c`); n != tt.devices {
				t.Errorf("%d devices observed, want %d:\n%s", n, tt.devices, r.events())
			}
			report, err := filepath.Glob(filepath.Join(r.results, "*", "report.md"))
			if err != nil || len(report) != 1 {
				t.Fatalf("reports: %v, %v", report, err)
			}
			if text, err := os.ReadFile(report[0]); err != nil || !strings.Contains(string(text), tt.reason) {
				t.Errorf("not in the report (%v):\n%s", err, text)
			}

			required := newFaulty(t, "--require-gpu", "-p", "8", "-n", "0")
			required.Env = append(r.Env, tt.setting)
			required.start()
			required.over(exitLibrary)
			if log := required.stderr.String(); !strings.HasPrefix(log, "benchmark-llm: no GPU is used: "+tt.reason) {
				t.Errorf("stderr:\n%s", log)
			}
			if dirs, err := os.ReadDir(required.results); err != nil || len(dirs) > 0 {
				t.Errorf("a run was begun: %v, %v", dirs, err)
			}
		})
	}
}

// A GPU whose back-end ends the process does not end the run. It is hidden from the
// workers, and every command says why.
func TestGPUThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	backend := sharedLibrary(t, "libggml-lost.so", "testdata/lostgpu/lostgpu.c")
	const reason = "the GPU cannot be opened: the worker crashed (exit code 2): CUDA error: all CUDA-capable devices are busy or unavailable"
	output := func(t *testing.T, code int, args ...string) (stdout, stderr string) {
		t.Helper()
		r := newFaulty(t, "-p", "8", "-n", "0", "-r", "1")
		fakeNVML(t, &r, "NVML_DEVICES=1", "GGML_BACKEND_PATH="+backend)
		if args[0] == "run" {
			r.Args = append(r.Args, args[1:]...)
		} else {
			r.Args = append([]string{"benchmark-llm"}, args...)
		}
		r.start()
		r.over(code)
		return r.stdout.String(), r.stderr.String()
	}
	if out, log := output(t, exitOK, "run"); !strings.Contains(out, `"backends":"CPU"`) || !strings.Contains(out, "there is a GPU: "+reason) || !strings.Contains(log, reason) {
		t.Errorf("run:\n%s%s", out, log)
	}
	if out, log := output(t, exitOK, "run", "--n-gpu-layers", "0"); !strings.Contains(out, `"backends":"CPU"`) || strings.Contains(out, result.WarnGPUNotUsed) {
		t.Errorf("run without layers on it:\n%s%s", out, log)
	}
	if _, log := output(t, exitLibrary, "run", "--require-gpu"); !strings.HasPrefix(log, "benchmark-llm: no GPU is used: "+reason) {
		t.Errorf("run that requires it:\n%s", log)
	}
	if _, log := output(t, exitLibrary, "run", "--device", "CUDA0"); !strings.Contains(log, "; "+reason) {
		t.Errorf("run that names it:\n%s", log)
	}
	if out, log := output(t, exitOK, "devices"); !strings.HasPrefix(out, "device ") || !strings.Contains(log, reason) {
		t.Errorf("devices:\n%s%s", out, log)
	}
	if out, log := output(t, exitOK, "plan", "-m", embedded, "--weights", "synthetic"); !strings.Contains(out, gpu.Unused+": "+reason+"\n") {
		t.Errorf("plan:\n%s%s", out, log)
	}
}

// Plans and lists of devices give the same reason.
func TestGPUNotUsedIsSaid(t *testing.T) {
	t.Parallel()
	for setting, reason := range map[string]string{
		"NVML_DEVICES=1": "the CUDA back-end (libggml-cuda.so) is not installed, or this build does not open it",
		"NVML_CODE=18": "the driver's library does not work: libnvidia-ml.so.1 cannot be started: Driver/library version mismatch; " +
			"the CUDA back-end (libggml-cuda.so) is not installed, or this build does not open it",
	} {
		output := func(args ...string) (stdout, stderr string) {
			t.Helper()
			r := newFaulty(t)
			fakeNVML(t, &r, setting)
			r.Args = append([]string{"benchmark-llm"}, args...)
			r.start()
			r.over(exitOK)
			return r.stdout.String(), r.stderr.String()
		}
		if out, log := output("devices"); !strings.HasPrefix(out, "device ") || !strings.Contains(log, `WRN a GPU cannot be used reason="`+reason+`"`) {
			t.Errorf("%s: devices:\n%s%s", setting, out, log)
		}
		flags := []string{"plan", "-m", embedded, "--weights", "synthetic"}
		if out, _ := output(flags...); !strings.Contains(out, "\na GPU cannot be used: "+reason+"\n") {
			t.Errorf("%s: plan:\n%s", setting, out)
		}
		var p acquire.Plan
		if out, _ := output(append(flags, "-o", "json")...); json.Unmarshal([]byte(out), &p) != nil || p.GPUNotUsed != reason {
			t.Errorf("%s: plan as JSON:\n%s", setting, out)
		}
	}
}

// The driver's library alone is no sign of a GPU. Images for all kinds of machines
// have it.
func TestNoGPU(t *testing.T) {
	t.Parallel()
	r := newFaulty(t)
	fakeNVML(t, &r, "NVML_CODE=9")
	r.Args = []string{"benchmark-llm", "devices"}
	r.start()
	r.over(exitOK)
	if log := r.stderr.String(); log != "" {
		t.Errorf("stderr:\n%s", log)
	}
}

// Lists and plans say how devices get their kernels. The memory of devices that
// cannot be used does not count.
func TestDevicesOfCUDA(t *testing.T) {
	found := foundDevices{
		devices: []llamacpp.Device{
			{Name: "CUDA0", Description: "NVIDIA L4", Type: "gpu", Backend: "CUDA", ID: "0000:C1:00.0", MemoryFreeBytes: 23 << 30, MemoryTotalBytes: 24 << 30},
			{Name: "CUDA1", Description: "NVIDIA T4", Type: "gpu", Backend: "CUDA", ID: "0000:c2:00.0", MemoryFreeBytes: 15 << 30, MemoryTotalBytes: 16 << 30},
			{Name: "Vulkan0", Description: "NVIDIA L4", Type: "gpu", Backend: "Vulkan", ID: "0000:c1:00.0", MemoryFreeBytes: 23 << 30, MemoryTotalBytes: 24 << 30},
			{Name: "CPU", Description: "a CPU", Type: "cpu", Backend: "CPU"},
		},
		gpus: gpu.Usage{Kernels: map[string]string{"0000:c1:00.0": gpu.NativeKernels, "0000:c2:00.0": gpu.PTXKernels}, Doubts: []string{"CUDA1 (NVIDIA T4): why"}, Unused: []result.UnusedDevice{{Name: "Vulkan0", Reason: "it is CUDA0"}}},
	}
	gpuType, cpuType := found.devices[0].Type, found.devices[3].Type
	want := []table.Row{
		{"CUDA0", gpuType, "CUDA", "23 GiB", "24 GiB", "NVIDIA L4, native kernels"},
		{"CUDA1", gpuType, "CUDA", "15 GiB", "16 GiB", "NVIDIA T4, kernels compiled by the driver at first use (PTX)"},
		{"Vulkan0", gpuType, "Vulkan", "23 GiB", "24 GiB", "NVIDIA L4, not used: it is CUDA0"},
		{"CPU", cpuType, "CPU", "?", "?", "a CPU"},
	}
	if diff := cmp.Diff(want, found.rows()); diff != "" {
		t.Errorf("rows (-want +got)\n%s", diff)
	}
	devices, free := found.plan()
	if free == nil || *free != 38<<30 {
		t.Errorf("free: %v", free)
	}
	p := acquire.Plan{Devices: devices, GPUDoubts: found.gpus.Doubts}
	var text strings.Builder
	if err := p.Write(&text, 0); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"devices: CUDA0 (gpu, 23 GiB free, native kernels), CUDA1 (gpu, 15 GiB free, kernels compiled by the driver at first use (PTX)), Vulkan0 (gpu, 23 GiB free, not used: it is CUDA0), CPU (cpu, ? free)\n",
		"a GPU may not work: CUDA1 (NVIDIA T4): why\n",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("no %q in\n%s", line, text.String())
		}
	}
	found.gpus = gpu.Usage{UnusedReason: "why"}
	if _, free := found.plan(); free != nil {
		t.Errorf("%d bytes free on devices that cannot be used", *free)
	}
}

// A required GPU is one that the engine lists, here that of another process, and
// that holds the model.
func TestRequireGPU(t *testing.T) {
	t.Parallel()
	endpoint, _ := rpcServer(t)
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string // on stderr
	}{
		{"it is there", []string{"--rpc", endpoint}, exitOK, ""},
		{"none is", nil, exitLibrary, "benchmark-llm: no GPU is used: the Vulkan back-end has no device: no Vulkan driver is installed, or none works\n"},
		{"none is wanted", []string{"--n-gpu-layers", "0"}, exitUsage, "benchmark-llm: --require-gpu: "},
	} {
		t.Run(tt.name, func(t *testing.T) { // one after another: a server has one client at a time
			r := newFaulty(t, append([]string{"--require-gpu", "-p", "8", "-n", "0", "-r", "1"}, tt.args...)...)
			r.start()
			r.over(tt.code)
			if log := r.stderr.String(); !strings.HasPrefix(log, tt.want) {
				t.Errorf("stderr:\n%s", log)
			}
			if tt.code != exitOK {
				return
			}
			for _, want := range []string{`"gpu":{"devices":[{"name":"RPC0","model":"` + endpoint + `","layers":31,`, `"precompile_s":`, `"backends":"RPC"`} {
				if !strings.Contains(r.stdout.String(), want) {
					t.Errorf("the record has no %s:\n%s", want, r.stdout.String())
				}
			}
		})
	}
}
