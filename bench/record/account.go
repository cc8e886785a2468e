package record

import (
	"math"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Account counts where the wall time of a run goes. Events may come from a worker or
// from a file. The time from one event to the next is a step. Every step is booked to
// one part, so the parts add up to the wall time. A step is 0 if the wall clock was
// set back. The zero value is ready to use. It is used from one goroutine.
type Account struct {
	begun bool
	last  time.Time // the last event, or the beginning
	phase phase
	model string // of the last load

	booked result.Accounting // without the current test
	test   testAccount
	kept   map[keptRepetition]time.Duration // booked as lost so far
}

// phase is the part of the run to which steps are booked, unless an event says
// otherwise.
type phase int

const (
	idle         phase = iota // booked as other
	loading                   // booked as load
	precompiling              // booked as warm-up
	testing                   // booked to the current test
	waiting                   // booked as wait
	cooling                   // booked as cool-down
	limiting                  // booked as limits
)

// testAccount is the time of the current test. It is booked when the test ends.
type testAccount struct {
	started     bench.TestStarted
	repetitions map[int]time.Duration // by number
	context     time.Duration
	warmup      time.Duration
	other       time.Duration
}

// keptRepetition is a repetition of an interrupted test. It is booked as lost until
// the test is continued and completes.
type keptRepetition struct {
	model  string
	test   result.Test
	number int
}

// Begin begins a run at the time at. Without a call, a run begins with its first
// event. A second call continues an interrupted run: what was unfinished then is
// lost, and the time in between is not part of the wall time.
func (a *Account) Begin(at time.Time) {
	a.lose()
	a.phase, a.begun, a.last = idle, true, at
}

// Event takes the next event of a run. It never fails.
func (a *Account) Event(s bench.Stamped) error {
	a.Add(s)
	return nil
}

// Outcome does nothing: the events are enough.
func (*Account) Outcome(*result.Outcome) error { return nil }

// Add books the time since the previous event.
func (a *Account) Add(s bench.Stamped) {
	if !a.begun {
		a.Begin(s.At)
	}
	step := a.step(s.At)
	if s.More == 0 || a.last.Before(s.At) { // the parent may have written an event while a burst ran
		a.last = s.At
	}
	switch e := s.Event.(type) {
	case bench.EngineReady:
		a.leave(step)
	case bench.LimitsStarted:
		a.leave(step)
		a.phase = limiting
	case bench.LimitsDone:
		a.stay(step)
		a.leave(0)
	case bench.LoadStarted:
		a.leave(step)
		a.phase, a.model = loading, e.Model.Name
	case bench.LoadDone:
		a.stay(step)
		a.leave(0)
	case bench.PrecompileStarted:
		a.leave(step)
		a.phase = precompiling
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
		a.part(step, e.Elapsed+e.Priming, &a.test.warmup)
	case bench.RepetitionDone:
		timed := clamp(e.Sample.Elapsed, step)
		if a.phase == testing {
			a.test.repetitions[e.Sample.Repetition] += timed
			step -= timed
		}
		a.part(step, e.Priming, &a.test.warmup)
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
	case bench.CoolDownStarted:
		a.leave(step)
		a.phase = cooling
	case bench.CoolDownDone:
		a.stay(step)
		a.leave(0)
	case bench.ReadInDone:
		if a.phase != testing { // beside a test, reading costs the run no time
			read := clamp(e.Elapsed, step)
			a.booked.Load += read
			step -= read
		}
		a.stay(step)
	case bench.WorkerLost:
		// The load in which the worker was lost is lost too.
		if a.phase == loading {
			a.booked.Lost += step
			step = 0
		}
		a.leave(step)
	case bench.Continued: // what was measured before it goes on or is lost
		stopped := clamp(e.Stopped, step)
		a.booked.Other += stopped
		a.stay(step - stopped)
	default: // the phase goes on
		a.stay(step)
	}
}

// Accounting returns the account of a run that ends at the time end. What is
// unfinished then is lost.
func (a *Account) Accounting(end time.Time) result.Accounting {
	if !a.begun {
		return result.Accounting{}
	}
	b := *a // shares the maps of a, which are only read here
	b.stay(b.step(end))
	b.booked.Lost += b.test.total()
	return b.booked
}

// step returns the time since the last event and adds it to the wall time. The caller
// books it. The bound prevents an overflow, whatever times a file contains.
func (a *Account) step(at time.Time) time.Duration {
	step := clamp(at.Sub(a.last), math.MaxInt64-a.booked.Wall)
	a.booked.Wall += step
	return step
}

// stay books a step to the current phase.
func (a *Account) stay(step time.Duration) {
	switch a.phase {
	case loading:
		a.booked.Load += step
	case precompiling:
		a.booked.Warmup += step
	case testing:
		a.test.other += step
	case waiting:
		a.booked.Wait += step
	case cooling:
		a.booked.CoolDown += step
	case limiting:
		a.booked.Limits += step
	default:
		a.booked.Other += step
	}
}

// leave books a step to the current phase and ends the phase. A test that has not
// completed is lost.
func (a *Account) leave(step time.Duration) {
	a.stay(step)
	a.lose()
	a.phase = idle
}

// part books the time that an event measured to a part of the current test, and the
// rest of the step to the current phase.
func (a *Account) part(step, measured time.Duration, part *time.Duration) {
	if a.phase == testing {
		measured = clamp(measured, step)
		*part += measured
		step -= measured
	}
	a.stay(step)
}

// complete books the current test as completed. Repetitions that were booked as lost,
// because the test was interrupted, are booked as timed.
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

// lose books the current test, if there is one, as lost.
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

// total is the time of the test so far.
func (t testAccount) total() time.Duration {
	sum := t.context + t.warmup + t.other
	for _, r := range t.repetitions {
		sum += r
	}
	return sum
}

// clamp returns the duration nearest to d in [0, limit].
func clamp(d, limit time.Duration) time.Duration { return max(0, min(d, limit)) }
