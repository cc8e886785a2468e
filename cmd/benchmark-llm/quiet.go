package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sparecores/benchmark-llm/bench/host"
)

// checkQuiet logs what would disturb the run, waits for it with --wait-quiet, and
// refuses to go on with --require-quiet.
func (o *runOptions) checkQuiet(ctx context.Context) error {
	var found []host.Disturbance
	if o.waitQuiet > 0 {
		limit := o.waitQuiet
		if o.timeLimit > 0 {
			limit = min(limit, time.Until(started.Add(o.timeLimit)))
		}
		waiting := false
		found = host.WaitQuiet(ctx, "/", limit, func(found []host.Disturbance) {
			waiting = true
			slog.Info("waiting for a quiet machine", "at_most_s", inSeconds(limit), "busy", host.Texts(found))
		})
		if waiting && len(found) == 0 && ctx.Err() == nil {
			slog.Info("the machine is quiet")
		}
	} else {
		found = host.Busy(ctx, "/")
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(found) == 0:
		return nil
	case o.requireQuiet:
		return fmt.Errorf("%w: %s", host.ErrBusy, host.Texts(found))
	}
	slog.Warn("the machine is busy", "busy", host.Texts(found))
	return nil
}
