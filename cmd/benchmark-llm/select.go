package main

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// selectOptions are the flags that choose what is measured. run and plan have them.
type selectOptions struct {
	models      commandline.Models
	modelURLs   commandline.Sources
	suiteFile   string
	weights     string
	modelsDir   string
	diskReserve commandline.Size
	prompt, gen commandline.Lengths
	depth       commandline.Lengths
	combined    commandline.Pairs
	e2e         commandline.Pairs
	repetitions int

	testTimeout  time.Duration
	scale        float64
	timeLimit    time.Duration // of the run; 0: none
	downloadTime time.Duration // of each wait for a file
	seed         uint64

	flags *pflag.FlagSet
}

// defaultTimeLimit of a suite leaves a margin to 90 minutes, after which the fleet
// kills a run and loses its results.
const defaultTimeLimit = 80 * time.Minute

func (o *selectOptions) register(f *pflag.FlagSet) {
	o.flags = f
	o.diskReserve = fetch.DefaultReserveBytes
	o.prompt.Values, o.gen.Values, o.depth.Values = []int{512}, []int{128}, []int{0}
	inGroup(f, groupWhat, func() {
		f.VarP(&o.models, "model", "m", "`model`: name, path, URL, hf:user/repo[:quant] or hf:user/repo/file[@revision]; repeatable")
		f.Var(&o.modelURLs, "model-urls", "`models` for the suite's tests, separated by spaces or commas (default: the six default models)")
		f.StringVar(&o.suiteFile, "suite", "", "suite `file` (YAML): models, lengths, targets, repetitions")
		f.VarP(&o.prompt, "n-prompt", "p", "prompt lengths in `tokens`, one test each: 16,128 or 16-512*2; 0: none")
		f.VarP(&o.gen, "n-gen", "n", "generation lengths in `tokens`, one test each; 0: none")
		f.Var(&o.combined, "pg", "prompt and generation lengths of a combined test, as 512,128; repeatable")
		f.Var(&o.e2e, "e2e", "prompt and generation lengths of an end-to-end test (text in, text out), as 512,128; repeatable")
		f.VarP(&o.depth, "n-depth", "d", "`tokens` in the KV cache before each test, not timed (default 0)")
		f.IntVarP(&o.repetitions, "repetitions", "r", 5, "`number` of timed repetitions of each test, 1…10000")
		f.StringVar(&o.weights, "weights", string(acquire.File), "`source` of weights: file, synthetic (no file), auto (file, else synthetic)")
	})
	inGroup(f, groupHow, func() {
		f.DurationVar(&o.testTimeout, "timeout", 0, "`time` limit of each test, as 90s or 5m; 0s: none (default: by size and length)")
		f.Float64Var(&o.scale, "benchmark-timeout-scale", 1, "`factor` for the default time limits, above 0")
		f.DurationVar(&o.timeLimit, "time-limit", 0, "`time` limit of the run, downloads included; 0s: none (default: 80m for a suite, none with -m)")
		f.DurationVar(&o.downloadTime, "download-timeout", 15*time.Minute, "longest `time` to wait for one file; 0s: no limit")
	})
	inGroup(f, groupOutput, func() {
		f.Var(&o.diskReserve, "disk-reserve", "`size` that downloads leave free on the disk, as 2GiB")
		f.StringVar(&o.modelsDir, "models-dir", "", "`directory` of model files (default: /models if writable, else the user's cache)")
	})
	inGroup(f, groupAdvanced, func() {
		f.Uint64Var(&o.seed, "seed", 1, "`seed` of random tokens and synthetic weights")
	})
}

// given tells whether models are given one by one, with the same tests for each, as to
// llama-bench.
func (o *selectOptions) given() bool { return len(o.models) > 0 }

// timeout returns the time limit of each test; nil: by size and length.
func (o *selectOptions) timeout() *time.Duration {
	if !o.flags.Changed("timeout") {
		return nil
	}
	return &o.testTimeout
}

// newClient returns a client that fetches files, with the settings of the hub's own
// tools. A brisk client gives up early on hosts that cannot be reached.
func newClient(brisk bool) *fetch.Client {
	c := &fetch.Client{UserAgent: "benchmark-llm/" + version, Log: slog.Default(), Brisk: brisk, Hint: hostHint}
	c.UseHubSettings(os.Getenv)
	return c
}

// finder returns how models are found with these flags, for weights and a directory of
// models that may be those of an earlier run.
func (o *selectOptions) finder(w acquire.Weights, dir string) acquire.Finder {
	client := newClient(w == acquire.Auto)
	client.ReserveBytes = (*int64)(&o.diskReserve)
	return acquire.Finder{Client: client, Dirs: acquire.DirsOf(dir), Weights: w}
}

