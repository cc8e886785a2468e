package bench_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// policyOf stops nothing but what its functions say.
type policyOf struct {
	before func(policy.Prospect) policy.Decision
	after  func(result.Status, bool) policy.Consequence
}

func (p policyOf) Before(t policy.Prospect) policy.Decision {
	if p.before == nil {
		return policy.Decision{}
	}
	return p.before(t)
}

func (policyOf) During(policy.Prospect) policy.Decision { return policy.Decision{} }

func (policyOf) Patience(policy.Prospect) (time.Duration, bool) { return 0, false }

func (p policyOf) After(status result.Status, shortest bool) policy.Consequence {
	if p.after == nil {
		return policy.Continue
	}
	return p.after(status, shortest)
}

// runTests runs a job on an engine of 512 tokens a second and tells on a line for
// each test what became of it.
func runTests(t *testing.T, job bench.Job, p bench.Policy) (lines []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		e := benchtest.New(steady, engineFacts, modelFacts)
		if err := bench.RunJob(t.Context(), e, job, p, l.emit); err != nil && !errors.Is(err, bench.ErrNoModel) {
			t.Fatal(err)
		}
		for _, o := range l.outcomes(job) {
			line := fmt.Sprintf("%v %s", o.Test, o.Status)
			if o.Reason != "" {
				line += ": " + o.Reason
			}
			lines = append(lines, line)
		}
	})
	return lines
}

