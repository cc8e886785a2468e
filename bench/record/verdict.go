package record

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// evidence is what a verdict is based on.
type evidence struct {
	*result.Conditions              // of the repetitions; nil: not observed
	bursts             int          // in which they ran
	rates              stats.Sample // of the repetitions
	threads            int          // that compute
	gpu                bool         // a GPU computes
	warnings           []result.Warning
}

// judged is one reason to doubt a record: what is measured, from where on it counts,
// and what share of the repetitions' time it may explain. Two entries may have one
// code: the second is used where the machine does not tell the first.
type judged struct {
	code      string
	source    string
	threshold float64
	// value measures the reason; ok is false if the machine does not tell it.
	value func(evidence) (value float64, ok bool)
	// lost estimates which share of the repetitions' time the reason may explain, 0: none
	// that is known. nil: the value.
	lost    func(evidence, float64) float64
	message func(evidence, float64) string
	symptom bool // it shows that the speed varied and explains nothing; causes come first
}

const (
	// doubtfulShare of the time is what a reason must explain to count. Undisturbed
	// repetitions differ by 1.1 % (the median CV of 110,349 published records).
	doubtfulShare = 0.03
	// invalidShare of the time, explained by one reason, makes a record invalid.
	invalidShare = 0.25
	// idleWeight is how much CPU time of others counts that no thread of the test waited
	// for. It still takes caches, memory bandwidth and the other half of a core.
	idleWeight = 0.3
	// ownWait is how long threads may wait around each burst because of this program:
	// between bursts, collecting garbage and writing events compete with threads that
	// still spin. On two CPUs that takes 1 ms.
	ownWait = 2 * time.Millisecond
	// faultTime is the least time of a major page fault: one read of a fast SSD.
	faultTime = 100 * time.Microsecond
	// faultsPerSecond is the rate from which faults count: on a disk of 5 ms they take
	// 5 % of the time.
	faultsPerSecond = 10
	// slowClock is how far the clock must be below the reference. Readings of an
	// undisturbed clock differ by one or two of its steps of 100 MHz.
	slowClock = 0.05
	// clockStep in seconds. NTP steps by at least 128 ms, and reading two clocks takes
	// microseconds.
	clockStep = 0.001
	// pressureShare counts where the kernel does not tell for how long threads waited.
	// Pressure also counts waiting of processes that do not disturb the test.
	pressureShare = 0.10
	// unsteadyCV is that of stats.Sample.Unsteady.
	unsteadyCV = 0.10
)

