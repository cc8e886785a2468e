package supervise

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A worker that was stopped gets its whole limit again. A timer that fires much too late
// tells that this process was stopped.
func TestLadderAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ladder
		defer l.stop()
		l.again() // there is no limit
		if l.C() != nil {
			t.Error("a limit out of nothing")
		}
		l.set(10*time.Second, result.Timeout, "was late")
		time.Sleep(9 * time.Second)
		l.again()
		began := time.Now()
		<-l.C()
		if took := time.Since(began); took != 10*time.Second || l.late() {
			t.Errorf("the timer fired after %v, late: %v", took, l.late())
		}
		time.Sleep(margin + 1) // nobody looked
		if !l.late() {
			t.Error("the timer is not late")
		}
	})
}

// Each event is followed by a silence; the ladder ends it when even the slowest
// worker would have spoken.
func TestLadder(t *testing.T) {
	const s = time.Second
	started := bench.TestStarted{Budget: 10 * s}
	for _, tt := range []struct {
		name   string
		events []bench.Event // one each second
		want   time.Duration // of silence after the last; 0: no limit
		loss   record.Loss
	}{
		{"engine ready", []bench.Event{bench.EngineReady{}}, time.Minute, record.Loss{Status: result.Crashed, Reason: "the worker did not begin to load and was killed", Gone: true}},
		{"loading", []bench.Event{bench.LoadStarted{Budget: 10 * s}}, 42 * s, record.Loss{Status: result.Timeout, Reason: "the worker exceeded the load budget and 30s of grace and was killed", Gone: true}},
		{"loading further", []bench.Event{bench.LoadStarted{Budget: 10 * s}, bench.LoadProgress{Share: 0.5}}, 41 * s, record.Loss{Status: result.Timeout, Reason: "the worker exceeded the load budget and 30s of grace and was killed", Gone: true}},
		{"loading without a budget", []bench.Event{bench.EngineReady{}, bench.LoadStarted{}}, 0, record.Loss{}},
		{"loaded", []bench.Event{bench.LoadDone{}}, time.Minute, record.Loss{Status: result.Crashed, Reason: "the worker did not begin a test and was killed", Gone: true}},
		{"cooling down", []bench.Event{bench.LoadDone{}, bench.CoolDownStarted{}}, 0, record.Loss{}},
		{"cooled down", []bench.Event{bench.CoolDownStarted{}, bench.CoolDownDone{}}, time.Minute, record.Loss{Status: result.Crashed, Reason: "the worker did not begin a test and was killed", Gone: true}},
		{"making a context", []bench.Event{started}, 42 * s, record.Loss{Status: result.Timeout, Reason: "the worker exceeded the test's budget and 30s of grace and was killed", Gone: true}},
		{"warming up", []bench.Event{started, bench.ContextReady{}}, 41 * s, record.Loss{Status: result.Timeout, Reason: "the worker exceeded the test's budget and 30s of grace and was killed", Gone: true}},
		{"measuring", []bench.Event{started, bench.WarmupDone{UBatch: s}}, 15 * s, record.Loss{Status: result.Timeout, Reason: "the worker exceeded the test's budget and 4s of grace and was killed", Gone: true}},
		{"measuring further", []bench.Event{started, bench.WarmupDone{UBatch: s}, bench.RepetitionDone{UBatch: 2 * s}}, 17 * s, record.Loss{Status: result.Timeout, Reason: "the worker exceeded the test's budget and 7s of grace and was killed", Gone: true}},
		{"measuring without a budget", []bench.Event{bench.TestStarted{}, bench.WarmupDone{UBatch: s}, bench.RepetitionDone{UBatch: s}}, 0, record.Loss{}},
		{
			// It ended while the abort was on its way.
			"a repetition after the budget", []bench.Event{
				bench.TestStarted{Budget: s}, bench.WarmupDone{UBatch: s},
				bench.AbortRequested{Status: result.Timeout, Grace: 4 * s}, bench.RepetitionDone{UBatch: 2 * s},
			},
			9 * s, record.Loss{Status: result.Timeout, Reason: "the worker exceeded the test's budget and 7s of grace and was killed", Gone: true},
		},
		{"aborting", []bench.Event{started, bench.AbortRequested{Status: result.Timeout, Grace: 4 * s}}, 6 * s, record.Loss{Status: result.Timeout, Reason: "the worker did not abort within 4s and was killed", Gone: true}},
		{"grace expired", []bench.Event{started, bench.AbortRequested{Status: result.Timeout, Grace: 4 * s}, bench.GraceExpired{Grace: 4 * s}}, 2 * s, record.Loss{Status: result.Timeout, Reason: "the worker did not abort within 4s and was killed", Gone: true}},
		{"freeing a test", []bench.Event{started, bench.TestDone{}}, time.Minute, record.Loss{Status: result.Crashed, Reason: "the worker did not go on and was killed", Gone: true}},
		{"exiting", []bench.Event{bench.JobDone{}}, time.Minute, record.Loss{Status: result.Crashed, Reason: "the worker did not exit and was killed", Gone: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l ladder
				defer l.stop()
				for i, e := range tt.events {
					if i > 0 {
						time.Sleep(s)
					}
					l.follow(e)
				}
				if l.timer == nil || tt.want == 0 {
					if (l.C() != nil) != (tt.want != 0) {
						t.Fatalf("limit %v, want %v", l.C() != nil, tt.want)
					}
					return
				}
				start := time.Now()
				<-l.C()
				if got := time.Since(start); got != tt.want {
					t.Errorf("after %v, want %v", got, tt.want)
				}
				if diff := cmp.Diff(tt.loss, l.loss); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// Once the worker was told to stop, nothing that it says gives it more time.
func TestLadderStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ladder
		l.follow(bench.TestStarted{Budget: time.Hour})
		start := time.Now()
		l.stopWithin(StopWithin)
		time.Sleep(StopWithin / 2)
		l.follow(bench.AbortRequested{Status: result.Aborted, Grace: 30 * time.Second})
		l.follow(bench.RepetitionDone{UBatch: time.Hour})
		l.exiting()
		<-l.C()
		if got := time.Since(start); got != StopWithin {
			t.Errorf("after %v, want %v", got, StopWithin)
		}
		if want := (record.Loss{Status: result.Aborted, Reason: "the worker did not stop when told to and was killed", Gone: true}); l.loss != want {
			t.Errorf("loss %v, want %v", l.loss, want)
		}
	})
}
