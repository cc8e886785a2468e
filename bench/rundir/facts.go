package rundir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// facts summarize the run and its machine for the report. running tells whether its last
// span goes on.
func (d *Description) facts(running bool) []report.Fact {
	var facts []report.Fact
	add := func(name string, parts ...string) {
		parts = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
		facts = append(facts, report.Fact{Name: name, Value: strings.Join(parts, ", ")})
	}
	add("version", d.Version)
	for i, s := range d.spans() {
		name, until := "command", "cut off"
		if i > 0 {
			name = "continued"
		}
		switch {
		case s.Ended != nil:
			until = "ended " + s.Ended.Format(time.RFC3339)
		case running && i == len(d.Continued):
			until = "running"
		}
		other := ""
		if s.Version != d.Version {
			other = "version " + s.Version
		}
		add(name, strings.Join(s.Command, " "), "started "+s.Started.Format(time.RFC3339), until, other)
		if len(s.Changed) > 0 {
			add("changed since then", strings.Join(s.Changed, "; "))
		}
	}
	c := d.Host.CPU
	cores := ""
	if c.PhysicalCores > 0 && c.LogicalCPUs > 0 {
		cores = result.Count(c.PhysicalCores, "core") + ", " + result.Count(c.LogicalCPUs, "CPU")
		if c.AllowedCPUs > 0 && c.AllowedCPUs != c.LogicalCPUs {
			cores += fmt.Sprintf(", %d of them allowed", c.AllowedCPUs)
		}
	}
	quota := ""
	if c.QuotaCPUs != nil {
		quota = fmt.Sprintf("quota of %s CPUs", strconv.FormatFloat(*c.QuotaCPUs, 'f', -1, 64))
		if *c.QuotaCPUs == 1 {
			quota = "quota of 1 CPU"
		}
	}
	add("CPU", c.Name(), d.Host.Arch, cores, quota, strings.Join(c.Governors, "/"))
	total, limit := "", ""
	if d.Host.Memory.TotalBytes > 0 {
		total = humanize.IBytes(d.Host.Memory.TotalBytes)
	}
	if d.Host.Memory.LimitBytes > 0 {
		limit = "limit of " + humanize.IBytes(d.Host.Memory.LimitBytes)
	}
	add("memory", total, limit)
	for _, g := range d.Host.GPUs {
		id := ""
		if g.PCIDevice != "" {
			id = "PCI " + g.PCIVendor + ":" + g.PCIDevice
		}
		memory, cuda, capability := "", "", ""
		if g.MemoryTotalBytes > 0 {
			memory = humanize.IBytes(g.MemoryTotalBytes)
		}
		if g.CUDAVersion != "" {
			cuda = "for CUDA " + g.CUDAVersion
		}
		if g.ComputeCapability != "" {
			capability = "compute capability " + g.ComputeCapability
		}
		add("GPU", g.Model, id, memory, capability, strings.TrimSpace(g.Driver+" "+g.DriverVersion), cuda)
	}
	if d.Host.NVMLProblem != "" {
		add("GPU driver", d.Host.NVMLProblem)
	}
	v := d.Host.Virtualization
	hypervisor := ""
	if v.Hypervisor != "" {
		hypervisor = "hypervisor " + v.Hypervisor
	}
	add("system", v.System, hypervisor, v.Container, d.Host.OS, d.Host.Kernel)
	var energy []string
	for part, source := range d.Host.Energy.Sources {
		energy = append(energy, part+" by "+source)
	}
	slices.Sort(energy)
	if n := len(d.Host.Energy.Denied); n > 0 {
		energy = append(energy, fmt.Sprintf("only root may read %s: %s", result.Count(n, "counter"), d.Host.Energy.Hint))
	}
	add("energy", energy...)
	if len(d.Jobs) > 0 && d.Jobs[0].Prices != nil {
		var prices []string
		if m := d.Jobs[0].Prices.Machine; m != nil {
			prices = append(prices, m.String())
		}
		if e := d.Jobs[0].Prices.Electricity; e != nil {
			prices = append(prices, "electricity "+e.String())
		}
		add("price", prices...)
	}
	if d.After != nil {
		if share, ok := d.After.StealShare(d.Before); ok {
			add("stolen by other guests", fmt.Sprintf("%.1f %% of the CPU time asked for", 100*share))
		}
	}
	var variables []string
	for name, value := range d.Host.Environment {
		variables = append(variables, name+"="+value)
	}
	slices.Sort(variables)
	add("environment", strings.Join(variables, " "))
	return facts
}
