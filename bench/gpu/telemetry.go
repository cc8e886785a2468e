package gpu

import (
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// window is the timed part of one repetition.
type window struct{ Start, End time.Time }

// Seconds returns the length of the window.
func (w window) Seconds() float64 { return w.End.Sub(w.Start).Seconds() }

const (
	// readingLag is how long after its window a reading still counts. The reading
	// at the end of a repetition takes time, most for the last of many devices.
	readingLag = 250 * time.Millisecond
	// minEnergySeconds of timed work are needed to use the energy counter. It moves
	// about ten times a second, so its steps would show in a shorter time.
	minEnergySeconds = 1.0
)

// summarise returns the telemetry of one GPU during the timed windows. readings are
// sorted by time. A value without a reading in the windows is absent.
func summarise(readings []result.GPUReading, windows []window) result.GPUTelemetry {
	var t result.GPUTelemetry
	var power, busy []float64
	for _, r := range readings {
		if !slices.ContainsFunc(windows, func(w window) bool { return !r.At.Before(w.Start) && r.At.Sub(w.End) <= readingLag }) {
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
		if r.BusyPercent != nil {
			busy = append(busy, *r.BusyPercent)
		}
		for _, reason := range r.Throttled {
			if !slices.Contains(t.Throttled, reason) {
				t.Throttled = append(t.Throttled, reason)
			}
		}
	}
	t.PowerWatts, t.BusyPercent = mean(power), mean(busy)
	// The energy counter is exact; power is sampled now and then.
	if joules, seconds, ok := energyOf(readings, windows); ok && seconds >= minEnergySeconds {
		watts := joules / seconds
		t.EnergyJoules, t.PowerWatts = &joules, &watts
	}
	return t
}

// mean returns the mean of values; nil if there is none.
func mean(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	var sum float64
	for _, v := range values {
		sum += v
	}
	sum /= float64(len(values))
	return &sum
}

// widen extends the range to include the value, if there is one.
func widen(r **result.Range, v *float64) {
	switch {
	case v == nil:
	case *r == nil:
		*r = &result.Range{Min: *v, Max: *v}
	default:
		(*r).Min, (*r).Max = min((*r).Min, *v), max((*r).Max, *v)
	}
}

// energyOf returns the energy used in the windows, and their total length. It
// interpolates the counter linearly between two readings. ok is false if the
// readings do not cover all windows, or if the counter was reset.
func energyOf(readings []result.GPUReading, windows []window) (joules, seconds float64, ok bool) {
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
		if !known || !also || to < from { // the counter was reset
			return 0, 0, false
		}
		joules += to - from
		seconds += w.Seconds()
	}
	return joules, seconds, len(windows) > 0
}
