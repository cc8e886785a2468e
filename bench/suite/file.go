package suite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/dustin/go-humanize/english"

	"go.yaml.in/yaml/v4"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// MaxRepetitions is the limit for the repetitions of a test.
const MaxRepetitions = 10_000

// Limits of a suite file. They bound the time and memory that reading it takes.
const (
	maxFileBytes = 1 << 20
	maxModels    = 100
	maxTests     = 1000 // of a model; also the limit for the items of a list of lengths
)

// Read reads a suite file: a YAML mapping. A key that is left out has the value of
// the default suite.
//
//	models:            # sources as in -m, or file names of default models
//	  - SmolLM-135M.Q4_K_M.gguf
//	  - source: hf:user/repository/file.gguf@revision
//	    name: file.gguf      # name in the records; default: the source's file name
//	    sha256: …            # 64 hexadecimal digits; only for a model in one file
//	    prompt: [16, 128]    # for this model; also generation, depth, combined, e2e
//	prompt: [16, 128]        # tokens; a test for each; one number, or [] for none
//	generation: 128          # tokens; a test for each
//	depth: [0, 4096]         # tokens; every test is run at each of these depths
//	combined: [[512, 128]]   # prompt and generation in tokens, timed together
//	e2e: [[512, 128]]        # end-to-end tests: tokens of input text, tokens of output text
//	repetitions: 5           # of each test, 1…10000
//	targets:                 # expected tokens per second by test length in tokens;
//	  prompt: {16: 2, 512: 25}   # budgets are computed from them
//	  generation: {16: 1}
//
// Default models come from the hub, at their pinned revisions. Other paths are
// relative to the working directory. Every error is one line. It starts with name
// and, if the mistake is in a line, with its number: "suite.yaml:3: …". An error of
// reading names the file as the file system does.
func Read(r io.Reader, name string) (Suite, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return Suite{}, result.AtPath(name, err)
	}
	if len(text) > maxFileBytes {
		return Suite{}, fmt.Errorf("%s: larger than %d bytes", name, maxFileBytes)
	}
	f := &file{name: name}
	s := f.suite(f.document(text))
	if f.err != nil {
		return Suite{}, f.err
	}
	return s, nil
}

// file is a suite file while it is read. It keeps the first mistake; what is read
// after a mistake is discarded.
//
// It walks the nodes itself. The library's decoding into structs with known fields
// would be worse for the user: it takes a key without a value for a key that is
// left out, it takes numbers for texts, an unknown key is reported with a Go type
// instead of the known keys, and a mistake in an alias gets the line of its anchor.
// An alias is followed only as deep as the schema goes, so a small file cannot
// become large when it is read.
type file struct {
	name        string
	err         error // the first mistake
	repetitions int   // of each test
}

// fail notes a mistake at a node, or in the whole file if at is nil.
func (f *file) fail(at *yaml.Node, format string, args ...any) {
	if f.err != nil {
		return
	}
	place := f.name
	if at != nil {
		place = fmt.Sprintf("%s:%d", f.name, at.Line)
	}
	f.err = fmt.Errorf("%s: "+format, append([]any{place}, args...)...)
}

// document is the root node of the file's only document.
func (f *file) document(text []byte) *yaml.Node {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	if err == nil {
		if err = d.Decode(&more); err == nil {
			f.fail(&more, "a second document; a suite file has one")
			return nil
		}
	} else if errors.Is(err, io.EOF) {
		f.fail(nil, "it is empty")
		return nil
	}
	var bad *yaml.LoadError
	switch {
	case errors.As(err, &bad) && bad.Mark.Line > 0:
		f.fail(&yaml.Node{Line: bad.Mark.Line}, "not YAML: %s", bad.Message)
	case bad != nil:
		f.fail(nil, "not YAML: %s", bad.Message)
	case !errors.Is(err, io.EOF):
		f.fail(nil, "not YAML: %w", err)
	}
	if f.err != nil || len(doc.Content) == 0 {
		return nil
	}
	if root := doc.Content[0]; root.Kind != yaml.ScalarNode || root.Value != "" {
		return root
	}
	f.fail(nil, "it is empty")
	return nil
}

// resolve returns the node that an alias refers to. Other nodes it returns as they
// are.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// fields returns the values of a mapping by their keys. Other keys than the known
// ones are a mistake.
func (f *file) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	values := make(map[string]*yaml.Node)
	if resolve(n).Kind != yaml.MappingNode {
		f.fail(n, "%s must be a mapping of keys to values; known keys are %s", what, strings.Join(known, ", "))
		return values
	}
	f.eachPair(n, func(key, value *yaml.Node) {
		switch name := key.Value; {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, name):
			f.fail(key, "unknown key %q of %s; known keys are %s", name, what, strings.Join(known, ", "))
		case values[name] != nil:
			f.fail(key, "%s is given twice", name)
		default:
			values[name] = value
		}
	})
	return values
}

