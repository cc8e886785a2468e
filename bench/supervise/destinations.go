package supervise

import (
	"fmt"
	"log/slog"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A Destination is a Consumer that keeps results for the user.
type Destination struct {
	Consumer
	Name       string       // for the log
	Records    bool         // it takes every record
	HasEarlier bool         // it has the outcomes of earlier processes of the run
	End        func() error // completes it; may be nil

	Err error // its first failure; it gets nothing after that
}

// Destinations consume the events and outcomes of a run. A destination that fails is
// logged once. The run goes on as long as one that takes records works; the error is
// that of the last one.
type Destinations []*Destination

// Event gives an event to every destination that works.
func (all Destinations) Event(s bench.Stamped) error {
	return all.each(write, func(d *Destination) error { return d.Event(s) })
}

// Outcome gives an outcome to every destination that works.
func (all Destinations) Outcome(o *result.Outcome) error {
	return all.each(write, func(d *Destination) error { return d.Outcome(o) })
}

// Earlier gives an outcome of an earlier process to those that do not have it.
func (all Destinations) Earlier(o *result.Outcome) error {
	return all.each(write, func(d *Destination) error {
		if d.HasEarlier {
			return nil
		}
		return d.Outcome(o)
	})
}

// End completes every destination that works.
func (all Destinations) End() error {
	return all.each("cannot complete %s", func(d *Destination) error {
		if d.End == nil {
			return nil
		}
		return d.End()
	})
}

// Failed returns the error of the first destination that failed; nil: all work.
func (all Destinations) Failed() error {
	for _, d := range all {
		if d.Err != nil {
			return d.Err
		}
	}
	return nil
}

// write is the message of a destination that fails before the end.
const write = "cannot write to %s; the run continues"

func (all Destinations) each(message string, give func(*Destination) error) error {
	for _, d := range all {
		if d.Err != nil {
			continue
		}
		if d.Err = give(d); d.Err != nil && all.works() {
			slog.Warn(fmt.Sprintf(message, d.Name), "error", d.Err)
		}
	}
	if all.works() {
		return nil
	}
	return all.Failed()
}

// works tells whether a destination takes records.
func (all Destinations) works() bool {
	for _, d := range all {
		if d.Records && d.Err == nil {
			return true
		}
	}
	return false
}
