package policy_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func pp(n int) result.Test { return result.Test{Prompt: n} }
func tg(n int) result.Test { return result.Test{Gen: n} }

// measured is a test whose five repetitions took d each.
func measured(t result.Test, d time.Duration) policy.Measured {
	return policy.Measured{Test: t, Repetitions: []time.Duration{d, d, d, d, d}}
}

// prospect is that of a test with five repetitions and a warm-up.
func prospect(t result.Test, budget time.Duration, shorter ...policy.Measured) policy.Prospect {
	return policy.Prospect{Test: t, Budget: budget, Repetitions: 5, Warmups: 1, Shorter: shorter}
}

// after is a prospect after these passes.
func after(p policy.Prospect, passes ...time.Duration) policy.Prospect {
	p.Passes = passes
	return p
}

// within is a prospect in the middle of a pass: its time and its tokens so far.
func within(p policy.Prospect, inPass time.Duration, tokens int) policy.Prospect {
	p.InPass, p.Tokens = inPass, tokens
	return p
}

func TestBefore(t *testing.T) {
	// 1 ms per token at 512, 1.5 ms at 1024: continued to 4096 it is 4.5 ms, and
	// 3 ms when half of the growth is.
	rising := []policy.Measured{measured(pp(512), 512*time.Millisecond), measured(pp(1024), 1536*time.Millisecond)}
	setup := prospect(tg(128), 6*time.Second, measured(tg(16), 160*time.Millisecond))
	setup.Setup = time.Second
	gpu := prospect(pp(512), time.Millisecond, measured(pp(128), time.Second))
	gpu.GPU = true
	gpuFilled := prospect(pp(513), time.Minute, measured(pp(512), 512*time.Millisecond))
	gpuFilled.GPU = true
	gpuGeneration := prospect(tg(128), time.Minute, measured(tg(16), 16*time.Millisecond))
	gpuGeneration.GPU = true
	cold := prospect(pp(32), time.Second, measured(pp(16), 16*time.Millisecond))
	cold.Warmups = 0
	// Repetitions of 20, 16 and 18 ms: the fastest counts.
	uneven := prospect(tg(32), time.Second, policy.Measured{Test: tg(16), Repetitions: []time.Duration{20e6, 16e6, 18e6}})
	for _, tt := range []struct {
		name     string
		prospect policy.Prospect
		want     policy.Decision
	}{
		{"no limit", prospect(pp(4096), 0, rising...), policy.Decision{Reason: "started: it has no time limit"}},
		{"the shortest", prospect(pp(16), 1), policy.Decision{Reason: "started: nothing shorter was measured"}},
		{"a batch that does not fill a GPU", gpu, policy.Decision{Reason: "started: shorter tests do not predict its time"}},
		{"a batch that fills a GPU", gpuFilled, policy.Decision{
			Reason: "started: needs about 3.08s (6 × 513 tokens at 1ms each; pp512 took 1ms each); 1m0s of its budget of 1m0s is left for them"}},
		{"a generation on a GPU", gpuGeneration, policy.Decision{
			Reason: "started: needs about 640ms (5 × 128 tokens at 1ms each; tg16 took 1ms each); 1m0s of its budget of 1m0s is left for them"}},
		{"a batch not fuller yet", prospect(pp(127), time.Second, measured(pp(16), 16*time.Millisecond)), policy.Decision{
			Reason: "started: needs about 762ms (6 × 127 tokens at 1ms each; pp16 took 1ms each); 1s of its budget of 1s is left for them"}},
		{"no warm-up", cold, policy.Decision{
			Reason: "started: needs about 160ms (5 × 32 tokens at 1ms each; pp16 took 1ms each); 1s of its budget of 1s is left for them"}},
		{"the fastest repetition", uneven, policy.Decision{
			Reason: "started: needs about 160ms (5 × 32 tokens at 1ms each; tg16 took 1ms each); 1s of its budget of 1s is left for them"}},
		{"within the noise of its budget", prospect(tg(1000), 500*time.Second, measured(tg(100), 10300*time.Millisecond)), policy.Decision{
			Reason: "started, but doubtful: needs 8m35s to 8m35s (5 × 1000 tokens at 103ms each; tg100 took 103ms each); 8m20s of its budget of 8m20s is left for them"}},
		{"beyond the noise of its budget", prospect(tg(1000), 500*time.Second, measured(tg(100), 10500*time.Millisecond)), policy.Decision{Stop: true,
			Reason: "skipped: needs at least 8m45s (5 × 1000 tokens at 105ms each; tg100 took 105ms each); 8m20s of its budget of 8m20s is left for them"}},
		{"a fast machine", prospect(tg(1000), time.Second, measured(tg(100), 10*time.Microsecond)), policy.Decision{
			Reason: "started: needs about 500µs (5 × 1000 tokens at 100ns each; tg100 took 100ns each); 1s of its budget of 1s is left for them"}},
		{"a combined test", prospect(result.Test{Prompt: 64, Gen: 64}, 1, measured(result.Test{Prompt: 16, Gen: 16}, time.Second)),
			policy.Decision{Reason: "started: shorter tests do not predict its time"}},
		{"an end-to-end test", prospect(result.Test{Prompt: 64, Gen: 64, E2E: true}, 1, measured(result.Test{Prompt: 16, Gen: 16, E2E: true}, time.Second)),
			policy.Decision{Reason: "started: shorter tests do not predict its time"}},
		{"hopeless", prospect(pp(4096), time.Minute, rising...), policy.Decision{Stop: true,
			Reason: "skipped: needs at least 1m13.73s (6 × 4096 tokens at 3ms each; pp1024 took 1.5ms each); 1m0s of its budget of 1m0s is left for them"}},
		{"doubtful", prospect(pp(4096), 100*time.Second, rising...), policy.Decision{
			Reason: "started, but doubtful: needs 1m13.73s to 1m51s (6 × 4096 tokens at 3ms each; pp1024 took 1.5ms each); 1m40s of its budget of 1m40s is left for them"}},
		{"well", prospect(pp(4096), 200*time.Second, rising...), policy.Decision{
			Reason: "started: needs about 1m51s (6 × 4096 tokens at 3ms each; pp1024 took 1.5ms each); 3m20s of its budget of 3m20s is left for them"}},
		{"growth below a long context is noise", prospect(pp(2048), 100*time.Second, rising...), policy.Decision{
			Reason: "started: needs about 18.43s (6 × 2048 tokens at 1.5ms each; pp1024 took 1.5ms each); 1m40s of its budget of 1m40s is left for them"}},
		{"a fuller batch may halve the time per token", prospect(pp(128), 300*time.Millisecond, measured(pp(16), 16*time.Millisecond)), policy.Decision{Stop: true,
			Reason: "skipped: needs at least 384ms (6 × 128 tokens at 500µs each; pp16 took 1ms each); 300ms of its budget of 300ms is left for them"}},
		{"five passes, and what precedes them", setup, policy.Decision{Stop: true,
			Reason: "skipped: needs at least 6.4s (5 × 128 tokens at 10ms each; tg16 took 10ms each); 5s of its budget of 6s is left for them"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, policy.Default().Before(tt.prospect)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLikely(t *testing.T) {
	// 6.4 s for five repetitions, after 1 s of setup.
	with := func(budget time.Duration) policy.Prospect {
		h := prospect(tg(128), budget, measured(tg(16), 160*time.Millisecond))
		h.Setup = time.Second
		return h
	}
	for name, tt := range map[string]struct {
		prospect policy.Prospect
		likely   time.Duration
		known    bool
	}{
		"fits":            {with(time.Minute), 7400 * time.Millisecond, true},
		"no limit":        {with(0), 7400 * time.Millisecond, true},
		"hardly fits":     {with(7300 * time.Millisecond), 7300 * time.Millisecond, true},
		"is skipped":      {with(7 * time.Second), 0, true},
		"nothing is said": {prospect(tg(16), time.Minute), 0, false},
	} {
		if likely, known := policy.Default().Likely(tt.prospect); likely != tt.likely || known != tt.known {
			t.Errorf("%s: %v, %v; want %v, %v", name, likely, known, tt.likely, tt.known)
		}
	}
}

func TestDuring(t *testing.T) {
	const s = time.Second
	unknown := prospect(pp(16), 60*s) // six passes
	generation := prospect(tg(128), 100*s)
	for _, tt := range []struct {
		name     string
		prospect policy.Prospect
		want     policy.Decision
	}{
		{"no limit", within(prospect(pp(16), 0), 999*s, 0), policy.Decision{Reason: "continues: no time limit, or already complete"}},
		{"a slow first pass", within(unknown, 19*s, 0), policy.Decision{
			Reason: "continues: all 6 passes need at least 1m54s (the first has run for 19s); 1m0s of its budget of 1m0s is left for them"}},
		{"a hopeless first pass", within(unknown, 21*s, 0), policy.Decision{Stop: true,
			Reason: "given up: all 6 passes need at least 2m6s (the first has run for 21s); 1m0s of its budget of 1m0s is left for them"}},
		{"one pass", after(unknown, 15*s), policy.Decision{
			Reason: "continues: all 6 passes need at least 1m30s (1 took 15s); 1m0s of its budget of 1m0s is left for them"}},
		{"one pass too slow", after(unknown, 17*s), policy.Decision{Stop: true,
			Reason: "given up: all 6 passes need at least 1m42s (1 took 17s); 1m0s of its budget of 1m0s is left for them"}},
		{"two passes too slow", after(unknown, 12*s, 11*s), policy.Decision{Stop: true,
			Reason: "given up: all 6 passes need at least 1m7s (2 took 23s); 1m0s of its budget of 1m0s is left for them"}},
		{"the first was the fastest", after(unknown, 11*s, 12*s), policy.Decision{Stop: true,
			Reason: "given up: all 6 passes need at least 1m7s (2 took 23s); 1m0s of its budget of 1m0s is left for them"}},
		{"complete", after(unknown, s, s, s, s, s, 90*s), policy.Decision{Reason: "continues: no time limit, or already complete"}},
		{"a pass that hangs", within(after(unknown, s, s, s), 62*s, 0), policy.Decision{Stop: true,
			Reason: "given up: all 6 passes need at least 1m7s (3 took 3s); 1m0s of its budget of 1m0s is left for them"}},
		{"half of the tokens tell", within(generation, 25*s, 64), policy.Decision{Stop: true,
			Reason: "given up: all 5 passes need about 4m10s (64 of 128 tokens of the first took 25s); 1m40s of its budget of 1m40s is left for them"}},
		{"a quarter of the tokens tells", within(generation, 25*s, 32), policy.Decision{Stop: true,
			Reason: "given up: all 5 passes need about 8m20s (32 of 128 tokens of the first took 25s); 1m40s of its budget of 1m40s is left for them"}},
		{"a pass faster than those before", within(after(generation, 50*s), 5*s, 64), policy.Decision{
			Reason: "continues: all 5 passes need at least 1m30s (1 took 50s); 1m40s of its budget of 1m40s is left for them"}},
		{"few tokens do not", within(generation, 25*s, 31), policy.Decision{
			Reason: "continues: all 5 passes need at least 2m5s (the first has run for 25s); 1m40s of its budget of 1m40s is left for them"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, policy.Default().During(tt.prospect)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What was expected decides how long a first pass may take.
func TestPatience(t *testing.T) {
	const s = time.Second
	doubtful := prospect(pp(4096), 100*s, measured(pp(512), 512*time.Millisecond), measured(pp(1024), 1536*time.Millisecond))
	for _, tt := range []struct {
		name     string
		prospect policy.Prospect
		want     time.Duration
	}{
		{"unknown", prospect(pp(16), 60*s), 20 * s},
		{"doubtful", doubtful, 17 * s},
		{"doubtful, one done", after(doubtful, 16*s), 20 * s},
		{"doubtful, two done", after(doubtful, 16*s, 16*s), 20 * s},
		{"one done", after(prospect(pp(16), 60*s), 10*s), 46 * s},
		{"too slow already", after(prospect(pp(16), 60*s), 30*s), 0},
	} {
		got, ok := policy.Default().Patience(tt.prospect)
		if !ok || got.Round(time.Millisecond) != tt.want {
			t.Errorf("%s: %v (limited: %v), want %v", tt.name, got, ok, tt.want)
		}
	}
	for done, want := range []time.Duration{13 * s, 58 * s, 41200 * time.Millisecond} { // 1.3, 1.3 and 1.02 times the budget
		passes := slices.Repeat([]time.Duration{4 * s}, done)
		got, ok := policy.Fastest().Patience(after(prospect(pp(16), 60*s), passes...))
		if !ok || got.Round(time.Millisecond) != want {
			t.Errorf("fastest after %d passes: %v (limited: %v), want %v", done, got, ok, want)
		}
	}
	complete := after(prospect(tg(16), s), make([]time.Duration, 5)...)
	for _, p := range []policy.Prospect{prospect(pp(16), 0), complete} {
		if got, ok := policy.Default().Patience(p); ok {
			t.Errorf("%+v may take %v", p, got)
		}
	}
}

// A doubtful test whose first pass is too slow is given up after that pass. A test that
// was expected to fit continues after the same pass.
func TestNoCreditForDoubtful(t *testing.T) {
	const pass = 20*time.Second + 1 // five of them do not fit 100 s, if only just
	servers := func(before time.Duration) []policy.RecordedServer {
		return []policy.RecordedServer{{Name: "made/killed", Models: []policy.RecordedModel{{Server: "made/killed", Model: "m.gguf", Tests: []policy.RecordedTest{
			{Kind: result.TextGeneration, Tokens: 100, BudgetSeconds: 100, Outcome: "ok", WallSeconds: 5 * before.Seconds() * 1.002,
				SamplesNs: []int64{int64(before), int64(before), int64(before), int64(before), int64(before)}},
			{Kind: result.TextGeneration, Tokens: 1000, BudgetSeconds: 100, Outcome: "timeout", WallSeconds: 100},
		}}}}}
	}
	for _, tt := range []struct {
		name     string
		expected float64 // of the budget
		stops    bool
	}{{"ill", 0.95, true}, {"well", 0.9, false}} {
		before := time.Duration(tt.expected * float64(2*time.Second)) // a tenth of a pass
		h := prospect(tg(1000), 100*time.Second, measured(tg(100), before))
		patience, limited := policy.Default().Patience(after(h, pass))
		if !limited || (patience == 0) != tt.stops {
			t.Errorf("%s: patience %v after one pass", tt.name, patience)
		}
		lost := policy.Replay(servers(before), policy.Rule{Decider: policy.Default()}, policy.ReplayOptions{}).Lost
		if (lost < 25*time.Second) != tt.stops {
			t.Errorf("%s: %v lost in the killed test", tt.name, lost)
		}
	}
}

func TestAfter(t *testing.T) {
	for _, tt := range []struct {
		status   result.Status
		shortest bool
		want     policy.Consequence
	}{
		{result.OK, true, policy.Continue},
		{result.Timeout, false, policy.EndSeries},
		{result.Timeout, true, policy.EndModels},
		{result.PredictedTimeout, false, policy.EndSeries},
		{result.PredictedTimeout, true, policy.EndModels},
		{result.Crashed, true, policy.Continue},
		{result.OutOfMemory, true, policy.Continue},
		{result.TimeLimit, false, policy.EndModels},
		{result.Aborted, false, policy.EndModels},
	} {
		if got := policy.After(tt.status, tt.shortest); got != tt.want {
			t.Errorf("%s, shortest %v: %v, want %v", tt.status, tt.shortest, got, tt.want)
		}
	}
}

// drawProspect makes a test of any length with up to three shorter ones.
func drawProspect(t *rapid.T) policy.Prospect {
	lengths := []int{16, 128, 512, 1024, 4096, 16384}
	of := rapid.SampledFrom([]func(int) result.Test{pp, tg}).Draw(t, "kind")
	at := rapid.IntRange(0, len(lengths)-1).Draw(t, "length")
	h := prospect(of(lengths[at]), time.Duration(rapid.Int64Range(1, int64(10*time.Minute)).Draw(t, "budget")))
	h.Setup = time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "setup"))
	h.GPU = rapid.Bool().Draw(t, "gpu")
	for _, n := range lengths[max(0, at-rapid.IntRange(0, 3).Draw(t, "shorter")):at] {
		repetitions := make([]time.Duration, 5)
		for i := range repetitions {
			repetitions[i] = 2 * time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "repetition"))
		}
		h.Shorter = append(h.Shorter, policy.Measured{Test: of(n), Repetitions: repetitions})
	}
	return h
}

func drawRunning(t *rapid.T) policy.Prospect {
	p := drawProspect(t)
	for range rapid.IntRange(0, 4).Draw(t, "passes") {
		p.Passes = append(p.Passes, time.Duration(rapid.Int64Range(1, int64(2*time.Minute)).Draw(t, "pass")))
	}
	return p
}

func TestPolicyProperties(t *testing.T) {
	for name, p := range map[string]policy.Policy{"default": policy.Default(), "fastest": policy.Fastest()} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				h := drawProspect(t)
				now := p.Before(h)
				if now.Stop && len(h.Shorter) == 0 {
					t.Fatalf("the shortest is skipped: %s", now.Reason)
				}
				more := h
				more.Budget += time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "more"))
				if then := p.Before(more); !now.Stop && then.Stop {
					t.Fatalf("more budget turns %q into %q", now.Reason, then.Reason)
				}
				faster := h
				faster.Shorter = nil
				for _, m := range h.Shorter {
					half := policy.Measured{Test: m.Test}
					for _, r := range m.Repetitions {
						half.Repetitions = append(half.Repetitions, r/2)
					}
					faster.Shorter = append(faster.Shorter, half)
				}
				if then := p.Before(faster); !now.Stop && then.Stop {
					t.Fatalf("a machine twice as fast turns %q into %q", now.Reason, then.Reason)
				}
			})
			rapid.Check(t, func(t *rapid.T) {
				now := drawRunning(t)
				patience, limited := p.Patience(now)
				if !limited {
					t.Fatal("no limit in spite of a budget")
				}
				late := now
				late.InPass = patience + 1
				if d := p.During(late); !d.Stop {
					t.Fatalf("beyond its patience of %v: %s", patience, d.Reason)
				}
				if patience > 0 {
					late.InPass = patience
					if d := p.During(late); d.Stop {
						t.Fatalf("within its patience of %v: %s", patience, d.Reason)
					}
				}
				more := now
				more.Budget += time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "more"))
				if then, _ := p.Patience(more); then < patience {
					t.Fatalf("more budget shortens the patience from %v to %v", patience, then)
				}
			})
		})
	}
}
