package gpu

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

func TestCollect(t *testing.T) {
	for _, tt := range []struct {
		name, files string
		want        []Facts
	}{
		{"none", "-- sys/class/drm/version --\ndrm 1.1.0 20060810\n", nil},
		{"two, in a container without /sys", `
-- proc/driver/nvidia/version --
NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
-- proc/driver/nvidia/gpus/0000:18:00.0/information --
Model: 		 NVIDIA H100 80GB HBM3
IRQ:   		 18
GPU UUID: 	 GPU-01234567-89ab-cdef-0123-456789abcdef
Bus Type: 	 PCIe
Bus Location: 	 0000:18:00.0
-- proc/driver/nvidia/gpus/0000:2a:00.0/information --
Model: 		 NVIDIA H100 80GB HBM3
`, []Facts{
			{Model: "NVIDIA H100 80GB HBM3", PCIAddress: "0000:18:00.0", PCIVendor: "10de", Driver: "nvidia", DriverVersion: "535.129.03"},
			{Model: "NVIDIA H100 80GB HBM3", PCIAddress: "0000:2a:00.0", PCIVendor: "10de", Driver: "nvidia", DriverVersion: "535.129.03"},
		}},
		{"with a remote console, each with its nodes", `
-- proc/driver/nvidia/version --
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (archlinux-builder@archlinux)
-- proc/driver/nvidia/gpus/0000:C1:00.0/information --
Model: 		 NVIDIA L4
-- sys/class/drm/version --
drm 1.1.0 20060810
-- sys/class/drm/card0/device/vendor --
0x1a03
-- sys/class/drm/card0/device/device --
0x2000
-- sys/class/drm/card0/device/uevent --
DRIVER=ast
PCI_CLASS=30000
PCI_ID=1A03:2000
PCI_SLOT_NAME=0000:03:00.0
-- sys/class/drm/card0-VGA-1/device/enabled --
enabled
-- sys/class/drm/card1/device/vendor --
0x10de
-- sys/class/drm/card1/device/device --
0x27b8
-- sys/class/drm/card1/device/uevent --
DRIVER=nvidia
PCI_SLOT_NAME=0000:c1:00.0
-- sys/class/drm/renderD128/device/vendor --
0x10de
-- sys/class/drm/renderD128/device/device --
0x27b8
-- sys/class/drm/renderD128/device/uevent --
DRIVER=nvidia
PCI_SLOT_NAME=0000:c1:00.0
`, []Facts{
			{PCIAddress: "0000:03:00.0", PCIVendor: "1a03", PCIDevice: "2000", Driver: "ast"},
			{Model: "NVIDIA L4", PCIAddress: "0000:c1:00.0", PCIVendor: "10de", PCIDevice: "27b8", Driver: "nvidia", DriverVersion: "550.54.15"},
		}},
		{"AMD", `
-- sys/module/amdgpu/version --
6.7.0
-- sys/class/drm/renderD128/device/vendor --
0x1002
-- sys/class/drm/renderD128/device/device --
0x74a1
-- sys/class/drm/renderD128/device/uevent --
DRIVER=amdgpu
PCI_SLOT_NAME=0000:05:00.0
`, []Facts{{PCIAddress: "0000:05:00.0", PCIVendor: "1002", PCIDevice: "74a1", Driver: "amdgpu", DriverVersion: "6.7.0"}}},
		{"one with its driver, one with none, beside the network", `
-- proc/driver/nvidia/gpus/0000:18:00.0/information --
Model: 		 NVIDIA L4
-- sys/bus/pci/devices/0000:00:03.0/class --
0x020000
-- sys/bus/pci/devices/0000:00:03.0/vendor --
0x10de
-- sys/bus/pci/devices/0000:00:03.0/device --
0x1ec7
-- sys/bus/pci/devices/0000:00:1e.0/class --
0x030200
-- sys/bus/pci/devices/0000:00:1e.0/vendor --
0x10de
-- sys/bus/pci/devices/0000:00:1e.0/device --
0x1eb8
-- sys/bus/pci/devices/0000:00:1e.0/uevent --
PCI_CLASS=30200
PCI_SLOT_NAME=0000:00:1e.0
-- sys/bus/pci/devices/0000:18:00.0/class --
0x030200
-- sys/bus/pci/devices/0000:18:00.0/vendor --
0x10de
-- sys/bus/pci/devices/0000:18:00.0/device --
0x27b8
-- sys/bus/pci/devices/0000:18:00.0/uevent --
DRIVER=nvidia
PCI_SLOT_NAME=0000:18:00.0
`, []Facts{
			{PCIAddress: "0000:00:1e.0", PCIVendor: "10de", PCIDevice: "1eb8"},
			{Model: "NVIDIA L4", PCIAddress: "0000:18:00.0", PCIVendor: "10de", PCIDevice: "27b8", Driver: "nvidia"},
		}},
		{"no uevent: the nodes are one device", `
-- sys/class/drm/card0/device/vendor --
0x8086
-- sys/class/drm/card0/device/device --
0x56c0
-- sys/class/drm/renderD128/device/vendor --
0x8086
-- sys/class/drm/renderD128/device/device --
0x56c0
`, []Facts{{PCIVendor: "8086", PCIDevice: "56c0"}}},
		{"nonsense", `
-- proc/driver/nvidia/version --
NVRM version: none
-- sys/class/drm/card0/device/vendor --
10de
-- sys/class/drm/card0/device/device --
0x27b8
-- sys/class/drm/card1/device/vendor --
0x10de
-- sys/class/drm/card1/device/device --
0x27b8
-- sys/class/drm/card1/device/uevent --
DRIVER=../../etc
PCI_SLOT_NAME=
`, []Facts{{PCIVendor: "10de", PCIDevice: "27b8", Driver: "../../etc"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			if err := txtar.Write(txtar.Parse([]byte(tt.files)), root); err != nil {
				t.Fatal(err)
			}
			got, problem := Collect(root)
			if diff := cmp.Diff(tt.want, got); diff != "" || problem != "" {
				t.Errorf("%s (-want +got)\n%s", problem, diff)
			}
		})
	}
}
