package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// selectOptions are the flags that say what is measured: run and plan have them.
type selectOptions struct {
	model       string
	modelURLs   sourcesFlag
	suiteFile   string
	weights     string
	modelsDir   string
	prompt, gen lengthsFlag
	depth       lengthsFlag
	combined    pairsFlag
	e2e         pairsFlag
	repetitions int

	timeoutText  durationFlag
	timeout      *time.Duration // of each test; nil: by size and length
	scale        float64
	timeLimit    time.Duration // of the run; 0: none
	limit        durationFlag
	downloadTime time.Duration // of each wait for a file
	seed         uint64

	flags *pflag.FlagSet
}

// defaultTimeLimit is well inside the 90 minutes after which the fleet ends a
// run and loses it.
const defaultTimeLimit = 80 * time.Minute

func (o *selectOptions) register(f *pflag.FlagSet) {
	o.flags = f
	o.prompt.values, o.gen.values, o.depth.values = []int{512}, []int{128}, []int{0}
	f.StringVarP(&o.model, "model", "m", "", "one model: `path`, https URL, hf:user/repo/file[@revision] or a default model's name; runs -p 512 -n 128 unless they are given")
	f.Var(&o.modelURLs, "model-urls", "models to run the suite's tests on: URLs, hf:…, paths; separated by spaces or commas, or the flag again (default: the six of the default suite)")
	f.StringVar(&o.suiteFile, "suite", "", "YAML `file` with models, tests, targets and repetitions of one's own")
	f.StringVar(&o.weights, "weights", "file", "`source` of the weights: file; synthetic: generated in the model's shape, no file needed; auto: synthetic where the file cannot be had")
	f.StringVar(&o.modelsDir, "models-dir", "", "`directory` of model files (default: /models where it can be written, else the user's cache)")
	f.VarP(&o.prompt, "n-prompt", "p", "prompt lengths in tokens, a test each: 16,128 or 16-512*2; 0: none")
	f.VarP(&o.gen, "n-gen", "n", "generation lengths in tokens, a test each; 0: none")
	f.Var(&o.combined, "pg", "combined test of a prompt and a generation, as 512,128; may be repeated")
	f.Var(&o.e2e, "e2e", "end-to-end test, as 512,128: so many tokens of text in, so many sampled and turned into text (EOS does not end it), with the time of each; may be repeated")
	f.VarP(&o.depth, "n-depth", "d", "tokens in the KV cache before each test, not timed (default 0)")
	f.IntVarP(&o.repetitions, "repetitions", "r", 5, "`number` of timed repetitions of each test, 1…10000")
	f.Var(&o.timeoutText, "timeout", "time limit of each `test`, as 90s or 5m; 0s: none (default: by size and length)")
	f.Float64Var(&o.scale, "benchmark-timeout-scale", 1, "`factor` on the default time limits, above 0")
	f.Var(&o.limit, "time-limit", "time limit of the whole `run`, downloads included; 0s: none (default: 80m times the scale for a suite, none with -m)")
	f.DurationVar(&o.downloadTime, "download-timeout", 15*time.Minute, "longest `wait` for one model's file; 0s: none")
	f.Uint64Var(&o.seed, "seed", 1, "`seed` of the tokens and of synthetic weights")
}

// auto tells whether weights are generated where a model would be lost
// otherwise.
func (o *selectOptions) auto() bool { return o.weights == autoWeights }

// one tells whether one model was asked for, as llama-bench is.
func (o *selectOptions) one() bool { return o.model != "" }

// check refuses what cannot be meant, and settles what follows from other flags.
func (o *selectOptions) check() error {
	if allowed := []string{string(result.FileWeights), string(result.SyntheticWeights), autoWeights}; !slices.Contains(allowed, o.weights) {
		return usage("one of "+strings.Join(allowed, ", "), "--weights: unknown value %q", o.weights)
	}
	var given []string
	for flag, is := range map[string]bool{"-m": o.model != "", "--model-urls": len(o.modelURLs) > 0, "--suite": o.suiteFile != ""} {
		if is {
			given = append(given, flag)
		}
	}
	if slices.Sort(given); len(given) > 1 {
		return usage("each of them says which models", "%s cannot be given together", strings.Join(given, " and "))
	}
	if o.repetitions < 1 || o.repetitions > suite.MaxRepetitions {
		return usage("5 is what llama-bench does", "--repetitions: %d is outside 1…%d", o.repetitions, suite.MaxRepetitions)
	}
	if !(o.scale > 0) || math.IsInf(o.scale, 0) {
		return usage("1 is the default, 2 gives twice the time", "--benchmark-timeout-scale: %v is not above 0", o.scale)
	}
	for _, c := range []struct {
		flag string
		d    time.Duration
	}{{"--timeout", o.timeoutText.d}, {"--time-limit", o.limit.d}, {"--download-timeout", o.downloadTime}} {
		if c.d < 0 {
			return usage("0s is no limit", "%s: %v is negative", c.flag, c.d)
		}
	}
	if o.timeoutText.set {
		o.timeout = &o.timeoutText.d
	}
	o.timeLimit = o.limit.d
	if !o.limit.set && !o.one() {
		o.timeLimit = scaled(defaultTimeLimit, o.scale)
	}
	return nil
}

// scaled is a limit times the scale, bounded so that it cannot overflow.
func scaled(d time.Duration, scale float64) time.Duration {
	return time.Duration(min(float64(d)*scale, float64(math.MaxInt64/4)))
}

