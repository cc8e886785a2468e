package suite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// MaxRepetitions of a test.
const MaxRepetitions = 10_000

// What a suite file may hold; more is a mistake, and would take time to read.
const (
	maxFileBytes = 1 << 20
	maxModels    = 100
	maxTests     = 1000 // of a model, and lengths of a list
	maxName      = 200  // bytes, as of files that are fetched
)

// Read reads a suite file: a YAML mapping in which every key may be left out and
// then is what the default suite has.
//
//	models:            # sources as -m takes them, or default models' file names
//	  - SmolLM-135M.Q4_K_M.gguf
//	  - source: hf:user/repository/file.gguf@revision
//	    name: file.gguf      # of the file; default: as the source says
//	    sha256: …            # of the file, 64 hexadecimal digits; not of several
//	    prompt: [16, 128]    # and generation, depth, combined, e2e, for this model
//	prompt: [16, 128]        # tokens, a test each; one number, or [] for none
//	generation: 128          # tokens, a test each
//	depth: [0, 4096]         # every test at each of them
//	combined: [[512, 128]]   # prompt and generation, timed together
//	e2e: [[512, 128]]        # end-to-end tests: tokens of text in, tokens out as text
//	repetitions: 5           # of each test, 1…10000
//	targets:                 # tokens per second expected, by length in tokens:
//	  prompt: {16: 2, 512: 25}   # budgets come from them
//	  generation: {16: 1}
//
// A default model is taken from the hub, at its pinned revision. Other paths are
// relative to the working directory. Every error is one line that starts with
// name and, where it has one, the line: "suite.yaml:3: …".
func Read(r io.Reader, name string) (Suite, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return Suite{}, fmt.Errorf("%s: %w", name, err)
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

// file is a suite file that is read. Its first mistake is kept, and what is read
// after that does not count.
//
// Nodes are walked by hand: it gives every mistake its line, and an alias is
// followed only as deep as the schema goes, so no file grows when it is read.
type file struct {
	name        string
	err         error
	repetitions int // of each test
}

// fail notes a mistake at a node, or in the file as a whole.
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

// document is the mapping that the file is.
func (f *file) document(text []byte) *yaml.Node {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	if err == nil {
		if err = d.Decode(&more); err == nil {
			f.fail(&more, "a second document: a suite is one")
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

// the is the node that an alias stands for.
func the(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// fields are the values of a mapping by their keys, each of which is known.
func (f *file) fields(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	values := make(map[string]*yaml.Node)
	if the(n).Kind != yaml.MappingNode {
		f.fail(n, "%s is not a mapping of keys to values; known keys are %s", what, strings.Join(known, ", "))
		return values
	}
	f.pairs(n, func(key, value *yaml.Node) {
		switch name := key.Value; {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, name):
			f.fail(key, "unknown key %q of %s, known are %s", name, what, strings.Join(known, ", "))
		case values[name] != nil:
			f.fail(key, "%s is given a second time", name)
		default:
			values[name] = value
		}
	})
	return values
}

// pairs calls each with the keys and values of a mapping, until a mistake.
func (f *file) pairs(n *yaml.Node, each func(key, value *yaml.Node)) {
	content := the(n).Content
	for i := 0; i+1 < len(content) && f.err == nil; i += 2 {
		each(content[i], content[i+1])
	}
}

// The keys that give lengths.
var lengthKeys = []string{"prompt", "generation", "depth", "combined", "e2e"}

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
	if f.list(v, "models", maxModels); len(the(v).Content) == 0 {
		f.fail(v, "models is empty; leave it out for the default models")
	}
	lines := make(map[string]int)
	f.each(v, func(item *yaml.Node) {
		m := f.model(item, lengths)
		if line, taken := lines[m.Name]; taken && f.err == nil {
			f.fail(item, "%s is the file name of the model in line %d too; records are told apart by it", m.Name, line)
		}
		lines[m.Name] = item.Line
		s.Models = append(s.Models, m)
	})
	return s
}

func (f *file) model(n *yaml.Node, lengths Lengths) Entry {
	if the(n).Kind == yaml.ScalarNode {
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
		if err := checkName(m.Name); err != nil {
			f.fail(v, "%w", err)
		}
	}
	if v := values["sha256"]; v != nil {
		if m.SHA256 = strings.ToLower(f.text(v, "sha256")); !sha256Form.MatchString(m.SHA256) {
			f.fail(v, "sha256 is not 64 hexadecimal digits")
		}
		if several {
			f.fail(v, "sha256 is of one file, the model is in several")
		}
	}
	return m
}

var sha256Form = regexp.MustCompile(`^[0-9a-f]{64}$`)

// source is a model as far as its source tells.
func (f *file) source(n *yaml.Node, tests []result.Test) Entry {
	m := Entry{Source: f.text(n, "source"), Tests: tests}
	for _, known := range models {
		if m.Source == known.File || m.Source == known.Source() {
			m.Source, m.Name, m.SizeBytes = known.Source(), known.File, known.SizeBytes
			return m
		}
	}
	var err error
	if m.Name, err = fileName(m.Source); err == nil {
		err = checkName(m.Name)
	}
	if err != nil {
		f.fail(n, "%w", err)
	}
	return m
}

// A scheme has two letters or more, so that ./a:b is a path.
var scheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]+):`)

// fileName is the name of a source's file. Errors do not hold the source: a URL
// may have secrets.
func fileName(source string) (string, error) {
	kind := ""
	if m := scheme.FindStringSubmatch(source); m != nil {
		kind = strings.ToLower(m[1])
	}
	switch kind {
	case "":
		return filepath.Base(source), nil
	case "hf":
		file := source[len("hf:"):]
		if at := strings.LastIndexByte(file, '@'); at >= 0 {
			file = file[:at]
		}
		if strings.Count(file, "/") < 2 {
			return "", errors.New("the source is not hf:user/repository/file[@revision]")
		}
		return path.Base(file), nil
	case "http", "https":
		u, err := url.Parse(source)
		if err != nil || u.Host == "" || strings.HasSuffix(u.Path, "/") {
			return "", errors.New("the source is not the URL of a file")
		}
		return path.Base(u.Path), nil
	default:
		return "", fmt.Errorf("unknown scheme %s of a source, known are https, http, hf and file paths", kind)
	}
}

// checkName refuses what is no file name, or one that surprises.
func checkName(name string) error {
	switch {
	case name == "" || strings.ContainsAny(name, `/\`) || name[0] == '.' || name[0] == '-' ||
		strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%q is not the name of a model file", name)
	case len(name) > maxName:
		return fmt.Errorf("a file name of %d bytes is longer than %d", len(name), maxName)
	}
	return nil
}

// lengths are those of a mapping, and for keys that it lacks those of otherwise.
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
			*to = f.pairsOf(v, key)
		}
	}
	return l
}

// pairsOf is a list of pairs of lengths: prompt, generation.
func (f *file) pairsOf(n *yaml.Node, what string) (pairs [][2]int) {
	f.list(n, what, maxTests)
	f.each(n, func(item *yaml.Node) {
		pair := f.numbers(item, what)
		switch {
		case len(pair) != 2 || pair[0]+pair[1] == 0:
			f.fail(item, "%s is not a list of pairs, as [[512, 128]]", what)
		case what == "e2e" && (pair[0] == 0 || pair[1] == 0):
			f.fail(item, "e2e: both numbers of a pair are above 0, as [[512, 128]]")
		case what == "e2e" && f.repetitions*pair[1] > result.MaxGenerated:
			f.fail(item, "e2e: the times of %d × %d tokens are more than are kept; %d repetitions can have %d tokens each",
				f.repetitions, pair[1], f.repetitions, result.MaxGenerated/f.repetitions)
		default:
			pairs = append(pairs, [2]int{pair[0], pair[1]})
		}
	})
	return pairs
}

// tests are those of lengths; n is what to name in a mistake.
func (f *file) tests(n *yaml.Node, l Lengths) []result.Test {
	if many := (len(l.Prompt)+len(l.Gen)+len(l.Combined))*max(1, len(l.Depth)) + len(l.E2E); many > maxTests {
		f.fail(n, "%d tests of a model are more than %d", many, maxTests)
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

// targets are those of a mapping; a kind that it lacks has the default ones.
func (f *file) targets(n *yaml.Node) Targets {
	t := DefaultTargets()
	values := f.fields(n, "targets", lengthKeys[:2]...)
	for i, to := range []*[]Target{&t.Prompt, &t.Generation} {
		key := lengthKeys[i]
		v := values[key]
		if v == nil {
			continue
		}
		if the(v).Kind != yaml.MappingNode || len(the(v).Content) == 0 {
			f.fail(v, "targets of %s are not a mapping of tokens to tokens per second, as {16: 2, 512: 25}", key)
			continue
		}
		*to = nil
		f.pairs(v, func(length, speed *yaml.Node) {
			n := f.whole(length, "a target's length", 1, result.MaxTokens)
			i, taken := slices.BinarySearchFunc(*to, n, func(t Target, n int) int { return t.Tokens - n })
			if taken {
				f.fail(length, "the target of %d tokens is given a second time", n)
			}
			rate, err := strconv.ParseFloat(the(speed).Value, 64)
			if the(speed).Kind != yaml.ScalarNode || err != nil || !(rate > 0) || math.IsInf(rate, 0) {
				f.fail(speed, "the target of %d tokens is not a number of tokens per second above 0", n)
			}
			if len(*to) >= maxTests {
				f.fail(length, "more than %d targets", maxTests)
			}
			*to = slices.Insert(*to, i, Target{n, rate})
		})
	}
	return t
}

// list checks that a node is a list of at most so many items.
func (f *file) list(n *yaml.Node, what string, most int) {
	switch {
	case the(n).Kind != yaml.SequenceNode:
		f.fail(n, "%s is not a list", what)
	case len(the(n).Content) > most:
		f.fail(n, "%s has %d items, more than %d", what, len(the(n).Content), most)
	}
}

// each calls do with the items of a list, until a mistake.
func (f *file) each(n *yaml.Node, do func(*yaml.Node)) {
	for _, item := range the(n).Content {
		if f.err != nil {
			return
		}
		do(item)
	}
}

// numbers is a list of lengths, or one.
func (f *file) numbers(n *yaml.Node, what string) []int {
	if the(n).Kind == yaml.ScalarNode {
		return []int{f.whole(n, what, 0, result.MaxTokens)}
	}
	var values []int
	f.list(n, what, maxTests)
	f.each(n, func(item *yaml.Node) {
		values = append(values, f.whole(item, what, 0, result.MaxTokens))
	})
	return values
}

func (f *file) whole(n *yaml.Node, what string, least, most int) int {
	v, err := strconv.Atoi(the(n).Value)
	switch {
	case the(n).Kind != yaml.ScalarNode || err != nil && !errors.Is(err, strconv.ErrRange):
		f.fail(n, "%s: expected a whole number, %d…%d", what, least, most)
	case err != nil || v < least || v > most:
		f.fail(n, "%s: %s is outside %d…%d", what, the(n).Value, least, most)
	}
	return v
}

// text is a string that is not empty.
func (f *file) text(n *yaml.Node, what string) string {
	v := the(n)
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" || v.Value == "" {
		f.fail(n, "%s is not a text", what)
		return ""
	}
	if strings.ContainsFunc(v.Value, unicode.IsControl) {
		f.fail(n, "%s holds control characters", what)
	}
	return v.Value
}
