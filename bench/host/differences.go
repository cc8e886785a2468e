package host

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench/gpu"
)

// A Difference is a fact that changed between two processes of a run.
type Difference struct {
	What        string // "allowed CPUs"
	Before, Now string // "none" stands for nothing
	Machine     bool   // the two processes ran on different machines
}

func (d Difference) String() string { return fmt.Sprintf("%s: %s, now %s", d.What, d.Before, d.Now) }

// Differences returns what differs between f and the facts of an earlier process, as
// far as it changes speed. A fact that one of the two does not know is no difference.
func (f Facts) Differences(before Facts) []Difference {
	var all []Difference
	// add compares a fact that is known if it is not empty.
	add := func(machine bool, what, before, now string) {
		if before != "" && now != "" && before != now {
			all = append(all, Difference{what, before, now, machine})
		}
	}
	// addOptional compares a fact that need not exist.
	addOptional := func(machine bool, what, before, now string) {
		add(machine, what, cmp.Or(before, "none"), cmp.Or(now, "none"))
	}
	add(true, "architecture", before.Arch, f.Arch)
	add(true, "CPU", before.CPU.Model, f.CPU.Model)
	add(true, "cores", before.CPU.topology(), f.CPU.topology())
	if a, b := before.Memory.TotalBytes, f.Memory.TotalBytes; a > 0 && b > 0 && max(a, b)-min(a, b) > max(a, b)/50 {
		// The kernel reserves a little more or less after each start.
		all = append(all, Difference{"memory", humanize.IBytes(a), humanize.IBytes(b), true})
	}
	if before.Arch != "" && f.Arch != "" {
		addOptional(true, "GPUs", names(before.GPUs), names(f.GPUs))
		addOptional(false, "GPU driver", drivers(before.GPUs), drivers(f.GPUs))
		addOptional(false, "problem of the GPU driver", before.NVMLProblem, f.NVMLProblem)
		addOptional(false, "CPU quota", before.CPU.quota(), f.CPU.quota())
		addOptional(false, "memory limit", limit(before.Memory), limit(f.Memory))
		addOptional(false, "container", before.Virtualization.Container, f.Virtualization.Container)
	}
	add(true, "hypervisor", before.Virtualization.Hypervisor, f.Virtualization.Hypervisor)
	add(true, "system", before.Virtualization.System, f.Virtualization.System)
	add(false, "allowed CPUs", before.CPU.AllowedList, f.CPU.AllowedList)
	add(false, "instruction sets", strings.Join(before.CPU.Features, " "), strings.Join(f.CPU.Features, " "))
	add(false, "governors", strings.Join(before.CPU.Governors, "/"), strings.Join(f.CPU.Governors, "/"))
	add(false, "transparent huge pages", before.Memory.HugePages, f.Memory.HugePages)
	if a, b := before.Nice, f.Nice; a != nil && b != nil {
		add(false, "niceness", fmt.Sprint(*a), fmt.Sprint(*b))
	}
	add(false, "kernel", before.Kernel, f.Kernel)
	add(false, "operating system", before.OS, f.OS)
	add(false, "files of the program and the library", before.Build, f.Build)
	variables := maps.Clone(before.Environment)
	if variables == nil {
		variables = map[string]string{}
	}
	maps.Copy(variables, f.Environment)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		a, hadIt := before.Environment[name]
		b, hasIt := f.Environment[name]
		if hadIt != hasIt || a != b {
			all = append(all, Difference{"variable " + name, value(a, hadIt), value(b, hasIt), false})
		}
	}
	return all
}

// value is the text of a variable's value.
func value(v string, set bool) string {
	if !set {
		return "not set"
	}
	return fmt.Sprintf("%q", v)
}

// topology is the text of the machine's CPUs; empty: not known.
func (c CPU) topology() string {
	if c.LogicalCPUs == 0 {
		return ""
	}
	return fmt.Sprintf("sockets %d, cores %d, CPUs %d", c.Sockets, c.PhysicalCores, c.LogicalCPUs)
}

func (c CPU) quota() string {
	if c.QuotaCPUs == nil {
		return ""
	}
	return fmt.Sprintf("%g CPUs", *c.QuotaCPUs)
}

// Allows tells whether this process may run on a CPU. It may run on any if the list is
// not known.
func (c CPU) Allows(cpu int) bool { return c.AllowedList == "" || cpuList(c.AllowedList)(uint64(cpu)) }

func limit(m Memory) string {
	if m.LimitBytes == 0 {
		return ""
	}
	return humanize.IBytes(m.LimitBytes)
}

// names lists GPUs by model, or by PCI numbers.
func names(gpus []gpu.Facts) string {
	return list(gpus, func(g gpu.Facts) string { return cmp.Or(g.Model, "PCI "+g.PCIVendor+":"+g.PCIDevice) })
}

func drivers(gpus []gpu.Facts) string {
	return list(gpus, func(g gpu.Facts) string { return strings.TrimSpace(g.Driver + " " + g.DriverVersion) })
}

func list(gpus []gpu.Facts, text func(gpu.Facts) string) string {
	var all []string
	for _, g := range gpus {
		if t := text(g); t != "" {
			all = append(all, t)
		}
	}
	return strings.Join(all, ", ")
}
