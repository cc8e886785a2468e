package record_test

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// timeline is a run as events with the seconds since the one before.
type timeline []struct {
	after float64
	event bench.Event // nil: a run begins
}

// ofBurst is an event of a burst, of which more follow.
type ofBurst struct {
	bench.Event
	more int
}

var accountStart = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func secs(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// account books a run that ends a second after its last event. As from a file,
// the events have been lines.
func (l timeline) account(t *testing.T) result.Accounting {
	t.Helper()
	var a record.Account
	at := accountStart
	for _, e := range l {
		at = at.Add(secs(e.after))
		if e.event == nil {
			a.Begin(at)
			continue
		}
		event, more := e.event, 0
		if b, ok := event.(ofBurst); ok {
			event, more = b.Event, b.more
		}
		line, err := bench.Stamped{At: at, Event: event, More: more}.MarshalLine()
		if err != nil {
			t.Fatal(err)
		}
		var stamped bench.Stamped
		if err := stamped.UnmarshalLine(bytes.TrimSpace(line)); err != nil {
			t.Fatal(err)
		}
		a.Add(stamped)
	}
	return a.Accounting(at.Add(time.Second))
}

func TestAccount(t *testing.T) {
	pp, tg := result.Test{Prompt: 16}, result.Test{Gen: 8}
	load := bench.LoadStarted{Model: bench.Model{Name: "a.gguf"}}
	loaded := bench.LoadDone{Status: result.OK, Elapsed: secs(4)}
	start := func(t result.Test, done ...result.Sample) bench.Event {
		return bench.TestStarted{Test: t, Repetitions: 2, Done: done}
	}
	ready, warm := bench.ContextReady{Elapsed: secs(1)}, bench.WarmupDone{Elapsed: secs(2)}
	rep := func(n int, seconds float64) bench.RepetitionDone {
		return bench.RepetitionDone{Sample: result.Sample{Repetition: n, Elapsed: secs(seconds)}}
	}
	done := func(t result.Test, st result.Status) bench.Event { return bench.TestDone{Test: t, Status: st} }
	lost := bench.WorkerLost{Status: result.Crashed}

	for name, tt := range map[string]struct {
		run  timeline
		want result.Accounting
	}{
		"nothing": {nil, result.Accounting{}},
		"begun":   {timeline{{0, nil}}, result.Accounting{Wall: secs(1), Other: secs(1)}},
		"completed": {
			// Half a second before each repetition is its preparation.
			timeline{
				{0, nil}, {3, bench.EngineReady{}}, {0, load}, {2, bench.LoadProgress{Share: 0.5}}, {2, loaded},
				{0, start(pp)}, {1, ready}, {2.25, warm}, {5.5, rep(1, 5)}, {6.5, rep(2, 6)}, {0.5, done(pp, result.OK)}, {0, bench.JobDone{}},
			},
			result.Accounting{Wall: secs(22.75 + 1), Load: secs(4), Context: secs(1), Warmup: secs(2), Timed: secs(11), Other: secs(3 + 0.25 + 0.5 + 0.5 + 0.5 + 1)},
		},
		"download and warming": {
			timeline{
				{0, bench.WaitStarted{Model: "a.gguf"}}, {20, bench.WaitDone{Status: result.OK, Elapsed: secs(20)}},
				{3, bench.ReadInDone{Elapsed: secs(2.5)}}, {1, bench.EngineReady{}}, {0, load}, {4, loaded},
			},
			result.Accounting{Wall: secs(29), Wait: secs(20), Load: secs(6.5), Other: secs(0.5 + 1 + 1)},
		},
		"failed download": {
			timeline{
				{0, bench.WaitStarted{}}, {20, bench.WaitDone{Status: result.DownloadFailed}},
				{0, bench.TestSkipped{Test: pp, Status: result.DownloadFailed}}, {0, bench.TestSkipped{Test: tg, Status: result.DownloadFailed}},
			},
			result.Accounting{Wall: secs(21), Wait: secs(20), Other: secs(1)},
		},
		"limits": {
			timeline{{0, bench.EngineReady{}}, {0.5, bench.LimitsStarted{}}, {2, bench.LimitsDone{Status: result.OK}}, {0.5, load}, {4, loaded}},
			result.Accounting{Wall: secs(8), Limits: secs(2), Load: secs(4), Other: secs(0.5 + 0.5 + 1)},
		},
		"cooling down": {
			timeline{{0, load}, {4, loaded}, {0.5, bench.CoolDownStarted{}}, {30, bench.CoolDownDone{Elapsed: secs(30)}}, {0, start(pp)}, {2, done(pp, result.OK)}},
			result.Accounting{Wall: secs(37.5), Load: secs(4), CoolDown: secs(30), Other: secs(0.5 + 2 + 1)},
		},
		"cut while waiting": {
			timeline{{0, bench.WaitStarted{}}, {5, bench.LoadProgress{}}, {5, nil}, {1, bench.EngineReady{}}},
			result.Accounting{Wall: secs(7), Wait: secs(5), Other: secs(2)},
		},
		"stopped test": {
			timeline{
				{0, start(tg)}, {1, ready}, {2, warm}, {5, rep(1, 5)}, {3, bench.AbortRequested{}}, {0.25, bench.AbortReturned{}},
				{0.25, done(tg, result.Timeout)},
			},
			result.Accounting{Wall: secs(12.5), Lost: secs(11.5), Other: secs(1)},
		},
		"a stop during a repetition": {
			timeline{
				{0, start(tg)}, {1, ready}, {2, warm}, {5, rep(1, 5)}, {100, bench.Continued{Stopped: secs(98)}}, {0, bench.AbortRequested{Stopped: true}},
				{0, start(tg, rep(1, 5).Sample)}, {1, ready}, {2, warm}, {5, rep(2, 5)}, {0, done(tg, result.OK)},
			},
			// The first context and warm-up, and the two seconds of the repetition, are lost.
			result.Accounting{Wall: secs(117), Context: secs(1), Warmup: secs(2), Timed: secs(10), Lost: secs(1 + 2 + 2), Other: secs(98 + 1)},
		},
		"passes before the first test on a GPU": {
			timeline{{0, load}, {4, loaded}, {1, bench.PrecompileStarted{}}, {5, bench.PrecompileDone{}}, {0.5, start(pp)}, {2, done(pp, result.OK)}},
			result.Accounting{Wall: secs(13.5), Load: secs(4), Warmup: secs(5), Other: secs(4.5)},
		},
		"warming beside a test": {
			timeline{{0, start(pp)}, {5, bench.ReadInDone{Elapsed: secs(4)}}, {1, done(pp, result.Timeout)}},
			result.Accounting{Wall: secs(7), Lost: secs(6), Other: secs(1)},
		},
		"crash between tests": {
			timeline{{0, load}, {4, loaded}, {3, lost}},
			result.Accounting{Wall: secs(8), Load: secs(4), Other: secs(4)},
		},
		"skipped tests cost little": {
			timeline{{0, load}, {4, loaded}, {0.5, bench.TestSkipped{Test: pp}}},
			result.Accounting{Wall: secs(5.5), Load: secs(4), Other: secs(1.5)},
		},
		"failed load": {
			timeline{{0, load}, {4, bench.LoadDone{Status: result.OutOfMemory}}},
			result.Accounting{Wall: secs(5), Load: secs(4), Other: secs(1)},
		},
		"crash while loading": {
			timeline{{0, load}, {4, bench.LoadProgress{}}, {3, lost}, {2, bench.EngineReady{}}},
			result.Accounting{Wall: secs(10), Load: secs(4), Lost: secs(3), Other: secs(3)},
		},
		"crash, then continued": {
			// The first repetition was not for nothing; the worker that crashed was.
			timeline{
				{0, load}, {0, loaded}, {0, start(pp)}, {1, ready}, {2, warm}, {5, rep(1, 5)}, {3, lost},
				{2, bench.EngineReady{}}, {0, load}, {4, loaded},
				{0, start(pp, result.Sample{Repetition: 1, Elapsed: secs(5)})}, {1, ready}, {2, warm}, {6, rep(2, 6)}, {0, done(pp, result.OK)},
			},
			result.Accounting{Wall: secs(27), Load: secs(4), Context: secs(1), Warmup: secs(2), Timed: secs(11), Lost: secs(1 + 2 + 3), Other: secs(3)},
		},
		"crash, then from the start": {
			timeline{
				{0, start(pp)}, {5, rep(1, 5)}, {3, lost},
				{0, load}, {0, loaded}, {0, start(pp)}, {5, rep(1, 5)}, {6, rep(2, 6)}, {0, done(pp, result.OK)},
			},
			result.Accounting{Wall: secs(20), Timed: secs(11), Lost: secs(8), Other: secs(1)},
		},
		"crashed twice, never completed": {
			timeline{
				{0, load}, {0, start(pp)}, {5, rep(1, 5)}, {3, lost},
				{0, load}, {0, loaded}, {0, start(pp, result.Sample{Repetition: 1})}, {6, rep(2, 6)}, {0, lost}, {0, start(tg)}, {1, done(tg, result.OK)},
			},
			result.Accounting{Wall: secs(16), Lost: secs(14), Other: secs(2)},
		},
		"continued by another run": {
			timeline{
				{0, nil}, {1, load}, {0, loaded}, {0, start(pp)}, {5, rep(1, 5)}, // cut off here, continued the next day
				{86400, nil}, {1, load}, {0, loaded},
				{0, start(pp, result.Sample{Repetition: 1})}, {6, rep(2, 6)}, {0, done(pp, result.OK)},
			},
			result.Accounting{Wall: secs(14), Timed: secs(11), Other: secs(3)},
		},
		"another model's repetition of the same test": {
			timeline{
				{0, load}, {0, start(pp)}, {5, rep(1, 5)}, {0, lost},
				{0, bench.LoadStarted{Model: bench.Model{Name: "b.gguf"}}}, {0, start(pp, result.Sample{Repetition: 1})}, {6, rep(2, 6)}, {0, done(pp, result.OK)},
			},
			result.Accounting{Wall: secs(12), Timed: secs(6), Lost: secs(5), Other: secs(1)},
		},
		"primed repetitions": {
			// A second of each step of six is the passing on of events.
			timeline{
				{0, start(pp)}, {2, rep(1, 2)}, {3, rep(2, 3)}, {6, bench.RepetitionDone{Sample: rep(3, 2).Sample, Priming: secs(3)}},
				{6, bench.WarmupDone{Elapsed: secs(2), Priming: secs(3)}}, {1, bench.RepetitionDone{Sample: rep(4, 2).Sample, Priming: secs(3)}},
				{0, done(pp, result.OK)},
			},
			result.Accounting{Wall: secs(19), Timed: secs(8), Warmup: secs(3 + 5), Other: secs(1 + 1 + 1)},
		},
		"a burst beside an event of the parent": {
			// The repetitions end at 2 s, 5 s and 8 s, and the file is read at 4 s.
			timeline{
				{0, start(pp)}, {4, bench.ReadInDone{}}, {-2, ofBurst{rep(1, 2), 2}}, {3, ofBurst{rep(2, 3), 1}}, {3, rep(3, 3)}, {0, done(pp, result.OK)},
			},
			result.Accounting{Wall: secs(9), Timed: secs(1 + 3), Other: secs(4 + 1)},
		},
		"under way": {
			timeline{{0, start(pp)}, {5, rep(1, 5)}},
			result.Accounting{Wall: secs(6), Lost: secs(6)},
		},
		"clock steps back": {
			timeline{{0, start(pp)}, {5, rep(1, 5)}, {-3600, rep(2, 6)}, {2, done(pp, result.OK)}},
			result.Accounting{Wall: secs(8), Timed: secs(5), Other: secs(3)},
		},
		"measured longer than the clocks of the events say": {
			timeline{{0, start(pp)}, {5, rep(1, 50)}, {0, done(pp, result.OK)}},
			result.Accounting{Wall: secs(6), Timed: secs(5), Other: secs(1)},
		},
		"no test": {
			timeline{{0, bench.EngineReady{}}, {1, rep(1, 1)}, {1, done(pp, result.OK)}, {1, ready}},
			result.Accounting{Wall: secs(4), Other: secs(4)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.run.account(t)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAccountSums: whatever the events and their times, no part is negative and
// the parts sum to the wall time, at every moment.
func TestAccountSums(t *testing.T) {
	test := rapid.SampledFrom([]result.Test{{Prompt: 16}, {Gen: 8}})
	status := rapid.SampledFrom([]result.Status{result.OK, result.OK, result.OK, result.Timeout})
	duration := rapid.Custom(func(t *rapid.T) int64 {
		if rapid.IntRange(0, 499).Draw(t, "extreme") == 499 { // rare: no other time counts after it
			return rapid.Int64().Draw(t, "duration")
		}
		return rapid.Int64Range(-10, 1000).Draw(t, "duration")
	})
	event := rapid.Custom(func(t *rapid.T) bench.Event {
		elapsed := time.Duration(duration.Draw(t, "elapsed"))
		sample := result.Sample{Repetition: rapid.IntRange(1, 3).Draw(t, "repetition"), Elapsed: elapsed}
		switch rapid.IntRange(0, 20).Draw(t, "event") {
		case 0:
			return nil // begin
		case 1:
			return bench.EngineReady{}
		case 2:
			return bench.LoadStarted{Model: bench.Model{Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "model")}}
		case 3:
			return bench.LoadDone{Status: status.Draw(t, "status"), Elapsed: elapsed}
		case 4, 5, 15, 16:
			done := []result.Sample{{Repetition: 1}, {Repetition: 2}, sample}
			return bench.TestStarted{Test: test.Draw(t, "test"), Done: done[:rapid.IntRange(0, 3).Draw(t, "done")]}
		case 6:
			return bench.ContextReady{Elapsed: elapsed}
		case 7:
			return bench.WarmupDone{Elapsed: elapsed}
		case 8, 9, 17, 18:
			return bench.RepetitionDone{Sample: sample}
		case 10, 19, 20:
			return bench.TestDone{Test: test.Draw(t, "test"), Status: status.Draw(t, "status")}
		case 11:
			return bench.WaitStarted{}
		case 12:
			return bench.WaitDone{}
		case 13:
			return bench.ReadInDone{Elapsed: elapsed}
		default:
			return bench.WorkerLost{}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		var a record.Account
		at := accountStart
		for range rapid.IntRange(0, 400).Draw(t, "events") {
			at = at.Add(time.Duration(duration.Draw(t, "after")))
			if e := event.Draw(t, "event"); e == nil {
				a.Begin(at)
			} else {
				a.Add(bench.Stamped{At: at, Event: e})
			}
			before := a.Accounting(at)
			got := a.Accounting(at.Add(time.Duration(duration.Draw(t, "end"))))
			var sum time.Duration
			for _, p := range got.Parts() {
				if p.Time < 0 {
					t.Fatalf("%s is %v of %+v", p.Name, p.Time, got)
				}
				if sum += p.Time; sum < 0 {
					t.Fatalf("the parts of %+v overflow", got)
				}
			}
			if sum != got.Wall {
				t.Fatalf("the parts of %+v sum to %v", got, sum)
			}
			// Asking changes nothing.
			if diff := cmp.Diff(before, a.Accounting(at)); diff != "" {
				t.Fatalf("(-first +second):\n%s", diff)
			}
		}
	})
}

func TestAccountingShare(t *testing.T) {
	for _, tt := range []struct {
		wall, part time.Duration
		want       float64
	}{{0, 0, 0}, {-1, 1, 0}, {secs(4), secs(1), 0.25}, {math.MaxInt64, math.MaxInt64, 1}} {
		if got := (result.Accounting{Wall: tt.wall}).Share(tt.part); got != tt.want {
			t.Errorf("%v of %v: %v, want %v", tt.part, tt.wall, got, tt.want)
		}
	}
}
