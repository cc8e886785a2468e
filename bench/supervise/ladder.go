package supervise

import (
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Limits of the steps that have no budget.
const (
	startupLimit = 2 * time.Minute  // opening back-ends, which may start a GPU driver
	betweenLimit = time.Minute      // freeing the memory of a test
	margin       = 2 * time.Second  // until an event arrives, or a finished process ends
	killLimit    = 10 * time.Second // until SIGKILL works; a driver may hold the process in the kernel
)

// StopWithin is how long a worker may take to stop when the run ends.
const StopWithin = 1500 * time.Millisecond

// ladder is the parent's rung of the watchdog. Its timer is always set a little later
// than the worker's, so it fires only if the worker cannot end the test itself. The
// zero ladder has no timer.
type ladder struct {
	timer    *time.Timer // nil: no limit
	limit    time.Duration
	due      time.Time   // when the timer fires
	loss     record.Loss // if the timer fires
	stopping bool        // the last deadline is set

	test   time.Time // start of the current test
	budget time.Duration
}

// set sets the timer; a limit of 0 removes it. failure says what the worker did if the
// timer fires, for example "did not exit".
func (l *ladder) set(limit time.Duration, status result.Status, failure string) {
	l.stop()
	l.loss = record.Loss{Status: status, Reason: "the worker " + failure + " and was killed", Gone: true}
	if l.limit = limit; limit > 0 {
		l.timer, l.due = time.NewTimer(limit), time.Now().Add(limit)
	}
}

// again gives the worker the whole limit once more, because it was stopped.
func (l *ladder) again() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer, l.due = time.NewTimer(l.limit), time.Now().Add(l.limit)
	}
}

// late tells whether the timer has fired so late that this process was stopped before.
func (l *ladder) late() bool { return time.Since(l.due) > margin }

func (l *ladder) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.timer = nil
}

// C fires when the worker's time is over. It never fires without a limit.
func (l *ladder) C() <-chan time.Time {
	if l.timer == nil {
		return nil
	}
	return l.timer.C
}

// stopWithin sets the last deadline. Later events do not change it.
func (l *ladder) stopWithin(limit time.Duration) {
	l.set(limit, result.Aborted, "did not stop when told to")
	l.stopping = true
}

// follow sets the ladder for the event that must come after e. A step with a budget
// that is late is a timeout. Any other late step is a crash.
func (l *ladder) follow(e bench.Event) {
	if l.stopping {
		return
	}
	switch e := e.(type) {
	case bench.EngineReady:
		l.set(betweenLimit, result.Crashed, "did not begin to load")
	case bench.LimitsStarted:
		l.within(e.Budget, bench.Grace(0), "budget of the limits")
	case bench.LimitsDone:
		l.set(betweenLimit, result.Crashed, "did not begin to load")
	case bench.LoadStarted:
		l.within(e.Budget, bench.Grace(0), "load budget")
	case bench.LoadDone:
		l.set(betweenLimit, result.Crashed, "did not begin a test")
	case bench.PrecompileStarted:
		l.within(e.Budget, bench.Grace(0), "budget of the precompile passes")
	case bench.PrecompileDone:
		l.set(betweenLimit, result.Crashed, "did not begin a test")
	case bench.TestStarted:
		l.test, l.budget = time.Now(), e.Budget
		l.within(e.Budget, bench.Grace(0), "test's budget")
	case bench.WarmupDone:
		l.within(l.left(), bench.Grace(e.UBatch), "test's budget")
	case bench.RepetitionDone:
		l.within(l.left(), bench.Grace(e.UBatch), "test's budget")
	case bench.CoolDownStarted:
		l.set(0, result.Crashed, "") // the parent waits, not the worker
	case bench.CoolDownDone:
		l.set(betweenLimit, result.Crashed, "did not begin a test")
	case bench.AbortRequested:
		l.set(e.Grace+margin, e.Status, "did not abort within "+e.Grace.String())
	case bench.GraceExpired:
		l.set(margin, l.loss.Status, "did not abort within "+e.Grace.String())
	case bench.TestDone:
		l.set(betweenLimit, result.Crashed, "did not go on")
	case bench.JobDone:
		l.set(betweenLimit, result.Crashed, "did not exit")
	}
}

// exiting sets the ladder for a worker that has closed its file of events.
func (l *ladder) exiting() {
	if !l.stopping {
		l.set(margin, result.Crashed, "closed its events but did not exit")
	}
}

// within sets the ladder to a budget, a grace period and the margin. A budget of 0 is
// no limit; a negative one is over. name is the name of the budget.
func (l *ladder) within(budget, grace time.Duration, name string) {
	failure := fmt.Sprintf("exceeded the %s and %v of grace", name, grace)
	if budget == 0 {
		l.set(0, result.Timeout, failure)
		return
	}
	l.set(max(budget, 0)+grace+margin, result.Timeout, failure)
}

// left is what is left of the current test's budget: negative if the budget is over, 0
// if there is none.
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
