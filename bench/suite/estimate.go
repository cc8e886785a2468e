package suite

import (
	"time"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Longest is the test that needs the longest context, the first of several.
func (p Plan) Longest() result.Test {
	var longest result.Test
	for _, t := range p.Tests {
		if t.Test.Context() > longest.Context() {
			longest = t.Test
		}
	}
	return longest
}

// Memory estimates what the plan's longest test needs of the model with this
// header, in passes of ubatch tokens and with a KV cache of f16. Against the
// buffers that libllama 0.7.0 logs for SmolLM, qwen and gemma with 16 to 16,384
// tokens, on a CPU that repacks, the KV cache is exact, compute buffers are within
// 1 % and weights within 3 % (TestMemory has the figures).
func (p Plan) Memory(header *gguf.File, ubatch int) gguf.Memory {
	return header.Memory(p.Longest().Context(), ubatch, gguf.F16, gguf.F16)
}

// UpperBound is the time that the plan may take by its budgets: that of loading
// and those of all tests. Downloads, reading the file ahead and a second load
// after a crash come on top. ok is false when something has no limit.
func (p Plan) UpperBound() (bound time.Duration, ok bool) {
	bound, ok = p.LoadBudget, p.LoadBudget > 0
	for _, t := range p.Tests {
		ok = ok && t.Budget > 0
		bound = sum(bound, t.Budget)
	}
	return bound, ok
}

// Likely is the time that tests of known speed likely take, each at most its
// budget, and their number. What is known is the time of one repetition of a
// test, from an earlier run; a prompt is passed once more to warm up. Loading,
// and the creation of contexts, are not in it.
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

// sum adds durations that are not negative, up to longest.
func sum(a, b time.Duration) time.Duration { return min(a+min(b, longest), longest) }