// reasons is the only table of reasons and thresholds. If two reasons explain the same
// share, the earlier comes first: a cause before its effects.
var reasons = []judged{
	{
		code: "throttled", source: "cgroup cpu.stat", threshold: doubtfulShare,
		value: func(e evidence) (float64, bool) { return e.share(e.Throttled) },
		message: func(e evidence, _ float64) string {
			return fmt.Sprintf("the CPU quota stopped the test's CPUs for %.2f s of %.2f s", *e.Throttled, e.Seconds)
		},
	},
	{
		code: "steal", source: "/proc/stat", threshold: doubtfulShare,
		value: func(e evidence) (float64, bool) { return e.share(e.resolved(e.Steal)) },
		message: func(e evidence, _ float64) string {
			return fmt.Sprintf("the hypervisor gave %.2f s of CPU time to other guests in %.2f s", *e.Steal, e.Seconds)
		},
	},
	{
		code: "other_processes", source: "/proc/stat", threshold: doubtfulShare,
		value: otherProcesses,
		message: func(e evidence, _ float64) string {
			return fmt.Sprintf("other processes used %.2f of %d CPUs", *e.OtherCPU/e.Seconds, e.CPUs)
		},
	},
	{
		code: "cpu_wait", source: "/proc/PID/task/*/schedstat", threshold: doubtfulShare,
		value: unexplainedWait,
		message: func(e evidence, _ float64) string {
			return fmt.Sprintf("threads of the test waited %.2f s for a CPU in %.2f s", *e.CPUWait, e.Seconds)
		},
	},
	{
		code: "cpu_wait", source: "/proc/pressure/cpu", threshold: pressureShare,
		value: func(e evidence) (float64, bool) {
			if e.CPUWait != nil {
				return 0, false
			}
			return per(e.CPUPressure, e.Seconds)
		},
		message: func(e evidence, value float64) string {
			return fmt.Sprintf("processes waited for a CPU in %.0f %% of the time", 100*value)
		},
	},
	{
		code: "thermal_throttled", source: "/sys/devices/system/cpu/*/thermal_throttle", threshold: doubtfulShare,
		value: func(e evidence) (float64, bool) { return per(e.ThermalSeconds, e.Seconds) },
		message: func(e evidence, value float64) string {
			return fmt.Sprintf("heat slowed a CPU down in %.0f %% of the time", 100*value)
		},
	},
	{
		code: "thermal_throttled", source: "/sys/devices/system/cpu/*/thermal_throttle", threshold: 1,
		value: func(e evidence) (float64, bool) {
			if e.ThermalSeconds != nil || e.ThermalThrottles == nil {
				return 0, false
			}
			return float64(*e.ThermalThrottles), true
		},
		lost:    unknownShare,
		message: func(_ evidence, value float64) string { return fmt.Sprintf("heat slowed CPUs down %.0f times", value) },
	},
	{
		code: "frequency_low", source: "/sys/devices/system/cpu/*/cpufreq", threshold: slowClock,
		value: func(e evidence) (float64, bool) {
			if e.FrequencyMHz == nil || e.ReferenceMHz == nil || *e.ReferenceMHz <= 0 {
				return 0, false
			}
			if e.gpu {
				return 0, true
			}
			return 1 - *e.FrequencyMHz / *e.ReferenceMHz, true
		},
		message: func(e evidence, value float64) string {
			return fmt.Sprintf("the CPUs ran at %.0f MHz, %.0f %% below the %.0f MHz of other such tests", *e.FrequencyMHz, 100*value, *e.ReferenceMHz)
		},
	},
	{
		code: "swap", source: "/proc/vmstat", threshold: 1,
		value: func(e evidence) (float64, bool) {
			switch {
			case e.SwapIn == nil || e.MajorFaults == nil:
				return 0, false
			case *e.MajorFaults == 0: // other processes swapped
				return 0, true
			}
			return float64(*e.SwapIn), true
		},
		lost:    stalled,
		message: func(_ evidence, value float64) string { return fmt.Sprintf("%.0f pages were read from swap", value) },
	},
	{
		code: "major_faults", source: "/proc/PID/stat", threshold: faultsPerSecond,
		value: majorFaults, lost: stalled,
		message: func(e evidence, _ float64) string { return faultsMessage(e.Conditions) },
	},
	{
		code: "memory_pressure", source: "memory.pressure or /proc/pressure/memory", threshold: doubtfulShare,
		value: func(e evidence) (float64, bool) { return per(e.MemoryPressure, e.Seconds) },
		message: func(_ evidence, value float64) string {
			return fmt.Sprintf("processes waited for memory in %.0f %% of the time", 100*value)
		},
	},
	{
		code: "suspended", source: "CLOCK_BOOTTIME and CLOCK_MONOTONIC", threshold: clockStep,
		value: func(e evidence) (float64, bool) { return known(e.Suspended) }, lost: unknownShare,
		message: func(_ evidence, value float64) string {
			return fmt.Sprintf("the machine was suspended for %.3g s", value)
		},
	},
	{
		code: "clock_step", source: "CLOCK_REALTIME and CLOCK_MONOTONIC", threshold: clockStep,
		value: func(e evidence) (float64, bool) { return known(e.ClockStep) }, lost: unknownShare,
		message: func(_ evidence, value float64) string {
			return fmt.Sprintf("the wall clock was set by %.3g s, as after a pause or a move of a virtual machine", value)
		},
	},
	warned("gpu_not_used"),
	warned("gpu_throttled"),
	warned("gpu_shared"),
	{
		code: "unsteady", source: "samples_ts", threshold: unsteadyCV, symptom: true,
		value: func(e evidence) (float64, bool) {
			cv, _ := e.rates.CV() // one repetition does not vary; few_repetitions warns of it
			return cv, true
		},
		message: func(_ evidence, value float64) string {
			return fmt.Sprintf("the repetitions vary by %.0f %%", 100*value)
		},
	},
}

// warned is a reason that is also a warning.
func warned(code string) judged {
	find := func(e evidence) int {
		return slices.IndexFunc(e.warnings, func(w result.Warning) bool { return w.Code == code })
	}
	return judged{
		code: code, source: "ext.warnings", threshold: 1, lost: unknownShare,
		value: func(e evidence) (float64, bool) {
			if find(e) < 0 {
				return 0, true
			}
			return 1, true
		},
		message: func(e evidence, _ float64) string { return e.warnings[find(e)].Message },
	}
}

// judge makes the verdict about a record.
func judge(e evidence) *result.Verdict {
	v := &result.Verdict{Verdict: result.Valid}
	type found struct {
		result.Reason
		lost    float64
		symptom bool
	}
	var all []found
	checked, asked := map[string]bool{}, []string{}
	if e.Conditions == nil {
		e.Conditions = &result.Conditions{}
	}
	for _, r := range reasons {
		value, ok := r.value(e)
		checked[r.code] = checked[r.code] || ok
		if !slices.Contains(asked, r.code) {
			asked = append(asked, r.code)
		}
		if !ok || value < r.threshold {
			continue
		}
		lost := value
		if r.lost != nil {
			lost = r.lost(e, value)
		}
		v.Verdict = worse(v.Verdict, lost)
		all = append(all, found{result.Reason{Code: r.code, Value: value, Threshold: r.threshold, Source: r.source, Message: r.message(e, value)}, lost, r.symptom})
	}
	slices.SortStableFunc(all, func(a, b found) int {
		if a.symptom != b.symptom {
			return map[bool]int{true: 1, false: -1}[a.symptom]
		}
		return cmp.Compare(b.lost, a.lost)
	})
	for _, f := range all {
		v.Reasons = append(v.Reasons, f.Reason)
	}
	for _, code := range asked {
		if !checked[code] {
			v.Unchecked = append(v.Unchecked, code)
		}
	}
	return v
}

