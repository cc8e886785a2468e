package gpu

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// DefaultInterval is the time between two readings of the GPUs during a test.
// Recent GPUs report power as the mean of one second, so reading more often would
// say nothing new.
const DefaultInterval = time.Second

// replyLimit is how long a worker's step may wait for a reading of all devices. A
// device that hangs must delay the run only once.
const replyLimit = time.Second

// Watcher reads the GPUs during the tests. It runs in the parent process, where
// it does not disturb the worker. One goroutine asks the driver, every interval while
// a test runs and at the end of each burst of repetitions, while the worker waits. The readings
// of a test become one event, bench.GPUObserved. A nil Watcher does nothing.
type Watcher struct {
	sources  []source
	devices  []watched
	kernels  map[string]string // by PCI address
	requests chan func()       // for the goroutine
	quit     chan struct{}
	ended    chan struct{} // closed when the goroutine has ended
	stuck    bool          // the driver did not answer in time and is not asked again
	more     int           // events that follow, of a burst
	idle     []*float64    // power of each device in W before the first test; nil: not known

	mu       sync.Mutex
	testing  bool
	worker   int                   // process id
	windows  []window              // of the current test
	readings [][]result.GPUReading // of each device in the current test
	others   []int                 // most other processes seen on each device
}

// source reports what GPUs do. A Watcher calls it from one goroutine.
type source interface {
	list() []watched
	read(i, worker int) result.GPUReading  // worker is the process that computes; 0: none
	others(i, worker int) (n int, ok bool) // other processes that compute; ok false: not known
	close()
}

// watched is a GPU of a source.
type watched struct {
	source
	index           int // in its source
	address, driver string
}

func (n *NVML) list() (devices []watched) {
	for i, d := range n.Devices() {
		devices = append(devices, watched{source: n, index: i, address: d.PCIAddress, driver: d.DriverVersion})
	}
	return devices
}

func (n *NVML) read(i, _ int) result.GPUReading { return n.Read(i) }
func (n *NVML) close()                          { n.Close() }

func (n *NVML) others(i, worker int) (int, bool) {
	pids, ok := n.Processes(i)
	return otherProcesses(worker, pids), ok
}

// Watch starts to watch the GPUs that NVIDIA's library reports, and those of AMD and
// Intel whose drivers have files below root. library is the name or path of NVIDIA's.
// kernels says by PCI address how a device gets its kernels. Watch returns nil if there
// is nothing to watch or interval is not positive.
func Watch(root, library string, interval time.Duration, kernels map[string]string) *Watcher {
	if interval <= 0 {
		return nil
	}
	w := &Watcher{
		kernels:  kernels,
		requests: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	switch nvml, err := startNVML(library); {
	case err == nil:
		w.sources = append(w.sources, nvml)
	case !errors.Is(err, ErrNoNVML):
		slog.Debug("NVIDIA's GPUs are not watched", "error", err)
	}
	if s := openSysfs(root); s != nil {
		w.sources = append(w.sources, s)
	}
	for _, s := range w.sources {
		w.devices = append(w.devices, s.list()...)
	}
	if len(w.sources) == 0 {
		return nil
	}
	go w.run(interval)
	return w
}

func (w *Watcher) run(interval time.Duration) {
	defer close(w.ended)
	defer func() {
		for _, s := range w.sources {
			s.close()
		}
	}()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-w.quit:
			return
		case f := <-w.requests:
			f()
		case <-ticker.C:
			w.read()
		}
	}
}

// Close ends the goroutine. If the driver holds the goroutine, Close returns without it.
func (w *Watcher) Close() {
	if w == nil {
		return
	}
	close(w.quit)
	select {
	case <-w.ended:
	case <-time.After(replyLimit):
	}
}

// ask has the goroutine call f and waits for it, at most for replyLimit.
func (w *Watcher) ask(f func()) {
	if w.stuck {
		return
	}
	done := make(chan struct{})
	limit := time.NewTimer(replyLimit)
	defer limit.Stop()
	select {
	case w.requests <- func() { f(); close(done) }:
	case <-limit.C:
		w.stuck = true
		return
	}
	select {
	case <-done:
	case <-limit.C:
		w.stuck = true
	}
}

