package synth

import (
	_ "embed" // the text
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Text is English prose of some 4000 bytes. Its words are whole tokens of the
// generated vocabularies, so a prompt made of it has as many bytes in a token as
// with a published tokenizer.
//
//go:embed text.txt
var Text string

// The special tokens of a generated vocabulary, its first two.
const (
	bosToken = "<|begin_of_text|>"
	eosToken = "<|end_of_text|>"
)

// minVocabulary is the least number of tokens of a byte-level vocabulary: the
// special ones and one for each byte.
const minVocabulary = 2 + 256

// WithVocabulary is a header of a synthetic model with a tokenizer in the place
// of its number of tokens: byte-level BPE, as GPT-2 has it, of as many tokens as
// the model has. Every text is the detokenisation of its tokens. Weights,
// parameters and everything else stay the same; only the header grows, by
// some megabytes where there are many tokens, which the library takes a moment
// to read. f is not changed. name is the model's in error messages. It is an
// error when the model has too few tokens, or too many.
func WithVocabulary(name string, f *gguf.File) (*gguf.File, error) {
	tokens := f.Vocabulary()
	if tokens < minVocabulary || tokens > maxVocabulary {
		return nil, fmt.Errorf("%s %w: a vocabulary of %d tokens cannot be generated, it takes %d to %d",
			name, ErrHeader, tokens, minVocabulary, maxVocabulary)
	}
	v := newVocabulary(int(tokens))
	types := slices.Repeat([]int32{1}, len(v.tokens)) // LLAMA_TOKEN_TYPE_NORMAL
	types[0], types[1] = 3, 3                         // LLAMA_TOKEN_TYPE_CONTROL
	kv := slices.DeleteFunc(slices.Clone(f.KV), func(k gguf.KeyValue) bool {
		return isWords(k) || strings.HasPrefix(k.Key, "tokenizer.") && strings.HasSuffix(k.Key, "_token_id")
	})
	kv = append(kv,
		gguf.KeyValue{Key: "tokenizer.ggml.model", Value: "gpt2"},
		gguf.KeyValue{Key: "tokenizer.ggml.pre", Value: "gpt-2"},
		gguf.KeyValue{Key: "tokenizer.ggml.tokens", Value: v.tokens},
		gguf.KeyValue{Key: "tokenizer.ggml.token_type", Value: types},
		gguf.KeyValue{Key: "tokenizer.ggml.merges", Value: v.merges},
		gguf.KeyValue{Key: "tokenizer.ggml.bos_token_id", Value: uint32(0)},
		gguf.KeyValue{Key: "tokenizer.ggml.eos_token_id", Value: uint32(1)},
		gguf.KeyValue{Key: "tokenizer.ggml.add_bos_token", Value: true},
	)
	return gguf.New(kv, slices.Clone(f.Tensors))
}

// maxVocabulary bounds the memory of a vocabulary, and is far above that of
// every model known.
const maxVocabulary = 1 << 19

// vocabulary is a byte-level BPE vocabulary as it grows.
type vocabulary struct {
	size   int // that it is to have
	tokens []string
	merges []string // in the order of their rank: "left right"
	known  map[string]bool
	ranks  map[[2]string]int // of the merges that words are learned by
}

// newVocabulary makes a vocabulary of n tokens, always the same one: the special
// tokens, the bytes, the parts of common words, the words of Text, and then
// these joined, until there are n.
func newVocabulary(n int) *vocabulary {
	v := &vocabulary{size: n, known: make(map[string]bool, n), ranks: make(map[[2]string]int)}
	v.add(bosToken)
	v.add(eosToken)
	for b := range 256 {
		v.add(string(byteRune(byte(b))))
	}
	for _, word := range strings.Fields(commonParts) {
		v.learn(word)
	}
	for _, word := range words.FindAllString(Text, -1) {
		v.learn(word)
	}
	// A vocabulary of that size has longer words, and merges for them. Which ones
	// does not matter here: they are there to be sampled.
	var ends []string
	for _, token := range v.tokens[minVocabulary:] {
		if !strings.HasPrefix(token, space) {
			ends = append(ends, token)
		}
	}
	for i := minVocabulary; len(v.tokens) < n; i++ { // each start gives new tokens, which become starts
		start := v.tokens[i]
		for _, end := range ends {
			token := start + end
			if !v.known[token] && len(v.tokens) < n {
				v.add(token)
				v.merges = append(v.merges, start+" "+end) // nothing is learned by it any more
			}
		}
	}
	return v
}

// commonParts are what words of English are most often made of, so that those
// that Text lacks are split into few tokens, too.
const commonParts = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi " +
	"ri ro ic ne ea ra ce li ch ll be ma si om ur ing ion ent the and"

// words are what GPT-2's tokenizer splits a text into, as far as letters go: a
// word begins with the space before it.
var words = regexp.MustCompile(` ?\p{L}+`)

func (v *vocabulary) add(token string) {
	v.known[token] = true
	v.tokens = append(v.tokens, token)
}

// merge adds the rule that left and right make one token, and that token.
func (v *vocabulary) merge(left, right string) {
	v.ranks[[2]string{left, right}] = len(v.merges)
	v.merges = append(v.merges, left+" "+right)
	if !v.known[left+right] {
		v.add(left + right)
	}
}

// learn makes a word one token: it adds rules for as long as those known leave
// more than one, or until the vocabulary is full. New rules come after all
// others, so that words learned before stay whole.
func (v *vocabulary) learn(word string) {
	parts := make([]string, 0, len(word))
	for _, b := range []byte(word) {
		parts = append(parts, string(byteRune(b)))
	}
	for {
		parts = v.apply(parts)
		if len(parts) == 1 || len(v.tokens) >= v.size {
			return
		}
		v.merge(parts[0], parts[1])
	}
}

// apply joins neighbours by the rules, the earliest rule first, as a tokenizer
// does.
func (v *vocabulary) apply(parts []string) []string {
	for {
		best, at := len(v.merges), -1
		for i := range len(parts) - 1 {
			if rank, ok := v.ranks[[2]string{parts[i], parts[i+1]}]; ok && rank < best {
				best, at = rank, i
			}
		}
		if at < 0 {
			return parts
		}
		parts[at] += parts[at+1]
		parts = slices.Delete(parts, at+1, at+2)
	}
}

// space is the space character among the printable characters.
var space = string(byteRune(' '))

// byteRune is the printable character that stands for a byte in a byte-level
// vocabulary, GPT-2's bytes_to_unicode: itself where it is printable Latin-1,
// else the next one from U+0100 on.
func byteRune(b byte) rune {
	printable := func(b int) bool { return b >= '!' && b <= '~' || b >= '¡' && b <= 'ÿ' && b != 0xad }
	if printable(int(b)) {
		return rune(b)
	}
	n := rune(0x100)
	for i := range int(b) {
		if !printable(i) {
			n++
		}
	}
	return n
}
