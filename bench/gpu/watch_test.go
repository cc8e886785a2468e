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
	if !w.TellsPower() {
		t.Error("it tells no power")
	}
	w.Idle()
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
		Driver: "550.54.15", Kernels: PTXKernels, PowerWatts: number(71.5), IdleWatts: number(71.5), TemperatureC: number(54), BusyPercent: number(97), UsedBytes: &used,
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
	} else if w.Idle(); w.TellsPower() {
		t.Error("power without a library")
	}
	if w := Watch(t.TempDir(), fakeNVML(t), 0, nil); w != nil {
		t.Error("watched though it was switched off")
	}
}

// countingSource counts its readings.
type countingSource struct {
	source
	readings int
}

func (s *countingSource) read(int, int) result.GPUReading {
	s.readings++
	return result.GPUReading{At: time.Now()}
}

// The devices are read once when the events of a burst arrive. Each repetition has a
// window of its own.
func TestWatchBurst(t *testing.T) {
	at := time.Now()
	source := &countingSource{}
	w := &Watcher{
		requests: make(chan func()), testing: true,
		devices: []watched{{source: source}}, readings: make([][]result.GPUReading, 1), others: make([]int, 1),
	}
	go func() {
		for f := range w.requests {
			f()
		}
	}()
	defer close(w.requests)
	repetition := bench.RepetitionDone{Sample: result.Sample{Elapsed: time.Second}}
	for i, s := range []bench.Stamped{
		{Event: bench.ContextReady{}},
		{Event: bench.WarmupDone{}, More: 2}, {Event: repetition, More: 1}, {Event: repetition},
		{Event: repetition},
	} {
		s.At = at.Add(time.Duration(i) * time.Second)
		w.Observe(s)
	}
	if source.readings != 3 { // after the context and after each burst
		t.Errorf("%d readings, want 3", source.readings)
	}
	end := at.Add(2 * time.Second)
	want := []window{{end.Add(-time.Second), end}, {end, end.Add(time.Second)}, {end.Add(time.Second), end.Add(2 * time.Second)}}
	if diff := cmp.Diff(want, w.windows); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
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