// worse is the judgement after another reason, which may explain a share of the time.
func worse(j result.Judgement, lost float64) result.Judgement {
	if j == result.Invalid || lost >= invalidShare {
		return result.Invalid
	}
	return result.Doubtful
}

// known is a value that may be absent.
func known(v *float64) (float64, bool) {
	if v == nil {
		return 0, false
	}
	return *v, true
}

// per is a time as a share of the repetitions' time.
func per(v *float64, seconds float64) (float64, bool) {
	if v == nil || seconds <= 0 {
		return 0, false
	}
	return *v / seconds, true
}

// share estimates which share of the repetitions' time was lost, from CPU time that
// was lost on any of the test's CPUs. All threads wait for the slowest at each
// barrier. If all lose time at once, the test loses the mean over the threads, sum/n.
// If they lose it in turn, the test loses the sum. The estimate is the geometric mean
// of the two, sum/√n, at most 1.
func (e evidence) share(sum *float64) (float64, bool) {
	share, ok := per(sum, e.Seconds)
	return min(share/math.Sqrt(float64(max(e.threads, 1))), 1), ok
}

// resolved is a time that was counted in ticks: 0 if it is below their resolution.
func (e evidence) resolved(v *float64) *float64 {
	if v == nil || e.OtherCPUResolution == nil || *v > *e.OtherCPUResolution {
		return v
	}
	return new(float64)
}

// contended splits the CPU time of other processes: the part for which threads of the
// test waited, and the rest. ok is false if that time is not known.
func (e evidence) contended() (waited, beside float64, ok bool) {
	other, ok := known(e.resolved(e.OtherCPU))
	if !ok {
		return 0, 0, false
	}
	wait, ok := e.wait()
	if !ok {
		return other, 0, true
	}
	return min(other, wait), max(other-wait, 0), true
}

// wait is the time for which threads waited, without this program's own part and without
// the time in which the CPU quota stopped them: then they count as waiting, and other
// processes use the CPUs.
func (e evidence) wait() (float64, bool) {
	wait, ok := known(e.CPUWait)
	if e.Throttled != nil {
		wait -= *e.Throttled
	}
	return max(wait-float64(e.bursts)*ownWait.Seconds(), 0), ok
}

// otherProcesses is the share of time that other processes may explain. On a GPU only
// the CPU time counts for which the test waited.
func otherProcesses(e evidence) (float64, bool) {
	waited, beside, ok := e.contended()
	if !ok {
		return 0, false
	}
	if e.Throttled != nil {
		beside = max(beside-*e.Throttled, 0)
	}
	if !e.gpu {
		waited += idleWeight * beside
	}
	return e.share(&waited)
}

// unexplainedWait is the share of time in which threads waited for a CPU, without
// what other processes and the CPU quota explain.
func unexplainedWait(e evidence) (float64, bool) {
	wait, ok := e.wait()
	if !ok {
		return 0, false
	}
	explained, _, _ := e.contended()
	wait = max(wait-explained, 0)
	return e.share(&wait)
}

// unknownShare is the share that a reason explains of which nothing more is known.
func unknownShare(evidence, float64) float64 { return 0 }

// stalled is the share of time in which processes waited for memory or a disk, at
// least the time that the faults take on a fast disk.
func stalled(e evidence, _ float64) float64 {
	memory, _ := per(e.MemoryPressure, e.Seconds)
	disk, _ := per(e.IOPressure, e.Seconds)
	faults := 0.0
	if rate, ok := majorFaults(e); ok {
		faults = rate * faultTime.Seconds()
	}
	return max(memory, disk, faults)
}

// majorFaults is the number of major page faults per second, or in less than one second.
func majorFaults(e evidence) (float64, bool) {
	if e.MajorFaults == nil {
		return 0, false
	}
	return float64(*e.MajorFaults) / max(e.Seconds, 1), true
}

// readFromDisk is the warning that memory came from a disk while the clock ran.
func readFromDisk(c *result.Conditions) []result.Warning {
	if c == nil {
		return nil
	}
	if rate, ok := majorFaults(evidence{Conditions: c}); !ok || rate < faultsPerSecond {
		return nil
	}
	return []result.Warning{{Code: result.WarnMajorFaults, Message: faultsMessage(c)}}
}

func faultsMessage(c *result.Conditions) string {
	return fmt.Sprintf("memory was read from a disk %d times in %.2f s of repetitions", *c.MajorFaults, c.Seconds)
}
