package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// eventsFD is the file descriptor that the parent reads events from.
const eventsFD = 3

// newWorkerCommand is the other side of run: one process that owns the engine.
func newWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker",
		Short:  "Run one job for a parent process",
		Hidden: true,
		Args:   noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := cmd.Flags().GetString("log-level")
			if err != nil {
				return err
			}
			return work(cmd, level)
		},
	}
}

func work(cmd *cobra.Command, level string) error {
	events := os.NewFile(eventsFD, "events")
	if info, err := events.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return usage("benchmark-llm run", "a worker is started by run, not by hand")
	}
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return err
	}
	least = libraryLevel(least)
	// To the parent, line by line, which knows the terminal.
	log := libraryLog{slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: least}), new(atomic.Bool)}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM) // by the parent alone: the group is the worker's own
	go func() {
		<-told
		cancel(errors.New("the run was interrupted"))
	}()
	orphaned := func() { os.Exit(exitNothing) }
	return supervise.Serve(ctx, cmd.InOrStdin(), events, orphaned,
		func(ctx context.Context, job bench.Job, emit func(bench.Event) error) error {
			e, err := llamacpp.New(job, llamacpp.Options{Log: log, LogLevel: least, AllowCPU: job.AllowCPU})
			if err != nil {
				return emit(bench.EngineFailed{Reason: err.Error()})
			}
			log.ready.Store(true)
			if err := emit(bench.EngineReady{PID: os.Getpid(), Facts: e.Facts()}); err != nil {
				return err
			}
			if len(job.Tests) == 0 { // the parent asks what there is
				return errors.Join(emit(bench.JobDone{}), e.Close())
			}
			err = bench.RunJob(ctx, e, job, policy.Default(), emit)
			if errors.Is(err, bench.ErrNoModel) {
				err = nil // told in an event
			}
			return errors.Join(err, e.Close())
		})
}

// libraryLog passes the library's log on, some of it as detail. Once the
// back-ends are open, an error that the library logs is also the error of the
// call that met it, which the events tell of; all is still in the events when
// the worker is lost.
type libraryLog struct {
	slog.Handler
	ready *atomic.Bool // the back-ends are open
}

func (l libraryLog) WithAttrs(a []slog.Attr) slog.Handler {
	return libraryLog{l.Handler.WithAttrs(a), l.ready}
}

// expected are warnings that say nothing new: of a model without a vocabulary,
// as synthetic ones are, of a decode that was aborted, and of memory that a
// server does not give, which is asked for to find out.
var expected = []string{"dummy tokens", "removing memory module entries", "ggml_backend_rpc_buffer_type_alloc_buffer"}

func (l libraryLog) Handle(ctx context.Context, r slog.Record) error {
	said := func(text string) bool { return strings.Contains(r.Message, text) }
	if r.Level >= slog.LevelError && l.ready.Load() || slices.ContainsFunc(expected, said) {
		r.Level = slog.LevelDebug
	}
	return l.Handler.Handle(ctx, r)
}
