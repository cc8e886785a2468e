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

// Tokenize splits a text into tokens (llama_tokenize). With special it adds the
// tokens that the vocabulary puts around a text, such as BOS. With parseSpecial
// the name of a special token in the text becomes that token; otherwise it is
// plain text. The caller owns the result. The error is ErrNoTokenizer,
// ErrInvalidUTF8 or ErrClosed.
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
	// There are at most as many tokens as bytes, plus those added. A vocabulary that
	// normalises text may need more; the library then says how many.
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

// TokenToPiece is the text of a token (llama_token_to_piece). It can be part of a
// character, and so need not be valid UTF-8. A special token has its name as text
// with special, and no text otherwise. The error is ErrNoTokenizer,
// ErrInvalidToken or ErrClosed.
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

// Ends reports whether a token ends a text (llama_vocab_is_eog), as EOS does. It
// is false for a token that the vocabulary does not have, and after Close.
func (m *Model) Ends(t Token) bool {
	vocab, err := m.vocab()
	return err == nil && t >= 0 && int(t) < m.facts.Vocab && bool(C.llama_vocab_is_eog(vocab, C.llama_token(t)))
}

// vocab is the model's vocabulary, which the model owns. The error is
// ErrNoTokenizer if its tokens have no text.
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
