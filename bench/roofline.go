package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Limiter is an Engine that can measure the limits of its devices before a model is
// loaded. It returns ErrAborted soon after ctx ends.
type Limiter interface {
	Limits(ctx context.Context, plan result.LimitsPlan) ([]result.DeviceLimits, error)
}

// LimitsBudget is how long the measurement of limits may take. It takes less than two
// seconds a device, unless the machine is slow or busy.
const LimitsBudget = 30 * time.Second

// MeasureLimits measures the limits that the job wants and does not know yet, if there are
// any, and emits LimitsStarted and LimitsDone. It returns an error only if emit fails: a
// run goes on without limits. emit may return ErrRepeat if the process was stopped.
func MeasureLimits(ctx context.Context, e Engine, job Job, emit func(Event) error) error {
	limiter, can := e.(Limiter)
	plan := job.LimitsWanted()
	if !can || plan == nil {
		return nil
	}
	for {
		err := measureLimits(ctx, limiter, job, *plan, emit)
		if !errors.Is(err, ErrRepeat) {
			return err
		}
	}
}

func measureLimits(ctx context.Context, e Limiter, job Job, plan result.LimitsPlan, emit func(Event) error) error {
	budget, limit := LimitsBudget, result.Timeout
	if job.TimeLeft > 0 && job.TimeLeft < budget {
		budget, limit = job.TimeLeft, result.TimeLimit
	}
	if err := emit(LimitsStarted{Types: plan.Types, Budget: budget}); err != nil {
		return err
	}
	within, cancel := context.WithTimeoutCause(ctx, budget, fmt.Errorf("limits not measured within %s", budget.Round(time.Millisecond)))
	defer cancel()
	start := time.Now()
	limits, err := e.Limits(within, plan)
	done := LimitsDone{Status: result.OK, Devices: limits, Elapsed: time.Since(start)}
	if err != nil {
		done.Status, done.Reason, done.Devices = statusOf(err), err.Error(), nil
		if coded, ok := errors.AsType[*CodedError](err); ok {
			done.Code = coded.Code
		}
		if cause := context.Cause(within); errors.Is(err, ErrAborted) && cause != nil {
			done.Reason = cause.Error()
			if ctx.Err() == nil {
				done.Status = limit
			}
		}
	}
	return emit(done)
}

// LimitsWanted is the plan of the job's limits without the types that are known. It is nil
// if nothing is to be measured.
func (j Job) LimitsWanted() *result.LimitsPlan {
	if j.Limits == nil {
		return nil
	}
	plan := *j.Limits
	plan.Types = slices.DeleteFunc(slices.Clone(plan.Types), func(t string) bool {
		return slices.ContainsFunc(j.LimitsKnown, func(d result.DeviceLimits) bool { return d.Has(t) })
	})
	if len(plan.Types) == 0 {
		return nil
	}
	return &plan
}
