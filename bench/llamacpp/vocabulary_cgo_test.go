//go:build cgo

package llamacpp

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// withVocabulary loads a default model with a synthetic vocabulary.
func withVocabulary(t *testing.T, name string, f func(*llama.Model)) {
	t.Helper()
	shape, err := synth.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	header, err := shape.File()
	if err != nil {
		t.Fatal(err)
	}
	words, err := synth.WithVocabulary(name, header)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := synth.FromHeader(name, words, 1, Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		must := func(err error) {
			if err != nil {
				panic(err)
			}
		}
		must(llama.LoadBackends(llama.AllBackends))
		m, err := llama.LoadModelStream(name, stream, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		must(err)
		defer func() { must(m.Close()) }()
		f(m)
	})
}

func TestVocabularyOfTheLibrary(t *testing.T) {
	withVocabulary(t, synth.Tiny, func(m *llama.Model) {
		pieces := func(text string, special bool) []string {
			tokens, err := m.Tokenize(text, special, false)
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			var pieces []string
			for _, token := range tokens {
				piece, err := m.TokenToPiece(token, true)
				if err != nil {
					t.Error(err)
				}
				pieces = append(pieces, piece)
			}
			return pieces
		}
		want := []string{bosName, "The", " machine", " answers", " in", " words", "."}
		if diff := cmp.Diff(want, pieces("The machine answers in words.", true)); diff != "" {
			t.Errorf("pieces (-want +got):\n%s", diff)
		}
		if n := len(pieces(synth.Text, false)); len(synth.Text)/n < 4 {
			t.Errorf("%d bytes of text are %d tokens", len(synth.Text), n)
		}
		for _, text := range []string{"", " ", "\n\n \t x", "naïve", "Ω≈ç√", "日本語のテキスト", "👩‍👩‍👧", "\x00\x01\x7f", bosName, " a\u00ada\u0085", "'s 1234 re're"} {
			if got := strings.Join(pieces(text, false), ""); got != text {
				t.Errorf("%q comes back as %q", text, got)
			}
		}
		rapid.Check(t, func(r *rapid.T) {
			text := rapid.String().Draw(r, "text")
			if got := strings.Join(pieces(text, false), ""); got != text {
				r.Fatalf("%q comes back as %q", text, got)
			}
		})
	})
}

const bosName = "<|begin_of_text|>"

// A vocabulary does not change the size and the parameters of a default model.
func TestVocabulariesChangeNothingElse(t *testing.T) {
	for _, name := range slices.Concat(synth.Names()[:1], []string{synth.Tiny}) {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		withVocabulary(t, name, func(m *llama.Model) {
			f := m.Facts()
			if f.SizeBytes != shape.ModelSize || f.Params != shape.Params || f.Vocab != int(shape.VocabSize) || !f.Tokenizer || !f.AddBOS || f.BOS != 0 {
				t.Errorf("%s: %+v", name, f)
			}
		})
	}
}
