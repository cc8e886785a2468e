package record_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// undisturbed are the conditions of a repetition of one second on two CPUs.
func undisturbed() result.Conditions {
	return result.Conditions{
		Seconds: 1, CPUs: 2,
		OtherCPU: new(0.01), OtherCPUResolution: new(0.028), CPUWait: new(0.005), Steal: new(0.0), Throttled: new(0.0), ThrottledPeriods: new(uint64),
		CPUPressure: new(0.02), MemoryPressure: new(0.0), IOPressure: new(0.0), MemoryLimit: new(uint64), MajorFaults: new(uint64), MinorFaults: new(uint64(50)),
		SwapIn: new(uint64), SwapOut: new(uint64), SwappedBytes: new(uint64), FrequencyMHz: new(2950.0), ReferenceMHz: new(3000.0),
		ThermalThrottles: new(uint64), ThermalSeconds: new(0.0), ClockStep: new(0.0), Suspended: new(0.0),
	}
}

// recordWith is the record of five repetitions of one second on two CPUs. change makes
// the conditions of repetition n, from 1; nil: undisturbed.
func recordWith(t *testing.T, facts bench.ModelFacts, change func(n int, c *result.Conditions)) *result.Record {
	t.Helper()
	engine := engineFacts
	if len(facts.Placed) > 0 {
		engine.GPUs = []bench.EngineGPU{{Name: facts.Placed[0].Device, Model: "a GPU"}}
	}
	job := jobOf()
	job.Settings = bench.DefaultSettings(2)
	a := record.Assembler{Job: job}
	for _, e := range []bench.Event{
		bench.EngineReady{Facts: engine},
		bench.LoadDone{Status: result.OK, Facts: facts},
		bench.TestStarted{Test: pp512, Repetitions: 5},
		bench.WarmupDone{Elapsed: s},
	} {
		a.Add(bench.Stamped{At: at, Event: e})
	}
	for n := 1; n <= 5; n++ {
		c := undisturbed()
		if change != nil {
			change(n, &c)
		}
		a.Add(bench.Stamped{At: at, Event: bench.RepetitionDone{Sample: result.Sample{Repetition: n, Elapsed: s + time.Duration(n)*ms, Conditions: &c}}})
	}
	o := a.Add(bench.Stamped{At: at, Event: bench.TestDone{Test: pp512, Status: result.OK}})
	if o == nil || o.Record == nil {
		t.Fatalf("no record: %+v", o)
	}
	return o.Record
}

