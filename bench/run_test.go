package bench_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	pp512 = result.Test{Prompt: 512}
	tg128 = result.Test{Gen: 128}

	engineFacts = bench.EngineFacts{BuildCommit: "Debian", BuildNumber: 11669, Backends: "CPU", CPUInfo: "a CPU"}
	modelFacts  = bench.ModelFacts{Type: "llama 1B Q4_K - Medium", SizeBytes: 1000, Params: 2000, Layers: 3}

	// One second for 512 tokens.
	steady = benchtest.AtSpeed(512)
)

// timed is an event with the fake time since the start of the run.
type timed struct {
	At    time.Duration
	Event bench.Event
}

// log keeps events and fails the test when two are emitted at once.
type log struct {
	t       testing.TB
	start   time.Time
	events  []timed
	slow    time.Duration // how long an event takes to be safe
	failAt  int           // from which event on emit fails, from 1; 0: never
	failure error
	busy    atomic.Bool
	emitted int
}

func newLog(t testing.TB) *log { return &log{t: t, start: time.Now()} }

func (l *log) emit(s bench.Stamped) error {
	if !l.busy.CompareAndSwap(false, true) {
		l.t.Errorf("%T while another event is being emitted", s.Event)
	}
	defer l.busy.Store(false)
	l.emitted++
	time.Sleep(l.slow)
	if l.failAt > 0 && l.emitted >= l.failAt {
		return l.failure
	}
	l.events = append(l.events, timed{s.At.Sub(l.start), s.Event})
	return nil
}

// outcomes are what the assembler makes of the events.
func (l *log) outcomes(job bench.Job) []*result.Outcome {
	a := record.Assembler{Version: "test", Job: job}
	var all []*result.Outcome
	for _, e := range l.events {
		if o := a.Add(bench.Stamped{At: l.start.Add(e.At), Event: e.Event}); o != nil {
			all = append(all, o)
		}
	}
	return all
}

// names are the events in one line: "TestStarted ContextReady …".
func (l *log) names() string {
	var names []string
	for _, e := range l.events {
		names = append(names, strings.TrimPrefix(fmt.Sprintf("%T", e.Event), "bench."))
	}
	return strings.Join(names, " ")
}

// brief are outcomes as "pp512 ok 5".
func brief(outcomes []*result.Outcome) []string {
	var lines []string
	for _, o := range outcomes {
		lines = append(lines, fmt.Sprintf("%v %s %d", o.Test, o.Status, len(o.Samples)))
	}
	return lines
}

func jobOf(tests ...bench.TestBudget) bench.Job {
	return bench.Job{
		Model:       bench.Model{Name: "m.gguf", Weights: result.FileWeights},
		Tests:       tests,
		Repetitions: 5,
		Seed:        1,
		Settings:    bench.DefaultSettings(4),
	}
}

// on is a change of a script at one call.
func on(m benchtest.Method, t result.Test, n int, s benchtest.Step) func(benchtest.Call) (benchtest.Step, bool) {
	return func(c benchtest.Call) (benchtest.Step, bool) {
		return s, c == benchtest.Call{Method: m, Test: t, N: n}
	}
}

func sample(n int, start, elapsed time.Duration) result.Sample {
	bubble := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // where the clock of a bubble starts
	return result.Sample{Repetition: n, Start: bubble.Add(start), Elapsed: elapsed}
}

const (
	ms = time.Millisecond
	s  = time.Second
)

