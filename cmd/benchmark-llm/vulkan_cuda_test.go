//go:build cgo && linux && amd64 && !cpu

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A GPU that both CUDA and Vulkan list is used once, by CUDA, unless --device names the
// other. They are told apart by PCI address.
func TestOneGPUTwoBackends(t *testing.T) {
	t.Parallel()
	same := []result.UnusedDevice{{Name: "Vulkan0", Model: "Test GPU 0", Reason: "it is CUDA0 (0000:c1:00.0), which CUDA uses"}}
	for _, tt := range []struct {
		name   string
		bus    string // of the Vulkan device
		args   []string
		on     []string // devices that hold layers
		unused []result.UnusedDevice
	}{
		{"the same GPU", "c1", nil, []string{"CUDA0"}, same},
		{"another one", "c7", nil, []string{"Vulkan0", "CUDA0"}, nil}, // in the order in which they were opened,
		{
			"the same, by name", "c1", []string{"--device", "Vulkan0"}, []string{"Vulkan0"},
			[]result.UnusedDevice{{Name: "CUDA0", Model: "Fake GPU 0", Reason: "the settings name other devices"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := cudaRun(t, nil, append([]string{"-m", "tiny.Q4_K_M.gguf", "-p", "8", "-n", "0"}, tt.args...)...)
			r.Env = append(r.Env, benchtest.Lavapipe(t, 1, "FAKEVULKAN_BUS="+tt.bus)...)
			r.start()
			r.over(exitOK)
			for line := range strings.Lines(r.stdout.String()) {
				var rec result.Record
				if err := json.Unmarshal([]byte(line), &rec); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				var on, backends []string
				for _, d := range rec.Ext.GPU.Devices {
					on = append(on, d.Name)
					backends = append(backends, strings.TrimRight(d.Name, "0"))
				}
				if diff := cmp.Diff(tt.on, on); diff != "" || rec.Backends != strings.Join(backends, ",") {
					t.Errorf("back-ends %s\n%s", rec.Backends, diff)
				}
				if diff := cmp.Diff(tt.unused, rec.Ext.UnusedDevices); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}
