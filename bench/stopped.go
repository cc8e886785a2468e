package bench

import (
	"context"
	"errors"
	"os"
)

// ErrRepeat is the error of emit if the parent has not kept an event, because a process
// was stopped during the step that the event ends. RunJob then repeats the step.
var ErrRepeat = errors.New("stopped and continued; the step is repeated")

// Spoiled tells whether an event is worthless if the worker or its parent was stopped
// during the step that it ends: its time is wrong, or the step was too late only because
// it stood still.
func Spoiled(e Event) bool {
	switch e := e.(type) {
	case WarmupDone, RepetitionDone:
		return true
	case TestDone:
		return tooSlow(e.Status)
	case LoadDone:
		return tooSlow(e.Status)
	case LimitsDone:
		return true
	case PrecompileDone:
		return tooSlow(e.Status)
	}
	return false
}

type continuedKey struct{}

// WithContinued returns a context for RunJob. continued gets a value, SIGCONT, when the
// process goes on after a stop. RunJob then gives up the pass under way, and repeats the
// test from that repetition on, with a new budget. The channel needs room for one value.
func WithContinued(ctx context.Context, continued <-chan os.Signal) context.Context {
	return context.WithValue(ctx, continuedKey{}, continued)
}

// continued returns the channel of WithContinued without old values; nil: there is none.
func continued(ctx context.Context) <-chan os.Signal {
	c, _ := ctx.Value(continuedKey{}).(<-chan os.Signal)
	select {
	case <-c:
	default:
	}
	return c
}
