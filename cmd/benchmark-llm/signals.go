package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// signalError is the signal that ended a command. It is the cause of the
// command's context.
type signalError struct {
	signal syscall.Signal
	hint   string // how to go on; may be empty
}

func (s *signalError) Error() string { return s.signal.String() }

// interruptible is a context that ends on SIGINT, SIGTERM and SIGHUP with a
// *signalError as its cause, unless whoever started the program has the signal
// ignored, as nohup does. A second signal ends the process at once; its worker
// notices. exitNow gives the exit code then; nil: 128 plus the signal's number.
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
