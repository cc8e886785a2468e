package session

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// Limits measures the limits of this machine, in a worker, with the threads of settings.
// devices are names; without any, the CPU and all GPUs that a run would use. types are
// those of weights; without any, roofline.CommonTypes. The error wraps one of
// roofline.New's, ErrDevices, or one of supervise.Limits's.
func Limits(ctx context.Context, s bench.Settings, devices, types []string, workers supervise.Options) ([]result.DeviceLimits, error) {
	if len(types) == 0 {
		types = roofline.CommonTypes
	}
	plan, err := limitsPlan(types)
	if err != nil {
		return nil, err
	}
	plan.Devices, plan.CPU = devices, true
	answer, err := AskGPUs(ctx, workers)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDevices, err)
	}
	workers.Env = slices.Concat(workers.Env, []string{"GGML_NO_BACKTRACE=1"}, answer.Env())
	return supervise.Limits(ctx, bench.Job{Settings: s, AllowCPU: true, Limits: &plan}, workers)
}

// limitsPlan plans the measurement of types on this machine, as it is now.
func limitsPlan(types []string) (result.LimitsPlan, error) {
	var available uint64
	if free := host.Observe("/").MemoryAvailableBytes; free != nil {
		available = *free
	}
	return roofline.New(host.Collect("/").CPU.LargestCacheBytes(), available, types...)
}

// planLimits plans the measurement of the machine's limits. The models' weights decide
// about the types. Without enough memory the run has no limits.
func (r *Session) planLimits() {
	plan, err := limitsPlan(nil)
	if err != nil {
		slog.Info("the machine's limits are not measured", "reason", err)
		return
	}
	r.Job.Limits = &plan
}