// eachPair calls do with the keys and values of a mapping, until a mistake.
func (f *file) eachPair(n *yaml.Node, do func(key, value *yaml.Node)) {
	content := resolve(n).Content
	for i := 0; i+1 < len(content) && f.err == nil; i += 2 {
		do(content[i], content[i+1])
	}
}

// lengthKeys are the keys for lengths of tests.
var lengthKeys = []string{"prompt", "generation", "depth", "combined", "e2e"}

// suite reads the whole file.
func (f *file) suite(n *yaml.Node) Suite {
	s := Default()
	if f.err != nil || n == nil {
		return s
	}
	values := f.fields(n, "a suite", append([]string{"models", "repetitions", "targets"}, lengthKeys...)...)
	if len(values) == 0 {
		f.fail(nil, "it is empty")
	}
	if v := values["repetitions"]; v != nil {
		s.Repetitions = f.whole(v, "repetitions", 1, MaxRepetitions)
	}
	f.repetitions = max(1, s.Repetitions)
	lengths := f.lengths(values, defaultLengths())
	if v := values["targets"]; v != nil {
		s.Targets = f.targets(v)
	}
	v := values["models"]
	if v == nil {
		tests := f.tests(n, lengths)
		for i := range s.Models {
			s.Models[i].Tests = slices.Clone(tests)
		}
		return s
	}
	s.Models = nil
	if f.checkList(v, "models", maxModels); len(resolve(v).Content) == 0 {
		f.fail(v, "models is empty; leave it out for the default models")
	}
	var items []*yaml.Node
	f.eachItem(v, func(item *yaml.Node) {
		s.Models, items = append(s.Models, f.model(item, lengths)), append(items, item)
	})
	if f.err != nil {
		return s
	}
	if first, second := NameApart(s.Models); second >= 0 {
		f.fail(items[second], "the model in line %d has the same name %s; names must differ", items[first].Line, s.Models[second].Name)
	}
	return s
}

// model reads one of the models: a source alone, or a mapping.
func (f *file) model(n *yaml.Node, lengths Lengths) Entry {
	if resolve(n).Kind == yaml.ScalarNode {
		return f.source(n, f.tests(n, lengths))
	}
	values := f.fields(n, "a model", append([]string{"source", "name", "sha256"}, lengthKeys...)...)
	v := values["source"]
	if v == nil {
		f.fail(n, "the model has no source")
		return Entry{}
	}
	m := f.source(v, f.tests(n, f.lengths(values, lengths)))
	several := gguf.IsShard(m.Name)
	if v := values["name"]; v != nil {
		m.Name = f.text(v, "name")
		if err := source.CheckName(m.Name); err != nil {
			f.fail(v, "%w", err)
		}
	}
	if v := values["sha256"]; v != nil {
		if m.Source.SHA256 = strings.ToLower(f.text(v, "sha256")); !source.IsSHA256(m.Source.SHA256) {
			f.fail(v, "sha256 must be 64 hexadecimal digits")
		}
		if several {
			f.fail(v, "sha256 belongs to a single file, but the model is in several")
		}
	}
	return m
}

// source is a model with what its source says of it.
func (f *file) source(n *yaml.Node, tests []result.Test) Entry {
	text := f.text(n, "source")
	for _, known := range models {
		if from := known.Source(); text == known.File || text == from.Given {
			return Entry{Source: from, Name: known.File, SizeBytes: known.SizeBytes, Tests: tests}
		}
	}
	from, err := source.Parse(text)
	if err == nil {
		err = source.CheckName(from.Name())
	}
	if err != nil {
		f.fail(n, "%w", err)
	}
	return Entry{Source: from, Name: from.Name(), Tests: tests}
}

// lengths reads the lengths in a mapping. A key that it lacks has the value of
// otherwise.
func (f *file) lengths(values map[string]*yaml.Node, otherwise Lengths) Lengths {
	l := otherwise
	for i, to := range []*[]int{&l.Prompt, &l.Gen, &l.Depth} {
		if v := values[lengthKeys[i]]; v != nil {
			*to = f.numbers(v, lengthKeys[i])
		}
	}
	for i, to := range []*[][2]int{&l.Combined, &l.E2E} {
		key := lengthKeys[3+i]
		if v := values[key]; v != nil {
			*to = f.pairs(v, key)
		}
	}
	return l
}

