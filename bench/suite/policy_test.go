package suite_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

func pp(n int) result.Test { return result.Test{Prompt: n} }
func tg(n int) result.Test { return result.Test{Gen: n} }

// measured is a test whose five repetitions took d each.
func measured(t result.Test, d time.Duration) suite.Measured {
	return suite.Measured{Test: t, Repetitions: []time.Duration{d, d, d, d, d}}
}

// history is that of a test with five repetitions and a warm-up.
func history(t result.Test, budget time.Duration, shorter ...suite.Measured) suite.History {
	return suite.History{Test: t, Budget: budget, Repetitions: 5, Warmup: true, Shorter: shorter}
}

func TestBefore(t *testing.T) {
	// 1 ms per token at 512, 1.5 ms at 1024: continued to 4096 it is 4.5 ms, and
	// 3 ms when half of the growth is.
	rising := []suite.Measured{measured(pp(512), 512*time.Millisecond), measured(pp(1024), 1536*time.Millisecond)}
	setup := history(tg(128), 6*time.Second, measured(tg(16), 160*time.Millisecond))
	setup.Setup = time.Second
	gpu := history(pp(512), time.Millisecond, measured(pp(128), time.Second))
	gpu.GPU = true
	gpuFilled := history(pp(513), time.Minute, measured(pp(512), 512*time.Millisecond))
	gpuFilled.GPU = true
	gpuGeneration := history(tg(128), time.Minute, measured(tg(16), 16*time.Millisecond))
	gpuGeneration.GPU = true
	cold := history(pp(32), time.Second, measured(pp(16), 16*time.Millisecond))
	cold.Warmup = false
	// Repetitions of 20, 16 and 18 ms: the fastest counts.
	uneven := history(tg(32), time.Second, suite.Measured{Test: tg(16), Repetitions: []time.Duration{20e6, 16e6, 18e6}})
	for _, tt := range []struct {
		name    string
		history suite.History
		want    suite.Decision
	}{
		{"no limit", history(pp(4096), 0, rising...), suite.Decision{Reason: "started: it has no time limit"}},
		{"the shortest", history(pp(16), 1), suite.Decision{Reason: "started: nothing shorter was measured"}},
		{"a batch that does not fill a GPU", gpu, suite.Decision{Reason: "started: shorter tests do not predict it"}},
		{"a batch that fills a GPU", gpuFilled, suite.Decision{
			Reason: "started: needs about 3.08s: 6 × 513 tokens at 1ms each, from 1ms at pp512; 1m0s of its budget of 1m0s is left for them"}},
		{"a generation on a GPU", gpuGeneration, suite.Decision{
			Reason: "started: needs about 640ms: 5 × 128 tokens at 1ms each, from 1ms at tg16; 1m0s of its budget of 1m0s is left for them"}},
		{"a batch not fuller yet", history(pp(127), time.Second, measured(pp(16), 16*time.Millisecond)), suite.Decision{
			Reason: "started: needs about 762ms: 6 × 127 tokens at 1ms each, from 1ms at pp16; 1s of its budget of 1s is left for them"}},
		{"no warm-up", cold, suite.Decision{
			Reason: "started: needs about 160ms: 5 × 32 tokens at 1ms each, from 1ms at pp16; 1s of its budget of 1s is left for them"}},
		{"the fastest repetition", uneven, suite.Decision{
			Reason: "started: needs about 160ms: 5 × 32 tokens at 1ms each, from 1ms at tg16; 1s of its budget of 1s is left for them"}},
		{"within the noise of its budget", history(tg(1000), 500*time.Second, measured(tg(100), 10300*time.Millisecond)), suite.Decision{
			Reason: "started, but doubtful: needs 8m35s to 8m35s: 5 × 1000 tokens at 103ms each, from 103ms at tg100; 8m20s of its budget of 8m20s is left for them"}},
		{"beyond the noise of its budget", history(tg(1000), 500*time.Second, measured(tg(100), 10500*time.Millisecond)), suite.Decision{Stop: true,
			Reason: "skipped: needs at least 8m45s: 5 × 1000 tokens at 105ms each, from 105ms at tg100; 8m20s of its budget of 8m20s is left for them"}},
		{"a fast machine", history(tg(1000), time.Second, measured(tg(100), 10*time.Microsecond)), suite.Decision{
			Reason: "started: needs about 500µs: 5 × 1000 tokens at 100ns each, from 100ns at tg100; 1s of its budget of 1s is left for them"}},
		{"a combined test", history(result.Test{Prompt: 64, Gen: 64}, 1, measured(result.Test{Prompt: 16, Gen: 16}, time.Second)),
			suite.Decision{Reason: "started: shorter tests do not predict it"}},
		{"an end-to-end test", history(result.Test{Prompt: 64, Gen: 64, E2E: true}, 1, measured(result.Test{Prompt: 16, Gen: 16, E2E: true}, time.Second)),
			suite.Decision{Reason: "started: shorter tests do not predict it"}},
		{"hopeless", history(pp(4096), time.Minute, rising...), suite.Decision{Stop: true,
			Reason: "skipped: needs at least 1m13.73s: 6 × 4096 tokens at 3ms each, from 1.5ms at pp1024; 1m0s of its budget of 1m0s is left for them"}},
		{"doubtful", history(pp(4096), 100*time.Second, rising...), suite.Decision{
			Reason: "started, but doubtful: needs 1m13.73s to 1m51s: 6 × 4096 tokens at 3ms each, from 1.5ms at pp1024; 1m40s of its budget of 1m40s is left for them"}},
		{"well", history(pp(4096), 200*time.Second, rising...), suite.Decision{
			Reason: "started: needs about 1m51s: 6 × 4096 tokens at 3ms each, from 1.5ms at pp1024; 3m20s of its budget of 3m20s is left for them"}},
		{"growth below a long context is noise", history(pp(2048), 100*time.Second, rising...), suite.Decision{
			Reason: "started: needs about 18.43s: 6 × 2048 tokens at 1.5ms each, from 1.5ms at pp1024; 1m40s of its budget of 1m40s is left for them"}},
		{"a fuller batch may halve the time per token", history(pp(128), 300*time.Millisecond, measured(pp(16), 16*time.Millisecond)), suite.Decision{Stop: true,
			Reason: "skipped: needs at least 384ms: 6 × 128 tokens at 500µs each, from 1ms at pp16; 300ms of its budget of 300ms is left for them"}},
		{"five passes, and what precedes them", setup, suite.Decision{Stop: true,
			Reason: "skipped: needs at least 6.4s: 5 × 128 tokens at 10ms each, from 10ms at tg16; 5s of its budget of 6s is left for them"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, suite.DefaultPolicy().Before(tt.history)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLikely(t *testing.T) {
	// 6.4 s for five repetitions, after 1 s of setup.
	with := func(budget time.Duration) suite.History {
		h := history(tg(128), budget, measured(tg(16), 160*time.Millisecond))
		h.Setup = time.Second
		return h
	}
	for name, tt := range map[string]struct {
		history suite.History
		likely  time.Duration
		known   bool
	}{
		"fits":            {with(time.Minute), 7400 * time.Millisecond, true},
		"no limit":        {with(0), 7400 * time.Millisecond, true},
		"hardly fits":     {with(7300 * time.Millisecond), 7300 * time.Millisecond, true},
		"is skipped":      {with(7 * time.Second), 0, true},
		"nothing is said": {history(tg(16), time.Minute), 0, false},
	} {
		if likely, known := suite.DefaultPolicy().Likely(tt.history); likely != tt.likely || known != tt.known {
			t.Errorf("%s: %v, %v; want %v, %v", name, likely, known, tt.likely, tt.known)
		}
	}
}

func TestDuring(t *testing.T) {
	const s = time.Second
	unknown := history(pp(16), 60*s) // six passes
	generation := history(tg(128), 100*s)
	for _, tt := range []struct {
		name     string
		progress suite.Progress
		want     suite.Decision
	}{
		{"no limit", suite.Progress{History: history(pp(16), 0), InPass: 999 * s}, suite.Decision{Reason: "goes on: it has no time limit or is complete"}},
		{"a slow first pass", suite.Progress{History: unknown, InPass: 19 * s}, suite.Decision{
			Reason: "goes on: the first of 6 passes has taken 19s, all of them at least 1m54s; 1m0s of its budget of 1m0s is for them"}},
		{"a hopeless first pass", suite.Progress{History: unknown, InPass: 21 * s}, suite.Decision{Stop: true,
			Reason: "given up: the first of 6 passes has taken 21s, all of them at least 2m6s; 1m0s of its budget of 1m0s is for them"}},
		{"one pass", suite.Progress{History: unknown, Passes: []time.Duration{15 * s}}, suite.Decision{
			Reason: "goes on: 1 of 6 passes took 15s, all of them at least 1m30s; 1m0s of its budget of 1m0s is for them"}},
		{"one pass too slow", suite.Progress{History: unknown, Passes: []time.Duration{17 * s}}, suite.Decision{Stop: true,
			Reason: "given up: 1 of 6 passes took 17s, all of them at least 1m42s; 1m0s of its budget of 1m0s is for them"}},
		{"two passes too slow", suite.Progress{History: unknown, Passes: []time.Duration{12 * s, 11 * s}}, suite.Decision{Stop: true,
			Reason: "given up: 2 of 6 passes took 23s, all of them at least 1m7s; 1m0s of its budget of 1m0s is for them"}},
		{"the first was the fastest", suite.Progress{History: unknown, Passes: []time.Duration{11 * s, 12 * s}}, suite.Decision{Stop: true,
			Reason: "given up: 2 of 6 passes took 23s, all of them at least 1m7s; 1m0s of its budget of 1m0s is for them"}},
		{"complete", suite.Progress{History: unknown, Passes: []time.Duration{s, s, s, s, s, 90 * s}}, suite.Decision{Reason: "goes on: it has no time limit or is complete"}},
		{"a pass that hangs", suite.Progress{History: unknown, Passes: []time.Duration{s, s, s}, InPass: 62 * s}, suite.Decision{Stop: true,
			Reason: "given up: 3 of 6 passes took 3s, all of them at least 1m7s; 1m0s of its budget of 1m0s is for them"}},
		{"half of the tokens tell", suite.Progress{History: generation, InPass: 25 * s, Tokens: 64}, suite.Decision{Stop: true,
			Reason: "given up: 64 of 128 tokens of the first of 5 passes took 25s, all of them about 4m10s; 1m40s of its budget of 1m40s is for them"}},
		{"a quarter of the tokens tells", suite.Progress{History: generation, InPass: 25 * s, Tokens: 32}, suite.Decision{Stop: true,
			Reason: "given up: 32 of 128 tokens of the first of 5 passes took 25s, all of them about 8m20s; 1m40s of its budget of 1m40s is for them"}},
		{"a pass faster than those before", suite.Progress{History: generation, Passes: []time.Duration{50 * s}, InPass: 5 * s, Tokens: 64}, suite.Decision{
			Reason: "goes on: 1 of 5 passes took 50s, all of them at least 1m30s; 1m40s of its budget of 1m40s is for them"}},
		{"few tokens do not", suite.Progress{History: generation, InPass: 25 * s, Tokens: 31}, suite.Decision{
			Reason: "goes on: the first of 5 passes has taken 25s, all of them at least 2m5s; 1m40s of its budget of 1m40s is for them"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, suite.DefaultPolicy().During(tt.progress)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What was expected decides how long a first pass may take.
func TestPatience(t *testing.T) {
	const s = time.Second
	doubtful := history(pp(4096), 100*s, measured(pp(512), 512*time.Millisecond), measured(pp(1024), 1536*time.Millisecond))
	for _, tt := range []struct {
		name     string
		progress suite.Progress
		want     time.Duration
	}{
		{"unknown", suite.Progress{History: history(pp(16), 60*s)}, 20 * s},
		{"doubtful", suite.Progress{History: doubtful}, 17 * s},
		{"doubtful, one done", suite.Progress{History: doubtful, Passes: []time.Duration{16 * s}}, 20 * s},
		{"doubtful, two done", suite.Progress{History: doubtful, Passes: []time.Duration{16 * s, 16 * s}}, 20 * s},
		{"one done", suite.Progress{History: history(pp(16), 60*s), Passes: []time.Duration{10 * s}}, 46 * s},
		{"too slow already", suite.Progress{History: history(pp(16), 60*s), Passes: []time.Duration{30 * s}}, 0},
	} {
		got, ok := suite.DefaultPolicy().Patience(tt.progress)
		if !ok || got.Round(time.Millisecond) != tt.want {
			t.Errorf("%s: %v (limited: %v), want %v", tt.name, got, ok, tt.want)
		}
	}
	for done, want := range []time.Duration{13 * s, 58 * s, 41200 * time.Millisecond} { // rule (iii): 1.3, 1.3 and 1.02 times the budget
		passes := slices.Repeat([]time.Duration{4 * s}, done)
		got, ok := suite.FastestPolicy().Patience(suite.Progress{History: history(pp(16), 60*s), Passes: passes})
		if !ok || got.Round(time.Millisecond) != want {
			t.Errorf("rule (iii) after %d passes: %v (limited: %v), want %v", done, got, ok, want)
		}
	}
	complete := suite.Progress{History: history(tg(16), s), Passes: make([]time.Duration, 5)}
	for _, p := range []suite.Progress{{History: history(pp(16), 0)}, complete} {
		if got, ok := suite.DefaultPolicy().Patience(p); ok {
			t.Errorf("%+v may take %v", p, got)
		}
	}
}

// A test that was to fit ill, and whose first pass bears that out, is given up
// there; the same passes of a test that was to fit well go on.
func TestNoCreditForSuspects(t *testing.T) {
	const pass = 20*time.Second + 1 // five of them do not fit 100 s, if only just
	servers := func(before time.Duration) []suite.RecordedServer {
		return []suite.RecordedServer{{Name: "made/killed", Models: []suite.RecordedModel{{Server: "made/killed", Model: "m.gguf", Tests: []suite.RecordedTest{
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
		h := history(tg(1000), 100*time.Second, measured(tg(100), before))
		patience, limited := suite.DefaultPolicy().Patience(suite.Progress{History: h, Passes: []time.Duration{pass}})
		if !limited || (patience == 0) != tt.stops {
			t.Errorf("%s: patience %v after one pass", tt.name, patience)
		}
		lost := suite.Replay(servers(before), suite.Rule{Decider: suite.DefaultPolicy()}, suite.ReplayOptions{}).Lost
		if (lost < 25*time.Second) != tt.stops {
			t.Errorf("%s: %v lost in the killed test", tt.name, lost)
		}
	}
}

func TestAfter(t *testing.T) {
	for _, tt := range []struct {
		status   result.Status
		shortest bool
		want     suite.Consequence
	}{
		{result.OK, true, suite.Continue},
		{result.Timeout, false, suite.EndGroup},
		{result.Timeout, true, suite.EndModels},
		{result.PredictedTimeout, false, suite.EndGroup},
		{result.PredictedTimeout, true, suite.EndModels},
		{result.Crashed, true, suite.Continue},
		{result.OutOfMemory, true, suite.Continue},
		{result.TimeLimit, false, suite.EndModels},
		{result.Aborted, false, suite.EndModels},
	} {
		if got := suite.After(tt.status, tt.shortest); got != tt.want {
			t.Errorf("%s, shortest %v: %v, want %v", tt.status, tt.shortest, got, tt.want)
		}
	}
}

// drawHistory makes a test of any length with up to three shorter ones.
func drawHistory(t *rapid.T) suite.History {
	lengths := []int{16, 128, 512, 1024, 4096, 16384}
	of := rapid.SampledFrom([]func(int) result.Test{pp, tg}).Draw(t, "kind")
	at := rapid.IntRange(0, len(lengths)-1).Draw(t, "length")
	h := history(of(lengths[at]), time.Duration(rapid.Int64Range(1, int64(10*time.Minute)).Draw(t, "budget")))
	h.Setup = time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "setup"))
	h.GPU = rapid.Bool().Draw(t, "gpu")
	for _, n := range lengths[max(0, at-rapid.IntRange(0, 3).Draw(t, "shorter")):at] {
		repetitions := make([]time.Duration, 5)
		for i := range repetitions {
			repetitions[i] = 2 * time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "repetition"))
		}
		h.Shorter = append(h.Shorter, suite.Measured{Test: of(n), Repetitions: repetitions})
	}
	return h
}

func drawProgress(t *rapid.T) suite.Progress {
	p := suite.Progress{History: drawHistory(t)}
	for range rapid.IntRange(0, 4).Draw(t, "passes") {
		p.Passes = append(p.Passes, time.Duration(rapid.Int64Range(1, int64(2*time.Minute)).Draw(t, "pass")))
	}
	return p
}

func TestPolicyProperties(t *testing.T) {
	for name, p := range map[string]suite.Policy{"default": suite.DefaultPolicy(), "fastest": suite.FastestPolicy()} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				h := drawHistory(t)
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
					half := suite.Measured{Test: m.Test}
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
				now := drawProgress(t)
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
