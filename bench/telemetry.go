package bench

import (
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Window is the timed part of a repetition.
type Window struct{ Start, End time.Time }

// Seconds is how long it is.
func (w Window) Seconds() float64 { return w.End.Sub(w.Start).Seconds() }

const (
	// A reading that is asked for at the end of a repetition comes this much later
	// at most, of the last of many devices, and is of the repetition all the same.
	readingLag = 250 * time.Millisecond
	// The energy counter moves some ten times a second: in less timed work than
	// this its steps would show.
	leastForEnergy = 1.0 // seconds
)

// SummariseGPU sums up what a GPU said, oldest first, during timed windows. What
// the readings do not tell of the windows is absent.
func SummariseGPU(readings []result.GPUReading, windows []Window) result.GPUTelemetry {
	var t result.GPUTelemetry
	var power []float64
	for _, r := range readings {
		if !slices.ContainsFunc(windows, func(w Window) bool { return !r.At.Before(w.Start) && r.At.Sub(w.End) <= readingLag }) {
			continue
		}
		widen(&t.SMClockMHz, r.SMClockMHz)
		widen(&t.MemoryClockMHz, r.MemoryClockMHz)
		if r.TemperatureC != nil && (t.TemperatureC == nil || *r.TemperatureC > *t.TemperatureC) {
			t.TemperatureC = r.TemperatureC
		}
		if r.UsedBytes != nil && (t.UsedBytes == nil || *r.UsedBytes > *t.UsedBytes) {
			t.UsedBytes = r.UsedBytes
		}
		if r.PowerWatts != nil {
			power = append(power, *r.PowerWatts)
		}
		for _, reason := range r.Throttled {
			if !slices.Contains(t.Throttled, reason) {
				t.Throttled = append(t.Throttled, reason)
			}
		}
	}
	if len(power) > 0 {
		var sum float64
		for _, p := range power {
			sum += p
		}
		mean := sum / float64(len(power))
		t.PowerWatts = &mean
	}
	// The counter is exact where power is a reading now and then.
	if joules, seconds, ok := energyOf(readings, windows); ok && seconds >= leastForEnergy {
		mean := joules / seconds
		t.EnergyJoules, t.PowerWatts = &joules, &mean
	}
	return t
}

func widen(r **result.Range, v *float64) {
	switch {
	case v == nil:
	case *r == nil:
		*r = &result.Range{Min: *v, Max: *v}
	default:
		(*r).Min, (*r).Max = min((*r).Min, *v), max((*r).Max, *v)
	}
}

// energyOf is the energy of the windows by the counter, which is taken to rise
// evenly between two readings.
func energyOf(readings []result.GPUReading, windows []Window) (joules, seconds float64, ok bool) {
	readings = slices.DeleteFunc(slices.Clone(readings), func(r result.GPUReading) bool { return r.EnergyJoules == nil })
	at := func(t time.Time) (float64, bool) {
		i := slices.IndexFunc(readings, func(r result.GPUReading) bool { return !r.At.Before(t) })
		switch {
		case i < 0 || i == 0 && readings[0].At.After(t):
			return 0, false
		case i == 0 || readings[i].At.Equal(t):
			return *readings[i].EnergyJoules, true
		}
		a, b := readings[i-1], readings[i]
		share := t.Sub(a.At).Seconds() / b.At.Sub(a.At).Seconds()
		return *a.EnergyJoules + share*(*b.EnergyJoules-*a.EnergyJoules), true
	}
	for _, w := range windows {
		from, known := at(w.Start)
		to, also := at(w.End)
		if !known || !also || to < from { // a counter that was reset
			return 0, 0, false
		}
		joules += to - from
		seconds += w.Seconds()
	}
	return joules, seconds, len(windows) > 0
}
