// Package result is the data model: what to measure (Test), what was measured
// (Sample), how a test ended (Outcome), and the record that readers of llama-bench
// output understand (Record).
//
// It imports no other package of this module, and every other package may use it.
package result

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Kind is the kind of a test. The names are llama-bench's, except that of
// EndToEnd.
type Kind string

// The kinds of test.
const (
	PromptProcessing Kind = "pp"  // a prompt, in batches
	TextGeneration   Kind = "tg"  // tokens, one at a time
	PromptGeneration Kind = "pg"  // a prompt, then tokens, timed together
	EndToEnd         Kind = "e2e" // text in, sampled tokens out as text, each with its time
)

// MaxTokens bounds each length of a test. No current model has a longer context. A
// larger number is a typing mistake, and the KV cache could not be allocated.
const MaxTokens = 1 << 24

// Test is one measurement. Prompt tokens are processed in batches, then Gen tokens
// are generated one at a time. Before, the KV cache is filled with Depth tokens,
// which is not timed. Lengths are in tokens, each in [0, MaxTokens]. In an
// end-to-end test (E2E) the prompt is text, and generated tokens are sampled and
// turned into text. It has both lengths and no depth. Its text is cut or repeated to
// the prompt's length, and an end-of-text token does not end it, so results of models
// can be compared. Tests of the same lengths that are measured with several settings
// differ in Settings.
type Test struct {
	Prompt int  `json:"n_prompt"`
	Gen    int  `json:"n_gen"`
	Depth  int  `json:"n_depth,omitempty"`
	E2E    bool `json:"e2e,omitempty"`

	// Settings names the values of the settings that a run measures several values of, as
	// flags: "-t 2 -ub 128". Empty: every setting has one value.
	Settings string `json:"settings,omitempty"`
}

// maxSettingsBytes bounds the name of a test's settings. Patterns of tensors can be long.
const maxSettingsBytes = 4096

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

// Tokens is the number of tokens that one repetition times. Divided by the elapsed
// time it is the speed, as in llama-bench.
func (t Test) Tokens() int { return t.Prompt + t.Gen }

// Context is the number of tokens the KV cache must hold.
func (t Test) Context() int { return t.Prompt + t.Gen + t.Depth }

// SameSeries tells whether the two tests belong to one series: tests of one kind,
// depth and settings, which differ only in length.
func (t Test) SameSeries(other Test) bool {
	return t.Kind() == other.Kind() && t.Depth == other.Depth && t.Settings == other.Settings
}

// ShorterInSeries tells whether the test belongs to other's series and has fewer
// tokens.
func (t Test) ShorterInSeries(other Test) bool {
	return t.SameSeries(other) && t.Tokens() < other.Tokens()
}

// SeriesLast compares two tests for a stable sort that puts the tests of t's
// series behind all others.
func (t Test) SeriesLast(a, b Test) int {
	switch aSame, bSame := t.SameSeries(a), t.SameSeries(b); {
	case aSame == bSame:
		return 0
	case aSame:
		return 1
	default:
		return -1
	}
}

// Longest is the test with the longest context, the first of several. It is the
// zero Test where there is none.
func Longest(tests ...Test) Test {
	var longest Test
	for _, t := range tests {
		if t.Context() > longest.Context() {
			longest = t
		}
	}
	return longest
}

// String names the test by its lengths and its settings: "pp512 -t 2".
func (t Test) String() string {
	if t.Settings == "" {
		return t.Lengths()
	}
	return t.Lengths() + " " + t.Settings
}

// Lengths names the test as the table of llama-bench does: pp512, tg128,
// pp512+tg128, tg32 @ d4096. An end-to-end test is e2e512+128.
func (t Test) Lengths() string {
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
	if len(t.Settings) > maxSettingsBytes || strings.ContainsFunc(t.Settings, unicode.IsControl) {
		return errors.New("the name of a test's settings is too long or not text")
	}
	if t.E2E && (t.Prompt == 0 || t.Gen == 0 || t.Depth > 0) {
		return errors.New("an end-to-end test needs a prompt and a generation length above 0 tokens, and no depth")
	}
	if t.Tokens() == 0 {
		return errors.New("a test needs a prompt or a generation length above 0 tokens")
	}
	return nil
}