// pairs reads a list of pairs of lengths: prompt, generation.
func (f *file) pairs(n *yaml.Node, what string) (pairs [][2]int) {
	f.checkList(n, what, maxTests)
	f.eachItem(n, func(item *yaml.Node) {
		pair := f.numbers(item, what)
		switch {
		case len(pair) != 2 || pair[0]+pair[1] == 0:
			f.fail(item, "%s must be a list of pairs, as in [[512, 128]]", what)
		case what == "e2e" && (pair[0] == 0 || pair[1] == 0):
			f.fail(item, "e2e: both numbers of a pair must be above 0, as in [[512, 128]]")
		case what == "e2e" && f.repetitions*pair[1] > result.MaxGenerated:
			many := fmt.Sprintf("%d %s", f.repetitions, english.PluralWord(f.repetitions, "repetition", ""))
			f.fail(item, "e2e: %s of %d tokens are too many, because the time of each token is kept; with %s the limit is %d tokens",
				many, pair[1], many, result.MaxGenerated/f.repetitions)
		default:
			pairs = append(pairs, [2]int{pair[0], pair[1]})
		}
	})
	return pairs
}

// tests lists the tests of lengths. n is the node that a mistake is reported at.
func (f *file) tests(n *yaml.Node, l Lengths) []result.Test {
	if many := (len(l.Prompt)+len(l.Gen)+len(l.Combined))*max(1, len(l.Depth)) + len(l.E2E); many > maxTests {
		f.fail(n, "the model has %d tests, more than %d", many, maxTests)
		return nil
	}
	tests, err := l.Tests()
	switch {
	case err != nil:
		f.fail(n, "%w", err)
	case len(tests) == 0:
		f.fail(n, "the model has no tests: every length is 0")
	}
	return tests
}

// targets reads the targets in a mapping. A kind that it lacks has the default
// targets.
func (f *file) targets(n *yaml.Node) Targets {
	t := DefaultTargets()
	values := f.fields(n, "targets", lengthKeys[:2]...)
	for i, to := range []*[]Target{&t.Prompt, &t.Generation} {
		key := lengthKeys[i]
		v := values[key]
		if v == nil {
			continue
		}
		if resolve(v).Kind != yaml.MappingNode || len(resolve(v).Content) == 0 {
			f.fail(v, "targets of %s must be a mapping of tokens to tokens per second, as in {16: 2, 512: 25}", key)
			continue
		}
		*to = nil
		f.eachPair(v, func(length, speed *yaml.Node) {
			n := f.whole(length, "a target's length", 1, result.MaxTokens)
			i, taken := slices.BinarySearchFunc(*to, n, func(t Target, n int) int { return t.Tokens - n })
			if taken {
				f.fail(length, "the target of %d tokens is given twice", n)
			}
			rate, err := strconv.ParseFloat(resolve(speed).Value, 64)
			if resolve(speed).Kind != yaml.ScalarNode || err != nil || !(rate > 0) || math.IsInf(rate, 0) {
				f.fail(speed, "the target of %d tokens must be a number of tokens per second above 0", n)
			}
			if len(*to) >= maxTests {
				f.fail(length, "more than %d targets", maxTests)
			}
			*to = slices.Insert(*to, i, Target{n, rate})
		})
	}
	return t
}

// checkList checks that a node is a list of at most so many items.
func (f *file) checkList(n *yaml.Node, what string, most int) {
	switch {
	case resolve(n).Kind != yaml.SequenceNode:
		f.fail(n, "%s must be a list", what)
	case len(resolve(n).Content) > most:
		f.fail(n, "%s has %d items, more than %d", what, len(resolve(n).Content), most)
	}
}

// eachItem calls do with the items of a list, until a mistake.
func (f *file) eachItem(n *yaml.Node, do func(*yaml.Node)) {
	for _, item := range resolve(n).Content {
		if f.err != nil {
			return
		}
		do(item)
	}
}

// numbers reads a list of lengths, or one length.
func (f *file) numbers(n *yaml.Node, what string) []int {
	if resolve(n).Kind == yaml.ScalarNode {
		return []int{f.whole(n, what, 0, result.MaxTokens)}
	}
	var values []int
	f.checkList(n, what, maxTests)
	f.eachItem(n, func(item *yaml.Node) {
		values = append(values, f.whole(item, what, 0, result.MaxTokens))
	})
	return values
}

// whole reads a whole number from least to most.
func (f *file) whole(n *yaml.Node, what string, least, most int) int {
	v, err := strconv.Atoi(resolve(n).Value)
	switch {
	case resolve(n).Kind != yaml.ScalarNode || err != nil && !errors.Is(err, strconv.ErrRange):
		f.fail(n, "%s must be a whole number, %d…%d", what, least, most)
	case err != nil || v < least || v > most:
		f.fail(n, "%s: %s is outside %d…%d", what, resolve(n).Value, least, most)
	}
	return v
}

// text reads a string that is not empty.
func (f *file) text(n *yaml.Node, what string) string {
	v := resolve(n)
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" || v.Value == "" {
		f.fail(n, "%s must be a text that is not empty", what)
		return ""
	}
	if strings.ContainsFunc(v.Value, unicode.IsControl) {
		f.fail(n, "%s contains control characters", what)
	}
	return v.Value
}
