package supervise

import (
	"context"
	"errors"
	"fmt"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// ErrNoLimits means that the limits of a device could not be measured.
var ErrNoLimits = errors.New("measure limits")

// Limits measures the limits that job.Limits plans, in a worker, with the threads and
// devices of the job's settings. It takes less than two seconds a device, unless the
// machine is slow or busy. The error wraps ErrNoLimits or one of Probe's.
func Limits(ctx context.Context, job bench.Job, o Options) ([]result.DeviceLimits, error) {
	job.Tests = nil
	var done bench.LimitsDone
	o.Consumers = Consumers{limitsConsumer{&done}}
	lost, err := newAttempt(job, o).run(ctx)
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case lost != nil:
		return nil, fmt.Errorf("%w: %w", ErrNoLimits, lostError{lost.Reason, lost.Code})
	case done.Code != "":
		return nil, fmt.Errorf("%w: %w", ErrNoLimits, &EngineError{done.Code, done.Reason})
	case done.Status != result.OK:
		return nil, fmt.Errorf("%w: %s", ErrNoLimits, done.Reason)
	}
	return done.Devices, nil
}

// limitsConsumer keeps the limits.
type limitsConsumer struct{ done *bench.LimitsDone }

func (l limitsConsumer) Event(s bench.Stamped) error {
	if done, ok := s.Event.(bench.LimitsDone); ok {
		*l.done = done
	}
	return nil
}

func (limitsConsumer) Outcome(*result.Outcome) error { return nil }
