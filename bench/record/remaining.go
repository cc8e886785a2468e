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
	Gone   bool // the worker is gone with it; false for a load that failed and said so
}

// crash tells whether the worker died. One that hung, or that was stopped, did not.
func (l Loss) crash() bool {
	return l.Gone && (l.Status == result.Crashed || l.Status == result.OutOfMemory)
}

// The crash rule: a test is not tried again after its second crash. After the
// third crash of a model, its remaining tests are recorded as crashed. Loading
// counts as a test, whose loss is the loss of all tests.
const (
	maxCrashesOfTest  = 2
	maxCrashesOfModel = 3
)

// Remaining is what is left to do of one job, over all its workers. The parent
// of a run keeps one per model; reading the events of an interrupted run builds
// the same one. It is used from one goroutine.
type Remaining struct {
	Job bench.Job // Tests are those without a final outcome, Past those with one

	crashes int
	crashed map[result.Test]int // of each test; the zero Test is loading
}

// NewRemaining starts with all of a job.
func NewRemaining(job bench.Job) *Remaining {
	return &Remaining{Job: job, crashed: map[result.Test]int{}}
}

// Done moves a test to those that have a final outcome.
func (r *Remaining) Done(past bench.PastTest) {
	r.Job.Tests = slices.DeleteFunc(slices.Clone(r.Job.Tests), func(t bench.TestBudget) bool { return t.Test == past.Test })
	r.Job.Past = append(slices.Clone(r.Job.Past), past)
}

// Keep remembers the repetitions of a test that is to be continued: those that
// are numbered 1, 2, … without a gap, unless more are known already.
func (r *Remaining) Keep(t result.Test, samples []result.Sample) {
	i := slices.IndexFunc(r.Job.Tests, func(b bench.TestBudget) bool { return b.Test == t })
	if i < 0 {
		return
	}
	good := 0
	for good < len(samples) && good < r.Job.Repetitions && samples[good].Repetition == good+1 && samples[good].Elapsed > 0 {
		good++
	}
	if good <= len(r.Job.Tests[i].Done) {
		return
	}
	r.Job.Tests = slices.Clone(r.Job.Tests)
	r.Job.Tests[i].Done = slices.Clone(samples[:good])
}

// forgetCrashes starts the count of crashes again, for another process.
func (r *Remaining) forgetCrashes() { r.crashes, r.crashed = 0, map[result.Test]int{} }

// Recover decides what follows from the loss of a worker or of a load. If there
// is a remedy, it changes the job accordingly and another worker can be started;
// what describes it for the log. Otherwise the tests that Hit names are lost.
func (r *Remaining) Recover(w *Worker, l Loss) (what string, ok bool) {
	if l.crash() && w.precompiling == nil {
		r.crashes++
		r.crashed[r.culprit(w)]++
	}
	for _, try := range remedies {
		if what, ok = try(r, w, l); ok {
			if samples, running := w.assembler.Begun(); running {
				r.Keep(r.culprit(w), samples)
			}
			return what, true
		}
	}
	return "", false
}

// culprit is the test that a worker was lost in, or about to start; the zero
// Test is loading.
func (r *Remaining) culprit(w *Worker) result.Test {
	if running, ok := w.assembler.Running(); ok {
		return running
	}
	if !w.loaded || len(r.Job.Tests) == 0 {
		return result.Test{}
	}
	return r.Job.Tests[0].Test
}

// Hit are the tests that are lost with a worker: the one under way, else the
// next one; without a model, all.
func (r *Remaining) Hit(w *Worker) []bench.TestBudget {
	if !w.loaded {
		return r.Job.Tests
	}
	culprit := r.culprit(w)
	return slices.DeleteFunc(slices.Clone(r.Job.Tests), func(t bench.TestBudget) bool { return t.Test != culprit })
}

// GivenUp is why the remaining tests are not run; ok is false while they are.
func (r *Remaining) GivenUp(l Loss) (Loss, bool) {
	if r.crashes < maxCrashesOfModel {
		return Loss{}, false
	}
	return Loss{Status: result.Crashed, Reason: fmt.Sprintf("not run after %d crashes: %s", r.crashes, l.Reason)}, true
}

// Postpone moves the longer tests of a series to the end. They may crash as the
// shorter one did, so the others come first.
func (r *Remaining) Postpone(crashed result.Test) {
	r.Job.Tests = slices.Clone(r.Job.Tests)
	slices.SortStableFunc(r.Job.Tests, func(a, b bench.TestBudget) int { return crashed.SeriesLast(a.Test, b.Test) })
}

// A remedy changes a job in such a way that another worker may do what the last
// one could not. It returns false if it does not help against the loss.
type remedy func(r *Remaining, w *Worker, l Loss) (what string, ok bool)

// remedies are tried in this order. The first that applies is used.
var remedies = []remedy{skipPrecompile, fewerLayers, tryAgain, noRepack}

// skipPrecompile leaves the shape that cost a worker before the first test to
// the tests that need it: other tests may do well. After a second such loss, or
// a hang, all shapes are left to the tests.
func skipPrecompile(r *Remaining, w *Worker, l Loss) (string, bool) {
	if w.precompiling == nil {
		return "", false
	}
	r.Job.NoPrecompile = r.Job.PrecompileSkip != nil || l.Status == result.Timeout
	r.Job.PrecompileSkip = w.precompiling
	return fmt.Sprintf("without precompiling %v", *w.precompiling), true
}

// fewerLayers limits the layers on devices after a worker died while it loaded:
// to half of those it tried, then to none. The engine finds the largest number
// that fits by itself, but not if an allocation ends its process.
func fewerLayers(r *Remaining, w *Worker, l Loss) (string, bool) {
	if !l.crash() || w.loaded || w.offload == 0 || r.crashes >= maxCrashesOfModel {
		return "", false
	}
	limit := &bench.OffloadLimit{Layers: w.offload / 2, Tried: w.offload, Reason: l.Reason}
	if r.crashes > 1 {
		limit.Layers = 0
	}
	r.Job.Offload = limit
	return fmt.Sprintf("with at most %d layers on devices", limit.Layers), true
}

// tryAgain changes nothing.
func tryAgain(r *Remaining, w *Worker, l Loss) (string, bool) {
	return "once more", l.crash() && r.crashed[r.culprit(w)] < maxCrashesOfTest && r.crashes < maxCrashesOfModel
}

// noRepack spares the memory that repacked weights take: they are a second copy
// in the process, where a mapped file needs none.
func noRepack(r *Remaining, w *Worker, l Loss) (string, bool) {
	s := r.Job.Effective()
	if w.loaded || l.Status != result.OutOfMemory || s.NoRepack {
		return "", false
	}
	s.NoRepack = true
	r.Job.Adjusted = &s
	r.Job.Warn(result.Warning{
		Code:    result.WarnNoRepack,
		Message: fmt.Sprintf("weights not repacked for the CPU: with repacking, memory did not suffice (%s)", l.Reason),
	})
	return "without repacking weights", true
}
