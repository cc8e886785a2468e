package record_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

var e2eTest = result.Test{Prompt: 90, Gen: 3, E2E: true}

// generated is a repetition whose tokens came at these times.
func generated(n int, at ...time.Duration) result.Sample {
	return result.Sample{
		Repetition: n, Elapsed: at[len(at)-1],
		Generated: &result.Generated{Tokens: make([]int32, len(at)), At: at, Bytes: int64(4 * len(at))},
	}
}

// assembleSamples is the outcome of a test with these samples, the first of which
// an earlier worker completed.
func assembleSamples(test result.Test, how *bench.E2E, samples ...result.Sample) *result.Outcome {
	job := jobOf()
	job.E2E = how
	a := record.Assembler{Job: job}
	a.Add(bench.Stamped{Event: bench.TestStarted{Test: test, Repetitions: len(samples), Done: samples[:1]}})
	for _, s := range samples[1:] {
		a.Add(bench.Stamped{Event: bench.RepetitionDone{Sample: s}})
	}
	return a.Add(bench.Stamped{Event: bench.TestDone{Test: test, Status: result.OK}})
}

// Times to the first token 1 s and 2 s; between tokens 10, 20, 10 and 60 ms. The
// quantiles are R's, type 7.
func TestLatency(t *testing.T) {
	samples := []result.Sample{generated(1, 1000*ms, 1010*ms, 1030*ms), generated(2, 2000*ms, 2010*ms, 2070*ms)}
	o := assembleSamples(e2eTest, nil, samples...)
	want := &result.E2E{
		Prompt: result.BuiltInPrompt, Temperature: 0.8, TopK: 40, TopP: 0.95,
		FirstToken:     result.Latency{N: 2, Median: 1.5, P90: 1.9, P99: 1.99, Max: 2},
		InterToken:     &result.Latency{N: 4, Median: 0.015, P90: 0.048, P99: 0.0588, Max: 0.06},
		GeneratedBytes: 24,
	}
	if o.Record == nil {
		t.Fatal(o.Reason)
	}
	if diff := cmp.Diff(want, o.Record.Ext.E2E, near); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := o.Record; r.Test() != e2eTest || r.PromptTokens != 90 || r.GenTokens != 3 || r.SamplesTS[0] != 93/1.03 {
		t.Errorf("record of %v: %v", r.Test(), r.SamplesTS)
	}
	// The events carry all of it.
	line, err := bench.Stamped{Event: bench.RepetitionDone{Sample: samples[1]}}.MarshalLine()
	if err != nil {
		t.Fatal(err)
	}
	var back bench.Stamped
	if err := back.UnmarshalLine(line); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bench.RepetitionDone{Sample: samples[1]}, back.Event); diff != "" {
		t.Errorf("event (-sent +got):\n%s", diff)
	}

	one := assembleSamples(result.Test{Prompt: 90, Gen: 1, E2E: true}, &bench.E2E{Prompt: "hello", TopP: 1}, generated(1, s))
	data, err := json.Marshal(one.Record.Ext.E2E)
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"prompt":"given","temperature":0,"top_k":0,"top_p":1,"time_to_first_token_s":{"n":1,"median":1,"p90":1,"p99":1,"max":1},"generated_bytes":4}`
	if string(data) != text {
		t.Errorf("one token: %s", data)
	}
}

func TestLatencyOfBadSamples(t *testing.T) {
	good := generated(1, s, 2*s, 3*s)
	for name, tt := range map[string]struct {
		sample result.Sample
		want   string
	}{
		"no times":   {result.Sample{Repetition: 2, Elapsed: s}, "repetition 2 has no times for its 3 tokens"},
		"too few":    {generated(2, s, 2*s), "repetition 2 has no times for its 3 tokens"},
		"no time":    {result.Sample{Repetition: 2, Elapsed: s, Generated: &result.Generated{Tokens: make([]int32, 3), At: []time.Duration{s}}}, "repetition 2 has no times for its 3 tokens"},
		"no tokens":  {result.Sample{Repetition: 2, Elapsed: s, Generated: &result.Generated{Tokens: make([]int32, 1), At: []time.Duration{1, 2, 3}}}, "repetition 2 has no times for its 3 tokens"},
		"backwards":  {generated(2, 2*s, s, 3*s), "repetition 2: token 2 came at 1s, not between 2s and 3s"},
		"after that": {result.Sample{Repetition: 2, Elapsed: s, Generated: good.Generated}, "repetition 2: token 2 came at 2s, not between 1s and 1s"},
	} {
		o := assembleSamples(e2eTest, nil, good, tt.sample)
		if o.Status != result.Failed || o.Reason != tt.want || o.Record != nil {
			t.Errorf("%s: %s, %q; want %q", name, o.Status, o.Reason, tt.want)
		}
	}
}

// The most that a test keeps fits a line of events.
func TestLongestGenerationFitsALine(t *testing.T) {
	g := &result.Generated{}
	for i := range result.MaxGenerated {
		g.Tokens = append(g.Tokens, 200_000)
		g.At = append(g.At, 3*time.Hour+time.Duration(i))
	}
	line, err := bench.Stamped{Event: bench.RepetitionDone{Sample: result.Sample{Elapsed: 4 * time.Hour, Generated: g}}}.MarshalLine()
	if err != nil || len(line) > bench.MaxEventBytes {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}

// A run on the scripted engine: at 100 tokens per second, 9 tokens of a prompt and
// the first generated one take 100 ms, every other one 10 ms.
func TestEndToEndRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := jobOf()
		job.Repetitions = 3
		test := result.Test{Prompt: 9, Gen: 4, E2E: true}
		a := record.Assembler{Job: job}
		var o *result.Outcome
		engine := benchtest.New(benchtest.AtSpeed(100), engineFacts, modelFacts)
		job.Tests = []bench.TestBudget{{Test: test}}
		err := bench.RunJob(t.Context(), engine, job, nil, func(e bench.Stamped) error {
			if done := a.Add(e); done != nil {
				o = done
			}
			return nil
		})
		if err != nil || o == nil || o.Record == nil {
			t.Fatalf("%+v, %v", o, err)
		}
		e := o.Record.Ext.E2E
		if diff := cmp.Diff(result.Latency{N: 3, Median: 0.1, P90: 0.1, P99: 0.1, Max: 0.1}, e.FirstToken, near); diff != "" {
			t.Errorf("first token (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(&result.Latency{N: 9, Median: 0.01, P90: 0.01, P99: 0.01, Max: 0.01}, e.InterToken, near); diff != "" {
			t.Errorf("between tokens (-want +got):\n%s", diff)
		}
	})
}
