package bench

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Grace is how long an engine may take to return after Abort before its process
// is ended. The CPU back-end checks the abort flag after each node of the graph. A
// GPU back-end checks it only between micro-batches, so it may compute one or two
// more. ubatch is the longest time of a micro-batch in this test so far. It is 0 if
// none is complete: the first pass through a large model can be slow.
//
// An RPC server may need longer. The library sends it graphs without waiting, so
// sockets may hold all micro-batches of a small model's prompt. Waiting between
// micro-batches would bound that, but several servers could then not compute at once,
// as they do in llama-bench. Instead, the next worker waits up to 90 s for a server
// that still computes for the last one.
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

// watchdog aborts an engine, once, when the budget of its test or the context of the
// run ends, when the policy gives the test up, or when the process was stopped and goes
// on. It has a goroutine of its own, which
// stop joins.
type watchdog struct {
	engine Engine
	policy Policy        // nil: only the budget counts
	limit  result.Status // of a test that passes its budget
	emit   func(Event) error
	quit   chan struct{}
	done   chan struct{}
	moved  chan struct{} // a pass began or ended; has room for one
	// continued has a value when the process goes on after a stop; nil: never.
	continued <-chan os.Signal

	mu        sync.Mutex // guards all below
	prospect  policy.Prospect
	began     time.Time     // of the current pass; zero between passes
	ubatch    time.Duration // the longest micro-batch so far
	status    result.Status // OK until the watchdog aborts the engine
	reason    string        // why it did
	requested time.Time     // when it did
	stopped   bool          // it did because the process was stopped: the test is repeated
}

// watch starts the watchdog of one test. A budget of 0 is no limit; limit is the
// status of a test that passes it.
func watch(ctx context.Context, e Engine, p Policy, prospect policy.Prospect, limit result.Status, emit func(Event) error) *watchdog {
	w := &watchdog{
		engine: e, policy: p, limit: limit, emit: emit, prospect: prospect, status: result.OK,
		quit: make(chan struct{}), done: make(chan struct{}), moved: make(chan struct{}, 1), continued: continued(ctx),
	}
	go w.run(ctx, prospect.Budget)
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
	check := time.NewTimer(time.Hour)
	defer check.Stop()
	var grace time.Duration
	for grace == 0 {
		var due <-chan time.Time
		if wait, ok := w.nextCheck(); ok {
			check.Reset(wait)
			due = check.C
		}
		select {
		case <-w.quit:
			return
		case <-ctx.Done():
			grace = w.abort(result.Aborted, fmt.Sprintf("stopped: %v", context.Cause(ctx)))
		case <-deadline:
			grace = w.abort(w.limit, overdue("completed", budget, w.limit))
		case <-w.continued:
			w.mu.Lock()
			w.stopped = true
			w.mu.Unlock()
			grace = w.abort(result.Crashed, "the process was stopped and continued") // crashed, if the engine does not return
		case <-w.moved:
		case <-due:
			if decision := w.policy.During(w.now()); decision.Stop {
				status := result.PredictedTimeout
				if w.limit == result.TimeLimit {
					status = result.TimeLimit
				}
				grace = w.abort(status, decision.Reason)
			}
		}
	}
	select {
	case <-w.quit:
	case <-time.After(grace):
		_ = w.emit(GraceExpired{Grace: grace}) // if the parent is gone, this process ends soon too
	}
}

// During a long pass, the number of tokens may tell more than the time. The
// watchdog therefore checks a running pass from time to time, but rarely: the CPUs
// belong to the engine.
const (
	checksPerBudget = 16
	minCheckWait    = time.Second
)

// nextCheck is the time until the next check of the current pass. ok is false
// when there is nothing to check.
func (w *watchdog) nextCheck() (wait time.Duration, ok bool) {
	if w.policy == nil {
		return 0, false
	}
	p := w.now()
	if w.betweenPasses() {
		return 0, false
	}
	patience, limited := w.policy.Patience(p)
	if !limited {
		return 0, false
	}
	wait = max(p.Budget/checksPerBudget, minCheckWait)
	if left := patience - p.InPass; left >= 0 {
		wait = min(wait, left+time.Millisecond) // a projection exactly at the limit goes on
	}
	return wait, true
}

func (w *watchdog) betweenPasses() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.began.IsZero()
}

// now is what is known of the test at this moment.
func (w *watchdog) now() policy.Prospect {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.prospect
	if !w.began.IsZero() {
		p.InPass, p.Tokens = time.Since(w.began), w.engine.Tokens()
	}
	return p
}

// passBegins starts the clock of a pass. setup is the time since the start of the
// test. It is kept only from the first pass.
func (w *watchdog) passBegins(setup time.Duration) {
	w.mu.Lock()
	if len(w.prospect.Passes) == 0 {
		w.prospect.Setup = setup
	}
	w.began = time.Now()
	w.mu.Unlock()
	w.notify()
}

// passEnds stops the clock of a pass, which is complete.
func (w *watchdog) passEnds() {
	w.mu.Lock()
	w.prospect.Passes = append(w.prospect.Passes, time.Since(w.began))
	w.began = time.Time{}
	w.mu.Unlock()
	w.notify()
}

// notify wakes the watchdog's goroutine, because a pass began or ended.
func (w *watchdog) notify() {
	select {
	case w.moved <- struct{}{}:
	default: // the goroutine has not seen the last notification yet
	}
}

// abort aborts the engine. grace is how long the engine may take to return.
func (w *watchdog) abort(status result.Status, reason string) (grace time.Duration) {
	w.mu.Lock()
	w.status, w.reason, w.requested = status, reason, time.Now()
	grace = Grace(w.ubatch)
	stopped := w.stopped
	w.mu.Unlock()
	w.engine.Abort() // before the event, which can wait
	_ = w.emit(AbortRequested{Status: status, Reason: reason, Grace: grace, Stopped: stopped})
	return grace
}

// saw records the time of a micro-batch, and returns the longest so far.
func (w *watchdog) saw(ubatch time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ubatch = max(w.ubatch, ubatch)
	return w.ubatch
}

// stop ends the watchdog. It returns why and when the watchdog aborted the engine;
// status is OK if it did not. After stop, the watchdog does not call Abort.
func (w *watchdog) stop() (status result.Status, reason string, requested time.Time) {
	close(w.quit)
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.reason, w.requested
}
