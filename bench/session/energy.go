package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
)

// idleTime is how long the idle power is measured, once before the first test.
const idleTime = time.Second

// energy follows a worker's events. At the end of a test it returns an event with the
// energy of the test. One goroutine calls it.
type energy struct {
	meter *host.EnergyMeter
	more  int // events that follow, of a burst
}

// observeIdle measures the power of the machine before anything runs. A machine that tells
// no power does not wait.
func observeIdle(ctx context.Context, meter *host.EnergyMeter, watch *gpu.Watcher) {
	logDenied(meter.Facts())
	if !meter.Readable() && !watch.TellsPower() {
		return
	}
	meter.Idle(ctx, idleTime)
	watch.Idle()
}

// logDenied says once which counters this user may not read.
func logDenied(f host.Energy) {
	if len(f.Denied) > 0 {
		slog.Info("only root may read the energy of some parts", "file", f.Denied[0], "hint", f.Hint)
	}
}

// Observe is for supervise.Options. The events of a burst come together at its end. It
// counts if one of them is a repetition.
func (e *energy) Observe(s bench.Stamped) []bench.Event {
	if !e.meter.Readable() {
		return nil
	}
	switch s.Event.(type) {
	case bench.TestStarted:
		e.more = 0
		e.meter.Start()
	case bench.ContextReady, bench.WarmupDone:
		e.read(s)
	case bench.RepetitionDone:
		e.read(s)
		e.meter.Count()
	case bench.TestDone:
		joules, window := e.meter.Total()
		return []bench.Event{bench.EnergyObserved{Window: window, Joules: joules, IdleWatts: e.meter.IdleWatts(), Sampled: e.meter.Sampled()}}
	}
	return nil
}

// read reads the counters at the first event of a burst.
func (e *energy) read(s bench.Stamped) {
	if e.more == 0 {
		e.meter.Read()
	}
	e.more = s.More
}
