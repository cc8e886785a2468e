package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// logWithoutCUDA logs why the CUDA back-end has no device; empty: it logs nothing.
func logWithoutCUDA(reason string) {
	if reason != "" {
		slog.Info("the CUDA back-end has no device", "reason", reason)
	}
}

// machineGPUs returns what is known about this machine's GPUs.
func machineGPUs(facts host.Facts) gpu.Machine {
	return gpu.NewMachine("/", facts.GPUs, facts.NVMLProblem)
}

// probe returns a function that starts a worker to ask about its engine with a job's
// settings.
func probe(job bench.Job, workers supervise.Options) gpu.Probe {
	return func(ctx context.Context, env []string) (bench.EngineFacts, error) {
		o := workers
		o.Env = slices.Concat(workers.Env, env)
		return supervise.Probe(ctx, job, o)
	}
}

// warnOfDevices logs which devices are left out, and which may fail.
func warnOfDevices(u gpu.Usage) {
	if u.LeftOutReason != "" {
		slog.Warn("a GPU is left out", "reason", u.LeftOutReason)
	}
	for _, d := range u.Doubts {
		slog.Warn("a GPU may not work", "reason", d)
	}
}

// errDevices means that a worker could not list its devices.
var errDevices = errors.New("list devices")

// engineError is an engine of this process that could not start.
type engineError struct{ error }

func (e *engineError) Unwrap() error { return e.error }

// noCUDAError is a GPU that is not used because the program has no CUDA back-end.
type noCUDAError struct{ error }

func (e *noCUDAError) Unwrap() error { return e.error }

// askDevices checks, before any download, that the devices of the settings exist and
// that the engine uses the machine's GPUs. It starts no worker if the settings name
// no device, the machine shows no GPU and none is required. A GPU that ends the
// engine's process is hidden from all workers, even if no layer would go to it.
func (o *runOptions) askDevices(ctx context.Context) error {
	limited, cancel := bench.WithinLimit(ctx, o.deadline())
	defer cancel()
	err := o.ask(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return fmt.Errorf("%w: %w", errDevices, context.Cause(limited))
	}
	return err
}

// ask is askDevices without the time limit.
func (o *runOptions) ask(ctx context.Context) error {
	s := o.settings
	if err := llamacpp.CheckRPC(ctx, s.RPC); err != nil { // quicker than starting a worker
		return err
	}
	machine := machineGPUs(o.host)
	machine.KeepNames = len(s.Devices) > 0 || len(s.TensorSplit) > 0 || s.MainGPU > 0
	if len(s.RPC) == 0 && !machine.KeepNames && !machine.HasNVIDIA() && !(s.Offloads() && o.requireGPU) {
		return nil
	}
	workers, err := o.workers()
	if err != nil {
		return err
	}
	answer, err := machine.Ask(ctx, probe(bench.Job{Settings: s, AllowCPU: o.allowCPU}, workers))
	switch {
	case errors.Is(err, supervise.ErrEngine):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errDevices, err)
	case !s.Offloads(): // single operations may still run on a GPU
		o.gpus.Visible = answer.Usage.Visible
		return nil
	}
	o.gpus = answer.Usage
	if err := answer.Required(); err != nil && o.requireGPU {
		if answer.Engine.CUDAModule == "" {
			return &noCUDAError{err}
		}
		return err
	}
	if o.gpus.UnusedReason != "" {
		slog.Warn("no GPU is used; this run measures the CPU", "reason", o.gpus.UnusedReason)
	}
	warnOfDevices(o.gpus)
	if o.gpus.LimitReason != "" {
		slog.Warn(o.gpus.LimitReason, "warning", result.WarnDevicesLimited)
	}
	return nil
}

// workerEnv returns the variables that workers get beside this process's.
func (o *runOptions) workerEnv() []string {
	// On a crash ggml would start gdb, if it is installed, for a backtrace.
	env := []string{"GGML_NO_BACKTRACE=1"}
	return slices.Concat(env, o.gpus.Env(), machineGPUs(o.host).CacheEnv(acquire.DirsOf(o.modelsDir).Download))
}
