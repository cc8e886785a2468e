//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"
)

// SamplerChain picks the next token out of logits (struct llama_sampler of
// llama_sampler_chain_init). The Go value owns it and the samplers added to it;
// Close frees them all. It is used with contexts of one model, by one goroutine
// at a time, and does not hold on to any.
type SamplerChain struct{ c *C.struct_llama_sampler }

// NewSamplerChain makes an empty chain (llama_sampler_chain_init). One that picks
// a token ends in AddGreedy or AddDist.
func NewSamplerChain() *SamplerChain {
	entering()
	return &SamplerChain{C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())}
}

// AddGreedy adds the pick of the likeliest token (llama_sampler_init_greedy).
func (s *SamplerChain) AddGreedy() error { return s.add(C.llama_sampler_init_greedy()) }

// AddDist adds a random pick by the probabilities (llama_sampler_init_dist); the
// same seed picks the same.
func (s *SamplerChain) AddDist(seed uint32) error {
	return s.add(C.llama_sampler_init_dist(C.uint32_t(seed)))
}

// AddTopK keeps the k likeliest tokens (llama_sampler_init_top_k); k of 0 or less
// keeps all.
func (s *SamplerChain) AddTopK(k int) error {
	if k > math.MaxInt32 || k < math.MinInt32 {
		return fmt.Errorf("top-k of %d: %w", k, ErrInvalidSampler)
	}
	return s.add(C.llama_sampler_init_top_k(C.int32_t(k)))
}

// AddTopP keeps the likeliest tokens that have the probability p in [0, 1]
// together, at least least of them (llama_sampler_init_top_p); p of 1 keeps all.
func (s *SamplerChain) AddTopP(p float32, least int) error {
	if !(p >= 0 && p <= 1) || least < 0 {
		return fmt.Errorf("top-p of %v, at least %d: %w", p, least, ErrInvalidSampler)
	}
	return s.add(C.llama_sampler_init_top_p(C.float(p), C.size_t(least)))
}

// AddTemp divides the logits by a temperature (llama_sampler_init_temp); 0 leaves
// only the likeliest token.
func (s *SamplerChain) AddTemp(t float32) error {
	if !(t >= 0) || math.IsInf(float64(t), 0) {
		return fmt.Errorf("temperature of %v: %w", t, ErrInvalidSampler)
	}
	return s.add(C.llama_sampler_init_temp(C.float(t)))
}

// add gives a sampler to the chain (llama_sampler_chain_add), which owns it then.
func (s *SamplerChain) add(one *C.struct_llama_sampler) error {
	c, err := s.ptr()
	if err != nil {
		C.llama_sampler_free(one)
		return err
	}
	C.llama_sampler_chain_add(c, one)
	return nil
}

// Reset forgets what was sampled, and starts random picks from their seed again
// (llama_sampler_reset).
func (s *SamplerChain) Reset() error {
	c, err := s.ptr()
	if err != nil {
		return err
	}
	C.llama_sampler_reset(c)
	return nil
}

// Close frees the chain and its samplers (llama_sampler_free). It is idempotent.
func (s *SamplerChain) Close() {
	entering()
	if s.c != nil {
		C.llama_sampler_free(s.c)
		s.c = nil
	}
}

// ptr is the one door to the C pointer.
func (s *SamplerChain) ptr() (*C.struct_llama_sampler, error) {
	entering()
	if s.c == nil {
		return nil, fmt.Errorf("sampler chain: %w", ErrClosed)
	}
	return s.c, nil
}

// ErrInvalidSampler is a sampler or a chain that cannot pick a token.
var ErrInvalidSampler = errors.New("invalid sampler")

// picks is ptr of a chain that picks a token: the library ends the process when
// one does not.
func (s *SamplerChain) picks() (*C.struct_llama_sampler, error) {
	c, err := s.ptr()
	if err != nil {
		return nil, err
	}
	if bool(C.bl_sampler_picks(c)) {
		return c, nil
	}
	return nil, fmt.Errorf("sampler chain that does not end in a pick: %w", ErrInvalidSampler)
}

// Sample picks a token from the logits of the last decode, and tells the chain
// that it was taken (llama_sampler_sample).
func (c *Context) Sample(s *SamplerChain) (Token, error) {
	p, err := c.owned()
	if err != nil {
		return 0, err
	}
	chain, err := s.picks()
	if err != nil {
		return 0, err
	}
	if C.llama_get_logits_ith(p.ctx, -1) == nil {
		return 0, fmt.Errorf("sample: %w (nothing was decoded)", ErrInvalidBatch)
	}
	return Token(C.llama_sampler_sample(chain, p.ctx, -1)), nil
}

// Generate runs one whole repetition from end to end in one C call: the prompt in
// chunks of at most batch tokens, then for each entry of out: sample a token,
// turn it into text, note the time, and decode it unless it is the last. at, as
// long as out, gets the times on the monotonic clock from before the first library
// call to when a token's text was there. elapsed is the last of them, or with an
// error the time that passed; bytes is the length of the text. Tokens that end a
// generation, such as EOS, do not end it: its length is out's. Nothing is cleared
// before or after, and nothing allocated.
func (c *Context) Generate(s *SamplerChain, prompt, out []Token, at []time.Duration, batch int) (elapsed time.Duration, bytes int64, err error) {
	p, err := c.owned()
	if err != nil {
		return 0, 0, err
	}
	vocab, err := c.model.vocab()
	if err != nil {
		return 0, 0, fmt.Errorf("generate: %w", err)
	}
	chain, err := s.picks()
	if err != nil {
		return 0, 0, err
	}
	if err := c.checkRepetition(prompt, out, &batch); err != nil {
		return 0, 0, err
	}
	if len(prompt) == 0 || len(out) == 0 || len(at) != len(out) {
		return 0, 0, fmt.Errorf("generate %d tokens with %d times from %d: %w", len(out), len(at), len(prompt), ErrInvalidBatch)
	}
	rc := C.bl_generate(p, vocab, chain, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch),
		tokens(out), (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(at))), C.int32_t(len(out)))
	return time.Duration(p.elapsed_ns), int64(p.bytes), decodeError(int(rc))
}
