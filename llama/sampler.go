//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
)

// SamplerChain picks the next token from logits (struct llama_sampler of
// llama_sampler_chain_init). The Go value owns the chain and its samplers, and
// Close frees them all. It may be used with any context of one model, by one
// goroutine at a time. It keeps no reference to a context.
type SamplerChain struct{ c *C.struct_llama_sampler }

// NewSamplerChain makes an empty chain (llama_sampler_chain_init). To pick tokens,
// a chain must end with AddGreedy or AddDist.
func NewSamplerChain() *SamplerChain {
	entering()
	return &SamplerChain{C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())}
}

// AddGreedy adds a sampler that picks the likeliest token
// (llama_sampler_init_greedy).
func (s *SamplerChain) AddGreedy() error { return s.add(C.llama_sampler_init_greedy()) }

// AddDist adds a sampler that picks at random, by the probabilities
// (llama_sampler_init_dist). The same seed gives the same picks.
func (s *SamplerChain) AddDist(seed uint32) error {
	return s.add(C.llama_sampler_init_dist(C.uint32_t(seed)))
}

// AddTopK adds a sampler that keeps the k likeliest tokens
// (llama_sampler_init_top_k). With k of 0 or less it keeps all.
func (s *SamplerChain) AddTopK(k int) error {
	if k > math.MaxInt32 || k < math.MinInt32 {
		return fmt.Errorf("top-k of %d: %w", k, ErrInvalidSampler)
	}
	return s.add(C.llama_sampler_init_top_k(C.int32_t(k)))
}

// AddTopP adds a sampler that keeps the likeliest tokens whose probabilities add
// up to p, from 0 to 1, but at least least tokens (llama_sampler_init_top_p). With
// p of 1 it keeps all.
func (s *SamplerChain) AddTopP(p float32, least int) error {
	if !(p >= 0 && p <= 1) || least < 0 {
		return fmt.Errorf("top-p of %v, at least %d: %w", p, least, ErrInvalidSampler)
	}
	return s.add(C.llama_sampler_init_top_p(C.float(p), C.size_t(least)))
}

// AddTemp adds a sampler that divides the logits by a temperature of 0 or more
// (llama_sampler_init_temp). With 0 only the likeliest token remains.
func (s *SamplerChain) AddTemp(t float32) error {
	if !(t >= 0) || math.IsInf(float64(t), 0) {
		return fmt.Errorf("temperature of %v: %w", t, ErrInvalidSampler)
	}
	return s.add(C.llama_sampler_init_temp(C.float(t)))
}

// add appends a sampler to the chain, which then owns it (llama_sampler_chain_add).
func (s *SamplerChain) add(one *C.struct_llama_sampler) error {
	c, err := s.ptr()
	if err != nil {
		C.llama_sampler_free(one)
		return err
	}
	C.llama_sampler_chain_add(c, one)
	return nil
}

// Reset makes the chain forget its earlier picks and restarts random picks from
// their seed (llama_sampler_reset).
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

// ptr returns the C pointer, or ErrClosed. Every method gets the pointer here.
func (s *SamplerChain) ptr() (*C.struct_llama_sampler, error) {
	entering()
	if s.c == nil {
		return nil, fmt.Errorf("sampler chain: %w", ErrClosed)
	}
	return s.c, nil
}

// ErrInvalidSampler is the error for a sampler with invalid parameters, or a chain
// that cannot pick a token.
var ErrInvalidSampler = errors.New("invalid sampler")

// picks is ptr of a chain that picks a token. With any other chain the library
// would end the process.
func (s *SamplerChain) picks() (*C.struct_llama_sampler, error) {
	c, err := s.ptr()
	if err != nil {
		return nil, err
	}
	if bool(C.bl_sampler_picks(c)) {
		return c, nil
	}
	return nil, fmt.Errorf("sampler chain does not end with AddGreedy or AddDist: %w", ErrInvalidSampler)
}

// Sample picks a token from the logits of the last decode. The chain remembers the
// pick (llama_sampler_sample).
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
		return 0, fmt.Errorf("sample: %w", ErrNoLogits)
	}
	return Token(C.llama_sampler_sample(chain, p.ctx, -1)), nil
}

// Generate continues a prompt: it evaluates the prompt after what the KV cache
// holds, in batches, and then yields the text of one generated token after the
// other. It ends at a token that ends a text, or after n tokens; an n of 0 or
// less means no limit but the length of the context. A nil s picks the likeliest
// token each time.
//
// A piece of text can be part of a character: put the pieces together before you
// look at single characters. An error is the last thing yielded: ErrNoKVSlot when
// the context is full, ErrAborted after Abort. Iterate on the context's thread.
func (c *Context) Generate(s *SamplerChain, prompt []Token, n int) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := c.generate(s, prompt, n, yield); err != nil {
			yield("", err)
		}
	}
}

// generate yields pieces of text. It returns nil when yield asked for an end.
func (c *Context) generate(s *SamplerChain, prompt []Token, n int, yield func(string, error) bool) error {
	if len(prompt) == 0 {
		return fmt.Errorf("generate from a prompt without tokens: %w", ErrInvalidBatch)
	}
	if s == nil {
		s = NewSamplerChain()
		defer s.Close()
		if err := s.AddGreedy(); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(prompt, c.batch) {
		if err := c.Decode(batch); err != nil {
			return fmt.Errorf("evaluate a prompt of %d tokens: %w", len(prompt), err)
		}
	}
	for i := 1; ; i++ {
		token, err := c.Sample(s)
		if err != nil {
			return err
		}
		if c.model.Ends(token) {
			return nil
		}
		piece, err := c.model.TokenToPiece(token, false)
		if err != nil {
			return err
		}
		if !yield(piece, nil) || i == n {
			return nil
		}
		if err := c.Decode([]Token{token}); err != nil {
			return fmt.Errorf("token %d after the prompt: %w", i, err)
		}
	}
}
