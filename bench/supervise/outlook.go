package supervise

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Outlook predicts how long a run will still take. It consumes the events and outcomes
// of the run. Its methods may be called from several goroutines.
//
// A test is predicted from its own passes, else by policy.Likely from shorter tests of
// the model, else from the model's test of the same kind and the nearest length, else
// from another model. Time per token and time to load grow with the size of the model.
// Waits for files and failed workers are not predicted.
type Outlook struct {
	deadline time.Time // of the run; zero: none

	mu      sync.Mutex
	models  []*modelOutlook
	current *modelOutlook // nil: no model yet
	loading time.Time     // start of the current load; zero: none
	running *runningTest  // nil: no test runs
}

// modelOutlook is what is known of one model.
type modelOutlook struct {
	job      bench.Job
	bytes    float64            // of its tensors; 0: not known
	pending  []bench.TestBudget // in the order of the job
	measured []policy.Measured  // each with one repetition of the mean time, overhead included
	setup    time.Duration      // shortest time from the start of a test to its first pass
	load     time.Duration      // 0: not loaded yet
}

// runningTest is the test that runs.
type runningTest struct {
	bench.TestStarted
	began    time.Time
	pass     time.Time       // start of the current pass; zero: the context is being made
	setup    time.Duration   // until the first pass
	warm     time.Duration   // of the warm-up; 0: not complete
	passes   []time.Duration // repetitions that are complete
	stopping bool
}

// Forecast is what an Outlook predicts.
type Forecast struct {
	// Left is the likely time until the end of the run. 0: nothing is known.
	Left time.Duration
	// AtLeast tells that Left counts too little for tests that nothing measured predicts.
	AtLeast bool
	// Budget is what is left of the current test's budget, if this may matter: less than
	// a quarter is left, or the test needs more than half of what is left. Otherwise 0.
	Budget time.Duration
	// Limit is what is left of the run's time limit, if the run needs more than 80 % of
	// that. Otherwise 0.
	Limit time.Duration
}

// String is the forecast for people: "budget ends in 12s  about 3m20s left". It is empty
// if nothing is known.
func (f Forecast) String() string {
	var parts []string
	add := func(format string, d time.Duration) {
		if d > 0 {
			parts = append(parts, fmt.Sprintf(format, d.Round(time.Second)))
		}
	}
	add("budget ends in %s", f.Budget)
	add("time limit ends in %s", f.Limit)
	switch {
	case f.Left < time.Second || f.Left == f.Limit:
	case f.AtLeast:
		add("over %s left", f.Left)
	default:
		add("about %s left", f.Left)
	}
	return strings.Join(parts, "  ")
}

// NewOutlook returns the outlook of a run of these jobs, the smallest model first.
// sizeBytes are the sizes of the models' tensors; 0: not known. A zero deadline is none.
func NewOutlook(jobs []bench.Job, sizeBytes []uint64, deadline time.Time) *Outlook {
	o := &Outlook{deadline: deadline}
	for i, job := range jobs {
		m := &modelOutlook{job: job, pending: slices.Clone(job.Tests)}
		if i < len(sizeBytes) {
			m.bytes = float64(sizeBytes[i])
		}
		for _, past := range job.Past {
			if past.Status == result.OK && len(past.Repetitions) > 0 {
				m.measure(past.Test, past.Repetitions, past.Setup)
			}
		}
		o.models = append(o.models, m)
	}
	return o
}

// measure adds a completed test.
func (m *modelOutlook) measure(t result.Test, repetitions []time.Duration, setup time.Duration) {
	m.measured = append(m.measured, policy.Measured{Test: t, Repetitions: []time.Duration{mean(repetitions)}})
	if m.setup == 0 || setup < m.setup {
		m.setup = setup
	}
}

// Event follows the run.
func (o *Outlook) Event(s bench.Stamped) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch e := s.Event.(type) {
	case bench.LoadStarted:
		o.running, o.loading = nil, s.At
		if i := slices.IndexFunc(o.models, func(m *modelOutlook) bool { return m.job.Model.Key() == e.Model.Key() && len(m.pending) > 0 }); i >= 0 {
			o.current = o.models[i]
		}
	case bench.LoadDone:
		o.loading = time.Time{}
		if o.current != nil && e.Status == result.OK {
			o.current.load = max(e.Elapsed, 1)
			if e.Facts.SizeBytes > 0 {
				o.current.bytes = float64(e.Facts.SizeBytes)
			}
		}
	case bench.TestStarted:
		o.running = &runningTest{TestStarted: e, began: s.At, passes: result.Elapsed(e.Done)}
	case bench.WorkerLost:
		o.running, o.loading = nil, time.Time{}
	}
	t := o.running
	if t == nil || o.current == nil {
		return nil
	}
	switch e := s.Event.(type) {
	case bench.ContextReady:
		t.setup, t.pass = s.At.Sub(t.began), s.At
	case bench.WarmupDone:
		if t.warm = s.At.Sub(t.pass); t.Test.Prompt == 0 { // one token: it is preparation
			t.setup += t.warm
		}
		t.pass = s.At
	case bench.RepetitionDone:
		t.passes, t.pass = append(t.passes, s.At.Sub(t.pass)), s.At
	case bench.AbortRequested:
		t.stopping = !e.Stopped // a stopped process repeats the repetition
	case bench.TestDone:
		if e.Status == result.OK && len(t.passes) > 0 {
			o.current.measure(t.Test, t.passes, t.setup)
		}
		o.running = nil
	}
	return nil
}

