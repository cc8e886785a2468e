package synth

import (
	_ "embed" // the text
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Text is English prose of about 4000 bytes. Its words are single tokens of the
// generated vocabularies. A prompt made of it therefore has as many bytes per token
// as with a published tokenizer.
//
//go:embed text.txt
var Text string

// The special tokens of a generated vocabulary. They are its first two tokens.
const (
	bosToken = "<|begin_of_text|>"
	eosToken = "<|end_of_text|>"
)

// minVocabulary is the least number of tokens of a byte-level vocabulary: the
// special tokens, and one token for each byte.
const minVocabulary = 2 + 256

// WithVocabulary returns a copy of a synthetic model's header with a tokenizer:
// byte-level BPE like GPT-2's, with as many tokens as the model has. Tokenising a
// text and detokenising the result gives the same text. Weights, parameters and
// other keys stay the same. The tokens are all bytes, then merges for common English
// words, so that a token has about four bytes of a prompt as in published models, then
// joined words. A shape has no vocabulary, because libllama reads 49,152 tokens for
// half a second, and only end-to-end tests need them. WithVocabulary does not change
// f. name is the name of the model in errors. It fails if the model has too few or
// too many tokens.
func WithVocabulary(name string, f *gguf.File) (*gguf.File, error) {
	tokens := f.Vocabulary()
	if tokens < minVocabulary || tokens > maxVocabulary {
		return nil, fmt.Errorf("%w for %s: it has %d tokens, but a vocabulary can be generated for %d to %d",
			ErrHeader, name, tokens, minVocabulary, maxVocabulary)
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

// maxVocabulary is the largest number of tokens of a vocabulary. It bounds the
// memory, and is far above every known model.
const maxVocabulary = 1 << 19

// vocabulary is a byte-level BPE vocabulary under construction.
type vocabulary struct {
	size   int // number of tokens at the end
	tokens []string
	merges []string          // "left right", in the order of their rank
	known  map[string]bool   // all tokens
	ranks  map[[2]string]int // ranks of the merges that learn uses
}

// newVocabulary makes a vocabulary of n tokens, always the same for the same n. It
// has the special tokens, the bytes, the parts of common words, the words of Text,
// and then combinations of these.
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
	// The rest are longer tokens with their merges. They only have to exist, because
	// any token may be sampled.
	var ends []string
	for _, token := range v.tokens[minVocabulary:] {
		if !strings.HasPrefix(token, space) {
			ends = append(ends, token)
		}
	}
	for i := minVocabulary; len(v.tokens) < n; i++ { // new tokens become starts later
		start := v.tokens[i]
		for _, end := range ends {
			token := start + end
			if !v.known[token] && len(v.tokens) < n {
				v.add(token)
				v.merges = append(v.merges, start+" "+end) // learn no longer needs its rank
			}
		}
	}
	return v
}

// commonParts are the most frequent parts of English words. They keep words that are
// not in Text from being split into many tokens.
const commonParts = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi " +
	"ri ro ic ne ea ra ce li ch ll be ma si om ur ing ion ent the and"

// words matches the words of GPT-2's tokenizer. A word includes the space before it.
var words = regexp.MustCompile(` ?\p{L}+`)

// add adds a token.
func (v *vocabulary) add(token string) {
	v.known[token] = true
	v.tokens = append(v.tokens, token)
}

// merge adds the rule that joins left and right, and the resulting token.
func (v *vocabulary) merge(left, right string) {
	v.ranks[[2]string{left, right}] = len(v.merges)
	v.merges = append(v.merges, left+" "+right)
	if !v.known[left+right] {
		v.add(left + right)
	}
}

// learn adds rules until they make the word one token, or until the vocabulary is
// full. New rules have the lowest priority, so words that were learned before stay
// single tokens.
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

// apply joins neighbours by the rules, like a tokenizer: the rule with the lowest
// rank first.
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

// space is the printable character that stands for the space.
var space = string(byteRune(' '))

// byteRune is the printable character that stands for a byte in a byte-level
// vocabulary (GPT-2's bytes_to_unicode). Printable Latin-1 stands for itself. Other
// bytes have characters from U+0100 on, in their order.
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
