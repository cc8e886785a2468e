package record_test

import (
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

const (
	ms = time.Millisecond
	s  = time.Second
)

var (
	pp512 = result.Test{Prompt: 512}
	tg128 = result.Test{Gen: 128}

	engineFacts = bench.EngineFacts{BuildCommit: "Debian", BuildNumber: 11669, Backends: "CPU", CPUInfo: "a CPU"}
	modelFacts  = bench.ModelFacts{Type: "llama 1B Q4_K - Medium", SizeBytes: 1000, Params: 2000, Layers: 3}

	at = time.Date(2026, 11, 23, 16, 19, 41, 0, time.UTC)
)

// jobOf is a job of five repetitions.
func jobOf(tests ...bench.TestBudget) bench.Job {
	return bench.Job{
		Model:       bench.Model{Name: "m.gguf", Weights: result.FileWeights},
		Tests:       tests,
		Repetitions: 5,
		Seed:        1,
		Settings:    bench.DefaultSettings(4),
	}
}

// sample is a repetition that began after start.
func sample(n int, start, elapsed time.Duration) result.Sample {
	return result.Sample{Repetition: n, Start: at.Add(start), Elapsed: elapsed}
}