// Outcome removes a test from those that are left.
func (o *Outlook) Outcome(r *result.Outcome) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.models {
		if m.job.Model.Name == r.Model {
			m.pending = slices.DeleteFunc(m.pending, func(t bench.TestBudget) bool { return t.Test == r.Test })
		}
	}
	return nil
}

// At is the forecast at a time.
func (o *Outlook) At(now time.Time) Forecast {
	o.mu.Lock()
	defer o.mu.Unlock()
	var f Forecast
	add := func(d time.Duration, known bool) {
		f.Left = min(f.Left+d, longest)
		f.AtLeast = f.AtLeast || !known
	}
	if each, _ := o.running.each(); each > 0 && o.current != nil { // it predicts others, too
		measured := o.current.measured
		defer func() { o.current.measured = measured }()
		o.current.measured = append(slices.Clone(measured), policy.Measured{Test: o.running.Test, Repetitions: []time.Duration{each}})
	}
	over := false // a test that is too slow ends the run
	for i, m := range o.models {
		if len(m.pending) > 0 && !over && m.load == 0 {
			load, known := o.loadTime(i)
			if m == o.current && !o.loading.IsZero() {
				load -= now.Sub(o.loading)
			}
			add(max(load, 0), known)
		}
		for _, t := range m.pending {
			if over {
				break
			}
			if m == o.current && o.running != nil && o.running.Test == t.Test {
				needs, known := o.rest(i, now)
				add(needs, known)
				f.Budget = o.running.budgetThatMatters(needs, now)
				continue
			}
			took, known := o.testTime(i, t, m.job.Repetitions-len(t.Done))
			if t.Budget > 0 && took > t.Budget {
				// The policy gives it up, or does not start it. Shorter tests predict it, unless it
				// is the shortest, and then larger models are not run either.
				if over = m.job.Shortest(t.Test); over {
					took = t.Budget
				} else {
					took = 0
				}
			}
			add(took, known)
		}
	}
	if f.Left == 0 {
		f.AtLeast = false
	}
	if !o.deadline.IsZero() {
		if limit := max(o.deadline.Sub(now), 0); f.Left > limit*4/5 {
			f.Limit, f.Left = limit, min(f.Left, limit)
		}
	}
	return f
}

// longest keeps sums from overflowing.
const longest = 365 * 24 * time.Hour

// loadTime predicts the load of model i. known is false if nothing was loaded, or if a
// size is not known.
func (o *Outlook) loadTime(i int) (load time.Duration, known bool) {
	for _, other := range o.nearest(i) {
		if other.load > 0 {
			return scaled(other.load, o.models[i].bytes/other.bytes), true
		}
	}
	return 0, false
}

// nearest lists the other models whose time predicts that of model i, the nearest
// first.
func (o *Outlook) nearest(i int) []*modelOutlook {
	if o.models[i].bytes == 0 {
		return nil
	}
	others := slices.Concat(o.models[:i], o.models[i+1:])
	slices.Reverse(others[:i])
	return slices.DeleteFunc(others, func(m *modelOutlook) bool { return m.bytes == 0 })
}

// testTime predicts a whole test of model i. known is false if the time is only a
// lower limit.
func (o *Outlook) testTime(i int, t bench.TestBudget, repetitions int) (took time.Duration, known bool) {
	m := o.models[i]
	p := policy.Prospect{Test: t.Test, Setup: m.setup, Repetitions: repetitions, Warmups: m.job.WarmupPasses()}
	for _, done := range m.measured {
		if done.Test.ShorterInSeries(t.Test) {
			p.Shorter = append(p.Shorter, done)
		}
	}
	slices.SortFunc(p.Shorter, func(a, b policy.Measured) int { return a.Test.Tokens() - b.Test.Tokens() })
	if likely, ok := policy.Default().Likely(p); ok {
		return likely, true
	}
	perToken, known := o.perToken(i, t.Test)
	seconds := perToken * float64(repetitions*t.Test.Tokens())
	if !m.job.NoWarmup {
		warmup := t.Test
		warmup.Gen = min(1, warmup.Gen)
		perToken, _ := o.perToken(i, warmup)
		seconds += perToken * float64(warmup.Tokens())
	}
	return m.setup + scaled(time.Second, seconds), known
}

