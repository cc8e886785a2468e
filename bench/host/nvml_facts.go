package host

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// NVMLName is the name under which NVIDIA's driver installs its library, and
// the container toolkit passes it on.
const NVMLName = "libnvidia-ml.so.1"

// ErrNoNVML is a machine without NVIDIA's library, or a build without telemetry.
var ErrNoNVML = errors.New("no NVIDIA management library")

// ErrNoDriver is NVIDIA's library on a machine where its driver is not loaded,
// as an image for all kinds of machines has it on those without a GPU.
var ErrNoDriver = errors.New("no NVIDIA driver is loaded")

// NVMLDevice is what NVIDIA's library says of a device that does not change. A
// fact that it does not tell is empty.
type NVMLDevice struct {
	Model             string // "NVIDIA L4"
	PCIAddress        string // "0000:01:00.0"
	DriverVersion     string // "550.54.15"
	CUDAVersion       string // the newest that the driver knows: "12.4"
	ComputeCapability string // "8.9"
	MemoryTotalBytes  uint64

	handle uintptr
}

// pciAddress is a PCI address as the kernel and CUDA write it, the domain of four
// digits or as many as it has, of one with eight digits or capitals.
func pciAddress(s string) string {
	s = strings.ToLower(s)
	if domain, rest, ok := strings.Cut(s, ":"); ok && len(domain) == 8 {
		short := strings.TrimLeft(domain, "0")
		return domain[min(8-len(short), 4):] + ":" + rest
	}
	return s
}

// withNVML adds what NVIDIA's library says of devices to what the operating
// system shows of them, and the devices that only the library shows.
func withNVML(gpus []GPU, devices []NVMLDevice) []GPU {
	for _, d := range devices {
		i := slices.IndexFunc(gpus, func(g GPU) bool { return g.PCIAddress == d.PCIAddress && d.PCIAddress != "" })
		if i < 0 {
			i = len(gpus)
			gpus = append(gpus, GPU{PCIAddress: d.PCIAddress, PCIVendor: "10de", Driver: "nvidia"})
		}
		g := &gpus[i]
		g.Model = cmp.Or(g.Model, d.Model)
		g.DriverVersion = cmp.Or(g.DriverVersion, d.DriverVersion)
		g.CUDAVersion, g.ComputeCapability, g.MemoryTotalBytes = d.CUDAVersion, d.ComputeCapability, d.MemoryTotalBytes
	}
	return gpus
}
