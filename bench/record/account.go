package record

import (
	"math"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Account keeps count of where the wall time of a run goes. It works the same
// on events as they arrive and on those of a file. Every step from one event to
// the next is booked to one part, so the parts sum to the wall time; a step back
// of the wall clock counts as no time. The zero value is ready. It is used from
// one goroutine.
type Account struct {
	begun bool
	last  time.Time // the last event, or the beginning
	phase phase
	model string // of the last load

	booked result.Accounting // without the test under way
	test   testAccount
	kept   map[keptRepetition]time.Duration // booked as lost so far
}

// phase is what a step that is not told otherwise is booked to.
type phase int

const (
	idle      phase = iota // other
	loading                // load
	compiling              // warm-up
	testing                // the test under way
	waiting                // wait
)

// testAccount is the test under way: where its time goes is known at its end.
type testAccount struct {
	started     bench.TestStarted
	repetitions map[int]time.Duration // by their number
	context     time.Duration
	warmup      time.Duration
	other       time.Duration
}

// keptRepetition is a repetition of a test that was interrupted. When the test
// is continued and completes, it was not lost.
type keptRepetition struct {
	model  string
	test   result.Test
	number int
}

// Begin begins a run at a time, which is that of the first event if Begin is not
// called. Called again, it continues a run that was interrupted: what was under
// way then is lost, and the time in between is no part of the wall time.
func (a *Account) Begin(at time.Time) {
	a.lose()
	a.phase, a.begun, a.last = idle, true, at
}

// Event takes the next event of a run. It never fails.
func (a *Account) Event(s bench.Stamped) error {
	a.Add(s)
	return nil
}

// Outcome does nothing: events tell all.
func (*Account) Outcome(*result.Outcome) error { return nil }

// Add books the time from the event before to this one.
func (a *Account) Add(s bench.Stamped) {
	if !a.begun {
		a.Begin(s.At)
	}
	step := a.step(s.At)
	a.last = s.At
	switch e := s.Event.(type) {
	case bench.EngineReady:
		a.leave(step)
	case bench.LoadStarted:
		a.leave(step)
		a.phase, a.model = loading, e.Model.Name
	case bench.LoadDone:
		a.stay(step)
		a.leave(0)
	case bench.PrecompileStarted:
		a.leave(step)
		a.phase = compiling
	case bench.PrecompileDone:
		a.stay(step)
		a.leave(0)
	case bench.TestStarted:
		a.leave(step)
		a.phase = testing
		a.test = testAccount{started: e, repetitions: map[int]time.Duration{}}
	case bench.ContextReady:
		a.part(step, e.Elapsed, &a.test.context)
	case bench.WarmupDone:
		a.part(step, e.Elapsed, &a.test.warmup)
	case bench.RepetitionDone:
		var timed time.Duration
		a.part(step, e.Sample.Elapsed, &timed)
		if a.phase == testing {
			a.test.repetitions[e.Sample.Repetition] += timed
		}
	case bench.TestDone:
		a.stay(step)
		if a.phase == testing && e.Status == result.OK {
			a.complete()
		}
		a.leave(0)
	case bench.WaitStarted:
		a.leave(step)
		a.phase = waiting
	case bench.WaitDone:
		a.stay(step)
		a.leave(0)
	case bench.WarmDone:
		if a.phase != testing { // beside a test it costs no time of the run
			read := clamp(e.Elapsed, step)
			a.booked.Load += read
			step -= read
		}
		a.stay(step)
	case bench.WorkerLost:
		// A load that took its worker with it was for nothing.
		if a.phase == loading {
			a.booked.Lost += step
			step = 0
		}
		a.leave(step)
	default: // steps within a phase
		a.stay(step)
	}
}

// Accounting is the account of the run if it ends at a time. What is under way
// then is lost.
func (a *Account) Accounting(end time.Time) result.Accounting {
	if !a.begun {
		return result.Accounting{}
	}
	b := *a // shares its maps, which are only read here
	b.stay(b.step(end))
	b.booked.Lost += b.test.total()
	return b.booked
}

// step is the time since the last event, added to the wall time; the caller
// books it. It is bounded so that no sum of what a file says overflows.
func (a *Account) step(at time.Time) time.Duration {
	step := clamp(at.Sub(a.last), math.MaxInt64-a.booked.Wall)
	a.booked.Wall += step
	return step
}

// stay books a step to the phase.
func (a *Account) stay(step time.Duration) {
	switch a.phase {
	case loading:
		a.booked.Load += step
	case compiling:
		a.booked.Warmup += step
	case testing:
		a.test.other += step
	case waiting:
		a.booked.Wait += step
	default:
		a.booked.Other += step
	}
}

// leave books a step to the phase and ends it. A test that has not completed is
// lost.
func (a *Account) leave(step time.Duration) {
	a.stay(step)
	a.lose()
	a.phase = idle
}

// part books as much of a step as the event measured to a part of the test under
// way, the rest to what came before it.
func (a *Account) part(step, measured time.Duration, part *time.Duration) {
	if a.phase == testing {
		measured = clamp(measured, step)
		*part += measured
		step -= measured
	}
	a.stay(step)
}

// complete books the test under way as completed, with the repetitions that were
// booked as lost when it was interrupted.
func (a *Account) complete() {
	for _, r := range a.test.repetitions {
		a.booked.Timed += r
	}
	a.booked.Context += a.test.context
	a.booked.Warmup += a.test.warmup
	a.booked.Other += a.test.other
	for _, s := range a.test.started.Done {
		k := keptRepetition{a.model, a.test.started.Test, s.Repetition}
		a.booked.Timed += a.kept[k]
		a.booked.Lost -= a.kept[k]
		delete(a.kept, k)
	}
	a.test = testAccount{}
}

// lose books the test under way, if any, as lost.
func (a *Account) lose() {
	a.booked.Lost += a.test.total()
	for n, r := range a.test.repetitions {
		if a.kept == nil {
			a.kept = map[keptRepetition]time.Duration{}
		}
		a.kept[keptRepetition{a.model, a.test.started.Test, n}] = r
	}
	a.test = testAccount{}
}

// total is all time of the test so far.
func (t testAccount) total() time.Duration {
	sum := t.context + t.warmup + t.other
	for _, r := range t.repetitions {
		sum += r
	}
	return sum
}

// clamp is d, but at least 0 and at most most.
func clamp(d, most time.Duration) time.Duration { return max(0, min(d, most)) }
