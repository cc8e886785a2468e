package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// checkQuiet logs what would disturb the run, waits for it with WaitQuiet, and refuses
// to go on with RequireQuiet.
func (r *Session) checkQuiet(ctx context.Context) error {
	var found []host.Disturbance
	if r.WaitQuiet > 0 {
		limit := r.WaitQuiet
		if r.TimeLimit > 0 {
			limit = min(limit, time.Until(r.deadline()))
		}
		waiting := false
		found = host.WaitQuiet(ctx, "/", limit, func(found []host.Disturbance) {
			waiting = true
			slog.Info("waiting for a quiet machine", "at_most_s", limit.Round(time.Millisecond).Seconds(), "busy", host.Texts(found))
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
	case r.RequireQuiet:
		return fmt.Errorf("%w: %s", host.ErrBusy, host.Texts(found))
	}
	warnBusy(found)
	return nil
}

// WarnBusy logs what would disturb a measurement that began now, and returns it as one
// line, or "". It takes a tenth of a second.
func WarnBusy(ctx context.Context) string {
	found := host.Busy(ctx, "/")
	if len(found) > 0 {
		warnBusy(found)
	}
	return host.Texts(found)
}

func warnBusy(found []host.Disturbance) {
	slog.Warn("the machine is busy", "busy", host.Texts(found))
}

// ErrNoSensor is a wait for a temperature that cannot be read.
var ErrNoSensor = errors.New("--cool-down temperature: no sensor of a CPU or GPU is readable")

// coolDownOf returns the wait before tests; nil: none. It fails if a temperature is
// needed that cannot be read.
func coolDownOf(text string, watch *gpu.Watcher) (*supervise.CoolDown, error) {
	if text == "" {
		return nil, nil
	}
	c, err := supervise.ParseCoolDown(text)
	if err != nil {
		return nil, err
	}
	c.Temperature = func() (float64, bool) {
		cpu, ok := host.Temperature("/")
		card, has := watch.Temperature()
		return max(cpu, card), ok || has
	}
	if !c.Start() {
		return nil, ErrNoSensor
	}
	return &c, nil
}
