package record

import (
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// e2e is the latency of an end-to-end test, from its samples. It is nil for other
// kinds of test.
func (a *Assembler) e2e() (*result.E2E, error) {
	t := a.test.Test
	if !t.E2E {
		return nil, nil //nolint:nilnil // documented above
	}
	sampling := bench.DefaultE2E()
	if a.Job.E2E != nil {
		sampling = *a.Job.E2E
	}
	e := &result.E2E{Prompt: result.BuiltInPrompt, Temperature: sampling.Temperature, TopK: sampling.TopK, TopP: sampling.TopP}
	if sampling.Prompt != "" {
		e.Prompt = result.GivenPrompt
	}
	var first, between []float64
	for _, s := range a.samples {
		g := s.Generated
		if g == nil || len(g.At) != t.Gen || len(g.Tokens) != t.Gen {
			return nil, fmt.Errorf("repetition %d has no times for its %d tokens", s.Repetition, t.Gen)
		}
		e.GeneratedBytes += g.Bytes
		last := time.Duration(0)
		for i, at := range g.At {
			if at < last || at > s.Elapsed {
				return nil, fmt.Errorf("repetition %d: token %d came at %v, not between %v and %v",
					s.Repetition, i+1, at, last, s.Elapsed)
			}
			if i == 0 {
				first = append(first, at.Seconds())
			} else {
				between = append(between, (at - last).Seconds())
			}
			last = at
		}
	}
	l, err := latency(first)
	if err != nil {
		return nil, fmt.Errorf("times to the first token: %w", err)
	}
	e.FirstToken = *l
	if len(between) > 0 {
		if e.InterToken, err = latency(between); err != nil {
			return nil, fmt.Errorf("times between tokens: %w", err)
		}
	}
	return e, nil
}

func latency(seconds []float64) (*result.Latency, error) {
	s, err := stats.New(seconds)
	if err != nil {
		return nil, err
	}
	return &result.Latency{N: s.N(), Median: s.Median(), P90: s.Quantile(0.9), P99: s.Quantile(0.99), Max: s.Max()}, nil
}
