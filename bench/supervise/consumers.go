package supervise

import (
	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A Consumer takes what a run produces: its events as they happen, and the
// outcome of every test. The parent calls it from one goroutine. An error ends
// the run.
type Consumer interface {
	Event(bench.Stamped) error
	Outcome(*result.Outcome) error
}

// Consumers are given everything in their order. Each gets it, also after
// another failed: what was measured is shown even if it cannot be kept.
type Consumers []Consumer

// Event returns the first error.
func (c Consumers) Event(s bench.Stamped) error {
	return c.each(func(to Consumer) error { return to.Event(s) })
}

// Outcome returns the first error.
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
