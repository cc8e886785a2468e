package result

import "math"

// Conditions says what else the machine did during timed repetitions: of a burst of
// repetitions in the first Sample of the burst, of all repetitions together in a record. A
// value that the machine does not tell is nil. No value is negative. bench/host names the
// source of each.
//
// A burst's values cover the time from one reading to the next: its repetitions, and the
// warm-up or the untimed pass before the first. The machine is never read while a pass
// runs.
type Conditions struct {
	// Repetitions is how many repetitions a burst has: that of the Sample, and those that
	// follow it. 0: that of the Sample alone, or all of a record.
	Repetitions int `json:"repetitions,omitempty"`

	Seconds float64 `json:"seconds"` // between the readings
	CPUs    int     `json:"cpus"`    // that the test may use

	// CPU time that the test did not get.
	OtherCPU           *float64 `json:"other_cpu_s,omitempty"`           // of other processes and interrupts, on the CPUs that the test may use
	OtherCPUResolution *float64 `json:"cpu_time_resolution_s,omitempty"` // other_cpu_s and steal_s may be off by this much
	CPUWait            *float64 `json:"cpu_wait_s,omitempty"`            // that computing threads of the worker were ready and did not run, over all threads
	Steal              *float64 `json:"steal_s,omitempty"`               // that the hypervisor gave to other guests, over the same CPUs
	Throttled          *float64 `json:"throttled_s,omitempty"`           // that the CPU quota stopped the cgroup, over all its CPUs
	ThrottledPeriods   *uint64  `json:"throttled_periods,omitempty"`     // periods in which the quota was used up
	CPUPressure        *float64 `json:"cpu_pressure_s,omitempty"`        // that at least one task of the machine waited for a CPU

	// Memory and disk.
	MemoryPressure *float64 `json:"memory_pressure_s,omitempty"`   // that at least one task waited for memory: of the cgroup, else of the machine
	IOPressure     *float64 `json:"io_pressure_s,omitempty"`       // that at least one task of the machine waited for a disk
	MemoryLimit    *uint64  `json:"memory_limit_events,omitempty"` // times that the cgroup reached memory.high or memory.max
	MajorFaults    *uint64  `json:"major_faults,omitempty"`        // page faults of the worker that read from a disk
	MinorFaults    *uint64  `json:"minor_faults,omitempty"`        // page faults of the worker that read nothing
	SwapIn         *uint64  `json:"swap_in_pages,omitempty"`       // of the machine
	SwapOut        *uint64  `json:"swap_out_pages,omitempty"`      // of the machine
	SwappedBytes   *uint64  `json:"swapped_bytes,omitempty"`       // of the worker, now in swap
	NUMAMisses     *uint64  `json:"numa_miss_pages,omitempty"`     // allocated on another node than wanted, on the whole machine

	// Clocks.
	FrequencyMHz     *float64 `json:"frequency_mhz,omitempty"`       // mean over the CPUs at the end of each burst
	ReferenceMHz     *float64 `json:"reference_mhz,omitempty"`       // highest frequency_mhz of such tests in this process, or the base frequency
	ThermalThrottles *uint64  `json:"thermal_throttles,omitempty"`   // times that the CPUs lowered their clock because of heat
	ThermalSeconds   *float64 `json:"thermal_throttled_s,omitempty"` // how long, on the CPU that was throttled longest
	ClockStep        *float64 `json:"clock_step_s,omitempty"`        // by which the wall clock was set, forward or back
	Suspended        *float64 `json:"suspended_s,omitempty"`         // that the machine was suspended
}

// seconds lists the values that are added up, in one order.
func (c *Conditions) seconds() []**float64 {
	return []**float64{
		&c.OtherCPU, &c.CPUWait, &c.Steal, &c.Throttled, &c.CPUPressure, &c.MemoryPressure, &c.IOPressure,
		&c.ThermalSeconds, &c.ClockStep, &c.Suspended,
	}
}

// counts lists the counts that are added up, in one order.
func (c *Conditions) counts() []**uint64 {
	return []**uint64{
		&c.ThrottledPeriods, &c.MemoryLimit, &c.MajorFaults, &c.MinorFaults, &c.SwapIn, &c.SwapOut, &c.NUMAMisses, &c.ThermalThrottles,
	}
}

// SumConditions adds up the conditions of the samples' bursts. The sum is nil if a sample
// belongs to none: the others would not tell about the whole test. A value that one of
// them lacks is absent for the same reason.
func SumConditions(samples []Sample) (sum *Conditions, bursts int) {
	covered := 0 // samples that follow, of the last burst
	for _, s := range samples {
		switch {
		case s.Conditions != nil: // the burst before may have been cut off
			covered = max(s.Conditions.Repetitions-1, 0)
			bursts++
			if sum == nil {
				sum = clone(s.Conditions)
			} else {
				sum.add(s.Conditions)
			}
		case covered > 0:
			covered--
		default:
			return nil, 0
		}
	}
	return sum, bursts
}

// clone copies c with its values.
func clone(c *Conditions) *Conditions {
	sum := &Conditions{
		Seconds: c.Seconds, CPUs: c.CPUs, OtherCPUResolution: c.OtherCPUResolution,
		SwappedBytes: c.SwappedBytes, FrequencyMHz: c.FrequencyMHz, ReferenceMHz: c.ReferenceMHz,
	}
	for i, from := range c.seconds() {
		*sum.seconds()[i] = plus(*from, new(float64))
	}
	for i, from := range c.counts() {
		*sum.counts()[i] = plus(*from, new(uint64))
	}
	return sum
}

func (c *Conditions) add(o *Conditions) {
	if c.FrequencyMHz == nil || o.FrequencyMHz == nil {
		c.FrequencyMHz = nil
	} else if total := c.Seconds + o.Seconds; total > 0 {
		c.FrequencyMHz = new((*c.FrequencyMHz*c.Seconds + *o.FrequencyMHz*o.Seconds) / total)
	}
	c.Seconds = rounded(c.Seconds + o.Seconds)
	c.CPUs = min(c.CPUs, o.CPUs)
	for i, to := range c.seconds() {
		if *to = plus(*to, *o.seconds()[i]); *to != nil {
			**to = rounded(**to)
		}
	}
	for i, to := range c.counts() {
		*to = plus(*to, *o.counts()[i])
	}
	// The windows follow one another: what one counts too much, the next counts less.
	c.OtherCPUResolution = greater(c.OtherCPUResolution, o.OtherCPUResolution)
	c.SwappedBytes = greater(c.SwappedBytes, o.SwappedBytes)
	c.ReferenceMHz = greater(c.ReferenceMHz, o.ReferenceMHz)
}

// plus adds two values; it is nil if one of them is.
func plus[N float64 | uint64](a, b *N) *N {
	if a == nil || b == nil {
		return nil
	}
	sum := *a + *b
	return &sum
}

// greater returns the greater of two values; it is nil if one of them is.
func greater[N float64 | uint64](a, b *N) *N {
	if a == nil || b == nil {
		return nil
	}
	return new(max(*a, *b))
}

// rounded is a time in seconds to the microsecond, as it was read.
func rounded(seconds float64) float64 { return math.Round(seconds*1e6) / 1e6 }
