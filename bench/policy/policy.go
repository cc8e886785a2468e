// Package policy decides which tests are worth their time: before a test starts,
// while it runs, and what its end means for other tests. It also replays recorded
// runs, which shows what a policy would have saved and lost.
//
// All times of a decision are in its arguments: the package has no clock.
//
// End-to-end tests are kept apart. They are not predicted from other tests, nor other
// tests from them, and one that is too slow does not stop the others.
package policy

import (
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Policy decides which tests to start and which to give up. It is a value, and
// its decisions depend on their arguments alone. A live run and a replay of
// recorded runs therefore decide alike. All methods may be called from several
// goroutines.
//
// Time in a test is counted in passes. Each repetition is a pass, and so is the
// warm-up of a prompt, which computes the whole prompt. The fastest repetition of
// the next shorter test of the series predicts two times: a bound, which is the
// least time that even a lucky machine needs, and a likely time. A test is
// skipped when the bound exceeds its budget. When only the likely time does, the
// test is doubtful: it starts, but is given up early. Any other test may recover from
// a slow start: clocks, caches and other guests can make the first passes slow on
// a machine that then does well. A doubtful test gets no such credit, because most of the
// time that slow recorded servers lost was in tests predicted near their limit.
type Policy struct {
	Skip  float64 // a test is skipped when its bound exceeds this share of the time for passes
	Doubt float64 // a test is doubtful when its likely time exceeds this share of the time for passes

	Trusting Margins // of a test that is expected to fit, or of which nothing is known
	Doubtful Margins // of a doubtful test; none exceeds its counterpart in Trusting

	// A fuller batch costs less time per token. When a prompt of at least
	// FullPrompt tokens is predicted from a shorter one than that, the bound
	// assumes FillGain of the time per token, in (0, 1].
	FullPrompt int
	FillGain   float64
	// On a GPU, a prompt of up to GPUPrompt tokens is not predicted: less than one
	// micro-batch does not fill the GPU, and the first tests pay for kernels and
	// graphs.
	GPUPrompt int

	// Attention costs more time per token in a longer context. From LongContext
	// tokens on, the growth between the two lengths before is assumed to continue:
	// all of it in the likely time, GrowthFloor of it, in [0, 1], in the bound.
	// In shorter contexts the growth is lost in noise.
	LongContext int
	GrowthFloor float64
}

// Margins are the shares of the time for passes that all passes together may
// need by projection. A test that needs more is given up.
type Margins struct {
	First  float64 // during the first pass
	Second float64 // after one pass
	Later  float64 // after two or more
}

// after is the margin when done passes are complete.
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

// Default is Fastest with margins that depend on what was expected. A test
// that shorter ones predict to fit, or of which they say nothing, has time to
// recover from a slow start. A doubtful test is given up after one complete pass if
// that pass is too slow. A test is skipped only when it misses its budget by more
// than noise. The few, round parameters were chosen on recorded runs of 1,787
// cloud servers. `benchmark-llm replay` shows what they reach, also on halves of
// such a file.
func Default() Policy {
	p := Fastest()
	p.Skip = 1.04
	p.Doubt = 0.93
	p.Trusting = Margins{First: 2, Second: 1.6, Later: 1.1}
	p.Doubtful = Margins{First: 1.02, Second: 1, Later: 1}
	return p
}

// Fastest skips a test that does not fit even at the speed of the fastest repetition
// of the next shorter one. It has the same margins for every test.
func Fastest() Policy {
	same := Margins{First: 1.3, Second: 1.3, Later: 1.02}
	return Policy{
		Skip: 1, Doubt: 1, Trusting: same, Doubtful: same,
		FullPrompt: 128, FillGain: 0.5, GPUPrompt: 512,
		LongContext: 4096, GrowthFloor: 0.5,
	}
}

// Measured is a completed test.
type Measured struct {
	Test        result.Test
	Repetitions []time.Duration // at least one, each positive
}

// Prospect is what is known of a test before it starts or while it runs.
type Prospect struct {
	Test        result.Test
	Budget      time.Duration // that is left to the test; 0: no limit
	Setup       time.Duration // before the first pass, part of the budget: the least of this model's tests so far; of a test that runs, its own
	Repetitions int           // still to do
	Warmups     int           // before the repetitions
	GPU         bool          // whether the model computes on a GPU
	Shorter     []Measured    // completed tests of the same model and series, in ascending length

	Passes []time.Duration // that are complete, in order
	InPass time.Duration   // time of the current pass so far
	Tokens int             // tokens of the current pass so far; 0: not known
}

// Decision says whether to stop a test, and why.
type Decision struct {
	Stop   bool   // do not start the test, or give it up
	Reason string // one line, lower case, no full stop, with the numbers that decided
}

// passes is the number of passes of the test. The warm-up of a generation is one
// token and counts as setup.
func (p Prospect) passes() int {
	if p.Test.Kind() == result.PromptProcessing {
		return p.Repetitions + p.Warmups
	}
	return p.Repetitions
}

// tokens is the number of tokens of all passes.
func (p Prospect) tokens() float64 { return float64(p.passes() * p.Test.Tokens()) }

// forPasses is the part of the budget that is left for passes.
func (p Prospect) forPasses() time.Duration { return max(0, p.Budget-p.Setup) }

// pace is the time per token of the fastest repetition, in seconds.
func (m Measured) pace() float64 {
	return slices.Min(m.Repetitions).Seconds() / float64(m.Test.Tokens())
}

// pace is the expected time per token of the test, in seconds. growth, in [0, 1],
// is the share of the increase between the two longest measured lengths that is
// assumed to continue. pace is 0 when nothing shorter was measured.
func (p Prospect) pace(growth float64) float64 {
	if len(p.Shorter) == 0 {
		return 0
	}
	last := p.Shorter[len(p.Shorter)-1]
	pace := last.pace()
	if len(p.Shorter) > 1 {
		before := p.Shorter[len(p.Shorter)-2]
		slope := (pace - before.pace()) / float64(last.Test.Tokens()-before.Test.Tokens())
		pace += growth * max(0, slope) * float64(p.Test.Tokens()-last.Test.Tokens())
	}
	return pace
}

// predict gives the least and the likely time per token of the test, in seconds.
// ok is false when the measured tests do not predict it.
func (p Policy) predict(t Prospect) (bound, likely float64, ok bool) {
	kind, n := t.Test.Kind(), t.Test.Tokens()
	prompt := kind == result.PromptProcessing
	if len(t.Shorter) == 0 || kind == result.PromptGeneration || kind == result.EndToEnd || prompt && t.GPU && n <= p.GPUPrompt {
		return 0, 0, false
	}
	if n >= p.LongContext {
		return t.pace(p.GrowthFloor), t.pace(1), true
	}
	likely = t.pace(0)
	bound = likely
	if prompt && t.Shorter[len(t.Shorter)-1].Test.Tokens() < p.FullPrompt && n >= p.FullPrompt {
		bound *= p.FillGain
	}
	return bound, likely, true
}

// Before decides whether to start a test. The shortest test of a series is always
// started: only it shows what the machine can do.
func (p Policy) Before(t Prospect) Decision {
	switch {
	case t.Budget <= 0:
		return Decision{Reason: "started: it has no time limit"}
	case len(t.Shorter) == 0:
		return Decision{Reason: "started: nothing shorter was measured"}
	}
	bound, likely, ok := p.predict(t)
	if !ok {
		return Decision{Reason: "started: shorter tests do not predict its time"}
	}
	last := t.Shorter[len(t.Shorter)-1]
	left := t.forPasses()
	least, about := short(seconds(bound*t.tokens())), short(seconds(likely*t.tokens()))
	numbers := fmt.Sprintf("(%d × %d tokens at %s each; %s took %s each); %s of its budget of %s is left for them",
		t.passes(), t.Test.Tokens(), short(seconds(bound)), last.Test, short(seconds(last.pace())), short(left), short(t.Budget))
	switch {
	case bound*t.tokens() > p.Skip*left.Seconds():
		return Decision{Stop: true, Reason: fmt.Sprintf("skipped: needs at least %s %s", least, numbers)}
	case p.doubts(t):
		return Decision{Reason: fmt.Sprintf("started, but doubtful: needs %s to %s %s", least, about, numbers)}
	default:
		return Decision{Reason: fmt.Sprintf("started: needs about %s %s", about, numbers)}
	}
}

// Likely predicts the time of a whole test, at most its budget. It is 0 for a
// test that would be skipped. ok is false when the measured tests do not predict
// it.
func (p Policy) Likely(t Prospect) (likely time.Duration, ok bool) {
	_, pace, ok := p.predict(t)
	if !ok {
		return 0, false
	}
	if p.Before(t).Stop {
		return 0, true
	}
	likely = t.Setup + seconds(pace*t.tokens())
	if t.Budget > 0 {
		likely = min(likely, t.Budget)
	}
	return likely, true
}

// doubts tells whether the test likely does not fit its budget.
func (p Policy) doubts(t Prospect) bool {
	_, likely, ok := p.predict(t)
	return ok && likely*t.tokens() > p.Doubt*t.forPasses().Seconds()
}

// allowed is the time that all passes together may need by projection.
func (p Policy) allowed(t Prospect) time.Duration {
	margins := p.Trusting
	if p.doubts(t) {
		margins = p.Doubtful
	}
	return time.Duration(margins.after(len(t.Passes)) * float64(t.forPasses()))
}

// knownShare is the share of a pass from which its tokens predict its length.
// Earlier, the first batch and its graph weigh too much.
const knownShare = 0.25

// During decides whether to go on with a test. The projection is optimistic: it
// adds the time of the complete passes, the current pass (its time so far, or as
// its tokens predict), and every other pass at the speed of the fastest so far.
func (p Policy) During(t Prospect) Decision {
	left := t.passes() - len(t.Passes)
	if t.Budget <= 0 || left <= 0 {
		return Decision{Reason: "continues: no time limit, or already complete"}
	}
	spent, fastest := t.spent()
	current, share := t.InPass, float64(t.Tokens)/float64(t.Test.Tokens())
	known := share >= knownShare && share <= 1
	if known {
		current = time.Duration(float64(current) / share)
	}
	switch {
	case len(t.Passes) == 0:
		fastest = current
	case known:
		fastest = min(fastest, current)
	default:
		current = max(current, fastest)
	}
	needed := spent + current + time.Duration(left-1)*fastest
	var seen string
	least := "at least"
	switch {
	case len(t.Passes) > 0:
		seen = fmt.Sprintf("%d took %s", len(t.Passes), short(spent))
	case known:
		seen = fmt.Sprintf("%d of %d tokens of the first took %s", t.Tokens, t.Test.Tokens(), short(t.InPass))
		least = "about"
	default:
		seen = fmt.Sprintf("the first has run for %s", short(t.InPass))
	}
	all, them := fmt.Sprintf("all %d passes need", t.passes()), "them"
	if t.passes() == 1 {
		all, them = "its only pass needs", "it"
	}
	numbers := fmt.Sprintf("%s %s %s (%s); %s of its budget of %s is left for %s",
		all, least, short(needed), seen, short(t.forPasses()), short(t.Budget), them)
	if needed > p.allowed(t) {
		return Decision{Stop: true, Reason: "given up: " + numbers}
	}
	return Decision{Reason: "continues: " + numbers}
}

// Patience is how long the current pass may take before During gives the test up,
// if nothing else becomes known. A live run sets its timer to it. It is 0 when
// the test is to be given up at once; limited is false when there is no limit.
func (p Policy) Patience(t Prospect) (patience time.Duration, limited bool) {
	left := t.passes() - len(t.Passes)
	if t.Budget <= 0 || left <= 0 {
		return 0, false
	}
	allowed := p.allowed(t)
	if len(t.Passes) == 0 {
		return allowed / time.Duration(left), true // every pass as long as this one
	}
	spent, fastest := t.spent()
	patience = allowed - spent - time.Duration(left-1)*fastest
	if patience < fastest {
		return 0, true
	}
	return patience, true
}

// spent is the total time of the complete passes, and the time of the fastest.
func (p Prospect) spent() (sum, fastest time.Duration) {
	for i, d := range p.Passes {
		sum += d
		if i == 0 || d < fastest {
			fastest = d
		}
	}
	return sum, fastest
}

// Consequence is what the end of a test means for other tests.
type Consequence int

// The consequences, from mild to hard.
const (
	Continue  Consequence = iota // none
	EndSeries                    // longer tests of the series are not run with this model
	EndModels                    // other tests of this model and larger models are not run
)

// After is the consequence of a test that ended with status, or was not started.
// shortest tells whether it was the shortest of its series. A test that took too
// long rules out longer tests, and the shortest one rules out larger models. An
// error of the engine or a crash costs only that test: package supervise limits
// the number of crashes, and a model that does not fit into memory fails quickly.
func After(status result.Status, shortest bool) Consequence {
	switch status {
	case result.Timeout, result.PredictedTimeout:
		if shortest {
			return EndModels
		}
		return EndSeries
	case result.TimeLimit, result.Aborted:
		return EndModels
	default:
		return Continue
	}
}

// After is the function After: it does not depend on the parameters of a policy.
func (Policy) After(status result.Status, shortest bool) Consequence { return After(status, shortest) }

// StatusAfter returns the status of a test that is not run because another test ended
// with the given status.
func StatusAfter(status result.Status) result.Status {
	if status == result.Timeout {
		return result.PredictedTimeout
	}
	return status
}

// longest is far above every time that is meant. It keeps predictions from
// overflowing.
const longest = 365 * 24 * time.Hour

// seconds is s as a duration, at most longest.
func seconds(s float64) time.Duration {
	return time.Duration(min(s*float64(time.Second), float64(longest)))
}

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
