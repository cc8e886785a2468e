package suite_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// Budgets of the existing image, as its log prints them for real servers: "for
// max T sec", T = size/0.25 + 1 + 5n/target with the size of the file in GiB.
func TestBudget(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		test result.Test
		size uint64
		want time.Duration
	}{
		{result.Test{Prompt: 16}, gib / 4, 42 * time.Second},                         // 1 + 1 + 80/2
		{result.Test{Prompt: 16384}, gib / 4, 83*time.Second + 920*time.Millisecond}, // 2 + 81920/1000
		{result.Test{Gen: 128}, gib / 4, 130 * time.Second},                          // 2 + 640/5
		{result.Test{Gen: 4096}, 4 * gib, 98*time.Second + 920*time.Millisecond},     // 17 + 20480/250
		{result.Test{Gen: 100}, gib / 4, 102 * time.Second},                          // as the next listed length, 128
		{result.Test{Gen: 9000}, gib / 4, 182 * time.Second},                         // as the longest listed length
		{result.Test{Prompt: 16, Gen: 16}, gib / 4, 122 * time.Second},               // the sum
		{result.Test{Gen: 16, Depth: 512}, gib / 4, 102*time.Second + 480*time.Millisecond},
	} {
		if got := suite.DefaultTargets().Budget(tt.test, tt.size, 5, 1); got.Round(time.Millisecond) != tt.want {
			t.Errorf("%v of %d bytes: %v, want %v", tt.test, tt.size, got, tt.want)
		}
	}
}

// Each length has its own target, in tokens per second.
func TestDefaultTargets(t *testing.T) {
	want := suite.Targets{
		Prompt: []suite.Target{
			{Tokens: 16, TokensPerSecond: 2}, {Tokens: 128, TokensPerSecond: 10}, {Tokens: 512, TokensPerSecond: 25},
			{Tokens: 1024, TokensPerSecond: 50}, {Tokens: 4096, TokensPerSecond: 250}, {Tokens: 16384, TokensPerSecond: 1000},
		},
		Generation: []suite.Target{
			{Tokens: 16, TokensPerSecond: 1}, {Tokens: 128, TokensPerSecond: 5}, {Tokens: 512, TokensPerSecond: 25},
			{Tokens: 1024, TokensPerSecond: 50}, {Tokens: 4096, TokensPerSecond: 250},
		},
	}
	if diff := cmp.Diff(want, suite.DefaultTargets()); diff != "" {
		t.Error(diff)
	}
}

func TestBudgetProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		test := result.Test{Prompt: rapid.IntRange(0, 20000).Draw(t, "prompt"), Gen: rapid.IntRange(1, 5000).Draw(t, "gen")}
		size := rapid.Uint64Range(1, 1<<40).Draw(t, "size")
		scale := rapid.Float64Range(0.01, 100).Draw(t, "scale")
		one := suite.DefaultTargets().Budget(test, size, 5, scale)
		if one <= 0 {
			t.Fatalf("budget %v", one)
		}
		if more := suite.DefaultTargets().Budget(test, size, 6, scale); more <= one {
			t.Fatalf("six repetitions get %v, five %v", more, one)
		}
		if larger := suite.DefaultTargets().Budget(test, size+1<<30, 5, scale); larger <= one {
			t.Fatalf("a larger model gets %v, the smaller one %v", larger, one)
		}
	})
}

