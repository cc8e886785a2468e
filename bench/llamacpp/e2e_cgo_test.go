//go:build cgo

package llamacpp

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// tinyJob is a job on the model of two layers.
func tinyJob(words bool, how *bench.E2E) bench.Job {
	s := testSettings()
	s.Threads = 1
	return bench.Job{
		Model: bench.Model{Name: synth.Tiny, Weights: result.SyntheticWeights, Seed: 1, Words: words},
		Seed:  1, Settings: s, E2E: how,
	}
}

func tinyEngine(t *testing.T, job bench.Job) *Engine {
	t.Helper()
	e, err := New(job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := e.Load(t.Context(), func(bench.Event) {}); err != nil {
		t.Fatal(err)
	}
	return e
}

// Repetitions of an end-to-end test generate the same tokens from the same text,
// and note when each was there. Other tests generate no text.
func TestEndToEnd(t *testing.T) {
	how := bench.DefaultE2E()
	how.Prompt = "The machine answers in words. "
	e := tinyEngine(t, tinyJob(true, &how))
	if err := e.Begin(result.Test{Prompt: 30, Gen: 6, E2E: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Warmup(); err != nil {
		t.Fatal(err)
	}
	var first *result.Generated
	for n := 1; n <= 3; n++ {
		elapsed, err := e.Repeat(n, true)
		if err != nil {
			t.Fatal(err)
		}
		g := e.Generated()
		if g == nil || len(g.Tokens) != 6 || len(g.At) != 6 || g.Bytes <= 0 {
			t.Fatalf("repetition %d generated %+v", n, g)
		}
		if g.At[0] <= 0 || !slices.IsSorted(g.At) || g.At[5] != elapsed {
			t.Errorf("repetition %d of %v has its tokens at %v", n, elapsed, g.At)
		}
		if first == nil {
			first = g
		}
		if diff := cmp.Diff(first.Tokens, g.Tokens); diff != "" {
			t.Errorf("repetition %d (-first +this):\n%s", n, diff)
		}
	}
	// BOS, then the text over and over: seven tokens of it.
	tokens := e.prompt
	if tokens[0] != e.model.Facts().BOS || !slices.Equal(tokens[1:8], tokens[8:15]) || slices.Equal(tokens[1:7], tokens[2:8]) {
		t.Errorf("prompt is %v", tokens)
	}
	if err := e.Begin(result.Test{Gen: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Repeat(1, true); err != nil || e.Generated() != nil {
		t.Errorf("tg2 generated %v, %v", e.Generated(), err)
	}
}

// With a temperature of 0 the likeliest tokens are picked, whatever the seed.
func TestGreedy(t *testing.T) {
	run := func(seed uint64, temperature float64) []int32 {
		how := bench.DefaultE2E()
		how.Temperature = temperature
		job := tinyJob(true, &how)
		job.Seed = seed
		e := tinyEngine(t, job)
		if err := e.Begin(result.Test{Prompt: 16, Gen: 8, E2E: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Repeat(1, true); err != nil {
			t.Fatal(err)
		}
		return e.Generated().Tokens
	}
	if one, two := run(1, 0), run(2, 0); !slices.Equal(one, two) {
		t.Errorf("without chance: %v, %v", one, two)
	}
	if one, two := run(1, 0.8), run(2, 0.8); slices.Equal(one, two) {
		t.Errorf("by chance: %v twice", one)
	}
}

func TestEndToEndRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		words  bool
		prompt string
		test   result.Test
		want   error
		text   string
	}{
		"no tokenizer": {false, "", result.Test{Prompt: 8, Gen: 2, E2E: true}, llama.ErrNoTokenizer, "has no tokenizer"},
		"too long":     {true, "", result.Test{Prompt: 2047, Gen: 2, E2E: true}, bench.ErrUnsupported, "do not fit the model's context of 2048 tokens"},
		"not UTF-8":    {true, "caf\xe9", result.Test{Prompt: 8, Gen: 2, E2E: true}, llama.ErrInvalidUTF8, "prompt: "},
		"depth":        {true, "", result.Test{Prompt: 8, Gen: 2, Depth: 8, E2E: true}, nil, "no depth"},
	} {
		t.Run(name, func(t *testing.T) {
			how := bench.DefaultE2E()
			how.Prompt = tt.prompt
			e := tinyEngine(t, tinyJob(tt.words, &how))
			err := e.Begin(tt.test)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, want %q", err, tt.text)
			}
			if err := e.Begin(result.Test{Gen: 1}); err != nil {
				t.Errorf("the next test: %v", err)
			}
		})
	}
}
