package bench

import (
	"errors"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// BurstTime is how long passes of a test run back to back before they are reported: a
// burst ends with the first pass that ends later. So the warm-up and the repetitions of a
// short test follow one another directly, as in llama-bench, and the CPUs never rest
// between them. A process that ends by itself loses the passes of at most one burst. The
// warm-up of a long generation is a burst of its own.
const BurstTime = 500 * time.Millisecond

// reporter passes on the events of a job. An event that ends a pass can be held: it is
// passed on with its own time before the next event, or at the end of the burst. The
// methods may be called from any goroutine.
type reporter struct {
	// lock has room for one. It is a channel, because testing/synctest sees a goroutine
	// wait on a channel but not on a mutex.
	lock chan struct{}
	emit func(Stamped) error

	// lock guards all below.
	held  []Stamped
	began time.Time       // of the burst: the end of the last event
	kept  []result.Sample // repetitions that the parent has
	err   error           // of a held event; the events after it were dropped
}

func newReporter(emit func(Stamped) error) *reporter {
	return &reporter{lock: make(chan struct{}, 1), emit: emit}
}

// locked takes the lock. The caller calls the function that it returns.
func (r *reporter) locked() (unlock func()) {
	r.lock <- struct{}{}
	return func() { <-r.lock }
}

// report passes on the held events, then e. If the parent has not kept a held one
// (ErrRepeat), e is passed on all the same, and the next call of hold or flush returns
// that error.
func (r *reporter) report(e Event) error {
	defer r.locked()()
	if r.pass(); r.err != nil && !errors.Is(r.err, ErrRepeat) {
		return r.err
	}
	err := r.emit(Now(e))
	r.began = time.Now()
	return err
}

// hold takes an event that ends a pass. If the burst has lasted long enough, it passes on
// all held events.
func (r *reporter) hold(e Event) error {
	defer r.locked()()
	r.held = append(r.held, Now(e))
	if time.Since(r.began) < BurstTime {
		return nil
	}
	return r.flushed()
}

// flush passes on the held events.
func (r *reporter) flush() error {
	defer r.locked()()
	return r.flushed()
}

// flushed is flush for a caller that holds the lock.
func (r *reporter) flushed() error {
	r.pass()
	err := r.err
	r.err = nil
	return err
}

// pass passes on the held events, in order, up to the first that fails. The caller holds
// the lock.
func (r *reporter) pass() {
	held := r.held
	r.held = nil
	for i, s := range held {
		if r.err != nil {
			return
		}
		s.More = len(held) - 1 - i
		if r.err = r.emit(s); r.err == nil {
			if done, ok := s.Event.(RepetitionDone); ok {
				r.kept = append(r.kept, done.Sample)
			}
		}
		r.began = time.Now()
	}
}

// rested tells whether the next pass is the first of a burst.
func (r *reporter) rested() bool {
	defer r.locked()()
	return len(r.held) == 0
}

// restart forgets the repetitions of the test before.
func (r *reporter) restart() {
	defer r.locked()()
	r.kept = nil
}

// repetitions returns the repetitions of the test that the parent has.
func (r *reporter) repetitions() []result.Sample {
	defer r.locked()()
	return r.kept
}