func TestRunEvents(t *testing.T) {
	const late = "not completed within its budget of 3.5s"
	memory := &result.Memory{WeightsBytes: 3, PeakResidentBytes: 5, PeakSince: result.SinceTest}
	lag := benchtest.Step{Takes: s, Lag: 10 * ms}
	for _, tt := range []struct {
		name   string
		script benchtest.Script
		test   bench.TestBudget
		noWarm bool
		want   []timed
	}{
		{
			"all repetitions", steady.Except(on(benchtest.Begin, pp512, 0, benchtest.Step{Memory: memory})),
			bench.TestBudget{Test: pp512, Budget: 10 * s}, false,
			[]timed{
				{0, bench.TestStarted{Test: pp512, Budget: 10 * s, Repetitions: 2}},
				{0, bench.ContextReady{}},
				{s, bench.WarmupDone{Elapsed: s, UBatch: s}},
				{2 * s, bench.RepetitionDone{Sample: sample(1, s, s), UBatch: s}},
				{3 * s, bench.RepetitionDone{Sample: sample(2, 2*s, s), UBatch: s}},
				{3 * s, bench.TestDone{Test: pp512, Status: result.OK, Elapsed: 3 * s, Memory: memory}},
			},
		},
		{
			"no warm-up, no budget", steady, bench.TestBudget{Test: tg128}, true,
			[]timed{
				{0, bench.TestStarted{Test: tg128, Repetitions: 2}},
				{0, bench.ContextReady{}},
				{250 * ms, bench.RepetitionDone{Sample: sample(1, 0, 250*ms), UBatch: 250 * ms / 128}},
				{500 * ms, bench.RepetitionDone{Sample: sample(2, 250*ms, 250*ms), UBatch: 250 * ms / 128}},
				{500 * ms, bench.TestDone{Test: tg128, Status: result.OK, Elapsed: 500 * ms}},
			},
		},
		{
			"deadline", steady.Except(on(benchtest.Repeat, pp512, 2, benchtest.Step{Takes: time.Hour, Lag: 10 * ms})),
			bench.TestBudget{Test: pp512, Budget: 3500 * ms}, false,
			[]timed{
				{0, bench.TestStarted{Test: pp512, Budget: 3500 * ms, Repetitions: 2}},
				{0, bench.ContextReady{}},
				{s, bench.WarmupDone{Elapsed: s, UBatch: s}},
				{2 * s, bench.RepetitionDone{Sample: sample(1, s, s), UBatch: s}},
				{3500 * ms, bench.AbortRequested{Status: result.Timeout, Reason: late, Grace: 4 * s}},
				{3510 * ms, bench.AbortReturned{Latency: 10 * ms}},
				{3510 * ms, bench.TestDone{Test: pp512, Status: result.Timeout, Reason: late, Elapsed: 3510 * ms}},
			},
		},
		{
			"deadline in the first pass", steady.Except(on(benchtest.Warmup, pp512, 0, benchtest.Step{Takes: time.Hour})),
			bench.TestBudget{Test: pp512, Budget: 3500 * ms}, false,
			[]timed{
				{0, bench.TestStarted{Test: pp512, Budget: 3500 * ms, Repetitions: 2}},
				{0, bench.ContextReady{}},
				{3500 * ms, bench.AbortRequested{Status: result.Timeout, Reason: late, Grace: 30 * s}},
				{3500 * ms, bench.AbortReturned{}},
				{3500 * ms, bench.TestDone{Test: pp512, Status: result.Timeout, Reason: late, Elapsed: 3500 * ms}},
			},
		},
		{
			// The call under way runs to its end, an hour late; the next returns at once.
			"grace expires", steady.Except(on(benchtest.Repeat, pp512, 1, benchtest.Step{Takes: time.Hour, Deaf: true})),
			bench.TestBudget{Test: pp512, Budget: 3500 * ms}, false,
			[]timed{
				{0, bench.TestStarted{Test: pp512, Budget: 3500 * ms, Repetitions: 2}},
				{0, bench.ContextReady{}},
				{s, bench.WarmupDone{Elapsed: s, UBatch: s}},
				{3500 * ms, bench.AbortRequested{Status: result.Timeout, Reason: late, Grace: 4 * s}},
				{7500 * ms, bench.GraceExpired{Grace: 4 * s}},
				{time.Hour + s, bench.RepetitionDone{Sample: sample(1, s, time.Hour), UBatch: time.Hour}},
				{time.Hour + s, bench.AbortReturned{Latency: time.Hour - 2500*ms}},
				{time.Hour + s, bench.TestDone{Test: pp512, Status: result.Timeout, Reason: late, Elapsed: time.Hour + s}},
			},
		},
		{
			"one hour", benchtest.AtSpeed(512. / 1500).Except(on(benchtest.Repeat, pp512, 2, lag)),
			bench.TestBudget{Test: pp512, Budget: time.Hour}, true,
			[]timed{
				{0, bench.TestStarted{Test: pp512, Budget: time.Hour, Repetitions: 2}},
				{0, bench.ContextReady{}},
				{1500 * s, bench.RepetitionDone{Sample: sample(1, 0, 1500*s), UBatch: 1500 * s}},
				{1501 * s, bench.RepetitionDone{Sample: sample(2, 1500*s, s), UBatch: 1500 * s}},
				{1501 * s, bench.TestDone{Test: pp512, Status: result.OK, Elapsed: 1501 * s}},
			},
		},
		{
			// A crash of the GPU after the flag: what the engine says counts.
			"another error after the abort",
			steady.Except(on(benchtest.Repeat, pp512, 1, benchtest.Step{Takes: 4 * s, Deaf: true, Err: bench.ErrOutOfMemory})),
			bench.TestBudget{Test: pp512, Budget: 3500 * ms}, false,
			[]timed{
				{0, bench.TestStarted{Test: pp512, Budget: 3500 * ms, Repetitions: 2}},
				{0, bench.ContextReady{}},
				{s, bench.WarmupDone{Elapsed: s, UBatch: s}},
				{3500 * ms, bench.AbortRequested{Status: result.Timeout, Reason: late, Grace: 4 * s}},
				{5 * s, bench.TestDone{Test: pp512, Status: result.OutOfMemory, Reason: "repetition 1: out of memory", Elapsed: 5 * s}},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				e := benchtest.New(tt.script, engineFacts, modelFacts)
				if err := bench.Run(t.Context(), e, bench.Job{Repetitions: 2, NoWarmup: tt.noWarm, Settings: bench.DefaultSettings(1)}, tt.test, l.emit); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, l.events); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A deadline of an hour takes no time here, and comes to the nanosecond.
func TestRunHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		job := jobOf(bench.TestBudget{Test: pp512, Budget: time.Hour})
		e := benchtest.New(benchtest.AtSpeed(512./1000), engineFacts, modelFacts) // 1000 s each
		if err := bench.RunJob(t.Context(), e, job, nil, l.emit); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"pp512 timeout 2"}, brief(l.outcomes(job))); diff != "" {
			t.Error(diff)
		}
		if got, want := time.Since(l.start), time.Hour+s; got != want { // a second is the load
			t.Errorf("took %v, want %v", got, want)
		}
	})
}

func TestRunJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		job := jobOf(bench.TestBudget{Test: pp512}, bench.TestBudget{Test: tg128})
		job.Repetitions, job.LoadBudget = 1, 5*s
		e := benchtest.New(steady, engineFacts, modelFacts)
		if err := bench.RunJob(t.Context(), e, job, nil, l.emit); err != nil {
			t.Fatal(err)
		}
		wantCalls := []string{
			"load", "begin pp512", "warmup pp512", "repeat 1 pp512", "end pp512",
			"begin tg128", "warmup tg128", "repeat 1 tg128", "end tg128",
		}
		if diff := cmp.Diff(wantCalls, e.Calls()); diff != "" {
			t.Error(diff)
		}
		const wantEvents = "LoadStarted" +
			" LoadProgress LoadProgress LoadProgress LoadProgress LoadProgress" +
			" LoadProgress LoadProgress LoadProgress LoadProgress LoadProgress LoadDone" +
			" TestStarted ContextReady WarmupDone RepetitionDone TestDone" +
			" TestStarted ContextReady WarmupDone RepetitionDone TestDone JobDone"
		if diff := cmp.Diff(wantEvents, l.names()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(timed{0, bench.LoadStarted{Model: job.Model, Budget: 5 * s}}, l.events[0]); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(timed{s, bench.LoadDone{Status: result.OK, Facts: modelFacts, Elapsed: s}}, l.events[11]); diff != "" {
			t.Error(diff)
		}
	})
}

