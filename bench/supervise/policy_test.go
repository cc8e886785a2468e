package supervise_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// decided runs a job under the default policy in fake time and returns what
// became of each test and when the job ended.
func decided(t *testing.T, script benchtest.Script, job bench.Job) (outcomes []string, took time.Duration, events []bench.Event) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a := record.Assembler{Job: job}
		e := benchtest.New(script, bench.EngineFacts{}, bench.ModelFacts{})
		err := bench.RunJob(context.Background(), e, job, policy.Default(), func(ev bench.Stamped) error {
			events = append(events, ev.Event)
			if o := a.Add(ev); o != nil {
				outcomes = append(outcomes, fmt.Sprintf("%v %s %d", o.Test, o.Status, len(o.Samples)))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		took = time.Since(start)
	})
	return outcomes, took, events
}

func pp(n int) result.Test { return result.Test{Prompt: n} }
func tg(n int) result.Test { return result.Test{Gen: n} }
func e2e(prompt, gen int) result.Test {
	return result.Test{Prompt: prompt, Gen: gen, E2E: true}
}

func TestPolicy(t *testing.T) {
	budgets := func(each time.Duration, tests ...result.Test) bench.Job {
		job := bench.Job{Model: bench.Model{Name: "m.gguf"}, Repetitions: 5, Settings: bench.DefaultSettings(2)}
		for _, test := range tests {
			job.Tests = append(job.Tests, bench.TestBudget{Test: test, Budget: each})
		}
		return job
	}
	limited := budgets(time.Minute, pp(16), pp(128), tg(16))
	limited.TimeLeft = 40 * time.Second
	continued := budgets(10*time.Second, pp(512))
	continued.Tests[0].Done = []result.Sample{{Repetition: 1, Elapsed: time.Second}, {Repetition: 2, Elapsed: time.Second}}
	resumed := budgets(10*time.Second, pp(1024), pp(4096))
	resumed.Past = []bench.PastTest{{Test: pp(512), Status: result.OK, Repetitions: []time.Duration{time.Second}, Setup: time.Millisecond}}

	for _, tt := range []struct {
		name   string
		script benchtest.Script
		job    bench.Job
		want   []string
		within time.Duration // the job takes no longer
	}{
		{
			"all fit", benchtest.AtSpeed(1000), budgets(10*time.Second, pp(16), pp(512), tg(16)),
			[]string{"pp16 ok 5", "pp512 ok 5", "tg16 ok 5"}, 5 * time.Second,
		},
		{
			"a hopeless length and longer ones are not started", benchtest.AtSpeed(100), budgets(10*time.Second, pp(128), pp(1024), pp(4096), tg(16)),
			[]string{"pp128 ok 5", "pp1024 predicted_timeout 0", "pp4096 predicted_timeout 0", "tg16 ok 5"}, 10 * time.Second,
		},
		{
			// 160 s for the first pass, of 10 s: seen long before.
			"a test that nothing predicts is given up in its first pass", benchtest.AtSpeed(100),
			budgets(10*time.Second, pp(16000), tg(16)),
			[]string{"pp16000 predicted_timeout 0", "tg16 predicted_timeout 0"}, 5 * time.Second,
		},
		{
			// The first two repetitions are quick, then the machine is slow.
			"a test that slows down is given up, with what it measured", benchtest.AtSpeed(512).Except(func(c benchtest.Call) (benchtest.Step, bool) {
				return benchtest.Step{Takes: time.Hour}, c.Method == benchtest.Repeat && c.Test == pp(512) && c.N == 3
			}), budgets(10*time.Second, pp(16), pp(512), tg(16)),
			[]string{"pp16 ok 5", "pp512 predicted_timeout 2", "tg16 ok 5"}, 12 * time.Second,
		},
		{
			// Tokens tell after a quarter of the pass what its time tells only at its end.
			"tokens of a generation tell early", benchtest.AtSpeed(1).Except(func(c benchtest.Call) (benchtest.Step, bool) {
				return benchtest.Step{Takes: 800 * time.Second, Reports: true}, c.Method == benchtest.Repeat
			}), budgets(1000*time.Second, tg(16)),
			[]string{"tg16 predicted_timeout 0"}, 300 * time.Second,
		},
		{
			"what generation does not fit says nothing of end-to-end tests", benchtest.AtSpeed(100),
			budgets(10*time.Second, tg(16000), pp(16), e2e(16, 16)),
			[]string{"tg16000 predicted_timeout 0", "pp16 predicted_timeout 0", "e2e16+16 ok 5"}, 8 * time.Second,
		},
		{
			"nor they of others, but of longer ones", benchtest.AtSpeed(100),
			budgets(10*time.Second, e2e(16, 8000), e2e(16, 9000), pp(16)),
			[]string{"e2e16+8000 predicted_timeout 0", "e2e16+9000 predicted_timeout 0", "pp16 ok 5"}, 8 * time.Second,
		},
		{
			"the time limit of the run ends a test and those after it", benchtest.AtSpeed(2), limited,
			[]string{"pp16 time_limit 1", "pp128 time_limit 0", "tg16 time_limit 0"}, 41 * time.Second,
		},
		{
			"a test is continued", benchtest.AtSpeed(512), continued,
			[]string{"pp512 ok 5"}, 6 * time.Second,
		},
		{
			"what an earlier worker measured counts", benchtest.AtSpeed(512), resumed,
			[]string{"pp1024 predicted_timeout 0", "pp4096 predicted_timeout 0"}, 2 * time.Second,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, took, events := decided(t, tt.script, tt.job)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if took > tt.within {
				t.Errorf("took %v, more than %v", took, tt.within)
			}
			for _, e := range events {
				if e, ok := e.(bench.TestSkipped); ok && e.Reason == "" {
					t.Errorf("%v was skipped without a reason", e.Test)
				}
			}
		})
	}
}
