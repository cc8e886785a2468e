package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Grace is how long an engine may take to return once it was told to abort,
// before its process is ended. The CPU back-end looks at the flag after each
// node of the graph; a GPU only between passes, so one to two ubatches go by.
// ubatch is the longest pass seen in the test; 0 when none has ended yet (a
// first pass through a large model can be slow).
func Grace(ubatch time.Duration) time.Duration {
	if ubatch <= 0 {
		return graceUnknown
	}
	return graceBase + 3*ubatch
}

const (
	graceBase    = time.Second
	graceUnknown = 30 * time.Second
)

// watchdog aborts an engine when a test's budget or the run's context ends.
// It is a goroutine of its own; stop joins it.
type watchdog struct {
	engine Engine
	emit   func(Event) error
	quit   chan struct{}
	done   chan struct{}

	mu        sync.Mutex
	ubatch    time.Duration
	status    result.Status // OK until it barked
	reason    string
	requested time.Time
}

// watch starts the watchdog of one test. A budget of 0 is no limit.
func watch(ctx context.Context, e Engine, budget time.Duration, emit func(Event) error) *watchdog {
	w := &watchdog{engine: e, emit: emit, quit: make(chan struct{}), done: make(chan struct{}), status: result.OK}
	go w.run(ctx, budget)
	return w
}

func (w *watchdog) run(ctx context.Context, budget time.Duration) {
	defer close(w.done)
	var deadline <-chan time.Time
	if budget > 0 {
		t := time.NewTimer(budget)
		defer t.Stop()
		deadline = t.C
	}
	var grace time.Duration
	select {
	case <-w.quit:
		return
	case <-ctx.Done():
		grace = w.bark(result.Aborted, fmt.Sprintf("stopped: %v", context.Cause(ctx)))
	case <-deadline:
		grace = w.bark(result.Timeout, fmt.Sprintf("not done within its budget of %s", budget.Round(time.Millisecond)))
	}
	select {
	case <-w.quit:
	case <-time.After(grace):
		_ = w.emit(GraceExpired{Grace: grace}) // the reader is gone: so are we, soon
	}
}

// bark aborts the engine and returns how long it may take to return.
func (w *watchdog) bark(status result.Status, reason string) (grace time.Duration) {
	w.mu.Lock()
	w.status, w.reason, w.requested = status, reason, time.Now()
	grace = Grace(w.ubatch)
	w.mu.Unlock()
	w.engine.Abort() // first: the event can wait, the engine cannot
	_ = w.emit(AbortRequested{Status: status, Reason: reason, Grace: grace})
	return grace
}

// saw notes how long a pass through the graph took.
func (w *watchdog) saw(pass time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ubatch = max(w.ubatch, pass)
	return w.ubatch
}

// stop ends the watchdog and tells why it barked and when; status is OK when
// it did not. After stop the engine is not told to abort any more.
func (w *watchdog) stop() (status result.Status, reason string, requested time.Time) {
	close(w.quit)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.reason, w.requested
}
