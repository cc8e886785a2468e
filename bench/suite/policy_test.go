package suite_test

import (
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
	for _, tt := range []struct {
		name    string
		history suite.History
		want    suite.Decision
	}{
		{"no limit", history(pp(4096), 0, rising...), suite.Decision{Reason: "started: it has no time limit"}},
		{"the shortest", history(pp(16), 1), suite.Decision{Reason: "started: nothing shorter was measured"}},
		{"a batch that does not fill a GPU", gpu, suite.Decision{Reason: "started: shorter tests do not predict it"}},
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
		{"a pass that hangs", suite.Progress{History: unknown, Passes: []time.Duration{s, s, s}, InPass: 62 * s}, suite.Decision{Stop: true,
			Reason: "given up: 3 of 6 passes took 3s, all of them at least 1m7s; 1m0s of its budget of 1m0s is for them"}},
		{"half of the tokens tell", suite.Progress{History: generation, InPass: 25 * s, Tokens: 64}, suite.Decision{Stop: true,
			Reason: "given up: 64 of 128 tokens of the first of 5 passes took 25s, all of them about 4m10s; 1m40s of its budget of 1m40s is for them"}},
		{"few tokens do not", suite.Progress{History: generation, InPass: 25 * s, Tokens: 16}, suite.Decision{
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
		{"one done", suite.Progress{History: history(pp(16), 60*s), Passes: []time.Duration{10 * s}}, 46 * s},
		{"too slow already", suite.Progress{History: history(pp(16), 60*s), Passes: []time.Duration{30 * s}}, 0},
	} {
		got, ok := suite.DefaultPolicy().Patience(tt.progress)
		if !ok || got.Round(time.Millisecond) != tt.want {
			t.Errorf("%s: %v (limited: %v), want %v", tt.name, got, ok, tt.want)
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
