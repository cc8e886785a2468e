package session

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gpu"
)

// Workers see the devices that were chosen, and cache compiled kernels beside the
// models.
func TestWorkerEnv(t *testing.T) {
	r := &Session{}
	r.ModelsDir = t.TempDir()
	r.Host.GPUs = []gpu.Facts{{PCIVendor: "10de"}}
	r.gpus.Visible = "-1"
	want := []string{"GGML_NO_BACKTRACE=1", "CUDA_VISIBLE_DEVICES=-1", "CUDA_CACHE_PATH=" + r.ModelsDir + "/cuda-cache", "CUDA_CACHE_MAXSIZE=4294967296"}
	if diff := cmp.Diff(want, r.workerEnv()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if info, err := os.Stat(r.ModelsDir + "/cuda-cache"); err != nil || !info.IsDir() {
		t.Errorf("the driver finds no directory: %v", err)
	}
	t.Setenv("CUDA_CACHE_PATH", t.TempDir())
	t.Setenv("CUDA_CACHE_MAXSIZE", "1")
	if env := strings.Join(r.workerEnv(), " "); strings.Contains(env, "CUDA_CACHE") {
		t.Errorf("the user's values are replaced: %s", env)
	}
}

// The memory of the host decides if nothing is offloaded, for example because the
// GPU cannot be used.
func TestOnDevices(t *testing.T) {
	r := &Session{}
	r.Job.Settings = bench.DefaultSettings(1)
	r.Finder = func(acquire.Weights, string) (f acquire.Finder) { return f }
	onDevices := func() bool { return r.acquireOptions().OnDevices }
	if here := machineGPUs(r.Host); !here.OtherNode && !here.DeviceNode && onDevices() {
		t.Error("offloaded without a driver")
	}
	r.Host.GPUs = []gpu.Facts{{PCIVendor: "10de"}}
	if !onDevices() {
		t.Error("not offloaded to a GPU that the machine shows")
	}
	r.gpus.UnusedReason = "why"
	if onDevices() {
		t.Error("offloaded to a GPU that cannot be used")
	}
	r.Job.Settings.RPC = []string{"host:50052"}
	if !onDevices() {
		t.Error("not offloaded to an RPC server")
	}
	if r.Job.Settings.GPULayers = 0; onDevices() {
		t.Error("offloaded, though no layer is to be")
	}
}
