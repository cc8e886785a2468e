package supervise_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// measurements counts the measurements of limits that workers began.
func measurements(t *testing.T, h *history) int {
	t.Helper()
	journal, err := os.ReadFile(filepath.Join(h.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(journal), "\n")
	return len(lines) - len(slices.DeleteFunc(lines, func(l string) bool { return l == "limits" }))
}

// Limits are measured once for each type of weights, and their loss costs no test.
func TestLimitsOfModels(t *testing.T) {
	for _, tt := range []struct {
		name, scenario string
		small, large   []string // types of weights
		want           int      // measurements
	}{
		{"one type", "untroubled", []string{"q4_K"}, []string{"q4_K"}, 1},
		{"another type", "untroubled", []string{"q4_K"}, []string{"q4_K", "f16"}, 2},
		{"no types", "untroubled", nil, nil, 0},
		{"a test crashes", "segv once", []string{"q4_K"}, []string{"q4_K"}, 1},
		{"the worker is lost", "exit 7 in limits", []string{"q4_K"}, []string{"q4_K"}, 2}, // each model tries once
		{"no memory", "no memory for limits", []string{"q4_K"}, []string{"q4_K"}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, got, err := runModels(t.Context(), t, tt.scenario, nil, func(i int, job bench.Job) (bench.Job, error) {
				job.Limits = &result.LimitsPlan{Types: [][]string{tt.small, tt.large}[i]}
				return job, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(slices.Concat(all("small", result.OK), all("large", result.OK)), got); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			if n := measurements(t, h); n != tt.want {
				t.Errorf("limits were measured %d times, want %d", n, tt.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	job := jobOf(0)
	job.Limits = &result.LimitsPlan{Types: []string{"q4_K", "f16"}}
	h := &history{dir: t.TempDir()}
	got, err := supervise.Limits(t.Context(), job, h.options("untroubled"))
	if err != nil {
		t.Fatal(err)
	}
	want := []result.DeviceLimits{{Device: "CPU", Threads: 2, Types: []result.TypeLimits{
		{Type: "q4_K", VectorBytesPerSecond: 1e9, MatrixOpsPerSecond: 1e9}, {Type: "f16", VectorBytesPerSecond: 2e9, MatrixOpsPerSecond: 2e9},
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for scenario, reason := range map[string]string{
		"exit 7 in limits":     "measure limits: the worker crashed (exit code 7)",
		"no memory for limits": "measure limits: limits: out of memory",
	} {
		h := &history{dir: t.TempDir()}
		if _, err := supervise.Limits(t.Context(), job, h.options(scenario)); !errors.Is(err, supervise.ErrNoLimits) || err.Error() != reason {
			t.Errorf("%s: %v, want %q", scenario, err, reason)
		}
	}
}

func TestLimitsStopped(t *testing.T) {
	job := jobOf(0)
	job.Limits = &result.LimitsPlan{Types: []string{"q4_K"}}
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, interrupted)
	defer cancel()
	h := &history{dir: t.TempDir()}
	if _, err := supervise.Limits(ctx, job, h.options("obedient in limits")); !errors.Is(err, interrupted) {
		t.Errorf("error %v, want %v", err, interrupted)
	}
}