func TestVerdict(t *testing.T) {
	onGPU := modelFacts
	onGPU.Placed = []bench.Placement{{Device: "CUDA0", Layers: 3, WeightsBytes: 900}}
	for _, tc := range []struct {
		name   string
		facts  bench.ModelFacts
		change func(n int, c *result.Conditions)
		want   result.Judgement
		codes  []string // in their order
	}{
		{"undisturbed", modelFacts, nil, result.Valid, nil},
		{"a neighbour on one CPU", modelFacts, func(_ int, c *result.Conditions) {
			c.OtherCPU, c.CPUWait, c.CPUPressure = new(0.5), new(0.48), new(0.9)
		}, result.Invalid, []string{"other_processes"}},
		{"a neighbour that takes 6 %", modelFacts, func(_ int, c *result.Conditions) {
			c.OtherCPU, c.CPUWait = new(0.06), new(0.06)
		}, result.Doubtful, []string{"other_processes"}},
		{"a neighbour beside one repetition", modelFacts, func(n int, c *result.Conditions) {
			if n == 3 {
				c.OtherCPU, c.CPUWait = new(0.5), new(0.5)
			}
		}, result.Doubtful, []string{"other_processes"}},
		{"a neighbour for which nobody waited", modelFacts, func(_ int, c *result.Conditions) {
			c.OtherCPU = new(0.2)
		}, result.Doubtful, []string{"other_processes"}},
		{"little use of CPUs for which nobody waited", modelFacts, func(_ int, c *result.Conditions) { c.OtherCPU = new(0.1) }, result.Valid, nil},
		{"a neighbour beside a GPU", onGPU, func(_ int, c *result.Conditions) { c.OtherCPU = new(1.0) }, result.Valid, nil},
		{"a neighbour in the way of a GPU", onGPU, func(_ int, c *result.Conditions) {
			c.OtherCPU, c.CPUWait = new(1.0), new(0.2)
		}, result.Doubtful, []string{"other_processes"}},
		{"within the resolution of ticks", modelFacts, func(_ int, c *result.Conditions) {
			c.OtherCPU, c.Steal, c.OtherCPUResolution = new(0.1), new(0.1), new(0.6)
		}, result.Valid, nil},
		{"waiting without a known cause", modelFacts, func(_ int, c *result.Conditions) { c.CPUWait = new(0.2) }, result.Doubtful, []string{"cpu_wait"}},
		{"waiting between short repetitions", modelFacts, func(_ int, c *result.Conditions) {
			c.Seconds, c.CPUWait, c.OtherCPU = 0.02, new(0.0019), new(0.0)
		}, result.Valid, nil},
		{"only the pressure is known", modelFacts, func(_ int, c *result.Conditions) {
			c.OtherCPU, c.CPUWait, c.CPUPressure = nil, nil, new(0.2)
		}, result.Doubtful, []string{"cpu_wait"}},
		{"little pressure", modelFacts, func(_ int, c *result.Conditions) { c.OtherCPU, c.CPUWait, c.CPUPressure = nil, nil, new(0.09) }, result.Valid, nil},
		{"steal", modelFacts, func(_ int, c *result.Conditions) { c.Steal = new(0.1) }, result.Doubtful, []string{"steal"}},
		{"much steal", modelFacts, func(_ int, c *result.Conditions) { c.Steal = new(0.9) }, result.Invalid, []string{"steal"}},
		{"more steal than neighbours", modelFacts, func(_ int, c *result.Conditions) {
			c.Steal, c.OtherCPU, c.CPUWait = new(0.2), new(0.1), new(0.1)
		}, result.Doubtful, []string{"steal", "other_processes"}},
		{"a CPU quota, for which threads wait too", modelFacts, func(_ int, c *result.Conditions) {
			c.Throttled, c.ThrottledPeriods, c.CPUWait = new(0.8), new(uint64(8)), new(0.8)
		}, result.Invalid, []string{"throttled"}},
		{"a CPU quota, while others use the CPUs", modelFacts, func(_ int, c *result.Conditions) {
			c.Throttled, c.CPUWait, c.OtherCPU = new(0.9), new(0.95), new(1.0)
		}, result.Invalid, []string{"throttled", "other_processes"}},
		{"a low clock", modelFacts, func(_ int, c *result.Conditions) { c.FrequencyMHz = new(2700.0) }, result.Doubtful, []string{"frequency_low"}},
		{"a low clock of the CPU beside a GPU", onGPU, func(_ int, c *result.Conditions) { c.FrequencyMHz = new(2700.0) }, result.Valid, nil},
		{"heat", modelFacts, func(_ int, c *result.Conditions) {
			c.ThermalThrottles, c.ThermalSeconds, c.FrequencyMHz = new(uint64(7)), new(0.4), new(2100.0)
		}, result.Invalid, []string{"thermal_throttled", "frequency_low"}},
		{"heat of an older kernel", modelFacts, func(_ int, c *result.Conditions) { c.ThermalThrottles, c.ThermalSeconds = new(uint64(1)), nil }, result.Doubtful, []string{"thermal_throttled"}},
		{"weights from a disk", modelFacts, func(_ int, c *result.Conditions) {
			c.MajorFaults, c.IOPressure, c.MemoryPressure = new(uint64(800)), new(0.7), new(0.6)
		}, result.Invalid, []string{"major_faults", "memory_pressure"}},
		{"swap", modelFacts, func(_ int, c *result.Conditions) {
			c.MajorFaults, c.SwapIn, c.MemoryPressure = new(uint64(100)), new(uint64(400)), new(0.1)
		}, result.Doubtful, []string{"swap", "major_faults", "memory_pressure"}},
		{"swap of other processes", modelFacts, func(_ int, c *result.Conditions) { c.SwapIn = new(uint64(400)) }, result.Valid, nil},
		{"a few faults", modelFacts, func(_ int, c *result.Conditions) { c.MajorFaults = new(uint64(9)) }, result.Valid, nil},
		{"reclaim", modelFacts, func(_ int, c *result.Conditions) { c.MemoryPressure = new(0.05) }, result.Doubtful, []string{"memory_pressure"}},
		{"a step of the wall clock", modelFacts, func(n int, c *result.Conditions) {
			if n == 2 {
				c.ClockStep = new(3.0)
			}
		}, result.Doubtful, []string{"clock_step"}},
		{"suspended", modelFacts, func(_ int, c *result.Conditions) { c.Suspended = new(60.0) }, result.Doubtful, []string{"suspended"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			v := recordWith(t, tc.facts, tc.change).Ext.Verdict
			var codes []string
			for _, r := range v.Reasons {
				codes = append(codes, r.Code)
				if r.Value < r.Threshold || r.Source == "" || r.Message == "" {
					t.Errorf("reason %+v", r)
				}
			}
			if v.Verdict != tc.want || !slices.Equal(codes, tc.codes) {
				t.Errorf("%s because of %q, want %s because of %q", v.Verdict, codes, tc.want, tc.codes)
			}
		})
	}
}

