package record

import (
	"fmt"
	"slices"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Loss is why tests have no result.
type Loss struct {
	Status result.Status
	Reason string
	Code   bench.Code // empty: no error of its list
	Gone   bool       // the worker has ended; false for a load that failed and was reported
}

// crash tells whether the worker died by itself. A worker that hung or was stopped did
// not.
func (l Loss) crash() bool {
	return l.Gone && (l.Status == result.Crashed || l.Status == result.OutOfMemory)
}

// The crash rule: a test is not tried again after its second crash. After the
// third crash of a model, its remaining tests are recorded as crashed. Loading
// counts as a test; if it is lost, all tests are.
const (
	maxCrashesOfTest  = 2
	maxCrashesOfModel = 3
)

// Remaining is what is left to do of one job, over all its workers. The parent
// of a run keeps one per model. Reading the events of an interrupted run gives
// the same one. It is used from one goroutine.
type Remaining struct {
	Job bench.Job // Job.Tests have no final outcome yet; Job.Past have one

	crashes map[string]int      // of the model, by the settings of the test; loading has none
	crashed map[result.Test]int // crashes of each test; the zero Test is loading
}

// NewRemaining returns what is left of a job of which nothing is done.
func NewRemaining(job bench.Job) *Remaining {
	r := &Remaining{Job: job}
	r.forgetCrashes()
	return r
}

// Done moves a test to those that have a final outcome.
func (r *Remaining) Done(past bench.PastTest) {
	r.Job.Tests = slices.DeleteFunc(slices.Clone(r.Job.Tests), func(t bench.TestBudget) bool { return t.Test == past.Test })
	r.Job.Past = append(slices.Clone(r.Job.Past), past)
}

// Keep remembers the completed repetitions of a test that will be continued. Their
// numbers must be 1, 2, … without a gap; Keep ignores the others. It does nothing if
// more repetitions are known already.
func (r *Remaining) Keep(t result.Test, samples []result.Sample) {
	i := slices.IndexFunc(r.Job.Tests, func(b bench.TestBudget) bool { return b.Test == t })
	if i < 0 {
		return
	}
	good := 0
	for good < len(samples) && good < r.Job.MostRepetitions() && samples[good].Repetition == good+1 && samples[good].Elapsed > 0 {
		good++
	}
	if good <= len(r.Job.Tests[i].Done) {
		return
	}
	r.Job.Tests = slices.Clone(r.Job.Tests)
	r.Job.Tests[i].Done = slices.Clone(samples[:good])
}

// forgetCrashes sets the crash counts to 0, for another process.
func (r *Remaining) forgetCrashes() { r.crashes, r.crashed = map[string]int{}, map[result.Test]int{} }

// Recover looks for a remedy after the loss of a worker or a load. If there is one,
// Recover changes the job accordingly, and another worker can be started.
// description is for the log. Otherwise the tests that Hit returns are lost.
func (r *Remaining) Recover(w *Worker, l Loss) (description string, ok bool) {
	if !final(l.Status) { // the run is being stopped
		return "", false
	}
	if l.crash() && w.precompiling == nil && !w.limiting {
		culprit := r.culprit(w)
		r.crashes[culprit.Settings]++
		r.crashed[culprit]++
	}
	for _, try := range remedies {
		if description, ok = try(r, w, l); ok {
			if samples, running := w.assembler.completed(); running {
				r.Keep(r.culprit(w), samples)
			}
			return description, true
		}
	}
	return "", false
}

// culprit is the test in which a worker was lost, or before which. The zero Test
// stands for loading.
func (r *Remaining) culprit(w *Worker) result.Test {
	if running, ok := w.assembler.Running(); ok {
		return running
	}
	if !w.loaded || len(r.Job.Tests) == 0 {
		return result.Test{}
	}
	return r.Job.Tests[0].Test
}

// Hit returns the tests that are lost with a worker: the current test, or the next one
// if none is running. If no model is loaded, all tests are lost.
func (r *Remaining) Hit(w *Worker) []bench.TestBudget {
	if !w.loaded {
		return r.Job.Tests
	}
	culprit := r.culprit(w)
	return slices.DeleteFunc(slices.Clone(r.Job.Tests), func(t bench.TestBudget) bool { return t.Test != culprit })
}

// GivenUp returns the remaining tests that are not run after a crash with some settings,
// those with the same settings, and says why. Tests with other settings are run.
func (r *Remaining) GivenUp(settings string, l Loss) (tests []bench.TestBudget, why Loss) {
	n := r.crashes[settings]
	if n < maxCrashesOfModel {
		return nil, Loss{}
	}
	tests = slices.DeleteFunc(slices.Clone(r.Job.Tests), func(t bench.TestBudget) bool { return t.Test.Settings != settings })
	return tests, Loss{Status: result.Crashed, Reason: fmt.Sprintf("not run after %d crashes: %s", n, l.Reason)}
}

// Postpone moves the longer tests of a crashed test's series behind the others with the
// same settings. They may crash too, and after three crashes the rest of the model is
// given up, so the others come first. The longer tests are not dropped, because some of
// them succeed.
func (r *Remaining) Postpone(crashed result.Test) {
	r.Job.Tests = slices.Clone(r.Job.Tests)
	var places []int
	var same []bench.TestBudget
	for i, t := range r.Job.Tests {
		if t.Test.Settings == crashed.Settings {
			places, same = append(places, i), append(same, t)
		}
	}
	slices.SortStableFunc(same, func(a, b bench.TestBudget) int { return crashed.SeriesLast(a.Test, b.Test) })
	for k, i := range places {
		r.Job.Tests[i] = same[k]
	}
}

// A remedy changes a job so that another worker may succeed where the last one
// failed. ok is false if the remedy does not apply to the loss.
type remedy func(r *Remaining, w *Worker, l Loss) (description string, ok bool)

// remedies are tried in this order. The first that applies is used.
var remedies = []remedy{skipLimits, skipPrecompile, fewerLayers, tryAgain, noRepack}

// skipLimits leaves the limits out after a worker was lost while it measured them. Its
// tests are not to blame.
func skipLimits(r *Remaining, w *Worker, l Loss) (string, bool) {
	if !w.limiting {
		return "", false
	}
	r.Job.Limits = nil
	return "without the limits of the machine", true
}

// skipPrecompile skips the shape whose precompile pass ended a worker. Only the tests
// that need it may fail then. After a second such loss, or a pass that hung, nothing
// is precompiled.
func skipPrecompile(r *Remaining, w *Worker, l Loss) (string, bool) {
	if w.precompiling == nil {
		return "", false
	}
	r.Job.NoPrecompile = r.Job.PrecompileSkip != nil || l.Status == result.Timeout
	r.Job.PrecompileSkip = w.precompiling
	return fmt.Sprintf("without precompiling %v", *w.precompiling), true
}

// fewerLayers limits the layers on devices after a worker died while it loaded: to
// half of those it tried, then to none. The engine finds by itself how many fit, but
// not if a failed allocation ends its process.
func fewerLayers(r *Remaining, w *Worker, l Loss) (string, bool) {
	crashes := r.crashes[r.culprit(w).Settings]
	if !l.crash() || w.loaded || w.offload == 0 || crashes >= maxCrashesOfModel {
		return "", false
	}
	limit := &bench.OffloadLimit{Layers: w.offload / 2, Tried: w.offload, Reason: l.Reason}
	if crashes > 1 {
		limit.Layers = 0
	}
	r.Job.Offload = limit
	return "with at most " + result.Count(limit.Layers, "layer") + " on devices", true
}

// tryAgain changes nothing.
func tryAgain(r *Remaining, w *Worker, l Loss) (string, bool) {
	culprit := r.culprit(w)
	return "once more", l.crash() && r.crashed[culprit] < maxCrashesOfTest && r.crashes[culprit.Settings] < maxCrashesOfModel
}

// noRepack saves the memory of repacked weights. They are a copy in the process; the
// pages of a mapped file are not.
func noRepack(r *Remaining, w *Worker, l Loss) (string, bool) {
	s := r.Job.Effective()
	if w.loaded || l.Status != result.OutOfMemory || s.NoRepack {
		return "", false
	}
	s.NoRepack = true
	r.Job.Adjusted = &s
	r.Job.Warn(result.Warning{
		Code:    result.WarnNoRepack,
		Message: fmt.Sprintf("weights were not repacked for the CPU, because repacking needed too much memory (%s)", l.Reason),
	})
	return "without repacking weights", true
}
