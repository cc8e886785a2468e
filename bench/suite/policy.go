package suite

import (
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Policy decides which tests are worth starting and which are worth going on
// with. It is a value: decisions depend on what they are given and on nothing
// else, so what a live run decides can be replayed on recorded runs.
//
// Time in a test is counted in passes: its repetitions and, for prompts, the
// warm-up, which is a whole prompt too. Before a test, two speeds follow from
// the fastest repetition of the next shorter length of its kind: a bound that
// even a lucky machine does not beat, and a likely one. A test is skipped when
// the bound does not fit its budget. When the likely one does not fit, the test
// starts under suspicion, and its first passes need little to confirm it;
// otherwise a slow start is given time to recover, because clocks, caches and
// other guests make first passes slow on machines that then do well.
type Policy struct {
	Skip      float64 // skip when the bound exceeds this share of the time for passes
	Suspicion float64 // suspect when the likely time exceeds this share of the time for passes

	Trusting   Margins // of a test that was expected to fit, or of which nothing was known
	Suspicious Margins // of a test that was not; each at most its trusting twin

	// A token of a prompt costs less the fuller the batch is. From a prompt
	// shorter than FullPrompt tokens to one of at least as many, the bound
	// assumes FillGain of the time per token, in (0, 1].
	FullPrompt int
	FillGain   float64
	// A GPU is not filled by less than one micro-batch, and its first tests pay
	// for kernels and graphs: no prompt of up to GPUPrompt tokens is judged by
	// a shorter one.
	GPUPrompt int

	// Attention makes a token cost more the longer the context. From LongContext
	// tokens on, the measured growth between the two lengths before is
	// continued: whole in the likely time, times GrowthFloor in [0, 1] in the
	// bound. Below, it is lost beside the weights and in noise.
	LongContext int
	GrowthFloor float64
}

// Margins are how far beyond its budget a test may be projected, as a share of
// the time for passes, before it is given up.
type Margins struct {
	First  float64 // in the first pass
	Second float64 // after one pass
	Later  float64 // after two or more
}

// after is the margin once done passes are complete.
func (m Margins) after(done int) float64 {
	switch done {
	case 0:
		return m.First
	case 1:
		return m.Second
	default:
		return m.Later
	}
}

// DefaultPolicy is rule (iii) with margins that depend on what was expected. A
// test that shorter ones predict to fit, or of which they say nothing, is given
// time to recover from a slow start. One that is predicted to be too slow, or so
// nearly that the measurements' own noise decides, gets no credit once a pass is
// complete: what pays is to see it after one pass, not at the end of its budget.
// In turn a test is only skipped when it misses its budget by more than noise.
// The few and round parameters were chosen on recorded runs of 1,787 cloud
// servers; `benchmark-llm replay` shows what they reach, also on halves of such
// a file.
func DefaultPolicy() Policy {
	p := FastestPolicy()
	p.Skip = 1.04
	p.Suspicion = 0.93
	p.Trusting = Margins{First: 2, Second: 1.6, Later: 1.1}
	p.Suspicious = Margins{First: 1.02, Second: 1, Later: 1}
	return p
}

// FastestPolicy is rule (iii) of the recorded runs: skip what even the fastest
// repetition cannot make, and the same margins for every test.
func FastestPolicy() Policy {
	same := Margins{First: 1.3, Second: 1.3, Later: 1.02}
	return Policy{
		Skip: 1, Suspicion: 1, Trusting: same, Suspicious: same,
		FullPrompt: 128, FillGain: 0.5, GPUPrompt: 512,
		LongContext: 4096, GrowthFloor: 0.5,
	}
}

// Measured is a completed test.
type Measured struct {
	Test        result.Test
	Repetitions []time.Duration // at least one, each positive
}

// History is what is known of a test before it starts.
type History struct {
	Test        result.Test
	Budget      time.Duration // of the whole test; 0 is no limit
	Setup       time.Duration // of it, before the first pass: the least that a test of this model took so far
	Repetitions int           //
	Warmup      bool          // there is one
	GPU         bool          // the model computes on a GPU
	Shorter     []Measured    // completed tests of the same kind, model and depth, in ascending length
}

// Progress is what is known of a test while it runs. Its Setup is this test's
// own: from the start of the budget to the first pass.
type Progress struct {
	History
	Passes []time.Duration // complete ones, in order; the warm-up of a prompt is one
	InPass time.Duration   // the pass under way has run so long
	Tokens int             // it has done so many of its tokens; 0 where that is not known
}

// Decision is a verdict with its reason: one line, lower case, no full stop,
// with the numbers it rests on.
type Decision struct {
	Stop   bool // do not start the test, or give it up
	Reason string
}

// passes is how many whole passes the test needs. The warm-up of a generation is
// one token and counts as setup.
func (h History) passes() int {
	if h.Warmup && h.Test.Kind() == result.PromptProcessing {
		return h.Repetitions + 1
	}
	return h.Repetitions
}

// forPasses is the part of the budget that is left for passes.
func (h History) forPasses() time.Duration { return max(0, h.Budget-h.Setup) }

// pace is the time per token of the fastest repetition, in seconds.
func (m Measured) pace() float64 {
	fastest := m.Repetitions[0]
	for _, r := range m.Repetitions[1:] {
		fastest = min(fastest, r)
	}
	return fastest.Seconds() / float64(m.Test.Tokens())
}

// pace is the time per token to expect of the test, in seconds, when growth of
// what the two lengths before show continues; 0 when nothing shorter was
// measured.
func (h History) pace(growth float64) float64 {
	if len(h.Shorter) == 0 {
		return 0
	}
	last := h.Shorter[len(h.Shorter)-1]
	pace := last.pace()
	if len(h.Shorter) > 1 {
		before := h.Shorter[len(h.Shorter)-2]
		slope := (pace - before.pace()) / float64(last.Test.Tokens()-before.Test.Tokens())
		pace += growth * max(0, slope) * float64(h.Test.Tokens()-last.Test.Tokens())
	}
	return pace
}

// predict gives the time per token that the test needs at least and that it
// likely needs, in seconds. ok is false when what was measured says nothing
// about it.
func (p Policy) predict(h History) (bound, likely float64, ok bool) {
	kind, n := h.Test.Kind(), h.Test.Tokens()
	prompt := kind == result.PromptProcessing
	if len(h.Shorter) == 0 || kind == result.PromptGeneration || kind == result.EndToEnd || prompt && h.GPU && n <= p.GPUPrompt {
		return 0, 0, false
	}
	if n >= p.LongContext {
		return h.pace(p.GrowthFloor), h.pace(1), true
	}
	likely = h.pace(0)
	bound = likely
	if prompt && h.Shorter[len(h.Shorter)-1].Test.Tokens() < p.FullPrompt && n >= p.FullPrompt {
		bound *= p.FillGain
	}
	return bound, likely, true
}

// Before decides whether to start a test. The shortest test of a kind is always
// started: only it can tell what the machine does.
func (p Policy) Before(h History) Decision {
	switch {
	case h.Budget <= 0:
		return Decision{Reason: "started: it has no time limit"}
	case len(h.Shorter) == 0:
		return Decision{Reason: "started: nothing shorter was measured"}
	}
	bound, likely, ok := p.predict(h)
	if !ok {
		return Decision{Reason: "started: shorter tests do not predict it"}
	}
	last := h.Shorter[len(h.Shorter)-1]
	tokens := float64(h.passes() * h.Test.Tokens())
	least, about := short(span(bound*tokens)), short(span(likely*tokens))
	room := h.forPasses()
	numbers := fmt.Sprintf("%d × %d tokens at %s each, from %s at %s; %s of its budget of %s is left for them",
		h.passes(), h.Test.Tokens(), short(span(bound)), short(span(last.pace())), last.Test, short(room), short(h.Budget))
	switch {
	case bound*tokens > p.Skip*room.Seconds():
		return Decision{Stop: true, Reason: fmt.Sprintf("skipped: needs at least %s: %s", least, numbers)}
	case p.suspects(h):
		return Decision{Reason: fmt.Sprintf("started, but doubtful: needs %s to %s: %s", least, about, numbers)}
	default:
		return Decision{Reason: fmt.Sprintf("started: needs about %s: %s", about, numbers)}
	}
}

// Likely is the time that a test likely takes in all, 0 when it would be skipped;
// ok is false when nothing that was measured says.
func (p Policy) Likely(h History) (likely time.Duration, ok bool) {
	_, pace, ok := p.predict(h)
	if !ok {
		return 0, false
	}
	if p.Before(h).Stop {
		return 0, true
	}
	likely = h.Setup + span(pace*float64(h.passes()*h.Test.Tokens()))
	if h.Budget > 0 {
		likely = min(likely, h.Budget)
	}
	return likely, true
}

// suspects tells whether the test likely does not fit its budget.
func (p Policy) suspects(h History) bool {
	_, likely, ok := p.predict(h)
	return ok && likely*float64(h.passes()*h.Test.Tokens()) > p.Suspicion*h.forPasses().Seconds()
}

// allowed is the time that all passes together may be projected to take.
func (p Policy) allowed(t Progress) time.Duration {
	margins := p.Trusting
	if p.suspects(t.History) {
		margins = p.Suspicious
	}
	return time.Duration(margins.after(len(t.Passes)) * float64(t.forPasses()))
}

// knownShare is the share of a pass from which its tokens tell its length:
// before, the first batch and its graph weigh too much.
const knownShare = 0.25

// During decides whether to go on with a test. The projection is the optimist's:
// what is spent, the pass under way for as long as it runs already, or as its
// tokens say, and every other pass as fast as the fastest so far.
func (p Policy) During(t Progress) Decision {
	left := t.passes() - len(t.Passes)
	if t.Budget <= 0 || left <= 0 {
		return Decision{Reason: "goes on: it has no time limit or is complete"}
	}
	spent, fastest := t.spent()
	under, share := t.InPass, float64(t.Tokens)/float64(t.Test.Tokens())
	known := share >= knownShare && share <= 1
	if known {
		under = time.Duration(float64(under) / share)
	}
	switch {
	case len(t.Passes) == 0:
		fastest = under
	case known:
		fastest = min(fastest, under)
	default:
		under = max(under, fastest)
	}
	needed := spent + under + time.Duration(left-1)*fastest
	allowed := p.allowed(t)
	var done string
	switch {
	case len(t.Passes) > 0:
		done = fmt.Sprintf("%d of %d passes took %s, all of them at least", len(t.Passes), t.passes(), short(spent))
	case known:
		done = fmt.Sprintf("%d of %d tokens of the first of %d passes took %s, all of them about", t.Tokens, t.Test.Tokens(), t.passes(), short(t.InPass))
	default:
		done = fmt.Sprintf("the first of %d passes has taken %s, all of them at least", t.passes(), short(t.InPass))
	}
	numbers := fmt.Sprintf("%s %s; %s of its budget of %s is for them", done, short(needed), short(t.forPasses()), short(t.Budget))
	if needed > allowed {
		return Decision{Stop: true, Reason: "given up: " + numbers}
	}
	return Decision{Reason: "goes on: " + numbers}
}

// Patience is how long the pass under way may take before During gives the test
// up when nothing else becomes known: what a live run sets its timer to. It is
// 0 when the test is to be given up at once; ok is false when there is no limit.
func (p Policy) Patience(t Progress) (patience time.Duration, ok bool) {
	left := t.passes() - len(t.Passes)
	if t.Budget <= 0 || left <= 0 {
		return 0, false
	}
	allowed := p.allowed(t)
	if len(t.Passes) == 0 {
		return allowed / time.Duration(left), true // all passes as long as this one
	}
	spent, fastest := t.spent()
	patience = allowed - spent - time.Duration(left-1)*fastest
	if patience < fastest {
		return 0, true
	}
	return patience, true
}

// spent is the time of the complete passes together, and of the fastest.
func (t Progress) spent() (sum, fastest time.Duration) {
	for i, d := range t.Passes {
		sum += d
		if i == 0 || d < fastest {
			fastest = d
		}
	}
	return sum, fastest
}

// Consequence is what the end of a test means for those after it.
type Consequence int

// The consequences, from mild to hard.
const (
	Continue  Consequence = iota // none
	EndGroup                     // longer tests of the kind are not run with this model
	EndModels                    // and larger models are not run
)

// After is the consequence of a test that ended, or was not started, with
// status. Shortest tells that it was the shortest of its kind. Time rules out
// longer tests, and with the shortest test larger models. What the engine refused
// or died of costs the test it happened in: how often it may die is bounded
// elsewhere, and what does not fit memory says so in no time.
func After(status result.Status, shortest bool) Consequence {
	switch status {
	case result.OK:
		return Continue
	case result.Timeout, result.PredictedTimeout:
		if shortest {
			return EndModels
		}
		return EndGroup
	case result.TimeLimit, result.Aborted:
		return EndModels
	default:
		return Continue
	}
}

// span is a predicted time, bounded so that no prediction overflows: 30 years.
func span(s float64) time.Duration { return seconds(min(s, 1e9)) }

// short is a duration in about three digits.
func short(d time.Duration) string {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= 100*unit {
			return d.Round(unit).String()
		}
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}
