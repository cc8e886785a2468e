package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// runModels runs two models; outcomes carry the model's name.
func runModels(ctx context.Context, t *testing.T, scenario string, change func(*supervise.Options),
	ready func(i int, job bench.Job) (bench.Job, error),
) (*history, []string, error) {
	t.Helper()
	h := &history{dir: t.TempDir()}
	small, large := jobOf(2*time.Second), jobOf(2*time.Second)
	small.Model.Name, large.Model.Name = "small", "large"
	jobs := []bench.Job{small, large}
	o := h.options(scenario)
	var lines []string
	h.onOutcome = func(out *result.Outcome) error {
		lines = append(lines, fmt.Sprintf("%s %v %s", out.Model, out.Test, out.Status))
		return nil
	}
	if change != nil {
		change(&o)
	}
	err := supervise.RunModels(ctx, jobs, func(_ context.Context, i int) (bench.Job, error) {
		if ready == nil {
			return jobs[i], nil
		}
		return ready(i, jobs[i])
	}, o)
	return h, lines, err
}

func all(model string, s result.Status) []string {
	return []string{model + " pp16 " + string(s), model + " pp32 " + string(s), model + " tg8 " + string(s)}
}

func TestRunModels(t *testing.T) {
	missing := func(s result.Status) func(int, bench.Job) (bench.Job, error) {
		return func(i int, job bench.Job) (bench.Job, error) {
			if i == 0 {
				return job, &supervise.Missing{Status: s, Reason: "no file"}
			}
			return job, nil
		}
	}
	unsupported := func(tests ...int) func(int, bench.Job) (bench.Job, error) {
		return func(i int, job bench.Job) (bench.Job, error) {
			job.Tests = slices.Clone(job.Tests)
			for _, k := range tests {
				if i == 0 {
					job.Tests[k].Unsupported = "it is an encoder"
				}
			}
			return job, nil
		}
	}
	for _, tt := range []struct {
		name, scenario string
		change         func(*supervise.Options)
		ready          func(int, bench.Job) (bench.Job, error)
		want           []string
	}{
		{"both", "untroubled", nil, nil, append(all("small", result.OK), all("large", result.OK)...)},
		{"a file that is missing costs its model", "untroubled", nil, missing(result.NoDisk), append(all("small", result.NoDisk), all("large", result.OK)...)},
		{"a crash costs its test", "segv once", nil, nil, append(all("small", result.OK), all("large", result.OK)...)},
		{
			"what is too slow for the small model is not tried with the large one", "too slow", nil, nil,
			append([]string{"small pp16 timeout", "small pp32 ok", "small tg8 ok"}, all("large", result.PredictedTimeout)...),
		},
		{
			"but for end-to-end tests, which have budgets of their own", "too slow end to end", nil,
			func(i int, job bench.Job) (bench.Job, error) {
				if i == 0 {
					job.Tests = append(slices.Clone(job.Tests), bench.TestBudget{Test: e2e(4, 4), Budget: 2 * time.Second})
				}
				return job, nil
			},
			slices.Concat(all("small", result.OK), []string{"small e2e4+4 timeout"}, all("large", result.OK)),
		},
		{"nor what did not fit into memory", "no memory in load", nil, nil, append(all("small", result.OutOfMemory), all("large", result.OutOfMemory)...)},
		{"adjusted settings help", "no memory at first", nil, nil, append(all("small", result.OK), all("large", result.OK)...)},
		{
			"the run is over before it begins", "untroubled",
			func(o *supervise.Options) { o.Deadline = time.Now().Add(-time.Second) },
			nil, append(all("small", result.TimeLimit), all("large", result.TimeLimit)...),
		},
		{
			"a file that cannot be here in time costs its model: the next may be here already", "untroubled", nil, missing(result.TimeLimit),
			append(all("small", result.TimeLimit), all("large", result.OK)...),
		},
		{
			"a test that the library cannot run is not given to a worker", "untroubled", nil, unsupported(0),
			append([]string{"small pp16 unsupported", "small pp32 ok", "small tg8 ok"}, all("large", result.OK)...),
		},
		{
			"a model without any other is not loaded", "untroubled", nil, unsupported(0, 1, 2),
			append(all("small", result.Unsupported), all("large", result.OK)...),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, got, err := runModels(t.Context(), t, tt.scenario, tt.change, tt.ready)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			for i, o := range h.outcomes {
				if o.Reason == "" && got[i][len(got[i])-2:] != "ok" {
					t.Errorf("%s has no reason", got[i])
				}
			}
		})
	}
}

func TestRunModelsEnds(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk is full")
	_, got, err := runModels(t.Context(), t, "untroubled", nil, func(_ int, job bench.Job) (bench.Job, error) { return job, broken })
	if !errors.Is(err, broken) || len(got) > 0 {
		t.Errorf("ended with %v after %v", err, got)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt"))
	_, got, err = runModels(ctx, t, "untroubled", nil, nil)
	if diff := cmp.Diff(append(all("small", result.Aborted), all("large", result.Aborted)...), got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// The second load is charged to what the first one left of the budget.
func TestLoadBudgetIsSpentOnce(t *testing.T) {
	t.Parallel()
	var h history
	job := jobOf(0)
	job.LoadBudget = 1800 * time.Millisecond // a load takes a second
	err := run(t.Context(), t, &h, "segv once, slow to load", job)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"pp16 ok 3", "pp32 timeout 2", "tg8 timeout 0"}
	var got []string
	for _, o := range h.outcomes {
		got = append(got, o.Line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff, h.outcomes)
	}
}

// Longer tests of a kind that crashed come last.
func TestLikelyCrashesComeLast(t *testing.T) {
	t.Parallel()
	var h history
	job := jobOf(0)
	job.Tests = []bench.TestBudget{{Test: pp32}, {Test: result.Test{Prompt: 64}}, {Test: tg8}}
	if err := run(t.Context(), t, &h, "abort twice", job); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range h.outcomes {
		got = append(got, o.Line)
	}
	if diff := cmp.Diff([]string{"pp32 crashed 2", "tg8 ok 3", "pp64 ok 3"}, got); diff != "" {
		t.Error(diff)
	}
}
