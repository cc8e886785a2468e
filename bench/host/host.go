// Package host collects facts and conditions of the machine. A fact that is not
// known is absent, never 0. Containers, virtual machines and other operating
// systems hide many facts. Every field names its source.
//
// Files are read below a root, "/" for this machine, so tests read a made-up one.
// CPUID and the environment are read for this machine only.
//
// /proc is read with procfs, /sys with readers of our own, because
// procfs/sysfs loses facts. Topology drops a CPU if one of four files is missing,
// where two are enough. SystemCpufreq fails for all CPUs if one of ten files is
// missing for one CPU, and reads clocks, which takes the kernel up to 50 ms for each
// CPU. DMIClass reads twenty files for two. Package gpu says why PCI devices are
// read the same way.
package host

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"github.com/prometheus/procfs"

	"github.com/sparecores/benchmark-llm/bench/gpu"
)

// Facts do not change while a benchmark runs.
type Facts struct {
	Arch           string            `json:"arch"` // of this program, by Go's name: "amd64"
	CPU            CPU               `json:"cpu"`
	Memory         Memory            `json:"memory,omitzero"`
	GPUs           []gpu.Facts       `json:"gpus,omitempty"`
	NVMLProblem    string            `json:"nvml_problem,omitempty"` // why NVIDIA's management library is installed but does not work
	Virtualization Virtualization    `json:"virtualization,omitzero"`
	Kernel         string            `json:"kernel,omitempty"`      // /proc/sys/kernel/osrelease
	OS             string            `json:"os,omitempty"`          // PRETTY_NAME of /etc/os-release
	Environment    map[string]string `json:"environment,omitempty"` // variables that change speed; secrets redacted
	Nice           *int              `json:"nice,omitempty"`        // getpriority(2) of this process, -20…19
	Energy         Energy            `json:"energy,omitzero"`       // how it is measured
	Build          string            `json:"build,omitempty"`       // fingerprint of the files of this program, libllama and ggml; see build
}

// Memory is the memory that this process may use.
type Memory struct {
	TotalBytes uint64 `json:"total_bytes,omitempty"` // MemTotal of /proc/meminfo
	LimitBytes uint64 `json:"limit_bytes,omitempty"` // lowest memory limit of the cgroup; absent if none is below the total
	HugePages  string `json:"huge_pages,omitempty"`  // mode in use of /sys/kernel/mm/transparent_hugepage/enabled: "madvise"
}

// Virtualization describes what lies between this process and the hardware.
type Virtualization struct {
	Hypervisor string `json:"hypervisor,omitempty"` // CPUID, else /sys/hypervisor/type, else "unknown" for the CPU flag "hypervisor"
	System     string `json:"system,omitempty"`     // vendor and product of /sys/class/dmi/id, else /proc/device-tree/model
	Container  string `json:"container,omitempty"`  // /run/systemd/container, /run/.containerenv, /.dockerenv
}

// machine reads facts below a root.
type machine struct {
	root string
	cpu  *cpuid.CPUInfo // nil unless root is "/"
}

func open(root string) machine {
	m := machine{root: root}
	if filepath.Clean(root) == "/" {
		m.cpu = &cpuid.CPU
	}
	return m
}

func (m machine) path(path string) string { return filepath.Join(m.root, path) }

func (m machine) proc() (procfs.FS, error) { return procfs.NewFS(m.path("proc")) }

func (m machine) text(path string) string { return readText(m.path(path)) }

// glob returns the paths below the root that match the pattern.
func (m machine) glob(pattern string) []string {
	paths, err := filepath.Glob(m.path(pattern))
	if err != nil { // a root that is no valid pattern matches nothing
		return nil
	}
	return paths
}

func (m machine) exists(path string) bool {
	_, err := os.Stat(m.path(path))
	return err == nil
}

// readText returns a file without the white space around its content, "" if it
// cannot be read. Files of the device tree end with a zero byte.
func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), " \n\x00")
}

// Collect reads the facts of the machine whose files lie below root, "/" for this
// one. It takes a few milliseconds per hundred CPUs.
func Collect(root string) Facts {
	m := open(root)
	info := m.readCPUInfo()
	f := Facts{
		Arch:           runtime.GOARCH,
		CPU:            m.describeCPU(info),
		Memory:         m.memory(),
		Virtualization: m.virtualization(info),
		Kernel:         m.text("proc/sys/kernel/osrelease"),
		OS:             m.osName(),
	}
	f.GPUs, f.NVMLProblem = gpu.Collect(root)
	energy := NewEnergyMeter(root)
	defer energy.Close()
	f.Energy = energy.Facts()
	if m.cpu != nil {
		f.Environment, f.Nice, f.Build = environment(os.Environ()), niceness(), build("/proc/self")
	}
	return f
}

func (m machine) memory() Memory {
	var r Memory
	if _, rest, ok := strings.Cut(m.text("sys/kernel/mm/transparent_hugepage/enabled"), "["); ok {
		r.HugePages, _, _ = strings.Cut(rest, "]")
	}
	if info, err := m.meminfo(); err == nil && info.MemTotalBytes != nil {
		r.TotalBytes = *info.MemTotalBytes
	}
	if limit, _, ok := m.memoryLimit(); ok && (r.TotalBytes == 0 || limit < r.TotalBytes) {
		r.LimitBytes = limit
	}
	return r
}

func (m machine) meminfo() (procfs.Meminfo, error) {
	proc, err := m.proc()
	if err != nil {
		return procfs.Meminfo{}, err
	}
	return proc.Meminfo()
}

func (m machine) virtualization(info cpuInfo) Virtualization {
	var v Virtualization
	switch {
	case m.cpu != nil && m.cpu.HypervisorVendorString != "":
		v.Hypervisor = strings.Trim(m.cpu.HypervisorVendorString, " \x00")
	case m.exists("sys/hypervisor/type"):
		v.Hypervisor = m.text("sys/hypervisor/type")
	case info.hasFlag("hypervisor"):
		v.Hypervisor = "unknown"
	}
	v.System = strings.TrimSpace(m.text("sys/class/dmi/id/sys_vendor") + " " + m.text("sys/class/dmi/id/product_name"))
	if v.System == "" {
		v.System = m.text("proc/device-tree/model")
	}
	switch {
	case m.text("run/systemd/container") != "":
		v.Container = m.text("run/systemd/container")
	case m.exists("run/.containerenv"):
		v.Container = "podman"
	case m.exists(".dockerenv"):
		v.Container = "docker"
	}
	return v
}

func (m machine) osName() string {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		for line := range strings.Lines(m.text(path)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				return strings.Trim(value, `"'`)
			}
		}
	}
	return ""
}
