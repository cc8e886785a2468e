package supervise

import (
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Limits on the steps that have no budget of their own.
const (
	startupLimit = 2 * time.Minute  // opening back-ends; a GPU driver may start with it
	betweenLimit = time.Minute      // freeing one test's memory
	margin       = 2 * time.Second  // for an event to arrive, or a process that is done to end
	killLimit    = 10 * time.Second // for SIGKILL to work: a driver may hold the process in the kernel
)

// StopWithin is how long a worker may take to stop when the run ends.
const StopWithin = 1500 * time.Millisecond

// ladder is the parent's rung of the watchdog: a timer that is always set a
// little later than the worker's own, so that it fires only when the worker
// cannot help itself any more. The zero ladder is not set.
type ladder struct {
	timer    *time.Timer
	loss     record.Loss // when the timer fires
	stopping bool        // the last deadline is set

	test   time.Time // start of the test under way
	budget time.Duration
}

// set moves the deadline; a limit of 0 takes it away. what did not happen when
// it passes.
func (l *ladder) set(limit time.Duration, status result.Status, what string) {
	l.stop()
	l.loss = record.Loss{Status: status, Reason: "the worker " + what + " and was ended", Gone: true}
	if limit > 0 {
		l.timer = time.NewTimer(limit)
	}
}

func (l *ladder) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timer = nil
}

// C fires when the worker's time is over; it never does when no limit is set.
func (l *ladder) C() <-chan time.Time {
	if l.timer == nil {
		return nil
	}
	return l.timer.C
}

// stopWithin sets the last deadline, which nothing the worker says moves.
func (l *ladder) stopWithin(limit time.Duration) {
	l.set(limit, result.Aborted, "did not stop when told to")
	l.stopping = true
}

// follow sets the ladder for what must come after e. Too late for a budget is a
// timeout; too late for what takes no time is a crash.
func (l *ladder) follow(e bench.Event) {
	if l.stopping {
		return
	}
	switch e := e.(type) {
	case bench.EngineReady:
		l.set(betweenLimit, result.Crashed, "did not begin to load")
	case bench.LoadStarted:
		l.within(e.Budget, bench.Grace(0), "did not load the model")
	case bench.LoadDone:
		l.set(betweenLimit, result.Crashed, "did not begin a test")
	case bench.PrecompileStarted:
		l.within(e.Budget, bench.Grace(0), "did not compute the passes before the first test")
	case bench.PrecompileDone:
		l.set(betweenLimit, result.Crashed, "did not begin a test")
	case bench.TestStarted:
		l.test, l.budget = time.Now(), e.Budget
		l.within(e.Budget, bench.Grace(0), "did not end the test")
	case bench.WarmupDone:
		l.within(l.left(), bench.Grace(e.UBatch), "did not end the test")
	case bench.RepetitionDone:
		l.within(l.left(), bench.Grace(e.UBatch), "did not end the test")
	case bench.AbortRequested:
		l.set(e.Grace+margin, e.Status, "did not return within "+e.Grace.String()+" of being told to abort")
	case bench.GraceExpired:
		l.set(margin, l.loss.Status, "did not return within "+e.Grace.String()+" of being told to abort")
	case bench.TestDone:
		l.set(betweenLimit, result.Crashed, "did not go on")
	case bench.JobDone:
		l.set(betweenLimit, result.Crashed, "did not exit")
	}
}

// exiting sets the ladder for a worker that has closed its end of the events.
func (l *ladder) exiting() {
	if !l.stopping {
		l.set(margin, result.Crashed, "went silent")
	}
}

// within sets the ladder to a budget, the grace after it and a margin; a budget
// of 0 is no limit.
func (l *ladder) within(budget, grace time.Duration, what string) {
	if budget == 0 {
		l.set(0, result.Timeout, what)
		return
	}
	l.set(max(budget, 0)+grace+margin, result.Timeout, fmt.Sprintf("%s within its budget and %v of grace", what, grace))
}

// left is what is left of the test's budget: negative when it is over, 0 when
// there is none.
func (l *ladder) left() time.Duration {
	if l.budget == 0 {
		return 0
	}
	left := l.budget - time.Since(l.test)
	if left == 0 {
		left = -1
	}
	return left
}
