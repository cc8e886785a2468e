package bench

import (
	"context"
	"errors"
	"time"
)

// ErrTimeLimit is the cause of a context that ended with the time limit of the run.
var ErrTimeLimit = errors.New("the time limit of the run has ended")

// WithinLimit returns a context for one wait of a run. It ends at the run's deadline with
// ErrTimeLimit; a zero deadline is no limit.
func WithinLimit(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	if deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, deadline, ErrTimeLimit)
}
