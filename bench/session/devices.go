package session

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
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// ErrDevices means that a worker could not list its devices.
var ErrDevices = errors.New("list devices")

// NoCUDAError is a GPU that is not used because the program has no CUDA back-end.
type NoCUDAError struct{ Err error }

func (e *NoCUDAError) Error() string { return e.Err.Error() }

// Unwrap returns why the GPU is not used.
func (e *NoCUDAError) Unwrap() error { return e.Err }

// NoAccessError is a GPU that is not used because this user may not open its device
// node.
type NoAccessError struct {
	Err   error
	Group string // whose members may
}

func (e *NoAccessError) Error() string { return e.Err.Error() }

// Unwrap returns why the GPU is not used.
func (e *NoAccessError) Unwrap() error { return e.Err }

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

// AskGPUs asks a worker how the engine uses the GPUs of this machine. A machine
// without one starts no worker.
func AskGPUs(ctx context.Context, workers supervise.Options) (answer gpu.Answer, err error) {
	machine := machineGPUs(host.Collect("/"))
	if !machine.HasGPU() {
		return answer, nil
	}
	return machine.Ask(ctx, probe(bench.Job{AllowCPU: true}, workers))
}

// LogBackends logs why the CUDA back-end has no device, if the text is not empty, and what
// became of the module that GGML_BACKEND_PATH names; nil: it names none.
func LogBackends(withoutCUDA string, named *result.NamedBackend) {
	if withoutCUDA != "" {
		slog.Info("the CUDA back-end has no device", "reason", withoutCUDA)
	}
	switch {
	case named == nil:
	case named.Problem != "":
		slog.Warn("the back-end that GGML_BACKEND_PATH names is not used", "file", named.Path, "reason", named.Problem)
	default:
		slog.Info("the back-end that GGML_BACKEND_PATH names is used", "file", named.Path)
	}
}

// LogDoubts logs which devices are left out, and which may fail.
func LogDoubts(u gpu.Usage) {
	if u.LeftOutReason != "" {
		slog.Warn("a GPU is left out", "reason", u.LeftOutReason)
	}
	for _, d := range u.Doubts {
		slog.Warn("a GPU may not work", "reason", d)
	}
}

// askDevices checks, before any download, that the devices of the settings exist and
// that the engine uses the machine's GPUs. It starts no worker if the settings name
// no device, the machine shows no GPU and none is required. A GPU that ends the
// engine's process is hidden from all workers, even if no layer would go to it.
func (r *Session) askDevices(ctx context.Context) error {
	limited, cancel := bench.WithinLimit(ctx, r.deadline())
	defer cancel()
	err := r.ask(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return fmt.Errorf("%w: %w", ErrDevices, context.Cause(limited))
	}
	return err
}

// ask is askDevices without the time limit.
func (r *Session) ask(ctx context.Context) error {
	s := r.widest()
	if err := r.CheckRPC(ctx, s.RPC); err != nil { // quicker than starting a worker
		return err
	}
	machine := machineGPUs(r.Host)
	machine.KeepNames = len(s.Devices) > 0 || len(s.TensorSplit) > 0 || s.MainGPU > 0
	if len(s.RPC) == 0 && !machine.KeepNames && !machine.HasGPU() && !(s.Offloads() && r.Job.RequireGPU) {
		return nil
	}
	answer, err := machine.Ask(ctx, probe(bench.Job{Settings: s, AllowCPU: r.Job.AllowCPU}, r.workers()))
	switch {
	case errors.Is(err, supervise.ErrEngine):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDevices, err)
	case !s.Offloads(): // single operations may still run on a GPU
		r.gpus.Visible, r.gpus.NoHIP, r.gpus.NoVulkan = answer.Usage.Visible, answer.Usage.NoHIP, answer.Usage.NoVulkan
		return nil
	}
	r.gpus = answer.Usage
	if err := answer.Required(); err != nil && r.Job.RequireGPU {
		if answer.Engine.CUDAModule == "" && machine.HasNVIDIA() {
			return &NoCUDAError{err}
		}
		if len(machine.NoAccess) > 0 {
			return &NoAccessError{err, machine.NoAccess[0].Group}
		}
		return err
	}
	if r.gpus.UnusedReason != "" {
		slog.Warn("no GPU is used; this run measures the CPU", "reason", r.gpus.UnusedReason)
	}
	LogDoubts(r.gpus)
	if r.gpus.LimitReason != "" {
		slog.Warn(r.gpus.LimitReason, "warning", result.WarnDevicesLimited)
	}
	return nil
}

// workerEnv returns the variables that workers get beside this process's.
func (r *Session) workerEnv() []string {
	// On a crash ggml would start gdb, if it is installed, for a backtrace.
	env := []string{"GGML_NO_BACKTRACE=1"}
	return slices.Concat(env, r.gpus.Env(), machineGPUs(r.Host).CacheEnv(acquire.DirsOf(r.ModelsDir).Download))
}
