package suite_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

func read(t testing.TB, text string) suite.Suite {
	t.Helper()
	s, err := suite.Read(strings.NewReader(text), "f.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t testing.TB, text, sha256 string) source.Source {
	t.Helper()
	s, err := source.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s.SHA256 = sha256
	return s
}

// The documented example says what it means.
func TestReadExample(t *testing.T) {
	f, err := os.Open("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := suite.Read(f, f.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := suite.Suite{
		Repetitions: 3,
		Targets: suite.Targets{
			Prompt:     []suite.Target{{Tokens: 16, TokensPerSecond: 2}, {128, 10}, {512, 25}, {4096, 250}},
			Generation: []suite.Target{{Tokens: 16, TokensPerSecond: 1}, {128, 5}},
		},
		Models: []suite.Entry{
			{
				Source: suite.Models()[0].Source(), Name: "SmolLM-135M.Q4_K_M.gguf", SizeBytes: 103_668_480,
				Tests: []result.Test{{Prompt: 16}, {Prompt: 128}, {Prompt: 512}, {Gen: 128}},
			},
			{
				Source: parse(t, "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf@main", ""),
				Name:   "qwen2.5-0.5b-instruct-q4_k_m.gguf",
				Tests: []result.Test{
					{Prompt: 512}, {Prompt: 2048}, {Gen: 128},
					{Prompt: 512, Depth: 4096}, {Prompt: 2048, Depth: 4096}, {Gen: 128, Depth: 4096},
				},
			},
			{
				Source: parse(t, "models/mine.gguf", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"), Name: "mine-v2.gguf",
				Tests: []result.Test{{Prompt: 16}, {Prompt: 128}, {Prompt: 512}, {Prompt: 512, Gen: 128}, {Prompt: 512, Gen: 128, E2E: true}},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What is left out is the default suite's.
func TestReadDefaults(t *testing.T) {
	want := suite.Default()
	if diff := cmp.Diff(want, read(t, "repetitions: 5")); diff != "" {
		t.Error(diff)
	}
	got := read(t, "models: [x/own.gguf]\ntargets: {generation: {8: .5}}")
	own := suite.Suite{
		Repetitions: 5,
		Targets:     suite.Targets{Prompt: want.Targets.Prompt, Generation: []suite.Target{{Tokens: 8, TokensPerSecond: .5}}},
		Models:      []suite.Entry{{Source: parse(t, "x/own.gguf", ""), Name: "own.gguf", Tests: want.Models[0].Tests}},
	}
	if diff := cmp.Diff(own, got); diff != "" {
		t.Error(diff)
	}
	got = read(t, "prompt: &l [7, 0]\ngeneration: *l\ntargets: {prompt: {512: 9, 16: 3}}")
	for _, m := range got.Models {
		if diff := cmp.Diff([]result.Test{{Prompt: 7}, {Gen: 7}}, m.Tests); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff([]suite.Target{{Tokens: 16, TokensPerSecond: 3}, {512, 9}}, got.Targets.Prompt); diff != "" {
		t.Errorf("targets are not sorted: %s", diff)
	}
}

// End-to-end tests are at no depth, and a model may have its own.
func TestReadEndToEnd(t *testing.T) {
	got := read(t, "prompt: 16\ngeneration: 0\ne2e: [[512, 128]]\nmodels:\n- a.gguf\n- {source: b.gguf, depth: [0, 32], e2e: [[8, 2], [4, 1]]}\n- {source: c.gguf, e2e: []}")
	for i, want := range [][]string{{"pp16", "e2e512+128"}, {"pp16", "pp16 @ d32", "e2e8+2", "e2e4+1"}, {"pp16"}} {
		var tests []string
		for _, test := range got.Models[i].Tests {
			tests = append(tests, test.String())
		}
		if diff := cmp.Diff(want, tests); diff != "" {
			t.Errorf("model %d: %s", i, diff)
		}
	}
}

func TestReadSources(t *testing.T) {
	for text, name := range map[string]string{
		"https://example.org/a/b.gguf?token=secret#x":    "b.gguf",
		"http://user:secret@example.org:8080/b%20c.gguf": "b c.gguf",
		"hf:u/r/folder/b.gguf":                           "b.gguf",
		"hf:u/r/b.gguf@refs/pr/1":                        "b.gguf",
		"/models/b.gguf":                                 "b.gguf",
		"./a:b.gguf":                                     "a:b.gguf",
		suite.Models()[2].Source().Given:                 suite.Models()[2].File,
	} {
		got := read(t, "models: ['"+text+"']").Models[0]
		if got.Name != name || got.Source.Given != text {
			t.Errorf("%s: %+v", text, got)
		}
		if (got.SizeBytes > 0) != (text == suite.Models()[2].Source().Given) {
			t.Errorf("%s: %d bytes", text, got.SizeBytes)
		}
	}
}

// What is at a limit is not beyond it.
func TestReadAtTheLimits(t *testing.T) {
	name := strings.Repeat("x", 200)
	const longest = "generation: [16777216]\nprompt: 0\n#"
	for text, want := range map[string]int{ // tests of the first model
		"repetitions: 10000":                              11,
		longest + strings.Repeat("x", 1<<20-len(longest)): 1,
		"prompt: []\ngeneration: []\nmodels: [" + name + "]\ncombined: [[1, 0], [0, 1]]":             2,
		"repetitions: 2\nprompt: 0\ngeneration: 0\ncombined: [[1, 65537]]\ne2e: [[1, 65536]]":        2,
		"prompt: [" + strings.Repeat("1,", 999) + "1]\ngeneration: []":                               1,
		"prompt: [" + strings.Repeat("1,", 499) + "1]\ngeneration: []\ncombined: [[1, 1]]\ndepth: 1": 2,
	} {
		if got := read(t, text); len(got.Models[0].Tests) != want {
			t.Errorf("%.50s…: %d tests, want %d", text, len(got.Models[0].Tests), want)
		}
	}
	if _, err := suite.Read(iotest.ErrReader(os.ErrClosed), "f.yaml"); !errors.Is(err, os.ErrClosed) || !strings.HasPrefix(err.Error(), "f.yaml: ") {
		t.Error(err)
	}
}

// ascending are so many targets.
func ascending(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d: 1, ", i+1)
	}
	return b.String()
}

// Every mistake is one line that names the file and, where there is one, the
// line.
func TestReadMistakes(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":        {"", "f.yaml: it is empty"},
		"only comments":  {"# no\n", "f.yaml: it is empty"},
		"an empty value": {"---\n", "f.yaml: it is empty"},
		"no keys":        {"{}", "f.yaml: it is empty"},
		"not YAML":       {"models:\n  - [1", "f.yaml:3: not YAML: did not find expected ',' or ']'"},
		"a tab":          {"models:\n\t- x", "f.yaml:2: not YAML: found character that cannot start any token"},
		"not UTF-8":      {"\xff", "f.yaml: not YAML: invalid leading UTF-8 octet (value: 255)"},
		"two documents":  {"repetitions: 1\n---\nrepetitions: 2", "f.yaml:2: a second document; a suite file has one"},
		"too large":      {"# " + strings.Repeat("x", 1<<20), "f.yaml: larger than 1048576 bytes"},
		"too deep":       {strings.Repeat("[", 20000), "f.yaml:1: not YAML: exceeded max depth of 10000"},
		"not a mapping": {"- a.gguf", "f.yaml:1: a suite must be a mapping of keys to values; " +
			"known keys are models, repetitions, targets, prompt, generation, depth, combined, e2e"},
		"a word": {"gemma", "f.yaml:1: a suite must be a mapping of keys to values; " +
			"known keys are models, repetitions, targets, prompt, generation, depth, combined, e2e"},
		"an alias as a key": {"repetitions: &prompt 5\n*prompt : 7", `f.yaml:2: unknown key "prompt" of a suite; ` +
			"known keys are models, repetitions, targets, prompt, generation, depth, combined, e2e"},
		"an unknown key": {"\nmodel: a.gguf", `f.yaml:2: unknown key "model" of a suite; ` +
			"known keys are models, repetitions, targets, prompt, generation, depth, combined, e2e"},
		"a merge":           {"a: &a {prompt: 1}\n", `f.yaml:1: unknown key "a" of a suite; known keys are models, repetitions, targets, prompt, generation, depth, combined, e2e`},
		"an unknown anchor": {"prompt: *p", "f.yaml:1: not YAML: unknown anchor 'p' referenced"},
		"a key twice":       {"prompt: 1\nprompt: 2", "f.yaml:2: prompt is given twice"},

		"models is no list":  {"models: a.gguf", "f.yaml:1: models must be a list"},
		"no models":          {"models: []", "f.yaml:1: models is empty; leave it out for the default models"},
		"too many models":    {"models: [" + strings.Repeat("a, ", 101) + "]", "f.yaml:1: models has 101 items, more than 100"},
		"a model of numbers": {"models:\n- 7", "f.yaml:2: source must be a text that is not empty"},
		"no source":          {"models:\n- name: a.gguf", "f.yaml:2: the model has no source"},
		"an empty source":    {"models:\n- ''", "f.yaml:2: source must be a text that is not empty"},
		"a hidden line":      {`models: ["a\nb.gguf"]`, "f.yaml:1: source contains control characters"},
		"a scheme":           {"models:\n- ftp://h/a.gguf", "f.yaml:2: bad model source: ftp://h/a.gguf: unknown scheme ftp; known are https, http, hf and file paths"},
		"half a hub name":    {"models:\n- hf:a.gguf", "f.yaml:2: bad model source: hf:a.gguf: expected hf:user/repository/file[@revision]"},
		"a URL of no file":   {"models:\n- https://u:s3cret@h/folder/?t=s3cret", "f.yaml:2: bad model source: https://h/folder/: it names no file"},
		"a URL of no host":   {"models:\n- https:///a.gguf", "f.yaml:2: bad model source: https:///a.gguf: not a valid URL"},
		"no URL":             {"models:\n- https://u:s3cret@h/%zz/a.gguf?t=s3cret", "f.yaml:2: bad model source: https://h/%zz/a.gguf: not a valid URL"},
		"a hidden name":      {"models:\n- https://h/a%0Ab.gguf", `f.yaml:2: bad model source: https://h/a%0Ab.gguf: "a\nb.gguf" is not a file name`},
		"a flag":             {"models:\n- -x.gguf", `f.yaml:2: file name "-x.gguf" starts with "-"`},
		"a backslash":        {"models:\n- 'x\\a.gguf'", `f.yaml:2: "x\\a.gguf" is not a file name`},
		"a name in a folder": {"models:\n- source: a\n  name: b/a", `f.yaml:3: "b/a" is not a file name`},
		"an empty name":      {"models:\n- source: a\n  name: ''", "f.yaml:3: name must be a text that is not empty"},
		"a folder":           {"models:\n- ..", `f.yaml:2: ".." is not a file name`},
		"a name with a path": {"models:\n- source: a\n  name: ../a", `f.yaml:3: "../a" is not a file name`},
		"a long name":        {"models:\n- " + strings.Repeat("x", 201), "f.yaml:2: file name of 201 bytes is longer than 200 bytes"},
		"a checksum":         {"models:\n- source: a\n  sha256: beef", "f.yaml:3: sha256 must be 64 hexadecimal digits"},
		"a checksum of several files": {"models:\n- source: hf:u/r/a-00001-of-00002.gguf@v\n  sha256: " + strings.Repeat("a", 64),
			"f.yaml:3: sha256 belongs to a single file, but the model is in several"},
		"a key of a model": {"models:\n- source: a\n  size: 1", `f.yaml:3: unknown key "size" of a model; known keys are source, name, sha256, prompt, generation, depth, combined, e2e`},
		"a name twice": {"models:\n- x/a.gguf\n- b.gguf\n- ./x/a.gguf",
			"f.yaml:4: the model in line 2 has the same name a.gguf; names must differ"},
		"no tests": {"prompt: []\ngeneration: 0", "f.yaml:1: the model has no tests: every length is 0"},
		"many tests": {"models:\n- source: a\n  prompt: [" + strings.Repeat("1,", 400) + "]\n  depth: [0, 1, 2]",
			"f.yaml:2: the model has 1215 tests, more than 1000"},

		"a length":             {"prompt: many", "f.yaml:1: prompt must be a whole number, 0…16777216"},
		"a fraction":           {"prompt:\n- 1\n- 1.5", "f.yaml:3: prompt must be a whole number, 0…16777216"},
		"no length":            {"prompt:", "f.yaml:1: prompt must be a whole number, 0…16777216"},
		"a long length":        {"generation: 16777217", "f.yaml:1: generation: 16777217 is outside 0…16777216"},
		"a huge length":        {"depth: [99999999999999999999]", "f.yaml:1: depth: 99999999999999999999 is outside 0…16777216"},
		"a mapping":            {"prompt: {1: 2}", "f.yaml:1: prompt must be a list"},
		"many lengths":         {"prompt: [" + strings.Repeat("1,", 1001) + "]", "f.yaml:1: prompt has 1001 items, more than 1000"},
		"a pair":               {"combined: [512, 128]", "f.yaml:1: combined must be a list of pairs, as in [[512, 128]]"},
		"an empty pair":        {"combined: [[0, 0]]", "f.yaml:1: combined must be a list of pairs, as in [[512, 128]]"},
		"an e2e of one number": {"e2e: 512", "f.yaml:1: e2e must be a list"},
		"an e2e of three":      {"repetitions: 5\ne2e:\n- [1, 2]\n- [1, 2, 3]", "f.yaml:4: e2e must be a list of pairs, as in [[512, 128]]"},
		"an e2e without text":  {"e2e: [[0, 128]]", "f.yaml:1: e2e: both numbers of a pair must be above 0, as in [[512, 128]]"},
		"an e2e of text alone": {"e2e: [[128, 0]]", "f.yaml:1: e2e: both numbers of a pair must be above 0, as in [[512, 128]]"},
		"an e2e with no end":   {"e2e:\n- [16, 65537]\nrepetitions: 2", "f.yaml:2: e2e: 2 repetitions of 65537 tokens are too many, because the time of each token is kept; with 2 repetitions the limit is 65536 tokens"},
		"many combined tests":  {"combined: [" + strings.Repeat("[1, 1],", 990) + "]", "f.yaml:1: the model has 1001 tests, more than 1000"},
		"many e2e tests": {"models:\n- source: a\n  prompt: 1\n  generation: [" + strings.Repeat("1,", 999) + "]\n  e2e: [[1, 1]]",
			"f.yaml:2: the model has 1001 tests, more than 1000"},
		"no repetitions":   {"repetitions: 0", "f.yaml:1: repetitions: 0 is outside 1…10000"},
		"many repetitions": {"repetitions: 10001", "f.yaml:1: repetitions: 10001 is outside 1…10000"},

		"targets":           {"targets: 5", "f.yaml:1: targets must be a mapping of keys to values; known keys are prompt, generation"},
		"targets of a kind": {"targets:\n  depth: {1: 1}", `f.yaml:2: unknown key "depth" of targets; known keys are prompt, generation`},
		"empty targets":     {"targets:\n  prompt: {}", "f.yaml:2: targets of prompt must be a mapping of tokens to tokens per second, as in {16: 2, 512: 25}"},
		"a list of targets": {"targets:\n  prompt: [16]", "f.yaml:2: targets of prompt must be a mapping of tokens to tokens per second, as in {16: 2, 512: 25}"},
		"many targets":      {"targets: {prompt: {" + ascending(1001) + "}}", "f.yaml:1: more than 1000 targets"},
		"a target of 0":     {"targets:\n  prompt: {0: 2}", "f.yaml:2: a target's length: 0 is outside 1…16777216"},
		"a speed of 0":      {"targets:\n  prompt:\n    16: 0", "f.yaml:3: the target of 16 tokens must be a number of tokens per second above 0"},
		"an endless speed":  {"targets: {prompt: {16: .inf}}", "f.yaml:1: the target of 16 tokens must be a number of tokens per second above 0"},
		"an infinite speed": {"targets: {prompt: {16: inf}}", "f.yaml:1: the target of 16 tokens must be a number of tokens per second above 0"},
		"a speed of NaN":    {"targets: {prompt: {16: NaN}}", "f.yaml:1: the target of 16 tokens must be a number of tokens per second above 0"},
		"a target twice":    {"targets: {prompt: {16: 1, 16: 2}}", "f.yaml:1: the target of 16 tokens is given twice"},

		"an alias in itself": {"prompt: &p [*p]", "f.yaml:1: prompt must be a whole number, 0…16777216"},
		"an alias bomb": {"models:\n- &a {source: x, prompt: &p [" + strings.Repeat("1,", 900) + "]}\n" + strings.Repeat("- *a\n", 99),
			"f.yaml:3: the model in line 2 has the same name x; names must differ"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := suite.Read(strings.NewReader(tt.in), "f.yaml")
			if err == nil || err.Error() != tt.want {
				t.Errorf("%v\nwant %s", err, tt.want)
			}
		})
	}
}

// Whatever a file says, a suite is one that can be run, and a mistake one line.
func FuzzRead(f *testing.F) {
	example, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte("models: [&a a.gguf, {source: *a, name: b}]\ncombined: &c [[1, 2]]\ntargets: {prompt: {1: 1e-320}}"))
	f.Add([]byte("e2e: [[512, 128]]\nrepetitions: 7"))
	f.Add([]byte("prompt: &p [*p]\n<<: {depth: 5}\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := suite.Read(strings.NewReader(string(data)), "f.yaml")
		if err != nil {
			if text := err.Error(); !strings.HasPrefix(text, "f.yaml:") || strings.ContainsFunc(text, unicode.IsControl) {
				t.Fatalf("%q", text)
			}
			return
		}
		names := make(map[string]bool)
		for _, m := range s.Models {
			if names[m.Name] || m.Name == "" || m.Source.Given == "" || len(m.Tests) == 0 || len(m.Tests) > 1000 {
				t.Fatalf("%+v", m)
			}
			names[m.Name] = true
			p := s.Plan(m, m.SizeBytes, nil, 1)
			for _, test := range p.Tests {
				if err := test.Test.Validate(); err != nil || test.Budget <= 0 {
					t.Fatalf("%+v: %v", test, err)
				}
			}
		}
		if len(s.Models) == 0 || s.Repetitions < 1 || s.Repetitions > suite.MaxRepetitions {
			t.Fatalf("%+v", s)
		}
	})
}