// Warnings about the GPU are doubts too.
func TestVerdictOfWarnings(t *testing.T) {
	for _, code := range []string{result.WarnGPUNotUsed, result.WarnGPUThrottled, result.WarnGPUShared} {
		job := jobOf()
		job.Warnings = []result.Warning{{Code: code, Message: "of the GPU"}}
		v := assemble(job, pp512, 1*s, 1001*ms, 1002*ms).Record.Ext.Verdict
		want := []result.Reason{{Code: code, Value: 1, Threshold: 1, Source: "ext.warnings", Message: "of the GPU"}}
		if diff := cmp.Diff(want, v.Reasons); v.Verdict != result.Doubtful || diff != "" {
			t.Errorf("%s (-want +got):\n%s", v.Verdict, diff)
		}
	}
	// Too few repetitions are no doubt about those that there are.
	if v := assemble(jobOf(), pp512, 1*s).Record.Ext.Verdict; v.Verdict != result.Valid {
		t.Errorf("one repetition: %+v", v)
	}
}

// What the samples show comes after its causes.
func TestVerdictUnsteady(t *testing.T) {
	steal := undisturbed()
	steal.Steal = new(0.1)
	a := record.Assembler{Job: jobOf()}
	var o *result.Outcome
	for _, e := range []bench.Event{
		bench.TestStarted{Test: pp512, Repetitions: 2},
		bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: s, Conditions: &steal}},
		bench.RepetitionDone{Sample: result.Sample{Repetition: 2, Elapsed: 2 * s, Conditions: &steal}},
		bench.TestDone{Test: pp512, Status: result.OK},
	} {
		o = a.Add(bench.Stamped{At: at, Event: e})
	}
	var codes []string
	for _, r := range o.Record.Ext.Verdict.Reasons {
		codes = append(codes, r.Code)
	}
	if diff := cmp.Diff([]string{"steal", "unsteady"}, codes); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// Many CPUs raise the threshold for what happens on one of them, by the root of their
// number.
func TestVerdictOfManyThreads(t *testing.T) {
	verdict := func(threads int, wait float64) result.Judgement {
		c := undisturbed()
		c.OtherCPU, c.CPUWait = new(wait), new(wait)
		job := jobOf()
		job.Settings = bench.DefaultSettings(threads)
		a := record.Assembler{Job: job}
		a.Add(bench.Stamped{At: at, Event: bench.TestStarted{Test: pp512, Repetitions: 1}})
		a.Add(bench.Stamped{At: at, Event: bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: s, Conditions: &c}}})
		return a.Add(bench.Stamped{At: at, Event: bench.TestDone{Test: pp512, Status: result.OK}}).Record.Ext.Verdict.Verdict
	}
	for _, tc := range []struct {
		threads int
		wait    float64
		want    result.Judgement
	}{{1, 0.02, result.Valid}, {1, 0.04, result.Doubtful}, {64, 0.2, result.Valid}, {64, 0.5, result.Doubtful}, {64, 16, result.Invalid}} {
		if got := verdict(tc.threads, tc.wait); got != tc.want {
			t.Errorf("%g s of waiting per second by %d threads: %s, want %s", tc.wait, tc.threads, got, tc.want)
		}
	}
}

