package main

import (
	"bytes"
	"io"
	"math"
	"os"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
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
		f.StringVar(&o.tokenTimes, "token-times", "", "`file` to write the time of every token of --e2e to (JSON lines)")
	})
}

// check refuses values that make no sense.
func (o *endToEndOptions) check() error {
	switch e := o.endToEnd; {
	case !(e.Temperature >= 0) || math.IsInf(float64(float32(e.Temperature)), 0):
		return usage("try 0.8, the default; 0 takes the likeliest token", "--temp: %v is not a temperature", e.Temperature)
	case e.TopK < 0 || e.TopK > math.MaxInt32:
		return usage("try 40, the default; 0 samples from all tokens", "--top-k: %d is outside 0…%d", e.TopK, math.MaxInt32)
	case !(e.TopP >= 0 && e.TopP <= 1):
		return usage("try 0.95, the default; 1 samples from all tokens", "--top-p: %v is outside 0…1", e.TopP)
	}
	return nil
}

// maxPromptBytes is the largest prompt file, far above what any context holds.
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
			return usage(causeHint(err, "give the path of a text file"), "--prompt-file: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPromptBytes+1))
	switch {
	case err != nil:
		return usage(causeHint(err, "give the path of a text file"), "--prompt-file: %w", err)
	case len(text) > maxPromptBytes:
		return usage("shorten it: only the length of --e2e is used", "--prompt-file: %s has more than %d bytes", name, maxPromptBytes)
	case len(bytes.TrimSpace(text)) == 0:
		return usage("leave --prompt-file out to use the built-in text", "--prompt-file: %s is empty", name)
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
