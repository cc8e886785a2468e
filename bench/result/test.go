// Package result is the data model: what was asked (Test), what was measured
// (Sample), what became of it (Outcome), and the record that readers of
// llama-bench output understand (Record).
//
// It imports nothing of this module, so every other package can speak it.
package result

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is the kind of a test, in llama-bench's two-letter names, and one of our
// own.
type Kind string

// The kinds of test.
const (
	PromptProcessing Kind = "pp"  // a prompt, in batches
	TextGeneration   Kind = "tg"  // tokens, one at a time
	PromptGeneration Kind = "pg"  // a prompt, then tokens, timed together
	EndToEnd         Kind = "e2e" // text in, sampled tokens out as text, each with its time
)

// MaxTokens bounds each length of a test. No model of today has a longer
// context, and a larger number is a typing mistake that would end in a failed
// allocation of the KV cache.
const MaxTokens = 1 << 24

// Test is one measurement: Prompt tokens processed in batches, then Gen tokens
// generated one at a time, after Depth tokens that are in the KV cache already
// and are not timed. Lengths are in tokens, each in [0, MaxTokens]. With E2E the
// prompt is text, and generated tokens are sampled and turned into text; it has
// both lengths and no depth.
type Test struct {
	Prompt int  `json:"n_prompt"`
	Gen    int  `json:"n_gen"`
	Depth  int  `json:"n_depth,omitempty"`
	E2E    bool `json:"e2e,omitempty"`
}

// Kind tells what the test times.
func (t Test) Kind() Kind {
	switch {
	case t.E2E:
		return EndToEnd
	case t.Gen == 0:
		return PromptProcessing
	case t.Prompt == 0:
		return TextGeneration
	default:
		return PromptGeneration
	}
}

// Tokens is the number of tokens that one repetition times: what llama-bench
// divides by the elapsed time.
func (t Test) Tokens() int { return t.Prompt + t.Gen }

// Context is the number of tokens the KV cache must hold.
func (t Test) Context() int { return t.Prompt + t.Gen + t.Depth }

// String names the test as llama-bench's table does: pp512, tg128,
// pp512+tg128, tg32 @ d4096; and e2e512+128.
func (t Test) String() string {
	var b strings.Builder
	switch t.Kind() {
	case PromptProcessing:
		fmt.Fprintf(&b, "pp%d", t.Prompt)
	case TextGeneration:
		fmt.Fprintf(&b, "tg%d", t.Gen)
	case PromptGeneration:
		fmt.Fprintf(&b, "pp%d+tg%d", t.Prompt, t.Gen)
	case EndToEnd:
		fmt.Fprintf(&b, "e2e%d+%d", t.Prompt, t.Gen)
	}
	if t.Depth > 0 {
		fmt.Fprintf(&b, " @ d%d", t.Depth)
	}
	return b.String()
}

// Validate reports the first length that is out of range.
func (t Test) Validate() error {
	for _, l := range []struct {
		name string
		n    int
	}{{"prompt", t.Prompt}, {"generation", t.Gen}, {"depth", t.Depth}} {
		if l.n < 0 || l.n > MaxTokens {
			return fmt.Errorf("%s length %d is outside 0…%d tokens", l.name, l.n, MaxTokens)
		}
	}
	if t.E2E && (t.Prompt == 0 || t.Gen == 0 || t.Depth > 0) {
		return errors.New("an end-to-end test needs a prompt and a generation length above 0 tokens, and no depth")
	}
	if t.Tokens() == 0 {
		return errors.New("a test needs a prompt or a generation length above 0 tokens")
	}
	return nil
}