// suite is what the flags ask for. Sizes of models that are not here are those
// published, or 0.
func (o *selectOptions) suite() (suite.Suite, error) {
	s := suite.Default()
	switch {
	case o.suiteFile != "":
		f, err := os.Open(o.suiteFile)
		if err != nil {
			return s, fail(exitUsage, fmt.Errorf("--suite: %w", err), "give the path of a YAML file")
		}
		defer f.Close() //nolint:errcheck // it was only read
		if s, err = suite.Read(f, o.suiteFile); err != nil {
			return s, fail(exitUsage, err, "the README shows a suite file")
		}
	case o.model != "":
		one := suite.Entry{Source: o.model}
		if d, ok := suite.LookupModel(o.model); ok {
			one.SizeBytes = d.SizeBytes
		}
		s.Models = []suite.Entry{one}
	case len(o.modelURLs) > 0:
		tests := s.Models[0].Tests
		s.Models = nil
		for _, source := range o.modelURLs {
			s.Models = append(s.Models, suite.Entry{Source: source, Tests: tests})
		}
	}
	if o.suiteFile == "" || o.flags.Changed("repetitions") {
		s.Repetitions = o.repetitions
	}
	if o.one() || o.prompt.set || o.gen.set || o.combined.values != nil || o.e2e.values != nil || o.depth.set {
		l := suite.Lengths{Prompt: o.prompt.values, Gen: o.gen.values, Combined: o.combined.values, E2E: o.e2e.values, Depth: o.depth.values}
		if !o.one() && !o.prompt.set {
			l.Prompt = nil // only what was asked for
		}
		if !o.one() && !o.gen.set {
			l.Gen = nil
		}
		if !o.one() && !o.prompt.set && !o.gen.set && o.combined.values == nil && o.e2e.values == nil { // the suite's, at a depth
			return s, usage("-p and -n give the lengths", "-d needs lengths of tests")
		}
		tests, err := l.Tests()
		if err != nil {
			return s, usage("-p 512 -n 128 is the default", "%w", err)
		}
		if len(tests) == 0 {
			return s, usage("-p 512 -n 128 is the default", "no test: every length is 0")
		}
		for i := range s.Models {
			s.Models[i].Tests = tests
		}
	}
	names := make(map[string]string)
	for i := range s.Models {
		m := &s.Models[i]
		for _, t := range m.Tests {
			if most := result.MaxGenerated / s.Repetitions; t.E2E && t.Gen > most {
				return s, usage(fmt.Sprintf("%d repetitions can have %d tokens each", s.Repetitions, most),
					"%v: the times of %d × %d tokens are more than are kept", t, s.Repetitions, t.Gen)
			}
		}
		if !utf8.ValidString(m.Source) {
			return s, fail(exitModel, fmt.Errorf("the name %q is not UTF-8, which records need", m.Source), "rename the file")
		}
		source, err := fetch.ParseSource(m.Source)
		if err != nil {
			return s, fail(exitModel, err, sourcesHint)
		}
		if m.Name == "" {
			m.Name = source.Name()
		}
		if other, taken := names[m.Name]; taken {
			return s, usage("records are told apart by the file's name", "two models are called %s: %s and %s", m.Name, other, source)
		}
		names[m.Name] = source.String()
	}
	return s, nil
}

const sourcesHint = "-m takes https URLs of GGUF files, hf:user/repository/file[@revision], and paths"

// dirs are where model files may lie.
func (o *selectOptions) dirs() []string {
	if o.modelsDir != "" {
		return []string{o.modelsDir}
	}
	return modelsDirs()
}

// downloadDir is where model files are put: --models-dir, else the first of the
// usual places that can be written.
func (o *selectOptions) downloadDir() string {
	dirs := o.dirs()
	for _, d := range dirs {
		if unix.Access(d, unix.W_OK) == nil {
			return d
		}
	}
	return dirs[len(dirs)-1] // made when it is needed
}

// modelsDirs are where default models may lie.
func modelsDirs() []string {
	dirs := []string{"/models"}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "benchmark-llm", "models"))
	}
	return dirs
}

// durationFlag is a duration that knows whether it was given.
type durationFlag struct {
	d   time.Duration
	set bool
}

func (d *durationFlag) Type() string { return "duration" }

func (d *durationFlag) String() string {
	if !d.set {
		return ""
	}
	return d.d.String()
}

func (d *durationFlag) Set(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a time, as 90s or 5m", text)
	}
	d.d, d.set = v, true
	return nil
}

// sourcesFlag is a list of models. Giving the flag again adds to it.
type sourcesFlag []string

func (s *sourcesFlag) Type() string   { return "models" }
func (s *sourcesFlag) String() string { return strings.Join(*s, " ") }

func (s *sourcesFlag) Set(text string) error {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		if !fetch.LooksLikeSource(word) {
			return fmt.Errorf("%q is not a model", word)
		}
		*s = append(*s, word)
	}
	return nil
}

// spreadSources gives each word after --model-urls a flag of its own, as long as
// it can only be a model: people and pipelines write --model-urls A B C.
func spreadSources(args []string) []string {
	const flag = "--model-urls"
	var spread []string
	for i := 0; i < len(args); i++ {
		spread = append(spread, args[i])
		if args[i] == "--" {
			return append(spread, args[i+1:]...)
		}
		if args[i] == flag && i+1 < len(args) {
			i++
			spread = append(spread, args[i])
		} else if !strings.HasPrefix(args[i], flag+"=") {
			continue
		}
		for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") && fetch.LooksLikeSource(args[i+1]) {
			i++
			spread = append(spread, flag, args[i])
		}
	}
	return spread
}
