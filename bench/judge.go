package bench

import (
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Judge decides which tests are worth their time. Its methods depend on their
// arguments alone; they are called from several goroutines. Package suite has
// one.
type Judge interface {
	// Before decides whether to start a test.
	Before(Prospect) Verdict
	// During decides whether to go on with a test that runs.
	During(Prospect) Verdict
	// Patience is how long the pass under way may take in all before During gives
	// the test up, if nothing else becomes known; limited is false when there is
	// no limit.
	Patience(Prospect) (patience time.Duration, limited bool)
	// After is what the end of a test means for those after it. shortest tells
	// that it was the shortest of its kind.
	After(status result.Status, shortest bool) Consequence
}

// Verdict is a decision with its reason: one line with its numbers.
type Verdict struct {
	Stop   bool // do not start the test, or give it up
	Reason string
}

// Consequence is what the end of a test means for those after it.
type Consequence int

// The consequences, from mild to hard.
const (
	Continue Consequence = iota // none
	EndGroup                    // longer tests of the kind are not run with this model
	EndModel                    // no other test of this model is run, nor any of larger models; but see tooSlow
)

// Prospect is what is known of a test before it starts or while it runs. A pass
// is a repetition or, of a prompt, the warm-up.
type Prospect struct {
	Test        result.Test
	Budget      time.Duration // that is left to it; 0 is no limit
	Setup       time.Duration // of it, before the first pass: the least of this model so far, then this test's own
	Repetitions int           // still to do
	Warmup      bool          // there is one
	GPU         bool          // the engine computes on one
	Shorter     []Measured    // completed tests of the same kind and depth, in ascending length

	Passes []time.Duration // complete ones, in order
	InPass time.Duration   // the pass under way has run so long
	Tokens int             // it has done so many of its tokens; 0 where that is not known
}

// Measured is a completed test with its repetitions, at least one.
type Measured struct {
	Test        result.Test
	Repetitions []time.Duration
}

// PastTest is a test of the job's model that an earlier worker or run ended.
type PastTest struct {
	Test        result.Test     `json:"test"`
	Status      result.Status   `json:"status"`
	Repetitions []time.Duration `json:"repetitions_ns,omitempty"`
	Setup       time.Duration   `json:"setup_ns,omitempty"` // before the first pass
}

// course is a job on its way: what its tests have shown, for those to come.
type course struct {
	judge    Judge // nil: every test gets its budget
	job      Job
	gpu      bool
	deadline time.Time // of the run; zero: none
	past     []PastTest
}

// left is what is left of the run's time; ok is false when there is no limit.
func (c *course) left() (left time.Duration, ok bool) {
	if c.deadline.IsZero() {
		return 0, false
	}
	return max(0, time.Until(c.deadline)), true
}

// prospect is what is known of a test before it starts.
func (c *course) prospect(t TestBudget) Prospect {
	p := Prospect{
		Test: t.Test, Budget: t.left(), Repetitions: c.job.Repetitions - len(t.Done), Warmup: !c.job.NoWarmup, GPU: c.gpu,
	}
	for _, past := range c.past {
		if past.Status != result.OK {
			continue
		}
		if past.Setup > 0 && (p.Setup == 0 || past.Setup < p.Setup) {
			p.Setup = past.Setup
		}
		if sameGroup(past.Test, t.Test) && past.Test.Tokens() < t.Test.Tokens() && len(past.Repetitions) > 0 {
			p.Shorter = append(p.Shorter, Measured{past.Test, past.Repetitions})
		}
	}
	return p
}

// sameGroup tells whether two tests differ in length alone.
func sameGroup(a, b result.Test) bool { return a.Kind() == b.Kind() && a.Depth == b.Depth }

// skip is why a test is not started; nil when it is. reason is why it is worth
// its time.
func (c *course) skip(t TestBudget) (skipped *TestSkipped, reason string) {
	no := func(status result.Status, format string, args ...any) (*TestSkipped, string) {
		return &TestSkipped{Model: c.job.Model.Name, Test: t.Test, Status: status, Reason: fmt.Sprintf(format, args...)}, ""
	}
	left, limited := c.left()
	if limited && left == 0 {
		return no(result.TimeLimit, "not started: the time limit of the run has ended")
	}
	if c.judge == nil {
		return nil, ""
	}
	for i, past := range c.past {
		switch c.judge.After(past.Status, c.shortest(i)) {
		case EndGroup:
			if !sameGroup(past.Test, t.Test) || past.Test.Tokens() > t.Test.Tokens() {
				continue
			}
		case EndModel:
			if past.Test.E2E != t.Test.E2E && tooSlow(past.Status) {
				continue
			}
		default:
			continue
		}
		return no(statusAfter(past.Status), "not started: %v ended as %s", past.Test, past.Status)
	}
	p := c.prospect(t)
	v := c.judge.Before(p)
	if v.Stop {
		return no(result.PredictedTimeout, "%s", v.Reason)
	}
	if limited && (p.Budget == 0 || left < p.Budget) {
		p.Budget = max(left, 1)
		if v := c.judge.Before(p); v.Stop {
			return no(result.TimeLimit, "%s, by the time limit of the run", v.Reason)
		}
	}
	return nil, v.Reason
}

// tooSlow tells whether a test did not fit its budget. End-to-end tests have
// budgets of their own and do more than pp and tg: what these did not fit says
// nothing of them, nor the other way round.
func tooSlow(s result.Status) bool { return s == result.Timeout || s == result.PredictedTimeout }

// shortest tells whether no test before past test i was of its group.
func (c *course) shortest(i int) bool {
	for _, before := range c.past[:i] {
		if sameGroup(before.Test, c.past[i].Test) {
			return false
		}
	}
	return true
}

// statusAfter is the status of a test that is not run because of another's.
func statusAfter(s result.Status) result.Status {
	if s == result.Timeout {
		return result.PredictedTimeout
	}
	return s
}

// budget is the time that a test may take from now on, and whose limit it is.
func (c *course) budget(t TestBudget) (budget time.Duration, limit result.Status) {
	budget, limit = t.left(), result.Timeout
	if left, limited := c.left(); limited && (budget == 0 || left < budget) {
		return max(left, 1), result.TimeLimit
	}
	return budget, limit
}
