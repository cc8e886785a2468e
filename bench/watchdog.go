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

// watchdog aborts an engine when a test's budget or the run's context ends, or
// when its judge gives the test up. It is a goroutine of its own; stop joins it.
type watchdog struct {
	engine Engine
	judge  Judge // nil: only the budget counts
	limit  result.Status
	emit   func(Event) error
	quit   chan struct{}
	done   chan struct{}
	moved  chan struct{} // a pass began or ended; holds one

	mu        sync.Mutex
	prospect  Prospect
	began     time.Time // of the pass under way; zero between passes
	ubatch    time.Duration
	status    result.Status // OK until it barked
	reason    string
	requested time.Time
}

// watch starts the watchdog of one test. A budget of 0 is no limit; limit is the
// status of a test that passes it.
func watch(ctx context.Context, e Engine, judge Judge, p Prospect, limit result.Status, emit func(Event) error) *watchdog {
	w := &watchdog{
		engine: e, judge: judge, limit: limit, emit: emit, prospect: p, status: result.OK,
		quit: make(chan struct{}), done: make(chan struct{}), moved: make(chan struct{}, 1),
	}
	go w.run(ctx, p.Budget)
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
	look := time.NewTimer(time.Hour)
	defer look.Stop()
	var grace time.Duration
	for grace == 0 {
		var due <-chan time.Time
		if wait, ok := w.patience(); ok {
			look.Reset(wait)
			due = look.C
		}
		select {
		case <-w.quit:
			return
		case <-ctx.Done():
			grace = w.bark(result.Aborted, fmt.Sprintf("stopped: %v", context.Cause(ctx)))
		case <-deadline:
			grace = w.bark(w.limit, overdue("done", budget, w.limit))
		case <-w.moved:
		case <-due:
			if v := w.judge.During(w.now()); v.Stop {
				status := result.PredictedTimeout
				if w.limit == result.TimeLimit {
					status = result.TimeLimit
				}
				grace = w.bark(status, v.Reason)
			}
		}
	}
	select {
	case <-w.quit:
	case <-time.After(grace):
		_ = w.emit(GraceExpired{Grace: grace}) // the reader is gone: so are we, soon
	}
}

// A long pass is looked at from time to time, for the tokens it has done may
// tell more than its time: a few times in a budget, so that the engine's CPUs
// are left alone.
const (
	looks    = 16 // in one budget
	minLooks = time.Second
)

// patience is when to look at the pass under way; ok is false between passes.
func (w *watchdog) patience() (wait time.Duration, ok bool) {
	if w.judge == nil {
		return 0, false
	}
	p := w.now()
	if w.resting() {
		return 0, false
	}
	patience, limited := w.judge.Patience(p)
	if !limited {
		return 0, false
	}
	wait = max(p.Budget/looks, minLooks)
	if left := patience - p.InPass; left >= 0 {
		wait = min(wait, left+time.Millisecond) // a projection that is just on the limit goes on
	}
	return wait, true
}

func (w *watchdog) resting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.began.IsZero()
}

// now is what is known at this moment.
func (w *watchdog) now() Prospect {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.prospect
	if !w.began.IsZero() {
		p.InPass, p.Tokens = time.Since(w.began), w.engine.Tokens()
	}
	return p
}

// passBegins starts the clock of a pass. setup is the time since the start of
// the test; it counts when this is the first pass.
func (w *watchdog) passBegins(setup time.Duration) {
	w.mu.Lock()
	if len(w.prospect.Passes) == 0 {
		w.prospect.Setup = setup
	}
	w.began = time.Now()
	w.mu.Unlock()
	w.tellMoved()
}

// passEnds stops the clock of a pass that is complete.
func (w *watchdog) passEnds() {
	w.mu.Lock()
	w.prospect.Passes = append(w.prospect.Passes, time.Since(w.began))
	w.began = time.Time{}
	w.mu.Unlock()
	w.tellMoved()
}

func (w *watchdog) tellMoved() {
	select {
	case w.moved <- struct{}{}:
	default: // it will look anyway
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