// What was measured in full is never thrown away, even when the deadline comes
// in the same instant.
func TestRunCompletesAtTheDeadline(t *testing.T) {
	for _, budget := range []time.Duration{6 * s, 6*s - 1} {
		synctest.Test(t, func(t *testing.T) {
			l := newLog(t)
			job := jobOf(bench.TestBudget{Test: pp512, Budget: budget})
			e := benchtest.New(steady.Except(on(benchtest.Repeat, pp512, 5, benchtest.Step{Takes: s, Deaf: true})), engineFacts, modelFacts)
			if err := bench.RunJob(t.Context(), e, job, nil, l.emit); err != nil {
				t.Fatal(err)
			}
			got := l.outcomes(job)
			if diff := cmp.Diff([]string{"pp512 ok 5"}, brief(got)); diff != "" {
				t.Fatal(diff)
			}
			if got[0].Record == nil || got[0].Record.AvgTS != 512 {
				t.Errorf("record is %+v", got[0].Record)
			}
		})
	}
}

// A test that did not complete costs itself: the next runs, without the abort
// flag of the one before.
func TestRunJobGoesOn(t *testing.T) {
	odd := errors.New("odd")
	oom := fmt.Errorf("KV cache of 4 GiB: %w", bench.ErrOutOfMemory)
	unsupported := fmt.Errorf("flash attention: %w", bench.ErrUnsupported)
	for _, tt := range []struct {
		name   string
		method benchtest.Method
		n      int
		step   benchtest.Step
		want   string
		reason string
	}{
		{"begin", benchtest.Begin, 0, benchtest.Step{Err: oom}, "pp512 out_of_memory 0", "KV cache of 4 GiB: out of memory"},
		{"warm-up", benchtest.Warmup, 0, benchtest.Step{Err: unsupported}, "pp512 unsupported 0", "warm-up: flash attention: not supported"},
		{"first repetition", benchtest.Repeat, 1, benchtest.Step{Err: odd}, "pp512 failed 0", "repetition 1: odd"},
		{"last repetition", benchtest.Repeat, 5, benchtest.Step{Err: odd}, "pp512 failed 4", "repetition 5: odd"},
		{"end", benchtest.End, 0, benchtest.Step{Err: odd}, "pp512 failed 5", "odd"},
		{"abort of nobody's", benchtest.Repeat, 2, benchtest.Step{Err: bench.ErrAborted}, "pp512 aborted 1", "repetition 2: aborted"},
		{"deadline", benchtest.Repeat, 3, benchtest.Step{Takes: time.Hour}, "pp512 timeout 2", "not completed within its budget of 10s"},
		{"slow abort", benchtest.Repeat, 3, benchtest.Step{Takes: time.Hour, Lag: 40 * s}, "pp512 timeout 2", "not completed within its budget of 10s"},
		{"deadline while the context is made", benchtest.Begin, 0, benchtest.Step{Takes: time.Minute, Deaf: true}, "pp512 timeout 0", "not completed within its budget of 10s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				job := jobOf(bench.TestBudget{Test: pp512, Budget: 10 * s}, bench.TestBudget{Test: tg128, Budget: 10 * s})
				e := benchtest.New(steady.Except(on(tt.method, pp512, tt.n, tt.step)), engineFacts, modelFacts)
				if err := bench.RunJob(t.Context(), e, job, nil, l.emit); err != nil {
					t.Fatal(err)
				}
				got := l.outcomes(job)
				if diff := cmp.Diff([]string{tt.want, "tg128 ok 5"}, brief(got)); diff != "" {
					t.Fatal(diff)
				}
				if got[0].Reason != tt.reason {
					t.Errorf("reason %q, want %q", got[0].Reason, tt.reason)
				}
				if calls := strings.Join(e.Calls(), ","); strings.Count(calls, "end pp512") != 1 {
					t.Errorf("test was not ended once: %s", calls)
				}
			})
		})
	}
}

func TestRunJobCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		job := jobOf(bench.TestBudget{Test: pp512}, bench.TestBudget{Test: tg128})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3500*ms, func() { cancel(errors.New("interrupt")) }) // load, warm-up, one repetition
		e := benchtest.New(steady, engineFacts, modelFacts)
		if err := bench.RunJob(ctx, e, job, nil, l.emit); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"pp512 aborted 1"}, brief(l.outcomes(job))); diff != "" {
			t.Error(diff)
		}
		want := []timed{
			{3500 * ms, bench.AbortRequested{Status: result.Aborted, Reason: "stopped: interrupt", Grace: 4 * s}},
			{3500 * ms, bench.AbortReturned{}},
			{3500 * ms, bench.TestDone{Test: pp512, Status: result.Aborted, Reason: "stopped: interrupt", Elapsed: 2500 * ms}},
			{3500 * ms, bench.JobDone{}},
		}
		if diff := cmp.Diff(want, l.events[len(l.events)-4:]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLoadFails(t *testing.T) {
	for _, tt := range []struct {
		name   string
		budget time.Duration
		step   benchtest.Step
		cancel time.Duration // 0: never
		want   bench.LoadDone
	}{
		{"budget", 3 * s, benchtest.Step{Takes: time.Hour}, 0, bench.LoadDone{Status: result.Timeout, Reason: "not loaded within its budget of 3s", Elapsed: 3 * s}},
		{"cancelled", 3 * s, benchtest.Step{Takes: time.Hour, Lag: s}, 2 * s, bench.LoadDone{Status: result.Aborted, Reason: "interrupt", Elapsed: 3 * s}},
		{"cancelled without a budget", 0, benchtest.Step{Takes: time.Hour}, 2 * s, bench.LoadDone{Status: result.Aborted, Reason: "interrupt", Elapsed: 2 * s}},
		{"aborted by nobody", 0, benchtest.Step{Err: bench.ErrAborted}, 0, bench.LoadDone{Status: result.Aborted, Reason: "aborted"}},
		{"memory", 0, benchtest.Step{Takes: s, Err: bench.ErrOutOfMemory}, 0, bench.LoadDone{Status: result.OutOfMemory, Reason: "out of memory", Elapsed: s}},
		{"unsupported", 0, benchtest.Step{Err: bench.ErrUnsupported}, 0, bench.LoadDone{Status: result.Unsupported, Reason: "not supported"}},
		{"other", 0, benchtest.Step{Err: errors.New("odd")}, 0, bench.LoadDone{Status: result.Failed, Reason: "odd"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				job := jobOf(bench.TestBudget{Test: pp512})
				job.LoadBudget = tt.budget
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.cancel > 0 {
					time.AfterFunc(tt.cancel, func() { cancel(errors.New("interrupt")) })
				}
				e := benchtest.New(steady.Except(on(benchtest.Load, result.Test{}, 0, tt.step)), engineFacts, modelFacts)
				if err := bench.RunJob(ctx, e, job, nil, l.emit); !errors.Is(err, bench.ErrNoModel) {
					t.Errorf("error %v, want %v", err, bench.ErrNoModel)
				}
				if diff := cmp.Diff(timed{tt.want.Elapsed, tt.want}, l.events[len(l.events)-1]); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff([]string{"load"}, e.Calls()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// restless is an engine that tells its progress from many goroutines at once.
type restless struct{ *benchtest.Engine }

func (r restless) Load(_ context.Context, tell func(bench.Event)) (bench.ModelFacts, error) {
	done := make(chan struct{})
	const tellers = 8
	for range tellers {
		go func() {
			for i := range 100 {
				tell(bench.LoadProgress{Share: float64(i+1) / 100})
				time.Sleep(ms)
			}
			done <- struct{}{}
		}()
	}
	for range tellers {
		<-done
	}
	return modelFacts, nil
}

func TestLoadProgressFromAnyGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		l.slow = 50 * ms // longer than from one tenth to the next
		if err := bench.RunJob(t.Context(), restless{benchtest.New(steady, engineFacts, modelFacts)}, jobOf(), nil, l.emit); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(l.names(), "LoadProgress"); n != 10 {
			t.Errorf("%d events of progress, want 10", n)
		}
	})
}

// When an event cannot be kept the run ends with that error, at any event.
func TestEmitFails(t *testing.T) {
	full := errors.New("no space left on device")
	late := steady.Except(on(benchtest.Repeat, tg128, 2, benchtest.Step{Takes: time.Hour, Lag: 40 * s}))
	job := jobOf(bench.TestBudget{Test: pp512, Budget: 10 * s}, bench.TestBudget{Test: tg128, Budget: 10 * s})
	run := func(t *testing.T, failAt int) (*log, error) {
		l := newLog(t)
		l.failAt, l.failure = failAt, full
		return l, bench.RunJob(t.Context(), benchtest.New(late, engineFacts, modelFacts), job, nil, l.emit)
	}
	var total int
	synctest.Test(t, func(t *testing.T) {
		l, err := run(t, 0)
		if err != nil {
			t.Fatal(err)
		}
		total = len(l.events)
		if !strings.HasSuffix(l.names(), "AbortRequested GraceExpired AbortReturned TestDone JobDone") {
			t.Fatalf("events %s", l.names())
		}
	})
	for failAt := 1; failAt <= total; failAt++ {
		synctest.Test(t, func(t *testing.T) {
			l, err := run(t, failAt)
			if !errors.Is(err, full) {
				t.Errorf("event %d: error %v", failAt, err)
			}
			if len(l.events) != failAt-1 {
				t.Errorf("event %d: %d events were kept", failAt, len(l.events))
			}
		})
	}
}

// grammar is the order of events that the documentation promises.
var grammar = regexp.MustCompile(`^LoadStarted( LoadProgress)* LoadDone` +
	`( TestStarted( AbortRequested)?( GraceExpired)?` +
	`( ContextReady( AbortRequested)?( GraceExpired)?)?` +
	`( WarmupDone( AbortRequested)?( GraceExpired)?)?` +
	`( RepetitionDone( AbortRequested)?( GraceExpired)?)*` +
	`( AbortReturned)? TestDone)*` +
	` JobDone$`)

// Whatever the engine does, events come in order and one at a time, every
// repetition that ended is in them, and a test is OK when all of its did.
func TestRunJobProperties(t *testing.T) {
	durations := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.IntRange(0, 60).Draw(t, "half seconds")) * 500 * ms
	})
	steps := rapid.Custom(func(t *rapid.T) benchtest.Step {
		return benchtest.Step{
			Takes: durations.Draw(t, "takes"),
			Lag:   durations.Draw(t, "lag"),
			Deaf:  rapid.Bool().Draw(t, "deaf"),
			Err:   rapid.SampledFrom([]error{nil, nil, nil, bench.ErrOutOfMemory}).Draw(t, "error"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		job := jobOf()
		odd := make(map[benchtest.Call]benchtest.Step)
		for i := range 3 {
			test := result.Test{Prompt: 100 * i, Gen: 50}
			job.Tests = append(job.Tests, bench.TestBudget{Test: test, Budget: durations.Draw(rt, "budget")})
			for range rapid.IntRange(0, 2).Draw(rt, "odd") {
				c := benchtest.Call{Method: rapid.SampledFrom([]benchtest.Method{
					benchtest.Begin, benchtest.Warmup, benchtest.Repeat, benchtest.End}).Draw(rt, "method"), Test: test}
				if c.Method == benchtest.Repeat {
					c.N = rapid.IntRange(1, job.Repetitions).Draw(rt, "repetition")
				}
				odd[c] = steps.Draw(rt, "step")
			}
		}
		slow := durations.Draw(rt, "slow") / 10
		cancelAfter := durations.Draw(rt, "cancel") // 0: never

		l := newLog(t)
		var err error
		synctest.Test(t, func(t *testing.T) {
			l.start, l.slow = time.Now(), slow
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if cancelAfter > 0 {
				defer time.AfterFunc(cancelAfter, cancel).Stop()
			}
			e := benchtest.New(steady.Except(func(c benchtest.Call) (benchtest.Step, bool) {
				step, ok := odd[c]
				return step, ok
			}), engineFacts, modelFacts)
			err = bench.RunJob(ctx, e, job, nil, l.emit)
		})
		if errors.Is(err, bench.ErrNoModel) {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		if !grammar.MatchString(l.names()) {
			rt.Fatalf("events out of order: %s", l.names())
		}
		samples := 0
		for i, o := range l.outcomes(job) {
			samples += len(o.Samples)
			if o.Test != job.Tests[i].Test {
				rt.Fatalf("outcome %d is of %v", i, o.Test)
			}
			if ok := o.Status == result.OK; ok != (o.Record != nil) || ok && len(o.Samples) != job.Repetitions {
				rt.Fatalf("%v is %s (%s) with %d samples, record %v", o.Test, o.Status, o.Reason, len(o.Samples), o.Record)
			}
			for n, s := range o.Samples {
				if s.Repetition != n+1 {
					rt.Fatalf("%v: sample %d is repetition %d", o.Test, n, s.Repetition)
				}
			}
		}
		if n := strings.Count(l.names(), "RepetitionDone"); n != samples {
			rt.Fatalf("%d repetitions completed, %d are in outcomes", n, samples)
		}
	})
}

func TestGrace(t *testing.T) {
	for _, tt := range []struct{ ubatch, want time.Duration }{
		{-s, 30 * s},
		{0, 30 * s}, // no pass has ended yet
		{1, s + 3},
		{10 * ms, 1030 * ms},
		{time.Minute, 181 * s},
	} {
		if got := bench.Grace(tt.ubatch); got != tt.want {
			t.Errorf("Grace(%v) = %v, want %v", tt.ubatch, got, tt.want)
		}
	}
}

// A longer pass never gets less time than a shorter one, and always enough for
// the two passes that may be under way.
func TestGraceIsMonotone(t *testing.T) {
	passes := rapid.Int64Range(1, int64(100*time.Hour))
	rapid.Check(t, func(t *rapid.T) {
		a, b := time.Duration(passes.Draw(t, "a")), time.Duration(passes.Draw(t, "b"))
		if a > b {
			a, b = b, a
		}
		if bench.Grace(a) > bench.Grace(b) || bench.Grace(a) <= 2*a {
			t.Fatalf("Grace(%v) = %v, Grace(%v) = %v", a, bench.Grace(a), b, bench.Grace(b))
		}
	})
}

// The longest pass seen is what the grace is made of.
func TestUBatch(t *testing.T) {
	for _, tt := range []struct {
		test      result.Test
		ubatch    int // tokens; 0: 512
		noWarm    bool
		warm, rep time.Duration // what they take
		want      []time.Duration
	}{
		{result.Test{Prompt: 512}, 0, false, 3 * s, s, []time.Duration{3 * s, 3 * s}},
		{result.Test{Prompt: 512}, 0, false, s, 3 * s, []time.Duration{s, 3 * s}},
		{result.Test{Prompt: 1024}, 0, false, 3 * s, 2 * s, []time.Duration{1500 * ms, 1500 * ms}},
		{result.Test{Prompt: 1025}, 0, true, 0, 3 * s, []time.Duration{s}},
		{result.Test{Gen: 100}, 0, false, ms, s, []time.Duration{ms, 10 * ms}},
		{result.Test{Gen: 100}, 0, true, 0, s, []time.Duration{10 * ms}},
		{result.Test{Prompt: 4096}, 2048, false, 6 * s, 6 * s, []time.Duration{3 * s, 3 * s}},
		// A repetition of both does not tell how long a pass of either took.
		{result.Test{Prompt: 512, Gen: 100}, 0, false, s, 100 * s, []time.Duration{s, s}},
		{result.Test{Prompt: 512, Gen: 100}, 0, true, 0, 100 * s, []time.Duration{0}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLog(t)
			script := func(c benchtest.Call) benchtest.Step {
				switch c.Method {
				case benchtest.Warmup:
					return benchtest.Step{Takes: tt.warm}
				case benchtest.Repeat:
					return benchtest.Step{Takes: tt.rep}
				}
				return benchtest.Step{}
			}
			job := bench.Job{Repetitions: 1, NoWarmup: tt.noWarm, Settings: bench.Settings{UBatch: max(tt.ubatch, 512)}}
			if err := bench.Run(t.Context(), benchtest.New(script, engineFacts, modelFacts), job, bench.TestBudget{Test: tt.test}, l.emit); err != nil {
				t.Fatal(err)
			}
			var got []time.Duration
			for _, e := range l.events {
				switch e := e.Event.(type) {
				case bench.WarmupDone:
					got = append(got, e.UBatch)
				case bench.RepetitionDone:
					got = append(got, e.UBatch)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%v: %s", tt.test, diff)
			}
		})
	}
}

// A model's files are the same if nothing speaks against it.
func TestFilesChanged(t *testing.T) {
	at := time.Unix(1, 0)
	file := bench.ModelFile{Name: "m.gguf", Bytes: 10, ModTime: at, HeaderSHA256: "h", SHA256: "s"}
	with := func(change func(*bench.ModelFile)) []bench.ModelFile {
		f := file
		change(&f)
		return []bench.ModelFile{file, f} // the second part of a split model
	}
	for name, tt := range map[string]struct {
		now    []bench.ModelFile
		change string
		other  bool
	}{
		"same":          {with(func(*bench.ModelFile) {}), "", false},
		"not known":     {nil, "", false},
		"proven":        {with(func(f *bench.ModelFile) { f.ModTime = at.Add(time.Hour) }), "", false},
		"touched":       {with(func(f *bench.ModelFile) { f.ModTime, f.SHA256 = at.Add(time.Hour), "" }), "m.gguf was modified at 1970-01-01T01:00:01Z, before at 1970-01-01T00:00:01Z", false},
		"longer":        {with(func(f *bench.ModelFile) { f.Bytes, f.SHA256 = 11, "" }), "m.gguf had 10 bytes, now 11", true},
		"header":        {with(func(f *bench.ModelFile) { f.HeaderSHA256, f.SHA256 = "g", "" }), "m.gguf has another header", true},
		"checksum":      {with(func(f *bench.ModelFile) { f.SHA256 = "t" }), "m.gguf has another checksum", true},
		"a file is new": {append(with(func(*bench.ModelFile) {}), file), "the model had 2 files, now 3", true},
	} {
		change, other := bench.Model{Files: tt.now}.FilesChanged(bench.Model{Files: with(func(*bench.ModelFile) {})})
		if change != tt.change || other != tt.other {
			t.Errorf("%s: %q, %t; want %q, %t", name, change, other, tt.change, tt.other)
		}
	}
}
