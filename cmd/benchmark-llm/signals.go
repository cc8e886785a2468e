package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// signalError is a signal that ended a command: the cause of its context.
type signalError struct {
	signal syscall.Signal
	hint   string // how to go on; may be empty
}

func (s *signalError) Error() string { return s.signal.String() }

// causeOf is the error of a command that failed with err: the signal's, after what
// the command did not do, if a signal ended ctx.
func causeOf(ctx context.Context, what string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s: %w", what, cause)
	}
	return err
}

// interruptible returns a context that ends on SIGINT, SIGTERM and SIGHUP with a
// *signalError as its cause. A signal that was ignored at the start, as by nohup,
// stays ignored. A second signal ends the process at once, and its worker notices.
// exitNow gives the exit code then; nil: 128 plus the signal's number.
func interruptible(exitNow func(syscall.Signal) int) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	done := make(chan struct{})
	go func() {
		stopping := false
		for {
			select {
			case s := <-signals:
				sig := s.(syscall.Signal)
				if stopping {
					code := exitSignal + int(sig)
					if exitNow != nil {
						code = exitNow(sig)
					}
					os.Exit(code)
				}
				stopping = true
				slog.Warn("stopping; a second signal stops at once", "signal", sig)
				cancel(&signalError{signal: sig})
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
