package suite

import (
	"time"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Longest is the test that needs the longest context; the first of these if there
// are several.
func (p Plan) Longest() result.Test {
	var longest result.Test
	for _, t := range p.Tests {
		longest = result.Longest(longest, t.Test)
	}
	return longest
}

// Memory predicts the memory that the plan's longest test needs with the model of
// this header. c has the other settings.
func (p Plan) Memory(header *gguf.File, c gguf.Context) gguf.Memory {
	c.Tokens = p.Longest().Context()
	return header.Memory(c)
}

// UpperBound is the sum of the plan's budgets: that of loading and those of all
// tests. It does not include downloads, warming the page cache and loading again
// after a crash. ok is false if anything has no limit.
func (p Plan) UpperBound() (bound time.Duration, ok bool) {
	bound, ok = p.LoadBudget, p.LoadBudget > 0
	for _, t := range p.Tests {
		ok = ok && t.Budget > 0
		bound = sum(bound, t.Budget)
	}
	return bound, ok
}

// Likely is the time that tests of known speed will probably take, each at most
// its budget, and the number of these tests. repetition holds times of one
// repetition, from an earlier run. A test with a prompt has one more pass, for the
// warm-up. Loading and the creation of contexts are not included.
func (p Plan) Likely(repetition map[result.Test]time.Duration) (likely time.Duration, tests int) {
	for _, t := range p.Tests {
		one, ok := repetition[t.Test]
		if !ok {
			continue
		}
		passes := p.Repetitions
		if t.Test.Prompt > 0 {
			passes++
		}
		took := seconds(one.Seconds() * float64(passes))
		if t.Budget > 0 {
			took = min(took, t.Budget)
		}
		likely = sum(likely, took)
		tests++
	}
	return likely, tests
}

// sum adds durations that are not negative. The result is at most longest.
func sum(a, b time.Duration) time.Duration { return min(a+min(b, longest), longest) }
