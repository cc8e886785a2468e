//go:build cgo

package llama

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"fmt"
	"math"
	"unicode/utf8"
	"unsafe"
)

// Tokenize splits a text into tokens (llama_tokenize). special tells to add what
// the vocabulary puts around a text, such as BOS; parseSpecial, to take the names
// of special tokens in the text for these and not for text. The caller owns the
// result. The error is ErrNoTokenizer, ErrInvalidUTF8 or one of use.
func (m *Model) Tokenize(text string, special, parseSpecial bool) ([]Token, error) {
	vocab, err := m.vocab()
	if err != nil {
		return nil, fmt.Errorf("tokenize: %w", err)
	}
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("tokenize %d bytes: %w", len(text), ErrInvalidUTF8)
	}
	if len(text) > math.MaxInt32-64 {
		return nil, fmt.Errorf("tokenize: %d bytes are more than the library takes", len(text))
	}
	c := C.CString(text)
	defer C.free(unsafe.Pointer(c))
	// No token but those added stands for less than a byte, save for vocabularies
	// that normalise the text: these say how many they need.
	out := make([]Token, len(text)+2)
	for {
		n := int(C.llama_tokenize(vocab, c, C.int32_t(len(text)), tokens(out), C.int32_t(len(out)), C.bool(special), C.bool(parseSpecial)))
		switch {
		case n >= 0:
			return out[:n:n], nil
		case n == math.MinInt32 || -n <= len(out):
			return nil, fmt.Errorf("tokenize %d bytes: the library refused with %d", len(text), n)
		}
		out = make([]Token, -n)
	}
}

// TokenToPiece is the text of a token (llama_token_to_piece): some bytes, which
// need not be valid UTF-8 alone. special tells to give special tokens their
// names; otherwise they are empty. The error is ErrNoTokenizer, ErrInvalidToken
// or one of use.
func (m *Model) TokenToPiece(t Token, special bool) (string, error) {
	vocab, err := m.vocab()
	if err != nil {
		return "", fmt.Errorf("piece of token %d: %w", t, err)
	}
	if t < 0 || int(t) >= m.facts.Vocab {
		return "", fmt.Errorf("piece of token %d: %w of %d", t, ErrInvalidToken, m.facts.Vocab)
	}
	buf := make([]byte, 256)
	for {
		n := int(C.llama_token_to_piece(vocab, C.llama_token(t), (*C.char)(unsafe.Pointer(&buf[0])), C.int32_t(len(buf)), 0, C.bool(special)))
		if n >= 0 {
			return string(buf[:n]), nil
		}
		if -n <= len(buf) {
			return "", fmt.Errorf("piece of token %d: the library refused with %d", t, n)
		}
		buf = make([]byte, -n)
	}
}

// vocab is the model's vocabulary, which the model owns, if there are words in it.
func (m *Model) vocab() (*C.struct_llama_vocab, error) {
	c, err := m.ptr()
	if err != nil {
		return nil, err
	}
	if !m.facts.Tokenizer {
		return nil, fmt.Errorf("model %s: %w", m.facts.Description, ErrNoTokenizer)
	}
	return C.llama_model_get_vocab(c), nil
}
