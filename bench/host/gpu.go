package host

import (
	"cmp"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// GPU is a device as the operating system shows it, whether or not the engine
// can use it, and whether or not it has a driver. Simple display adapters, as of
// a server's remote console, are among them.
type GPU struct {
	Model         string `json:"model,omitempty"`          // "Model" of /proc/driver/nvidia/gpus/*/information
	PCIAddress    string `json:"pci_address,omitempty"`    // "0000:01:00.0": PCI_SLOT_NAME of the uevent below, or the name of the directory above
	PCIVendor     string `json:"pci_vendor,omitempty"`     // "10de" is NVIDIA, "1002" AMD, "8086" Intel: vendor of /sys/class/drm/*/device or /sys/bus/pci/devices/*
	PCIDevice     string `json:"pci_device,omitempty"`     // device there
	Driver        string `json:"driver,omitempty"`         // DRIVER of uevent there; nvidia
	DriverVersion string `json:"driver_version,omitempty"` // /proc/driver/nvidia/version, else /sys/module/DRIVER/version

	// Of NVIDIA's management library.
	CUDAVersion       string `json:"cuda_version,omitempty"`       // the newest that the driver knows: "12.4"
	ComputeCapability string `json:"compute_capability,omitempty"` // "8.9"
	MemoryTotalBytes  uint64 `json:"memory_total_bytes,omitempty"`
}

// gpus are the devices of NVIDIA's driver, which shows them in containers too, of
// the kernel's graphics system, and of the PCI bus, which has them without a
// driver, too.
func (m machine) gpus() []GPU {
	var gpus []GPU
	// at is the device at a PCI address, made when it is not known yet.
	at := func(address string) *GPU {
		i := slices.IndexFunc(gpus, func(g GPU) bool { return g.PCIAddress == address })
		if i < 0 || address == "" {
			i = len(gpus)
			gpus = append(gpus, GPU{PCIAddress: address})
		}
		return &gpus[i]
	}
	for _, file := range m.glob("proc/driver/nvidia/gpus/*/information") {
		g := at(strings.ToLower(filepath.Base(filepath.Dir(file))))
		g.Model, g.Driver, g.PCIVendor = field(readText(file), "Model:"), "nvidia", "10de"
	}
	dirs := m.glob("sys/class/drm/*/device") // a card has a node for display and one for computing
	for _, dir := range m.glob("sys/bus/pci/devices/*") {
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
			g.DriverVersion = m.nvidiaVersion()
		}
		if g.DriverVersion == "" && driverName.MatchString(g.Driver) {
			g.DriverVersion = m.text("sys/module/" + g.Driver + "/version")
		}
	}
	slices.SortStableFunc(gpus, func(a, b GPU) int { return cmp.Compare(a.PCIAddress, b.PCIAddress) })
	return slices.Compact(gpus) // nodes without an address
}

// pciDisplay begins the PCI classes of display controllers: 3D controllers, as
// most GPUs of servers are, among them.
const pciDisplay = "0x03"

var (
	pciID      = regexp.MustCompile(`^0x[0-9a-f]{4}$`)
	driverName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 …"
	// or "… UNIX Open Kernel Module for x86_64  550.54.15  Release Build …"
	nvidiaVersion = regexp.MustCompile(`(?m)^NVRM version:.*?\s(\d+(?:\.\d+)+)(?:\s|$)`)
)

// nvidiaVersion is the version of NVIDIA's kernel driver, "" when there is none.
func (m machine) nvidiaVersion() string {
	if match := nvidiaVersion.FindStringSubmatch(m.text("proc/driver/nvidia/version")); match != nil {
		return match[1]
	}
	return ""
}

// field is the rest of the line that begins with the key, "" when there is none.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