// read reads all devices if a test runs.
func (w *Watcher) read() {
	w.mu.Lock()
	testing, worker := w.testing, w.worker
	w.mu.Unlock()
	if !testing {
		return
	}
	for i, d := range w.devices {
		r := d.read(d.index, worker)
		w.mu.Lock()
		w.readings[i] = append(w.readings[i], r)
		w.mu.Unlock()
	}
}

// count counts the processes other than the worker that compute on each device.
func (w *Watcher) count() {
	w.mu.Lock()
	worker := w.worker
	w.mu.Unlock()
	for i, d := range w.devices {
		n, ok := d.others(d.index, worker)
		if !ok {
			continue
		}
		w.mu.Lock()
		w.others[i] = max(w.others[i], n)
		w.mu.Unlock()
	}
}

// otherProcesses counts the processes other than the worker. In a container the
// driver reports the worker by another id; then one process is taken to be it.
func otherProcesses(worker int, pids []int) int {
	if slices.Contains(pids, worker) {
		return len(slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return pid == worker }))
	}
	return max(len(pids)-1, 0)
}

// Observe follows a worker's events. At the end of a test it returns an event with
// the telemetry. One goroutine must call it.
func (w *Watcher) Observe(s bench.Stamped) []bench.Event {
	if w == nil {
		return nil
	}
	switch e := s.Event.(type) {
	case bench.EngineReady:
		w.mu.Lock()
		w.worker, w.testing = e.PID, false
		w.mu.Unlock()
	case bench.TestStarted:
		w.more = 0
		w.mu.Lock()
		w.testing, w.windows = true, nil
		w.readings, w.others = make([][]result.GPUReading, len(w.devices)), make([]int, len(w.devices))
		w.mu.Unlock()
		w.ask(w.count)
	case bench.ContextReady, bench.WarmupDone:
		w.readOnce(s)
	case bench.RepetitionDone:
		w.mu.Lock()
		w.windows = append(w.windows, window{Start: s.At.Add(-e.Sample.Elapsed), End: s.At})
		w.mu.Unlock()
		w.readOnce(s)
	case bench.TestDone:
		w.ask(w.count)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.testing = false
		return []bench.Event{w.observed()}
	}
	return nil
}

// readOnce reads all devices at the first event of a burst.
func (w *Watcher) readOnce(s bench.Stamped) {
	if w.more == 0 {
		w.ask(w.read)
	}
	w.more = s.More
}

// observed returns the telemetry of the test. The caller holds the lock.
func (w *Watcher) observed() bench.GPUObserved {
	var o bench.GPUObserved
	for i, d := range w.devices {
		t := summarise(w.readings[i], w.windows)
		t.Driver, t.Kernels, t.Others = d.driver, w.kernels[d.address], w.others[i]
		if i < len(w.idle) {
			t.IdleWatts = w.idle[i]
		}
		o.Devices = append(o.Devices, bench.GPUObservation{PCIAddress: d.address, GPUTelemetry: t})
	}
	return o
}

// Temperature returns the temperature of the hottest device in °C; ok is false if no
// device reports one. The goroutine that calls Observe must call it.
func (w *Watcher) Temperature() (celsius float64, ok bool) {
	if w == nil {
		return 0, false
	}
	answer := make(chan float64, len(w.devices))
	w.ask(func() {
		for _, d := range w.devices {
			if t := d.read(d.index, 0).TemperatureC; t != nil {
				answer <- *t
			}
		}
	})
	for {
		select {
		case t := <-answer:
			celsius, ok = max(celsius, t), true
		default:
			return celsius, ok
		}
	}
}

// Idle reads the power of each device. Call it before the first test, when nothing has run
// for a second: recent GPUs report the mean of that time. The goroutine that calls Observe
// must call it.
func (w *Watcher) Idle() {
	if w != nil {
		w.idle = w.power()
	}
}

// TellsPower tells whether a device reports its power. The goroutine that calls Observe
// must call it.
func (w *Watcher) TellsPower() bool {
	return w != nil && slices.ContainsFunc(w.power(), func(watts *float64) bool { return watts != nil })
}

// power reads the power of each device in W; nil: it is not reported.
func (w *Watcher) power() []*float64 {
	answer := make(chan []*float64, 1)
	w.ask(func() {
		var all []*float64
		for _, d := range w.devices {
			all = append(all, d.read(d.index, 0).PowerWatts)
		}
		answer <- all
	})
	select {
	case all := <-answer:
		return all
	default: // it did not answer in time
		return nil
	}
}