func TestLengths(t *testing.T) {
	l := suite.Lengths{Prompt: []int{16, 0, 16}, Gen: []int{8}, Combined: [][2]int{{4, 2}}, Depth: []int{0, 32}, E2E: [][2]int{{4, 2}, {8, 2}, {4, 2}}}
	got, err := l.Tests()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, test := range got {
		names = append(names, test.String())
	}
	want := []string{"pp16", "tg8", "pp4+tg2", "pp16 @ d32", "tg8 @ d32", "pp4+tg2 @ d32", "e2e4+2", "e2e8+2"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []suite.Lengths{
		{Prompt: []int{-1}},
		{Gen: []int{result.MaxTokens + 1}},
		{Prompt: []int{1}, Depth: []int{-5}},
		{E2E: [][2]int{{16, 0}}},
	} {
		if _, err := bad.Tests(); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestPlanTimeout(t *testing.T) {
	s := suite.Suite{Repetitions: 5, Targets: suite.DefaultTargets()}
	m := suite.Entry{Tests: []result.Test{{Prompt: 16}, {Gen: 16}}}
	minute, none := time.Minute, time.Duration(0)
	first := s.Targets.Budget(m.Tests[0], 1<<30, 5, 2)
	if p := s.Plan(m, 1<<30, &minute, 2); p.Tests[0].Budget != minute || p.Tests[1].Budget != minute || p.LoadBudget != first {
		t.Errorf("%+v", p)
	}
	if p := s.Plan(m, 1<<30, &none, 1); p.Tests[0].Budget != 0 || p.LoadBudget != 0 {
		t.Errorf("%+v", p)
	}
	if p := s.Plan(m, 1<<30, nil, 2); p.Tests[0].Budget != first || p.LoadBudget != first || p.Repetitions != 5 {
		t.Errorf("%+v", p)
	}
	// A single model's load budget does not depend on its tests, or on their budget.
	s.GivenOrder = true
	for _, timeout := range []*time.Duration{nil, &minute} {
		if p := s.Plan(m, 1<<30, timeout, 2); p.LoadBudget != 680*time.Second {
			t.Errorf("a single model may load for %v", p.LoadBudget)
		}
	}
	if p := s.Plan(m, 1<<30, &none, 1); p.LoadBudget != 0 {
		t.Errorf("a single model without limits may load for %v", p.LoadBudget)
	}
	s.GivenOrder = false
	if p := s.Plan(m, 1<<30, nil, 1e300); p.Tests[0].Budget <= 0 || p.LoadBudget <= 0 {
		t.Errorf("a large scale overflows: %+v", p)
	}
}

// The default suite is what readers of the fleet's results know: names, tests
// and their order are compared as strings.
func TestDefault(t *testing.T) {
	s := suite.Default()
	if s.Repetitions != 5 || len(s.Models) != 6 {
		t.Fatalf("%d models, %d repetitions", len(s.Models), s.Repetitions)
	}
	want := []string{"pp16", "pp128", "pp512", "pp1024", "pp4096", "pp16384", "tg16", "tg128", "tg512", "tg1024", "tg4096"}
	for i, m := range s.Models {
		var names []string
		for _, test := range m.Tests {
			names = append(names, test.String())
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("%s: %s", m.Name, diff)
		}
		known := suite.Models()[i]
		if m.Name != known.File || m.SizeBytes != known.SizeBytes || m.Source != known.Source() {
			t.Errorf("%+v is not %+v", m, known)
		}
	}
	for i, want := range []struct {
		source string
		size   uint64
		params uint64
	}{
		{"hf:QuantFactory/SmolLM-135M-GGUF/SmolLM-135M.Q4_K_M.gguf@b35f229108e4c5a4deeccccf9bf75cd46006fa7b", 103668480, 134515008},
		{"hf:Qwen/Qwen1.5-0.5B-Chat-GGUF/qwen1_5-0_5b-chat-q4_k_m.gguf@cfab082d2fef4a8736ef384dc764c2fb6887f387", 401210368, 619570176},
		{"hf:mlabonne/gemma-2b-GGUF/gemma-2b.Q4_K_M.gguf@8dd617a80664da2853999b6b1206595f1c33daa2", 1489055744, 2506172416},
		{"hf:TheBloke/LLaMA-7b-GGUF/llama-7b.Q4_K_M.gguf@0a1200190c8c1baafaa0b496c599ba68ad3d4056", 4080263168, 6738415616},
		{"hf:microsoft/phi-4-gguf/phi-4-q4.gguf@b1e764cfdbdd0a3ed824d6a8424129eb0a2232ff", 9049559040, 14659507200},
		{"hf:unsloth/Llama-3.3-70B-Instruct-GGUF/Llama-3.3-70B-Instruct-Q4_K_M.gguf@7bcd751e48e909680bd2168359dcf7fb53b12da8", 42512531712, 70553706560},
	} {
		if m := suite.Models()[i]; m.Source().String() != want.source || m.SizeBytes != want.size || m.Params != want.params {
			t.Errorf("%+v is not %+v", m, want)
		}
	}
	s.Models[0].Tests[0].Prompt = 7 // the caller's own
	if again := suite.Default(); again.Models[0].Tests[0].Prompt != 16 || s.Models[1].Tests[0].Prompt != 16 {
		t.Error("suites share their tests")
	}
}

func TestLookupModel(t *testing.T) {
	if m, ok := suite.LookupModel("gemma-2b.Q4_K_M.gguf"); !ok || m != suite.Models()[2] {
		t.Errorf("%+v, %v", m, ok)
	}
	if m, ok := suite.LookupModel("gemma"); ok || m != (suite.Model{}) {
		t.Errorf("%+v", m)
	}
}

func TestModelsAreOrderedBySize(t *testing.T) {
	for i, m := range suite.Models()[1:] {
		if m.SizeBytes <= suite.Models()[i].SizeBytes {
			t.Errorf("%s comes after a larger model", m.File)
		}
	}
}

// Models whose files have the same name get distinct ones, and distinct places.
func TestNameApart(t *testing.T) {
	for _, tt := range []struct {
		given []string // source, and after a space its name in the suite file
		want  []string // name, and after a space the folder
		same  [2]int   // models that cannot be told apart
	}{
		{[]string{"a.gguf", "x/b.gguf"}, []string{"a.gguf", "b.gguf"}, [2]int{-1, -1}},
		{[]string{"7B/m.gguf", "13B/m.gguf", "n.gguf"}, []string{"7B/m.gguf", "13B/m.gguf", "n.gguf"}, [2]int{-1, -1}},
		{[]string{"/a/7B/m.gguf", "/b/7B/m.gguf", "/b/13B/m.gguf"}, []string{"a/7B/m.gguf", "b/7B/m.gguf", "13B/m.gguf"}, [2]int{-1, -1}},
		{[]string{"/m.gguf", "/a/m.gguf"}, []string{"m.gguf", "a/m.gguf"}, [2]int{-1, -1}},
		{[]string{"hf:u/r/m.gguf", "hf:u/s/m.gguf"}, []string{"r/m.gguf r", "s/m.gguf s"}, [2]int{-1, -1}},
		{[]string{"hf:u/r/m.gguf@1", "hf:u/r/m.gguf@2"}, []string{"1/u/r/m.gguf 1/u/r", "2/u/r/m.gguf 2/u/r"}, [2]int{-1, -1}},
		{[]string{"https://h/a/m.gguf?k=1", "https://i/m.gguf", "b/m.gguf"}, []string{"a/m.gguf a", "i/m.gguf i", "b/m.gguf"}, [2]int{-1, -1}},
		{[]string{"x/a.gguf m.gguf", "m.gguf", "n/m.gguf"}, nil, [2]int{-1, -1}},
		{[]string{"b.gguf", "a.gguf", "./a.gguf"}, nil, [2]int{1, 2}},
		{[]string{"a.gguf n.gguf", "b.gguf n.gguf"}, nil, [2]int{0, 1}},
		{[]string{"https://h/m.gguf?k=1", "https://h/m.gguf?k=2"}, nil, [2]int{0, 1}},
	} {
		var models []suite.Entry
		for _, text := range tt.given {
			from, name, given := strings.Cut(text, " ")
			e := suite.Entry{Source: parse(t, from, "")}
			if e.Name = name; !given {
				e.Name = e.Source.Name()
			}
			models = append(models, e)
		}
		first, second := suite.NameApart(models)
		if first != tt.same[0] || second != tt.same[1] {
			t.Errorf("%q: %d and %d are the same", tt.given, first, second)
		}
		var got []string
		seen := map[string]bool{}
		for _, m := range models {
			got = append(got, strings.TrimSpace(m.Name+" "+m.Source.Folder))
			if seen[m.Name] && second < 0 {
				t.Errorf("%q: %s twice", tt.given, m.Name)
			}
			seen[m.Name] = true
		}
		if diff := cmp.Diff(tt.want, got); tt.want != nil && diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.given, diff)
		}
	}
}

// An Entry is stored with snake_case keys. It is read again whatever was redacted, and
// its source is not parsed.
func TestEntryJSON(t *testing.T) {
	e := suite.Entry{
		Source: parse(t, "https://u:p@h.example/m.gguf?k=v", strings.Repeat("a", 64)), Name: "m.gguf", SizeBytes: 7,
		Tests: []result.Test{{Prompt: 16}},
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"source":"https://u:p@h.example/m.gguf?k=v","name":"m.gguf","sha256":"` + strings.Repeat("a", 64) +
		`","size_bytes":7,"tests":[{"n_prompt":16,"n_gen":0}]}`
	if string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
	for _, given := range []string{e.Source.Given, "hf:u/r/m.gguf", "./m.gguf", "gemma-2b.Q4_K_M.gguf", "https://(redacted)@h.example/m.gguf?(redacted)"} {
		e.Source = parse(t, given, e.Source.SHA256)
		var again suite.Entry
		if text, err = json.Marshal(e); err == nil {
			err = json.Unmarshal(text, &again)
		}
		want := e
		want.Source = source.Source{Given: given, SHA256: e.Source.SHA256}
		if diff := cmp.Diff(want, again); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", given, err, diff)
		}
	}
	var bad suite.Entry
	if err := json.Unmarshal([]byte(`{"source":"hf:(redacted)","name":"m.gguf"}`), &bad); err != nil || bad.Source != (source.Source{Given: "hf:(redacted)"}) || bad.Source.Name() != "" {
		t.Errorf("%+v, %v", bad, err)
	}
	if err := json.Unmarshal([]byte(`{"source":7}`), &bad); err == nil {
		t.Error("a number is a source")
	}
}
