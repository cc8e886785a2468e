package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// endToEndOptions are the flags of run for end-to-end tests.
type endToEndOptions struct {
	endToEnd   bench.E2E
	promptFile string
	tokenTimes string
}

func (o *endToEndOptions) register(f *pflag.FlagSet) {
	o.endToEnd = bench.DefaultE2E()
	e := &o.endToEnd
	inGroup(f, groupHow, func() {
		f.StringVar(&o.promptFile, "prompt-file", "", "text `file` for --e2e, cut or repeated to the length; -: stdin (default: a built-in text)")
		f.Float64Var(&e.Temperature, "temp", e.Temperature, "sampling `temperature` of --e2e; 0: always the likeliest token")
		f.IntVar(&e.TopK, "top-k", e.TopK, "`number` of likeliest tokens that --e2e samples from; 0: all")
		f.Float64Var(&e.TopP, "top-p", e.TopP, "total `probability` of the tokens that --e2e samples from, 0…1")
	})
	inGroup(f, groupOutput, func() {
		f.StringVar(&o.tokenTimes, "token-times", "", "`file` for the time of every token of --e2e (JSON lines)")
	})
}

// check refuses values that make no sense.
func (o *endToEndOptions) check() error {
	switch e := o.endToEnd; {
	case !(e.Temperature >= 0) || math.IsInf(float64(float32(e.Temperature)), 0):
		return usage("0.8 is the default, 0 takes the likeliest token", "--temp: %v is not a temperature", e.Temperature)
	case e.TopK < 0 || e.TopK > math.MaxInt32:
		return usage("40 is the default, 0 is all", "--top-k: %d is outside 0…%d", e.TopK, math.MaxInt32)
	case !(e.TopP >= 0 && e.TopP <= 1):
		return usage("0.95 is the default, 1 is all", "--top-p: %v is outside 0…1", e.TopP)
	}
	return nil
}

// maxPromptBytes is far above what any context holds.
const maxPromptBytes = 16 << 20

// readPrompt reads the text of --prompt-file, if it is given.
func (o *endToEndOptions) readPrompt() error {
	if o.promptFile == "" {
		return nil
	}
	name, in := o.promptFile, io.Reader(os.Stdin)
	if name == "-" {
		name = "stdin"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return usage("give the path of a text file", "--prompt-file: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPromptBytes+1))
	switch {
	case err != nil:
		return usage("give the path of a text file", "--prompt-file: %w", err)
	case len(text) > maxPromptBytes:
		return usage("a part of it is enough: it is cut to the length of --e2e", "--prompt-file: %s has more than %d bytes", name, maxPromptBytes)
	case len(bytes.TrimSpace(text)) == 0:
		return usage("leave --prompt-file out for the text built in", "--prompt-file: %s is empty", name)
	}
	for rest := text; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			return usage("convert it, for example with iconv -t UTF-8", "--prompt-file: %s is not UTF-8 at byte %d", name, len(text)-len(rest))
		}
		rest = rest[n:]
	}
	o.endToEnd.Prompt = string(text)
	return nil
}

// tokenTimes is the file of --token-times: a line of JSON for each token that an
// end-to-end test generated.
type tokenTimes struct{ f *os.File }

// tokenTime is a line of it.
type tokenTime struct {
	Model      string `json:"model"`
	Test       string `json:"test"`
	Repetition int    `json:"repetition"` // from 1
	Index      int    `json:"index"`      // of the token, from 1
	Token      int32  `json:"token"`      // of the vocabulary
	At         int64  `json:"ns"`         // when its text was there, since the start of the repetition
}

// createTokenTimes makes the file anew, for a run that is about to measure; nil if
// none is wanted.
func (o *endToEndOptions) createTokenTimes() (*tokenTimes, error) {
	if o.tokenTimes == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	f, err := os.Create(o.tokenTimes)
	if err != nil {
		return nil, fail(exitOutput, fmt.Errorf("--token-times: %w", err), "choose a place that can be written")
	}
	return &tokenTimes{f}, nil
}

// Event does nothing: the file gets outcomes.
func (*tokenTimes) Event(bench.Stamped) error { return nil }

// Outcome adds the tokens of all repetitions that completed, also of a test that
// did not. A nil receiver keeps nothing.
func (t *tokenTimes) Outcome(o *result.Outcome) error {
	if t == nil {
		return nil
	}
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	for _, s := range o.Samples {
		if s.Generated == nil {
			continue
		}
		for i, token := range s.Generated.Tokens {
			line := tokenTime{o.Model, o.Test.String(), s.Repetition, i + 1, token, s.Generated.At[i].Nanoseconds()}
			if err := e.Encode(line); err != nil {
				return err
			}
		}
	}
	if _, err := t.f.Write(lines.Bytes()); err != nil {
		return fail(exitOutput, fmt.Errorf("--token-times: %w", err), "free disk space, or choose another place")
	}
	return nil
}

// close is idempotent.
func (t *tokenTimes) close() error {
	if t == nil {
		return nil
	}
	if err := t.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fail(exitOutput, fmt.Errorf("--token-times: %w", err), "free disk space, or choose another place")
	}
	return nil
}
