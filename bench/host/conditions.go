package host

import "github.com/prometheus/procfs"

// Conditions change while a benchmark runs. Observe them before and after it, and
// compare.
type Conditions struct {
	LoadAverage1         *float64  `json:"load_average_1,omitempty"`         // /proc/loadavg, mean of one minute
	LoadAverage5         *float64  `json:"load_average_5,omitempty"`         // mean of five minutes
	LoadAverage15        *float64  `json:"load_average_15,omitempty"`        // mean of fifteen minutes
	CPUPressure          *Pressure `json:"cpu_pressure,omitempty"`           // /proc/pressure/cpu
	MemoryPressure       *Pressure `json:"memory_pressure,omitempty"`        // /proc/pressure/memory
	IOPressure           *Pressure `json:"io_pressure,omitempty"`            // /proc/pressure/io
	CPUTime              *CPUTime  `json:"cpu_time,omitempty"`               // first line of /proc/stat
	MemoryAvailableBytes *uint64   `json:"memory_available_bytes,omitempty"` // MemAvailable of /proc/meminfo, or what the cgroup's limit leaves if that is less
}

// Pressure is the kernel's pressure stall information: the time in which at least
// one task waited for a resource.
type Pressure struct {
	Avg10        float64 `json:"avg10"`   // share of the last ten seconds, in percent (0…100)
	TotalSeconds float64 `json:"total_s"` // since the machine started
}

// CPUTime is the time of all CPUs together since the machine started.
type CPUTime struct {
	TotalSeconds float64 `json:"total_s"` // includes idle time
	IdleSeconds  float64 `json:"idle_s"`
	StealSeconds float64 `json:"steal_s"` // a task was ready but the hypervisor ran another virtual machine
}

// Observe reads the conditions of the machine whose files lie below root, "/" for
// this one.
func Observe(root string) Conditions {
	m := open(root)
	var c Conditions
	if proc, err := m.proc(); err == nil {
		if load, err := proc.LoadAvg(); err == nil {
			c.LoadAverage1, c.LoadAverage5, c.LoadAverage15 = &load.Load1, &load.Load5, &load.Load15
		}
		if stat, err := proc.Stat(); err == nil {
			c.CPUTime = cpuTime(stat.CPUTotal)
		}
		c.CPUPressure, c.MemoryPressure, c.IOPressure = pressure(proc, "cpu"), pressure(proc, "memory"), pressure(proc, "io")
	}
	if info, err := m.meminfo(); err == nil {
		c.MemoryAvailableBytes = info.MemAvailableBytes
	}
	if _, left, ok := m.memoryLimit(); ok && (c.MemoryAvailableBytes == nil || left < *c.MemoryAvailableBytes) {
		c.MemoryAvailableBytes = &left
	}
	return c
}

// StealShare returns which share of the busy CPU time between before and c the
// hypervisor gave to other virtual machines, in [0, 1]. ok is false if there is no
// /proc/stat or no CPU was busy.
func (c Conditions) StealShare(before Conditions) (share float64, ok bool) {
	if c.CPUTime == nil || before.CPUTime == nil {
		return 0, false
	}
	busy := (c.CPUTime.TotalSeconds - c.CPUTime.IdleSeconds) - (before.CPUTime.TotalSeconds - before.CPUTime.IdleSeconds)
	if busy <= 0 {
		return 0, false
	}
	// The kernel's counters may step back a little.
	steal := c.CPUTime.StealSeconds - before.CPUTime.StealSeconds
	return min(1, max(0, steal/busy)), true
}

// cpuTime sums up the counters. User time includes the time of guests.
func cpuTime(s procfs.CPUStat) *CPUTime {
	idle := s.Idle + s.Iowait
	return &CPUTime{
		TotalSeconds: s.User + s.Nice + s.System + idle + s.IRQ + s.SoftIRQ + s.Steal,
		IdleSeconds:  idle,
		StealSeconds: s.Steal,
	}
}

func pressure(proc procfs.FS, resource string) *Pressure {
	psi, err := proc.PSIStatsForResource(resource)
	if err != nil || psi.Some == nil {
		return nil
	}
	return &Pressure{Avg10: psi.Some.Avg10, TotalSeconds: float64(psi.Some.Total) / 1e6}
}
