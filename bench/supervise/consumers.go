package supervise

import (
	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A Consumer takes the events of a run as they happen, and the outcome of every
// test. The parent calls it from one goroutine. An error ends the run.
type Consumer interface {
	Event(bench.Stamped) error
	Outcome(*result.Outcome) error
}

// Consumers are called in order. All are called, even if one fails: results are shown
// even if they cannot be kept.
type Consumers []Consumer

// Event gives an event to every consumer and returns the first error.
func (c Consumers) Event(s bench.Stamped) error {
	return c.each(func(to Consumer) error { return to.Event(s) })
}

// Outcome gives an outcome to every consumer and returns the first error.
func (c Consumers) Outcome(o *result.Outcome) error {
	return c.each(func(to Consumer) error { return to.Outcome(o) })
}

func (c Consumers) each(give func(Consumer) error) (first error) {
	for _, to := range c {
		if err := give(to); err != nil && first == nil {
			first = err
		}
	}
	return first
}
