//go:build cgo

package llamacpp

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/llama"
)

// Which devices are used by default: each GPU once, integrated ones only without another,
// software never.
func TestWhyUnused(t *testing.T) {
	device := func(name, backend, description, id string) llama.Device {
		return llama.Device{Name: name, Backend: backend, Description: description, ID: id, Type: llama.GPUDevice}
	}
	integrated := func(d llama.Device) llama.Device {
		d.Type = llama.IntegratedDevice
		return d
	}
	const at1, at2 = "0000:c1:00.0", "0000:C2:00.0"
	for _, tt := range []struct {
		name    string
		devices []llama.Device
		unused  map[string]string
	}{
		{"two GPUs", []llama.Device{device("Vulkan0", "Vulkan", "NVIDIA L4", at1), device("Vulkan1", "Vulkan", "NVIDIA L4", at2)}, nil},
		{"two GPUs without addresses", []llama.Device{device("Vulkan0", "Vulkan", "NVIDIA L4", ""), device("Vulkan1", "Vulkan", "NVIDIA L4", "")}, nil},
		{
			"one GPU, two back-ends", []llama.Device{device("Vulkan0", "Vulkan", "NVIDIA L4", "0000:c2:00.0"), device("CUDA0", "CUDA", "NVIDIA L4", at2)},
			map[string]string{"Vulkan0": "it is CUDA0 (0000:c2:00.0), which CUDA uses"},
		},
		{"two GPUs of one name, two back-ends", []llama.Device{device("Vulkan0", "Vulkan", "NVIDIA L4", at1), device("CUDA0", "CUDA", "NVIDIA L4", at2)}, nil},
		{
			"Vulkan knows no address", []llama.Device{device("ROCm0", "ROCm", "AMD Radeon RX 7900 XTX", at1), device("Vulkan0", "Vulkan", "AMD Radeon RX 7900 XTX (RADV NAVI31)", "")},
			map[string]string{"Vulkan0": "it is ROCm0 (by its name), which ROCm uses"},
		},
		{
			"Vulkan by Direct3D", []llama.Device{device("CUDA0", "CUDA", "NVIDIA L4", at1), device("Vulkan0", "Vulkan", "Microsoft Direct3D12 (NVIDIA L4)", "")},
			map[string]string{"Vulkan0": "it is CUDA0 (by its name), which CUDA uses"},
		},
		{"the name of another model", []llama.Device{device("CUDA0", "CUDA", "NVIDIA RTX 3080", at1), device("Vulkan0", "Vulkan", "NVIDIA RTX 3080 Ti", "")}, nil},
		{"no name", []llama.Device{device("CUDA0", "CUDA", "", at1), device("Vulkan0", "Vulkan", "NVIDIA L4", "")}, nil},
		{"another machine's", []llama.Device{device("RPC0", "RPC", "NVIDIA L4", ""), device("Vulkan0", "Vulkan", "NVIDIA L4", "")}, nil},
		{
			"integrated and discrete", []llama.Device{integrated(device("Vulkan0", "Vulkan", "Intel UHD", at1)), device("Vulkan1", "Vulkan", "NVIDIA L4", at2)},
			map[string]string{"Vulkan0": "it is integrated, and there is another GPU"},
		},
		{"integrated alone", []llama.Device{integrated(device("Vulkan0", "Vulkan", "Intel UHD", at1))}, nil},
		{
			"integrated and software", []llama.Device{integrated(device("Vulkan0", "Vulkan", "Intel UHD", at1)), device("Vulkan1", "Vulkan", "llvmpipe (LLVM 19, 256 bits)", "")},
			map[string]string{"Vulkan1": "it computes on the CPU; --device Vulkan1 uses it"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var unused map[string]string
			for _, d := range tt.devices {
				if why := whyUnused(d, tt.devices); why != "" {
					if unused == nil {
						unused = map[string]string{}
					}
					unused[d.Name] = why
				}
			}
			if diff := cmp.Diff(tt.unused, unused); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
