package gpu

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestSummarise(t *testing.T) {
	ptr := func(f float64) *float64 { return &f }
	near := cmpopts.EquateApprox(1e-12, 0)
	start := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	windows := []window{{at(1), at(2)}, {at(3), at(4)}}
	bytes := func(n uint64) *uint64 { return &n }
	reading := func(seconds, watts, clock float64) result.GPUReading {
		return result.GPUReading{At: at(seconds), PowerWatts: ptr(watts), SMClockMHz: ptr(clock)}
	}
	counter := func(seconds, joules float64) result.GPUReading {
		return result.GPUReading{At: at(seconds), EnergyJoules: ptr(joules)}
	}
	for _, tt := range []struct {
		name     string
		readings []result.GPUReading
		windows  []window
		want     result.GPUTelemetry
	}{
		{"nothing", nil, windows, result.GPUTelemetry{}},
		{"nothing timed", []result.GPUReading{reading(1, 50, 2000)}, nil, result.GPUTelemetry{}},
		{"outside", []result.GPUReading{reading(0.9, 10, 300), reading(2.5, 10, 300), reading(4.3, 10, 300)}, windows, result.GPUTelemetry{}},
		{"inside, and just after", []result.GPUReading{reading(0.5, 10, 300), reading(1, 50, 2000), reading(3.5, 70, 1800), reading(4.2, 90, 1900)}, windows,
			result.GPUTelemetry{PowerWatts: ptr(70), SMClockMHz: &result.Range{Min: 1800, Max: 2000}}},
		{"a counter", []result.GPUReading{counter(0.5, 100), counter(1.5, 200), counter(2.5, 300), counter(4.5, 700)}, windows,
			// 50 + 50 J in the first, half of 400 J in the second.
			result.GPUTelemetry{EnergyJoules: ptr(300), PowerWatts: ptr(150)}},
		{"a counter read at every turn", []result.GPUReading{counter(1, 100), counter(2, 200), counter(3, 300), counter(4, 500)}, windows,
			result.GPUTelemetry{EnergyJoules: ptr(300), PowerWatts: ptr(150)}},
		{"a counter that is not read to the end", []result.GPUReading{counter(0.5, 100), counter(3.5, 200)}, windows, result.GPUTelemetry{}},
		{"a counter that begins too late", []result.GPUReading{counter(1.5, 100), counter(4.5, 200)}, windows, result.GPUTelemetry{}},
		{"a counter that was reset", []result.GPUReading{counter(0.5, 100), counter(4.5, 20)}, windows, result.GPUTelemetry{}},
		{"too short for a counter", []result.GPUReading{counter(0.5, 100), counter(4.5, 500), reading(1.2, 60, 2000)}, []window{{at(1), at(1.5)}},
			result.GPUTelemetry{PowerWatts: ptr(60), SMClockMHz: &result.Range{Min: 2000, Max: 2000}}},
		{"the rest", []result.GPUReading{
			{At: at(1.1), BusyPercent: ptr(90), TemperatureC: ptr(50), UsedBytes: bytes(5), Throttled: []string{"power cap"}, MemoryClockMHz: ptr(6000)},
			{At: at(1.2), TemperatureC: ptr(60), UsedBytes: bytes(7), Throttled: []string{"power cap", "power brake"}},
			{At: at(1.3), BusyPercent: ptr(100), TemperatureC: ptr(40), UsedBytes: bytes(6)},
			{At: at(1.4)},
			{At: at(2.5), BusyPercent: ptr(0), TemperatureC: ptr(99), Throttled: []string{"sync boost"}},
		}, windows, result.GPUTelemetry{
			BusyPercent: ptr(95), TemperatureC: ptr(60), UsedBytes: bytes(7), Throttled: []string{"power cap", "power brake"}, MemoryClockMHz: &result.Range{Min: 6000, Max: 6000},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, summarise(tt.readings, tt.windows), near); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
