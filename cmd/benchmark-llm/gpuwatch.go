package main

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// gpuSampling is how often GPUs are read beside a test: recent ones give power
// as the mean of a second, so that more readings would say nothing new.
const gpuSampling = time.Second

// gpuPatience is how long a worker's step may wait for a reading of all devices,
// and for one that is under way: a device that hangs must hold the run only once.
const gpuPatience = time.Second

// gpuWatch reads GPUs beside the tests, in this process, so that the worker stays
// quiet. One goroutine asks the driver; between tests it rests. Beside the
// ticker's readings one is taken at the end of each repetition, while the worker
// waits. A nil gpuWatch does nothing.
type gpuWatch struct {
	nvml    *host.NVML
	devices []host.NVMLDevice
	kernels map[string]string
	asks    chan func() // for the goroutine
	quit    chan struct{}
	gone    chan struct{} // closed when the goroutine has ended
	stuck   bool          // the driver did not answer in time: it is not asked again

	mu       sync.Mutex
	testing  bool
	worker   int                   // its process
	windows  []bench.Window        // of the test under way
	readings [][]result.GPUReading // of each device, in the test under way
	others   []int                 // of each device, at most
}

// watchGPUs begins to watch the GPUs of NVIDIA's library, found by its name or
// path; nil where there is none, or nothing to watch.
func watchGPUs(library string, every time.Duration, kernels map[string]string) *gpuWatch {
	if every <= 0 {
		return nil
	}
	nvml, err := host.OpenNVML(library)
	if err != nil {
		if !errors.Is(err, host.ErrNoNVML) {
			slog.Debug("GPUs are not watched", "error", err)
		}
		return nil
	}
	w := &gpuWatch{
		nvml: nvml, devices: nvml.Devices(), kernels: kernels,
		asks: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{}),
	}
	go w.run(every)
	return w
}

func (w *gpuWatch) run(every time.Duration) {
	defer close(w.gone)
	defer w.nvml.Close()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-w.quit:
			return
		case f := <-w.asks:
			f()
		case <-ticker.C:
			w.read()
		}
	}
}

// close ends the goroutine; one that the driver holds is left behind.
func (w *gpuWatch) close() {
	if w == nil {
		return
	}
	close(w.quit)
	select {
	case <-w.gone:
	case <-time.After(gpuPatience):
	}
}

// ask has the goroutine do f and waits for it, but not for long.
func (w *gpuWatch) ask(f func()) {
	if w.stuck {
		return
	}
	done := make(chan struct{})
	patience := time.NewTimer(gpuPatience)
	defer patience.Stop()
	select {
	case w.asks <- func() { f(); close(done) }:
	case <-patience.C:
		w.stuck = true
		return
	}
	select {
	case <-done:
	case <-patience.C:
		w.stuck = true
	}
}

// read reads all devices, during a test.
func (w *gpuWatch) read() {
	w.mu.Lock()
	testing := w.testing
	w.mu.Unlock()
	if !testing {
		return
	}
	for i := range w.devices {
		r := w.nvml.Read(i)
		w.mu.Lock()
		w.readings[i] = append(w.readings[i], r)
		w.mu.Unlock()
	}
}

// count counts the processes beside the worker that compute on the devices. In a
// container the driver knows the worker by another number: then one of them is
// taken to be it.
func (w *gpuWatch) count() {
	for i := range w.devices {
		pids, ok := w.nvml.Processes(i)
		if !ok {
			continue
		}
		w.mu.Lock()
		w.others[i] = max(w.others[i], othersThan(w.worker, pids))
		w.mu.Unlock()
	}
}

func othersThan(worker int, pids []int) int {
	if slices.Contains(pids, worker) {
		return len(slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return pid == worker }))
	}
	return max(len(pids)-1, 0)
}

// observe follows a worker's events, and sums up at the end of a test.
func (w *gpuWatch) observe(s bench.Stamped) []bench.Event {
	if w == nil {
		return nil
	}
	switch e := s.Event.(type) {
	case bench.EngineReady:
		w.mu.Lock()
		w.worker, w.testing = e.PID, false
		w.mu.Unlock()
	case bench.TestStarted:
		w.mu.Lock()
		w.testing, w.windows = true, nil
		w.readings, w.others = make([][]result.GPUReading, len(w.devices)), make([]int, len(w.devices))
		w.mu.Unlock()
		w.ask(w.count)
	case bench.ContextReady, bench.WarmupDone:
		w.ask(w.read)
	case bench.RepetitionDone:
		w.mu.Lock()
		w.windows = append(w.windows, bench.Window{Start: s.At.Add(-e.Sample.Elapsed), End: s.At})
		w.mu.Unlock()
		w.ask(w.read)
	case bench.TestDone:
		w.ask(w.count)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.testing = false
		return []bench.Event{w.observed()}
	}
	return nil
}

// observed is what was seen of the test; w is locked.
func (w *gpuWatch) observed() bench.GPUObserved {
	var o bench.GPUObserved
	for i, d := range w.devices {
		t := bench.SummariseGPU(w.readings[i], w.windows)
		t.Driver, t.Kernels, t.Others = d.DriverVersion, w.kernels[d.PCIAddress], w.others[i]
		o.Devices = append(o.Devices, bench.GPUObservation{PCIAddress: d.PCIAddress, GPUTelemetry: t})
	}
	return o
}
