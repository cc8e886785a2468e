//go:build cgo && cpu

package llamacpp

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/llama"
)

// With build tag cpu one CPU variant is opened, and no other back-end's file.
func TestCPUBuildOpensNothingElse(t *testing.T) {
	devices, _, err := Devices(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(devices) != 1 || devices[0].Type != llama.CPUDevice {
		t.Errorf("devices: %+v", devices)
	}
	if diff := cmp.Diff([]string{"CPU"}, llama.BackendNames()); diff != "" {
		t.Error(diff)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"libggml-cuda", "libggml-rpc", "libggml-vulkan", "libggml-hip", "libcuda", "libnvidia-ml"} {
		if strings.Contains(string(maps), module) {
			t.Errorf("%s is loaded", module)
		}
	}
}
