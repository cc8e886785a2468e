package benchtest

import (
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// The functions of this file make events of invented runs, for tests of readers of
// events. Repetition n of every test takes n tenths of a second.

// RunStart is when an invented run starts.
var RunStart = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// EngineReady and LoadDone are events at the start of every worker.
var (
	EngineReady = bench.EngineReady{PID: 7, Facts: bench.EngineFacts{BuildCommit: "Debian", BuildNumber: 11669, Backends: "CPU", CPUInfo: "AMD EPYC"}}
	LoadDone    = bench.LoadDone{Status: result.OK, Facts: bench.ModelFacts{Type: "llama", SizeBytes: 1 << 20, Params: 1e6}, Elapsed: time.Second}
)

// Lost is the event of a worker that crashed.
var Lost = bench.WorkerLost{Status: result.Crashed, Reason: "signal: killed"}

// Loaded returns the events of a worker that loads a model.
func Loaded(model string) []bench.Event {
	return []bench.Event{EngineReady, bench.LoadStarted{Model: bench.Model{Name: model}}, LoadDone}
}

// Sample returns repetition n.
func Sample(n int) result.Sample {
	return result.Sample{Repetition: n, Start: RunStart, Elapsed: time.Duration(n) * 100 * time.Millisecond}
}

// Samples returns repetitions 1 to n.
func Samples(n int) []result.Sample {
	var s []result.Sample
	for i := range n {
		s = append(s, Sample(i+1))
	}
	return s
}

// Begun returns the events of a test of two repetitions that is still running. done
// repetitions were completed by an earlier worker; repetition last is the most recent.
func Begun(t result.Test, done, last int) []bench.Event {
	events := []bench.Event{
		bench.TestStarted{Test: t, Repetitions: 2, Done: Samples(done)},
		bench.ContextReady{Elapsed: time.Millisecond}, bench.WarmupDone{Elapsed: time.Millisecond},
	}
	for n := done + 1; n <= last; n++ {
		events = append(events, bench.RepetitionDone{Sample: Sample(n)})
	}
	return events
}

// Done returns the event of the end of a test.
func Done(t result.Test, s result.Status) bench.Event { return bench.TestDone{Test: t, Status: s} }

// Skipped returns the event of a test that was not run.
func Skipped(model string, t result.Test, s result.Status) bench.Event {
	return bench.TestSkipped{Model: model, Test: t, Status: s, Reason: "why"}
}

// Join joins events and lists of them.
func Join(parts ...any) []bench.Event {
	var events []bench.Event
	for _, p := range parts {
		switch p := p.(type) {
		case []bench.Event:
			events = append(events, p...)
		case bench.Event:
			events = append(events, p)
		default:
			panic(fmt.Sprintf("%T is no event", p))
		}
	}
	return events
}
