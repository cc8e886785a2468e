package bench

import (
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Policy decides which tests are worth their time. [policy.Policy] implements it.
// The methods depend on their arguments alone, and several goroutines may call
// them.
//
// The worker asks the policy, because it is the first to know how far a test has
// come. The parent needs only the consequences for larger models. A worker that
// replaces a lost one therefore has to be told about past tests: see Job.Past.
type Policy interface {
	// Before decides whether to start a test.
	Before(policy.Prospect) policy.Decision
	// During decides whether to go on with a test that runs.
	During(policy.Prospect) policy.Decision
	// Patience is how long the current pass may take in all before During gives
	// the test up, if nothing else becomes known. limited is false when there is
	// no limit.
	Patience(policy.Prospect) (patience time.Duration, limited bool)
	// After is what the end of a test means for other tests. shortest tells
	// whether it was the shortest of its series.
	After(status result.Status, shortest bool) policy.Consequence
}

// PastTest is a test of the job's model that an earlier worker or run ended.
type PastTest struct {
	Test        result.Test     `json:"test"`
	Status      result.Status   `json:"status"`
	Repetitions []time.Duration `json:"repetitions_ns,omitempty"`
	Setup       time.Duration   `json:"setup_ns,omitempty"` // before the first pass
}

// jobRun is the state of a job that runs: what its tests have shown so far. Only
// the goroutine of RunJob uses it.
type jobRun struct {
	policy   Policy // nil: every test gets its budget
	job      Job
	reports  *reporter
	gpu      bool      // whether the engine computes on a GPU
	deadline time.Time // of the run; zero: none
	past     []PastTest
}

// left is the time left of the run. limited is false when there is no limit.
func (j *jobRun) left() (left time.Duration, limited bool) {
	if j.deadline.IsZero() {
		return 0, false
	}
	return max(0, time.Until(j.deadline)), true
}

// prospect is what is known of a test before it starts.
func (j *jobRun) prospect(t TestBudget) policy.Prospect {
	p := policy.Prospect{
		Test: t.Test, Budget: t.left(), Repetitions: j.job.Repetitions - len(t.Done), Warmups: j.job.WarmupPasses(), GPU: j.gpu,
	}
	for _, past := range j.past {
		if past.Status != result.OK {
			continue
		}
		if past.Setup > 0 && (p.Setup == 0 || past.Setup < p.Setup) {
			p.Setup = past.Setup
		}
		if past.Test.ShorterInSeries(t.Test) && len(past.Repetitions) > 0 {
			p.Shorter = append(p.Shorter, policy.Measured{Test: past.Test, Repetitions: past.Repetitions})
		}
	}
	return p
}

// skip decides whether to start a test. skipped is nil when the test is to be
// started, and reason then says why.
func (j *jobRun) skip(t TestBudget) (skipped *TestSkipped, reason string) {
	no := func(status result.Status, format string, args ...any) (*TestSkipped, string) {
		return &TestSkipped{Model: j.job.Model.Name, Test: t.Test, Status: status, Reason: fmt.Sprintf(format, args...)}, ""
	}
	left, limited := j.left()
	if limited && left == 0 {
		return no(result.TimeLimit, "not started: %v", ErrTimeLimit)
	}
	if j.policy == nil {
		return nil, ""
	}
	for _, past := range j.past {
		if past.Test.Settings != t.Test.Settings {
			continue // it tells nothing of other settings
		}
		switch j.policy.After(past.Status, j.job.Shortest(past.Test)) {
		case policy.EndSeries:
			if !past.Test.SameSeries(t.Test) || past.Test.Tokens() > t.Test.Tokens() {
				continue
			}
		case policy.EndModels:
			if past.Test.E2E != t.Test.E2E && tooSlow(past.Status) {
				continue
			}
		default:
			continue
		}
		return no(policy.StatusAfter(past.Status), "not started: %v ended as %s", past.Test, past.Status)
	}
	p := j.prospect(t)
	decision := j.policy.Before(p)
	if decision.Stop {
		return no(result.PredictedTimeout, "%s", decision.Reason)
	}
	if limited && (p.Budget == 0 || left < p.Budget) {
		p.Budget = max(left, 1)
		if late := j.policy.Before(p); late.Stop {
			return no(result.TimeLimit, "%s (time limit of the run)", late.Reason)
		}
	}
	return nil, decision.Reason
}

// tooSlow tells whether a test did not fit its budget. End-to-end tests do more
// than the others and have budgets of their own. An end-to-end test that is too
// slow therefore does not stop the others, and the others do not stop end-to-end tests.
func tooSlow(s result.Status) bool { return s == result.Timeout || s == result.PredictedTimeout }

// budget is the time that a test may take from now on. limit is the status of a
// test that takes longer: it tells the test's own budget from the run's limit.
func (j *jobRun) budget(t TestBudget) (budget time.Duration, limit result.Status) {
	budget, limit = t.left(), result.Timeout
	if left, limited := j.left(); limited && (budget == 0 || left < budget) {
		return max(left, 1), result.TimeLimit
	}
	return budget, limit
}
