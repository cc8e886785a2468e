//go:build cgo

package llamacpp_test

import (
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// The events of real tests give records.
func TestRecords(t *testing.T) {
	tests := []bench.TestBudget{
		{Test: result.Test{Prompt: 16}},
		{Test: result.Test{Gen: 4}},
		{Test: result.Test{Prompt: 8, Gen: 2}},
		{Test: result.Test{Gen: 2, Depth: 32}},
	}
	job := bench.Job{
		Model: bench.Model{Name: "SmolLM-135M.Q4_K_M.gguf", Weights: result.SyntheticWeights, Seed: 1}, Tests: tests, Repetitions: 2, Seed: 1,
		Settings: bench.DefaultSettings(2),
	}
	job.Settings.LoadMode = "none"
	e, err := llamacpp.New(job, llamacpp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close() //nolint:errcheck // other tests look at it
	a := record.Assembler{Job: job}
	a.Add(bench.Stamped{At: time.Now(), Event: bench.EngineReady{Facts: e.Facts()}})
	var got []*result.Outcome
	err = bench.RunJob(t.Context(), e, job, nil, func(ev bench.Stamped) error {
		if o := a.Add(ev); o != nil {
			got = append(got, o)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(tests) {
		t.Fatalf("%d outcomes of %d tests", len(got), len(tests))
	}
	for i, o := range got {
		if o.Status != result.OK || o.Test != tests[i].Test || o.Record.AvgTS <= 0 || len(o.Record.SamplesNs) != 2 {
			t.Errorf("%v: %+v", tests[i].Test, o)
		}
	}
	if got[0].Record.Backends == "" || got[0].Record.CPUInfo == "" {
		t.Errorf("the record does not say what it ran on: %+v", got[0].Record)
	}
}