// A policy is told what completed tests of the model say of the next one.
func TestProspect(t *testing.T) {
	second := []time.Duration{s}
	job := jobOf(bench.TestBudget{Test: pp512, Budget: 10 * s, Done: []result.Sample{{Repetition: 1, Elapsed: 2 * s}}})
	job.Past = []bench.PastTest{
		{Test: tg128, Status: result.OK, Repetitions: second, Setup: 4 * ms},
		{Test: result.Test{Prompt: 16}, Status: result.OK, Repetitions: second, Setup: 3 * ms},
		{Test: result.Test{Prompt: 32}, Status: result.OK, Repetitions: second}, // its setup is not known
		{Test: result.Test{Prompt: 64}, Status: result.OK},
		{Test: result.Test{Prompt: 128}, Status: result.Timeout, Repetitions: second, Setup: 2 * ms},
		{Test: result.Test{Prompt: 256, Depth: 8}, Status: result.OK, Repetitions: second, Setup: 5 * ms},
		{Test: pp512, Status: result.OK, Repetitions: second, Setup: 5 * ms},
	}
	var got []policy.Prospect
	runTests(t, job, policyOf{before: func(p policy.Prospect) policy.Decision {
		got = append(got, p)
		return policy.Decision{}
	}})
	want := []policy.Prospect{{
		Test: pp512, Budget: 8 * s, Setup: 3 * ms, Repetitions: 4, Warmups: 1,
		Shorter: []policy.Measured{{Test: result.Test{Prompt: 16}, Repetitions: second}, {Test: result.Test{Prompt: 32}, Repetitions: second}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Tests of the job itself count as those of earlier workers do.
func TestProspectAfterATest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg16, tg64 := result.Test{Gen: 16}, result.Test{Gen: 64}
		job := jobOf(bench.TestBudget{Test: tg16, Done: []result.Sample{sample(1, 0, 2*s)}}, bench.TestBudget{Test: tg64})
		job.Repetitions = 2
		var got []policy.Prospect
		e := benchtest.New(benchtest.AtSpeed(16), bench.EngineFacts{GPUInfo: "NVIDIA L4"}, modelFacts)
		err := bench.RunJob(t.Context(), e, job, policyOf{before: func(p policy.Prospect) policy.Decision {
			got = append(got, p)
			return policy.Decision{}
		}}, newLog(t).emit)
		if err != nil {
			t.Fatal(err)
		}
		want := []policy.Prospect{
			{Test: tg16, Repetitions: 1, Warmups: 1, GPU: true},
			{Test: tg64, Repetitions: 2, Warmups: 1, GPU: true, Setup: s / 16, Shorter: []policy.Measured{{Test: tg16, Repetitions: []time.Duration{2 * s, s}}}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// What the end of a test means for others is the policy's; which others these are
// is not.
func TestConsequences(t *testing.T) {
	tg64, tg256 := result.Test{Gen: 64}, result.Test{Gen: 256}
	deep, e2e := result.Test{Gen: 256, Depth: 8}, result.Test{Prompt: 8, Gen: 8, E2E: true}
	always := func(c policy.Consequence) policyOf {
		return policyOf{after: func(st result.Status, _ bool) policy.Consequence {
			if st == result.OK {
				return policy.Continue
			}
			return c
		}}
	}
	for name, tt := range map[string]struct {
		policy bench.Policy
		past   []bench.PastTest
		tests  []result.Test
		want   []string
	}{
		"none": {always(policy.Continue), []bench.PastTest{{Test: tg128, Status: result.Timeout}}, []result.Test{tg256}, []string{"tg256 ok"}},
		"for its series": {
			always(policy.EndSeries), []bench.PastTest{{Test: tg128, Status: result.Timeout}}, []result.Test{tg64, tg128, tg256, deep, pp512, e2e},
			[]string{
				"tg64 ok", "tg128 predicted_timeout: not started: tg128 ended as timeout", "tg256 predicted_timeout: not started: tg128 ended as timeout",
				"tg256 @ d8 ok", "pp512 ok", "e2e8+8 ok",
			},
		},
		"for the model": {
			always(policy.EndModels), []bench.PastTest{{Test: tg128, Status: result.Aborted}}, []result.Test{tg64, e2e},
			[]string{"tg64 aborted: not started: tg128 ended as aborted", "e2e8+8 aborted: not started: tg128 ended as aborted"},
		},
		"too slow": {
			always(policy.EndModels), []bench.PastTest{{Test: tg128, Status: result.PredictedTimeout}}, []result.Test{tg64, e2e},
			[]string{"tg64 predicted_timeout: not started: tg128 ended as predicted_timeout", "e2e8+8 ok"},
		},
		"too slow from text to text": {
			always(policy.EndModels), []bench.PastTest{{Test: e2e, Status: result.Timeout}}, []result.Test{tg64, e2e},
			[]string{"tg64 ok", "e2e8+8 predicted_timeout: not started: e2e8+8 ended as timeout"},
		},
		"of the shortest of a series": {
			policyOf{after: func(st result.Status, shortest bool) policy.Consequence {
				if st == result.Failed && shortest {
					return policy.EndModels
				}
				return policy.Continue
			}},
			[]bench.PastTest{{Test: tg64, Status: result.OK}, {Test: tg128, Status: result.Failed}, {Test: deep, Status: result.Failed}}, []result.Test{pp512},
			[]string{"pp512 failed: not started: tg256 @ d8 ended as failed"},
		},
		"of a longer test that runs before the shortest": {
			policyOf{after: func(st result.Status, shortest bool) policy.Consequence {
				switch {
				case st != result.Failed:
					return policy.Continue
				case shortest:
					return policy.EndModels
				default:
					return policy.EndSeries
				}
			}},
			[]bench.PastTest{{Test: tg128, Status: result.Failed}}, []result.Test{tg256, tg64, pp512},
			[]string{"tg256 failed: not started: tg128 ended as failed", "tg64 ok", "pp512 ok"},
		},
		"of a test that was skipped": {
			policyOf{before: func(p policy.Prospect) policy.Decision {
				return policy.Decision{Stop: p.Test == tg128, Reason: "hopeless"}
			}, after: always(policy.EndSeries).after},
			nil, []result.Test{tg64, tg128, tg256}, []string{
				"tg64 ok", "tg128 predicted_timeout: hopeless", "tg256 predicted_timeout: not started: tg128 ended as predicted_timeout",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			job := jobOf()
			job.Past = tt.past
			for _, test := range tt.tests {
				job.Tests = append(job.Tests, bench.TestBudget{Test: test})
			}
			if diff := cmp.Diff(tt.want, runTests(t, job, tt.policy)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The time limit of the run bounds what has no budget or a longer one; the load
// takes a second of it.
func TestTimeLimit(t *testing.T) {
	hasty := policyOf{before: func(p policy.Prospect) policy.Decision {
		return policy.Decision{Stop: p.Budget > 0 && p.Budget < 6*s, Reason: fmt.Sprintf("%v are too little", p.Budget)}
	}}
	for name, tt := range map[string]struct {
		left   time.Duration
		budget time.Duration
		policy bench.Policy
		want   string
	}{
		"none":                          {0, 0, nil, "pp512 ok"},
		"is far":                        {time.Hour, 10 * s, hasty, "pp512 ok"},
		"bounds a test":                 {5 * s, 0, nil, "pp512 time_limit: not completed within the time limit of the run, of which 4s were left"},
		"bounds a budget":               {5 * s, 10 * s, nil, "pp512 time_limit: not completed within the time limit of the run, of which 4s were left"},
		"is later than budget":          {5 * s, 3 * s, nil, "pp512 timeout: not completed within its budget of 3s"},
		"is too near":                   {5 * s, 10 * s, hasty, "pp512 time_limit: 4s are too little (time limit of the run)"},
		"is too near, without a budget": {5 * s, 0, hasty, "pp512 time_limit: 4s are too little (time limit of the run)"},
		"its budget is too little":      {time.Hour, 3 * s, hasty, "pp512 predicted_timeout: 3s are too little"},
		"is near enough":                {8 * s, 10 * s, hasty, "pp512 ok"},
		"has come":                      {s, 10 * s, nil, "pp512 time_limit: not started: the time limit of the run has ended"},
	} {
		job := jobOf(bench.TestBudget{Test: pp512, Budget: tt.budget})
		job.TimeLeft = tt.left
		if diff := cmp.Diff([]string{tt.want}, runTests(t, job, tt.policy)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Repetitions of an earlier worker that took the whole budget leave none of it,
// and not one without a limit.
func TestBudgetIsSpent(t *testing.T) {
	job := jobOf(bench.TestBudget{Test: pp512, Budget: 2 * s, Done: []result.Sample{sample(1, 0, 3*s)}})
	if diff := cmp.Diff([]string{"pp512 timeout: not completed within its budget of 0s"}, runTests(t, job, nil)); diff != "" {
		t.Error(diff)
	}
}

// A test of which an earlier worker completed all is not begun again.
func TestAllIsDone(t *testing.T) {
	job := jobOf(bench.TestBudget{Test: pp512, Done: []result.Sample{sample(1, 0, s), sample(2, s, s)}})
	job.Repetitions = 2
	synctest.Test(t, func(t *testing.T) {
		e := benchtest.New(steady, engineFacts, modelFacts)
		l := newLog(t)
		if err := bench.RunJob(t.Context(), e, job, nil, l.emit); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"pp512 ok 2"}, brief(l.outcomes(job))); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"load", "end pp0"}, e.Calls()); diff != "" { // of no test
			t.Error(diff)
		}
	})
}

// A model is not measured when it does not load in what is left of the run, or is
// not where it has to be.
func TestLoadIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*bench.Job)
		model  bench.ModelFacts
		want   bench.LoadDone
	}{
		"the time limit": {func(j *bench.Job) { j.TimeLeft = 500 * ms }, modelFacts, bench.LoadDone{
			Status: result.TimeLimit, Reason: "not loaded within the time limit of the run, of which 500ms were left", Elapsed: 500 * ms,
		}},
		"a nearer budget": {func(j *bench.Job) { j.TimeLeft, j.LoadBudget = 500*ms, 400*ms }, modelFacts, bench.LoadDone{
			Status: result.Timeout, Reason: "not loaded within its budget of 400ms", Elapsed: 400 * ms,
		}},
		"a nearer limit": {func(j *bench.Job) { j.TimeLeft, j.LoadBudget = 400*ms, 500*ms }, modelFacts, bench.LoadDone{
			Status: result.TimeLimit, Reason: "not loaded within the time limit of the run, of which 400ms were left", Elapsed: 400 * ms,
		}},
		"not on a GPU": {func(j *bench.Job) { j.RequireGPU = true }, modelFacts, bench.LoadDone{
			Status: result.Failed, Reason: "a GPU is required, but the library put no layer of the model on one", Code: bench.NotOnGPU, Facts: modelFacts, Elapsed: s,
		}},
		"on a GPU":          {func(j *bench.Job) { j.RequireGPU = true }, onGPU, bench.LoadDone{Status: result.OK, Facts: onGPU, Elapsed: s}},
		"on a CPU, allowed": {func(*bench.Job) {}, modelFacts, bench.LoadDone{Status: result.OK, Facts: modelFacts, Elapsed: s}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLog(t)
			job := jobOf()
			tt.change(&job)
			err := bench.RunJob(t.Context(), benchtest.New(steady, engineFacts, tt.model), job, nil, l.emit)
			if errors.Is(err, bench.ErrNoModel) != (tt.want.Status != result.OK) {
				t.Errorf("%s: %v", name, err)
			}
			for _, e := range l.events {
				if done, ok := e.Event.(bench.LoadDone); ok {
					if diff := cmp.Diff(tt.want, done); diff != "" {
						t.Errorf("%s: %s", name, diff)
					}
				}
			}
		})
	}
}
