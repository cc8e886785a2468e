package gpu

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// NVMLName is the file name of NVIDIA's management library. The driver installs it
// and the container toolkit passes it into containers.
const NVMLName = "libnvidia-ml.so.1"

// ErrNoNVML means that this machine has no NVIDIA management library, or that this
// build does not read it (build tag cpu).
var ErrNoNVML = errors.New("no NVIDIA management library")

// ErrNoDriver means that NVIDIA's library is installed but its driver is not loaded.
// Machine images that serve all kinds of machines are like this without a GPU.
var ErrNoDriver = errors.New("no NVIDIA driver is loaded")

// NVMLDevice holds the facts that NVIDIA's library reports about a device and that
// do not change. A fact that it does not report is empty.
type NVMLDevice struct {
	Model             string // "NVIDIA L4"
	PCIAddress        string // "0000:01:00.0"
	DriverVersion     string // "550.54.15"
	CUDAVersion       string // newest CUDA version that the driver supports: "12.4"
	ComputeCapability string // "8.9"
	MemoryTotalBytes  uint64

	handle uintptr
}

// pciAddress converts NVML's PCI address (a domain of eight digits, capitals) to
// the format of the kernel and CUDA: lower case, a domain of four digits, or more
// if it needs them.
func pciAddress(s string) string {
	s = strings.ToLower(s)
	if domain, rest, ok := strings.Cut(s, ":"); ok && len(domain) == 8 {
		short := strings.TrimLeft(domain, "0")
		return domain[min(8-len(short), 4):] + ":" + rest
	}
	return s
}

// withNVML adds the facts of NVIDIA's library to those of the operating system,
// and the devices that only the library shows.
func withNVML(gpus []Facts, devices []NVMLDevice) []Facts {
	for _, d := range devices {
		i := slices.IndexFunc(gpus, func(g Facts) bool { return g.PCIAddress == d.PCIAddress && d.PCIAddress != "" })
		if i < 0 {
			i = len(gpus)
			gpus = append(gpus, Facts{PCIAddress: d.PCIAddress, PCIVendor: nvidia, Driver: "nvidia"})
		}
		g := &gpus[i]
		g.Model = cmp.Or(g.Model, d.Model)
		g.DriverVersion = cmp.Or(g.DriverVersion, d.DriverVersion)
		g.CUDAVersion, g.ComputeCapability, g.MemoryTotalBytes = d.CUDAVersion, d.ComputeCapability, d.MemoryTotalBytes
	}
	return gpus
}
