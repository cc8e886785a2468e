package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// eventsFD is the file descriptor that the parent reads events from.
const eventsFD = 3

// newWorkerCommand is the command of a worker: the process that owns the engine.
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
		return usage("benchmark-llm run", "only run can start a worker")
	}
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0) // else ps shows "exe"
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return err
	}
	least = llamacpp.LogLevel(least)
	// The parent reads the log line by line and shows it.
	log := llamacpp.NewLog(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: least}))
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM) // sent by the parent alone: the worker has its own process group
	go func() {
		<-told
		cancel(errors.New("the run was interrupted"))
	}()
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	ctx = bench.WithContinued(ctx, continued)
	orphaned := func() { os.Exit(exitNothing) }
	return supervise.Serve(ctx, cmd.InOrStdin(), events, orphaned,
		func(ctx context.Context, job bench.Job, emit func(bench.Stamped) error) error {
			e, err := llamacpp.New(job, llamacpp.Options{Log: log, LogLevel: least, AllowCPU: job.AllowCPU, OneProcessor: true})
			if err != nil {
				return emit(bench.Now(bench.EngineFailed{Reason: err.Error(), Code: llamacpp.Code(err)}))
			}
			log.Ready()
			if err := emit(bench.Now(bench.EngineReady{PID: os.Getpid(), Facts: e.Facts()})); err != nil {
				return err
			}
			if len(job.Tests) == 0 { // the parent asked only for the engine's facts, or its limits
				now := func(ev bench.Event) error { return emit(bench.Now(ev)) }
				return errors.Join(bench.MeasureLimits(ctx, e, job, now), now(bench.JobDone{}), e.Close())
			}
			err = bench.RunJob(ctx, e, job, policy.Default(), emit)
			if errors.Is(err, bench.ErrNoModel) {
				err = nil // an event says so
			}
			return errors.Join(err, e.Close())
		})
}