// perToken predicts the time per token of a test of model i, in seconds, from tests of
// any length. known is false if it is only a lower limit.
func (o *Outlook) perToken(i int, t result.Test) (s float64, known bool) {
	models := append([]*modelOutlook{o.models[i]}, o.nearest(i)...)
	for _, exact := range []bool{true, false} {
		for k, m := range models {
			s, ok := m.perToken(t, exact)
			if k > 0 {
				s *= models[0].bytes / m.bytes
			}
			if ok {
				return s, exact
			}
		}
	}
	return 0, false
}

// perToken is the time per token of the model's nearest measured test, in seconds. If
// exact is false, a generation takes at least the time per token of a prompt, because
// a prompt computes many tokens in one pass.
func (m *modelOutlook) perToken(t result.Test, exact bool) (s float64, ok bool) {
	if s, ok := m.perTokenOf(t, t.Kind()); ok {
		return s, true
	}
	prompt, promptOK := m.perTokenOf(t, result.PromptProcessing)
	gen, genOK := m.perTokenOf(t, result.TextGeneration)
	switch {
	case t.Prompt > 0 && t.Gen > 0 && promptOK && genOK:
		return (prompt*float64(t.Prompt) + gen*float64(t.Gen)) / float64(t.Tokens()), true
	case !exact && promptOK:
		return prompt, true
	default:
		return 0, false
	}
}

// perTokenOf is the time per token of the measured test of a kind that is nearest to t
// in length, in seconds.
func (m *modelOutlook) perTokenOf(t result.Test, kind result.Kind) (s float64, ok bool) {
	best := math.Inf(1)
	for _, done := range m.measured {
		if done.Test.Kind() != kind {
			continue
		}
		distance := math.Abs(math.Log(float64(done.Test.Tokens()+done.Test.Depth) / float64(t.Tokens()+t.Depth)))
		if distance < best {
			best, s = distance, done.Repetitions[0].Seconds()/float64(done.Test.Tokens())
		}
	}
	return s, !math.IsInf(best, 1)
}

// rest predicts the rest of the test that runs, of model i.
func (o *Outlook) rest(i int, now time.Time) (left time.Duration, known bool) {
	t := o.running
	repetitions := t.Repetitions - len(t.passes)
	switch {
	case t.stopping || repetitions <= 0:
		return 0, true
	case t.pass.IsZero(), len(t.passes) == 0 && t.warm == 0:
	default:
		if each, known := t.each(); each > 0 {
			longest := each // since the last report, if the pass is not slow
			if each < bench.BurstTime {
				longest += bench.BurstTime
			}
			return max(0, time.Duration(repetitions)*each-min(now.Sub(t.pass), longest)), known
		}
	}
	whole, known := o.testTime(i, bench.TestBudget{Test: t.Test}, repetitions)
	return max(0, whole-now.Sub(t.began)), known
}

// each is the time of one repetition of the test that runs; 0: not known yet. known is
// false if it is only a lower limit. The receiver may be nil.
func (t *runningTest) each() (each time.Duration, known bool) {
	switch {
	case t == nil:
		return 0, false
	case len(t.passes) > 0:
		return mean(t.passes), true
	case t.warm > 0 && t.Test.Prompt > 0: // a warm-up computes the prompt and generates one token
		return scaled(t.warm, float64(t.Test.Tokens())/float64(t.Test.Prompt+min(1, t.Test.Gen))), t.Test.Gen == 0
	default:
		return 0, false
	}
}

// budgetThatMatters is Forecast.Budget of a test that needs a time until its end.
func (t *runningTest) budgetThatMatters(needs time.Duration, now time.Time) time.Duration {
	left := max(t.Budget-now.Sub(t.began), 1)
	if t.Budget == 0 || t.stopping || left >= t.Budget/4 && needs <= left/2 {
		return 0
	}
	return left
}

// mean is the mean of one or more durations.
func mean(ds []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range ds {
		sum += d
	}
	return sum / time.Duration(len(ds))
}

// scaled is d times a factor, at most longest.
func scaled(d time.Duration, factor float64) time.Duration {
	return time.Duration(min(float64(d)*factor, float64(longest)))
}