// The record adds up the repetitions, and says what the machine does not tell.
func TestRecordConditions(t *testing.T) {
	r := recordWith(t, modelFacts, func(n int, c *result.Conditions) {
		c.MajorFaults = new(uint64(10 * n))
		c.FrequencyMHz, c.ReferenceMHz = new(2900+20*float64(n)), new(3000.0)
		c.ThermalThrottles, c.ThermalSeconds = nil, nil
		if n == 4 {
			c.NUMAMisses = new(uint64(3)) // the other repetitions do not tell
			c.SwappedBytes = new(uint64(4096))
		}
	})
	want := undisturbed()
	want.Seconds = 5
	want.OtherCPU, want.CPUWait, want.CPUPressure = new(0.05), new(0.025), new(0.1)
	want.MinorFaults, want.MajorFaults, want.SwappedBytes = new(uint64(250)), new(uint64(150)), new(uint64(4096))
	want.FrequencyMHz, want.ThermalThrottles, want.ThermalSeconds = new(2960.0), nil, nil
	if diff := cmp.Diff(&want, r.Ext.Conditions, near); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"thermal_throttled"}, r.Ext.Verdict.Unchecked); diff != "" {
		t.Errorf("unchecked (-want +got):\n%s", diff)
	}
	warning := []result.Warning{{Code: "major_faults", Message: "memory was read from a disk 150 times in 5.00 s of repetitions"}}
	if diff := cmp.Diff(warning, r.Ext.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// The first repetition of a burst has the conditions of all of them. A burst may be cut
// off, because the process ended while its events were written.
func TestConditionsOfBursts(t *testing.T) {
	burst := func(repetitions int, seconds, wait float64) *result.Conditions {
		c := undisturbed()
		c.Repetitions, c.Seconds, c.CPUWait, c.OtherCPU = repetitions, seconds, new(wait), new(0.0)
		return &c
	}
	for name, tc := range map[string]struct {
		conditions []*result.Conditions // of the repetitions
		seconds    float64              // of the record; 0: it has none
		codes      []string
	}{
		"one burst":                    {[]*result.Conditions{burst(3, 1, 0), nil, nil}, 1, nil},
		"two bursts":                   {[]*result.Conditions{burst(2, 1, 0), nil, burst(0, 0.5, 0)}, 1.5, nil},
		"a burst that was cut off":     {[]*result.Conditions{burst(3, 1, 0), burst(2, 0.75, 0), nil}, 1.75, nil},
		"a repetition without a burst": {[]*result.Conditions{burst(2, 1, 0), nil, nil}, 0, nil},
		"none at first":                {[]*result.Conditions{nil, burst(2, 1, 0), nil}, 0, nil},
		// Around each burst threads may wait for 2 ms. Waiting of 3 % of the time counts, by
		// the root of two threads.
		"little waiting around bursts": {[]*result.Conditions{burst(2, 0.1, 0.006), nil, burst(0, 0.05, 0.004)}, 0.15, nil},
		"waiting within a burst":       {[]*result.Conditions{burst(3, 0.15, 0.01), nil, nil}, 0.15, []string{"cpu_wait"}},
	} {
		job := jobOf()
		job.Settings = bench.DefaultSettings(2)
		a := record.Assembler{Job: job}
		a.Add(bench.Stamped{At: at, Event: bench.TestStarted{Test: pp512, Repetitions: 3}})
		for i, c := range tc.conditions {
			a.Add(bench.Stamped{At: at, Event: bench.RepetitionDone{Sample: result.Sample{Repetition: i + 1, Elapsed: s, Conditions: c}}})
		}
		ext := a.Add(bench.Stamped{At: at, Event: bench.TestDone{Test: pp512, Status: result.OK}}).Record.Ext
		var seconds float64
		if c := ext.Conditions; c != nil {
			seconds = c.Seconds
			if c.Repetitions != 0 {
				t.Errorf("%s: the record's conditions are those of %d repetitions", name, c.Repetitions)
			}
		}
		var codes []string
		for _, r := range ext.Verdict.Reasons {
			codes = append(codes, r.Code)
		}
		if diff := cmp.Diff(tc.codes, codes); seconds != tc.seconds || diff != "" {
			t.Errorf("%s: %g s, want %g; reasons (-want +got):\n%s", name, seconds, tc.seconds, diff)
		}
	}
}

// The start of a test that continues has the conditions of all its repetitions, which
// fit a line of events.
func TestLongestTestFitsALine(t *testing.T) {
	c := undisturbed()
	for _, seconds := range []**float64{
		&c.OtherCPU, &c.OtherCPUResolution, &c.CPUWait, &c.Steal, &c.Throttled, &c.CPUPressure, &c.MemoryPressure, &c.IOPressure,
		&c.ThermalSeconds, &c.ClockStep, &c.Suspended, &c.FrequencyMHz, &c.ReferenceMHz,
	} {
		*seconds = new(12345.678901)
	}
	for _, count := range []**uint64{
		&c.ThrottledPeriods, &c.MemoryLimit, &c.MajorFaults, &c.MinorFaults, &c.SwapIn, &c.SwapOut, &c.SwappedBytes, &c.NUMAMisses, &c.ThermalThrottles,
	} {
		*count = new(uint64(1234567890123))
	}
	samples := make([]result.Sample, suite.MaxRepetitions)
	for i := range samples {
		samples[i] = result.Sample{Repetition: i + 1, Start: at, Elapsed: time.Hour, Conditions: &c}
	}
	line, err := bench.Stamped{Event: bench.TestStarted{Test: pp512, Done: samples}}.MarshalLine()
	if err != nil || len(line) > bench.MaxEventBytes {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}
