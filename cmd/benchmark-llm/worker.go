package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
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
	if _, err := events.Stat(); err != nil {
		return usage("benchmark-llm run", "a worker is started by run, not by hand")
	}
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return err
	}
	least = libraryLevel(least)
	// To the parent, line by line, which knows the terminal.
	log := slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: least})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	orphaned := func() { os.Exit(exitNothing) }
	return supervise.Serve(ctx, cmd.InOrStdin(), events, orphaned,
		func(ctx context.Context, job bench.Job, emit func(bench.Event) error) error {
			e, err := llamacpp.New(job, llamacpp.Options{Log: log, LogLevel: least, AllowCPU: job.AllowCPU})
			if err != nil {
				return emit(bench.LoadDone{Status: result.Failed, Reason: err.Error()})
			}
			if err := emit(bench.EngineReady{PID: os.Getpid(), Facts: e.Facts()}); err != nil {
				return err
			}
			err = bench.RunJob(ctx, e, job, emit)
			if errors.Is(err, bench.ErrNoModel) {
				err = nil // told in an event
			}
			return errors.Join(err, e.Close())
		})
}
