package synth_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

func header(t testing.TB, name string) *gguf.File {
	t.Helper()
	s, err := synth.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func strs(t testing.TB, f *gguf.File, key string) []string {
	t.Helper()
	v, _ := f.Get(key)
	s, ok := v.([]string)
	if !ok {
		t.Fatalf("%s is a %T", key, v)
	}
	return s
}

// Every default model gets exactly its number of tokens, all different. Everything
// that its speed depends on stays the same.
func TestWithVocabulary(t *testing.T) {
	for _, name := range append(synth.Names(), synth.Tiny) {
		before := header(t, name)
		f, err := synth.WithVocabulary(name, before)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before.Tensors, f.Tensors); diff != "" || f.Vocabulary() != before.Vocabulary() {
			t.Errorf("%s: %d tokens, was %d; tensors (-before +after):\n%s", name, f.Vocabulary(), before.Vocabulary(), diff)
		}
		shape := func(f *gguf.File) []gguf.KeyValue {
			return slices.DeleteFunc(slices.Clone(f.KV), func(k gguf.KeyValue) bool { return strings.HasPrefix(k.Key, "tokenizer.") })
		}
		if diff := cmp.Diff(shape(before), shape(f)); diff != "" {
			t.Errorf("%s: keys (-before +after):\n%s", name, diff)
		}
		known := map[string]bool{}
		tokens := strs(t, f, "tokenizer.ggml.tokens")
		for i, token := range tokens {
			if known[token] || token == "" || !utf8.ValidString(token) {
				t.Fatalf("%s: token %d is %q, empty, not new or not UTF-8", name, i, token)
			}
			known[token] = true
		}
		for i, merge := range strs(t, f, "tokenizer.ggml.merges") {
			if left, right, ok := strings.Cut(merge, " "); !ok || !known[left] || !known[right] || !known[left+right] {
				t.Fatalf("%s: merge %d is %q, not of tokens into a token", name, i, merge)
			}
		}
	}
}

func TestWithVocabularyTwiceIsOnce(t *testing.T) {
	f, err := synth.WithVocabulary(synth.Tiny, header(t, synth.Tiny))
	if err != nil {
		t.Fatal(err)
	}
	again, err := synth.WithVocabulary(synth.Tiny, f)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, again); diff != "" {
		t.Errorf("(-once +twice):\n%s", diff)
	}
}

func TestWithVocabularyRefuses(t *testing.T) {
	for _, n := range []uint64{1, 257, 1 << 30} {
		f, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: "llama"}},
			[]gguf.Tensor{{Name: "token_embd.weight", Dims: []uint64{32, n}, Type: gguf.F32}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := synth.WithVocabulary("a.gguf", f); !errors.Is(err, synth.ErrHeader) || !strings.HasPrefix(err.Error(), "synthetic weights cannot be made for a.gguf: ") {
			t.Errorf("%d tokens: %v", n, err)
		}
	}
}

// The smallest vocabulary has the bytes and no merges.
func TestSmallestVocabulary(t *testing.T) {
	f, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: "llama"}},
		[]gguf.Tensor{{Name: "token_embd.weight", Dims: []uint64{32, 258}, Type: gguf.F32}})
	if err != nil {
		t.Fatal(err)
	}
	if f, err = synth.WithVocabulary("a.gguf", f); err != nil {
		t.Fatal(err)
	}
	if n := len(strs(t, f, "tokenizer.ggml.merges")); n != 0 {
		t.Errorf("%d merges", n)
	}
}

func BenchmarkWithVocabulary(b *testing.B) {
	f := header(b, synth.Names()[2])
	for b.Loop() {
		if _, err := synth.WithVocabulary("gemma", f); err != nil {
			b.Fatal(err)
		}
	}
}