// check refuses invalid values and derives the time limit of the run.
func (o *selectOptions) check() error {
	if err := oneOf("--weights", o.weights, acquire.AllWeights()); err != nil {
		return err
	}
	var choices []string
	for flag, is := range map[string]bool{"-m": len(o.models) > 0, "--model-urls": len(o.modelURLs) > 0, "--suite": o.suiteFile != ""} {
		if is {
			choices = append(choices, flag)
		}
	}
	if slices.Sort(choices); len(choices) > 1 {
		return usage("give only one of them: each chooses the models", "%s cannot be given together", strings.Join(choices, " and "))
	}
	if o.repetitions < 1 || o.repetitions > suite.MaxRepetitions {
		return usage("try 5, llama-bench's default", "--repetitions: %d is outside 1…%d", o.repetitions, suite.MaxRepetitions)
	}
	if !(o.scale > 0) || math.IsInf(o.scale, 0) {
		return usage("try 1, the default; 2 doubles the time", "--benchmark-timeout-scale: %v is not above 0", o.scale)
	}
	for _, c := range []struct {
		flag  string
		limit time.Duration
	}{{"--timeout", o.testTimeout}, {"--time-limit", o.timeLimit}, {"--download-timeout", o.downloadTime}} {
		if c.limit < 0 {
			return usage("use 0s for no limit", "%s: %v is negative", c.flag, c.limit)
		}
	}
	if !o.flags.Changed("time-limit") && !o.given() {
		o.timeLimit = scaled(defaultTimeLimit, o.scale)
	}
	return nil
}

// scaled returns a limit times the scale, bounded to avoid overflow.
func scaled(d time.Duration, scale float64) time.Duration {
	return time.Duration(min(float64(d)*scale, float64(math.MaxInt64/4)))
}

// suite returns the suite that the flags ask for. Models that are not on this
// machine have their published size, or 0.
func (o *selectOptions) suite() (suite.Suite, error) {
	s, err := o.chosen()
	if err != nil {
		return s, err
	}
	if o.suiteFile == "" || o.flags.Changed("repetitions") {
		s.Repetitions = o.repetitions
	}
	tests, err := o.tests()
	if err != nil {
		return s, err
	}
	for i := range s.Models {
		m := &s.Models[i]
		if tests != nil {
			m.Tests = tests
		}
		for _, t := range m.Tests {
			if most := result.MaxGenerated / s.Repetitions; t.E2E && t.Gen > most {
				return s, usage(fmt.Sprintf("generate at most %d tokens with %s", most, result.Count(s.Repetitions, "repetition")),
					"%v: %d × %d generated tokens exceed the limit of %d per test", t, s.Repetitions, t.Gen, result.MaxGenerated)
			}
		}
		if text := m.Source.Given; !utf8.ValidString(text) {
			return s, fail(exitModel, fmt.Errorf("the name %q is not UTF-8, which records need", text), "rename the file")
		}
	}
	if first, second := suite.NameApart(s.Models); second >= 0 {
		return s, usage("give each model once", "two models cannot be told apart: %s and %s", s.Models[first].Source, s.Models[second].Source)
	}
	return s, nil
}

// chosen returns the suite that the flags choose, without their lengths.
func (o *selectOptions) chosen() (suite.Suite, error) {
	s := suite.Default()
	switch {
	case o.suiteFile != "":
		f, err := os.Open(o.suiteFile)
		if err != nil {
			return s, usage(causeHint(err, "give the path of a YAML file"), "--suite: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		if s, err = suite.Read(f, o.suiteFile); err != nil {
			return s, usage("https://github.com/sparecores/benchmark-llm/blob/main/bench/suite/README.md describes suite files", "%w", err)
		}
	case o.given(), len(o.modelURLs) > 0:
		ctx, stop := interruptible(nil)
		defer stop()
		tests := s.Models[0].Tests
		s.Models, s.GivenOrder = nil, o.given()
		for _, text := range slices.Concat(o.models, commandline.Models(o.modelURLs)) {
			from, err := acquire.Named(ctx, newClient(false), text)
			if err = causeOf(ctx, "nothing was measured", err); err != nil {
				return s, err
			}
			m := suite.Entry{Source: from, Name: from.Name(), Tests: tests}
			if d, ok := suite.LookupModel(text); ok {
				m.SizeBytes = d.SizeBytes
			}
			s.Models = append(s.Models, m)
		}
	}
	return s, nil
}

// tests returns the tests that the flags give for every model; nil: those of the suite.
func (o *selectOptions) tests() ([]result.Test, error) {
	prompt, gen := o.given() || o.flags.Changed("n-prompt"), o.given() || o.flags.Changed("n-gen")
	lengths := prompt || gen || o.combined.Values != nil || o.e2e.Values != nil
	if !lengths && !o.flags.Changed("n-depth") {
		return nil, nil
	}
	if !lengths {
		return nil, usage("give the lengths with -p and -n", "-d needs -p, -n, --pg or --e2e")
	}
	l := suite.Lengths{Combined: o.combined.Values, E2E: o.e2e.Values, Depth: o.depth.Values}
	if prompt {
		l.Prompt = o.prompt.Values
	}
	if gen {
		l.Gen = o.gen.Values
	}
	tests, err := l.Tests()
	if err != nil {
		return nil, usage("try -p 512 -n 128, the default", "%w", err)
	}
	if len(tests) == 0 {
		return nil, usage("try -p 512 -n 128, the default", "no test: every length is 0")
	}
	return tests, nil
}
