//go:build !cpu

package gpu

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// What the driver reports during the timed part of a test is summed up at its end.
func TestWatch(t *testing.T) {
	t.Setenv("NVML_THROTTLE", "0x40")
	t.Setenv("NVML_OTHERS", "3")
	w := Watch(t.TempDir(), fakeNVML(t), 10*time.Millisecond, map[string]string{"0000:c1:00.0": PTXKernels})
	if w == nil {
		t.Fatal("not watched")
	}
	defer w.Close()
	step := func(e bench.Event) []bench.Event { return w.Observe(bench.Stamped{At: time.Now(), Event: e}) }
	step(bench.EngineReady{PID: os.Getpid()}) // the library names the process that asks
	step(bench.TestStarted{Test: result.Test{Gen: 1}})
	step(bench.WarmupDone{})
	start := time.Now()
	time.Sleep(30 * time.Millisecond)
	step(bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Since(start)}})
	got := step(bench.TestDone{})
	number := func(f float64) *float64 { return &f }
	used := uint64(1 << 30)
	want := []bench.Event{bench.GPUObserved{Devices: []bench.GPUObservation{{PCIAddress: "0000:c1:00.0", GPUTelemetry: result.GPUTelemetry{
		Driver: "550.54.15", Kernels: PTXKernels, PowerWatts: number(71.5), TemperatureC: number(54), BusyPercent: number(97), UsedBytes: &used,
		SMClockMHz: &result.Range{Min: 2040, Max: 2040}, MemoryClockMHz: &result.Range{Min: 6251, Max: 6251},
		Throttled: []string{"temperature (hardware)"}, Others: 3,
	}}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	before := len(w.readings[0])
	w.read() // between tests
	if len(w.readings[0]) != before {
		t.Error("read between tests")
	}
	if w := Watch(t.TempDir(), filepath.Join(t.TempDir(), "none"), time.Second, nil); w != nil || w.Observe(bench.Stamped{Event: bench.TestDone{}}) != nil {
		t.Error("watched without a library")
	}
	if w := Watch(t.TempDir(), fakeNVML(t), 0, nil); w != nil {
		t.Error("watched though it was switched off")
	}
}

// A driver that does not answer delays a run only once.
func TestWatchIsNotHeld(t *testing.T) {
	w := &Watcher{requests: make(chan func())} // nobody receives
	w.Observe(bench.Stamped{Event: bench.RepetitionDone{}})
	if !w.stuck {
		t.Error("asked again and again")
	}
	w.ask(func() { t.Error("asked") })
}

func TestOtherProcesses(t *testing.T) {
	for _, tt := range []struct {
		name string
		pids []int
		want int
	}{
		{"none", nil, 0}, {"the worker", []int{7}, 0}, {"the worker and two", []int{1, 7, 9}, 2},
		{"the worker by another id, in a container", []int{1}, 0}, {"that and another", []int{1, 2}, 1},
	} {
		if got := otherProcesses(7, tt.pids); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
