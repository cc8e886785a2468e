package bench_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// limiter is an engine that measures limits. It hangs if hang is set, until ctx ends.
type limiter struct {
	bench.Engine
	plans []result.LimitsPlan
	err   error
	hang  bool
}

func (l *limiter) Limits(ctx context.Context, plan result.LimitsPlan) ([]result.DeviceLimits, error) {
	l.plans = append(l.plans, plan)
	if l.hang {
		<-ctx.Done()
		return nil, bench.ErrAborted
	}
	time.Sleep(time.Second)
	return []result.DeviceLimits{{Device: "CPU"}}, l.err
}

func TestMeasureLimits(t *testing.T) {
	plan := &result.LimitsPlan{Types: []string{"q4_K", "q6_K"}}
	known := []result.DeviceLimits{{Device: "CPU", Types: []result.TypeLimits{{Type: "q4_K"}}}}
	started := func(types ...string) bench.Event {
		return bench.LimitsStarted{Types: types, Budget: bench.LimitsBudget}
	}
	for _, tc := range []struct {
		name   string
		job    bench.Job
		engine limiter
		want   []bench.Event
	}{
		{"none wanted", bench.Job{}, limiter{}, nil},
		{"all known", bench.Job{Limits: &result.LimitsPlan{Types: []string{"q4_K"}}, LimitsKnown: known}, limiter{}, nil},
		{"measured", bench.Job{Limits: plan}, limiter{}, []bench.Event{
			started("q4_K", "q6_K"), bench.LimitsDone{Status: result.OK, Devices: []result.DeviceLimits{{Device: "CPU"}}, Elapsed: time.Second},
		}},
		{"one known", bench.Job{Limits: plan, LimitsKnown: known}, limiter{}, []bench.Event{
			started("q6_K"), bench.LimitsDone{Status: result.OK, Devices: []result.DeviceLimits{{Device: "CPU"}}, Elapsed: time.Second},
		}},
		{"no memory", bench.Job{Limits: plan}, limiter{err: fmt.Errorf("300 MiB: %w", bench.ErrOutOfMemory)}, []bench.Event{
			started("q4_K", "q6_K"), bench.LimitsDone{Status: result.OutOfMemory, Reason: "300 MiB: out of memory", Elapsed: time.Second},
		}},
		{"no such device", bench.Job{Limits: plan}, limiter{err: &bench.CodedError{Code: bench.DeviceMissing, Err: errors.New("no device")}}, []bench.Event{
			started("q4_K", "q6_K"), bench.LimitsDone{Status: result.Failed, Reason: "no device", Code: bench.DeviceMissing, Elapsed: time.Second},
		}},
		{"too slow", bench.Job{Limits: plan}, limiter{hang: true}, []bench.Event{
			started("q4_K", "q6_K"), bench.LimitsDone{Status: result.Timeout, Reason: "limits not measured within 30s", Elapsed: 30 * time.Second},
		}},
		{"the run's time is over", bench.Job{Limits: plan, TimeLeft: 2 * time.Second}, limiter{hang: true}, []bench.Event{
			bench.LimitsStarted{Types: plan.Types, Budget: 2 * time.Second},
			bench.LimitsDone{Status: result.TimeLimit, Reason: "limits not measured within 2s", Elapsed: 2 * time.Second},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []bench.Event
				err := bench.MeasureLimits(t.Context(), &tc.engine, tc.job, func(e bench.Event) error {
					got = append(got, e)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestMeasureLimitsAgain: what a stop has spoiled is measured again.
func TestMeasureLimitsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := limiter{}
		stopped := true
		err := bench.MeasureLimits(t.Context(), &engine, bench.Job{Limits: &result.LimitsPlan{Types: []string{"f16"}}}, func(e bench.Event) error {
			if bench.Spoiled(e) && stopped {
				stopped = false
				return bench.ErrRepeat
			}
			return nil
		})
		if err != nil || len(engine.plans) != 2 {
			t.Errorf("measured %d times, want 2; error %v", len(engine.plans), err)
		}
	})
}
