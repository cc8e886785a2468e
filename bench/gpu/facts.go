// Package gpu knows this machine's GPUs: which there are, whether the engine uses
// them and why not, and what the driver reports about them during a test.
//
// It reads files below a root, "/" for this machine, so tests read a made-up one.
// NVIDIA's management library is opened at run time; nothing of it is linked.
package gpu

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Facts describes one GPU as the operating system and the driver show it. The
// engine need not be able to use it, and it need not have a driver. Simple display
// adapters, such as that of a server's remote console, count too. A fact that is
// not known is empty.
type Facts struct {
	Model         string `json:"model,omitempty"`          // "Model" of /proc/driver/nvidia/gpus/*/information
	PCIAddress    string `json:"pci_address,omitempty"`    // "0000:01:00.0": PCI_SLOT_NAME of the uevent below, or the name of the directory above
	PCIVendor     string `json:"pci_vendor,omitempty"`     // "10de" is NVIDIA, "1002" AMD, "8086" Intel: vendor of /sys/class/drm/*/device or /sys/bus/pci/devices/*
	PCIDevice     string `json:"pci_device,omitempty"`     // device, in the same directory
	Driver        string `json:"driver,omitempty"`         // DRIVER of uevent, in the same directory; nvidia
	DriverVersion string `json:"driver_version,omitempty"` // /proc/driver/nvidia/version, else /sys/module/DRIVER/version

	// From NVIDIA's management library.
	CUDAVersion       string `json:"cuda_version,omitempty"`       // newest CUDA version that the driver supports: "12.4"
	ComputeCapability string `json:"compute_capability,omitempty"` // "8.9"
	MemoryTotalBytes  uint64 `json:"memory_total_bytes,omitempty"`
}

// nvidia is NVIDIA's PCI vendor number.
const nvidia = "10de"

// Collect returns the GPUs of the machine whose files lie below root, sorted by PCI
// address. For root "/" it also asks NVIDIA's management library; nvmlProblem says
// why that library is installed but does not work.
func Collect(root string) (gpus []Facts, nvmlProblem string) {
	gpus = readFiles(root)
	if filepath.Clean(root) != "/" {
		return gpus, ""
	}
	switch n, err := startNVML(NVMLName); {
	case err == nil:
		defer n.Close()
		return withNVML(gpus, n.Devices()), ""
	case errors.Is(err, ErrNoNVML), errors.Is(err, ErrNoDriver):
		// No sign of a GPU. One without a driver was found on the PCI bus.
		return gpus, ""
	default:
		return gpus, err.Error()
	}
}

// readFiles returns the GPUs that three places show: NVIDIA's driver (in containers
// too), the kernel's graphics system, and the PCI bus (also GPUs without a driver).
//
// procfs/sysfs does not replace this: its PciDevices has no driver name and fails
// for all devices if one file of one device is missing, and its DRM reader knows
// amdgpu only.
func readFiles(root string) []Facts {
	var gpus []Facts
	// at returns the GPU at a PCI address, which it adds if it is new.
	at := func(address string) *Facts {
		i := slices.IndexFunc(gpus, func(g Facts) bool { return g.PCIAddress == address })
		if i < 0 || address == "" {
			i = len(gpus)
			gpus = append(gpus, Facts{PCIAddress: address})
		}
		return &gpus[i]
	}
	for _, file := range glob(root, "proc/driver/nvidia/gpus/*/information") {
		g := at(strings.ToLower(filepath.Base(filepath.Dir(file))))
		g.Model, g.Driver, g.PCIVendor = field(readText(file), "Model:"), "nvidia", nvidia
	}
	dirs := glob(root, "sys/class/drm/*/device") // a GPU has one node for display and one for computing
	for _, dir := range glob(root, "sys/bus/pci/devices/*") {
		if strings.HasPrefix(readText(dir+"/class"), pciDisplay) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		vendor, device, uevent := readText(dir+"/vendor"), readText(dir+"/device"), readText(dir+"/uevent")
		address, driver := field(uevent, "PCI_SLOT_NAME="), field(uevent, "DRIVER=")
		if !pciID.MatchString(vendor) || !pciID.MatchString(device) {
			continue // a connector, or a device that is not on a PCI bus
		}
		g := at(strings.ToLower(address))
		g.PCIVendor, g.PCIDevice = strings.TrimPrefix(vendor, "0x"), strings.TrimPrefix(device, "0x")
		g.Driver = cmp.Or(g.Driver, driver)
	}
	for i := range gpus {
		g := &gpus[i]
		if g.Driver == "nvidia" {
			g.DriverVersion = nvidiaVersion(root)
		}
		if g.DriverVersion == "" && driverName.MatchString(g.Driver) {
			g.DriverVersion = readText(filepath.Join(root, "sys/module", g.Driver, "version"))
		}
	}
	slices.SortStableFunc(gpus, func(a, b Facts) int { return cmp.Compare(a.PCIAddress, b.PCIAddress) })
	return slices.Compact(gpus) // the nodes of a GPU whose address is not known
}

// pciDisplay is how the PCI classes of display controllers begin. 3D controllers,
// such as most GPUs of servers, are among them.
const pciDisplay = "0x03"

var (
	pciID      = regexp.MustCompile(`^0x[0-9a-f]{4}$`)
	driverName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 …"
	// or "… UNIX Open Kernel Module for x86_64  550.54.15  Release Build …"
	nvidiaVersionLine = regexp.MustCompile(`(?m)^NVRM version:.*?\s(\d+(?:\.\d+)+)(?:\s|$)`)
)

// nvidiaVersion returns the version of NVIDIA's kernel driver, "" without one.
func nvidiaVersion(root string) string {
	if match := nvidiaVersionLine.FindStringSubmatch(readText(filepath.Join(root, "proc/driver/nvidia/version"))); match != nil {
		return match[1]
	}
	return ""
}

// field returns the rest of the line that begins with the key, "" without such a line.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// glob returns the paths below the root that match the pattern.
func glob(root, pattern string) []string {
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil { // a root that is no valid pattern matches nothing
		return nil
	}
	return paths
}

// readText returns a file without the white space around its content, "" if it
// cannot be read.
func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
