package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gpu"
)

// Workers see the devices that were chosen, and cache compiled kernels beside the
// models.
func TestWorkerEnv(t *testing.T) {
	o := &runOptions{}
	o.modelsDir = t.TempDir()
	o.host.GPUs = []gpu.Facts{{PCIVendor: "10de"}}
	o.gpus.Visible = "-1"
	want := []string{"GGML_NO_BACKTRACE=1", "CUDA_VISIBLE_DEVICES=-1", "CUDA_CACHE_PATH=" + o.modelsDir + "/cuda-cache", "CUDA_CACHE_MAXSIZE=4294967296"}
	if diff := cmp.Diff(want, o.workerEnv()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if info, err := os.Stat(o.modelsDir + "/cuda-cache"); err != nil || !info.IsDir() {
		t.Errorf("the driver finds no directory: %v", err)
	}
	t.Setenv("CUDA_CACHE_PATH", t.TempDir())
	t.Setenv("CUDA_CACHE_MAXSIZE", "1")
	if env := strings.Join(o.workerEnv(), " "); strings.Contains(env, "CUDA_CACHE") {
		t.Errorf("the user's values are replaced: %s", env)
	}
}

// The memory of the host decides if nothing is offloaded, for example because the
// GPU cannot be used.
func TestOnDevices(t *testing.T) {
	o := &runOptions{settings: bench.DefaultSettings(1)}
	o.selectOptions.register(pflag.NewFlagSet("run", pflag.ContinueOnError))
	onDevices := func() bool { return o.acquireOptions().OnDevices }
	if here := machineGPUs(o.host); !here.OtherNode && !here.DeviceNode && onDevices() {
		t.Error("offloaded without a driver")
	}
	o.host.GPUs = []gpu.Facts{{PCIVendor: "10de"}}
	if !onDevices() {
		t.Error("not offloaded to a GPU that the machine shows")
	}
	o.gpus.UnusedReason = "why"
	if onDevices() {
		t.Error("offloaded to a GPU that cannot be used")
	}
	o.settings.RPC = []string{"host:50052"}
	if !onDevices() {
		t.Error("not offloaded to an RPC server")
	}
	if o.settings.GPULayers = 0; onDevices() {
		t.Error("offloaded, though no layer is to be")
	}
}
