//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"fmt"
	"math"
	"time"
	"unsafe"
)

// Timed is the set of a context's measuring instruments: whole repetitions of a
// benchmark, each timed inside one C call. Programs that want text use
// [Context.Generate] or [Context.Decode] instead.
//
// A repetition is one C call so that neither Go's scheduler nor its garbage
// collector can run between two tokens. (The cost of a cgo call, tens of
// nanoseconds, would not be a reason.) The methods allocate nothing in Go. They
// call llama_decode, the library's stable interface, where llama-bench 0.7.0
// calls llama_process. The two take equally long; scripts/parity compares them
// in one process.
//
// In all methods batch is the largest number of tokens in one decode, and is
// limited to the context's own. Nothing is cleared before or after, unless the
// method says so. An abort (Context.Abort) ends a repetition with ErrAborted.
type Timed struct{ c *Context }

// Timed returns the measuring instruments of the context. They follow its
// thread rule, except TokensDone.
func (c *Context) Timed() Timed { return Timed{c} }

// Repetition evaluates the prompt in chunks of at most batch tokens and
// synchronises once. Then it decodes the tokens of gen one at a time and
// synchronises after each. Either may be empty. The result is the time from
// before the first library call to after the last, on the monotonic clock, also
// with ErrAborted.
func (t Timed) Repetition(prompt, gen []Token, batch int) (time.Duration, error) {
	p, err := t.c.ptr()
	if err != nil {
		return 0, err
	}
	if err := t.c.checkRepetition(prompt, gen, &batch); err != nil {
		return 0, err
	}
	rc := C.bl_repetition(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)))
	return time.Duration(p.elapsed_ns), decodeError(int(rc))
}

// Prime runs an untimed pass: the whole prompt, then tokens of gen, at least
// one, until d has passed. Afterwards the CPUs are in the state in which a
// repetition finds them that follows another one directly.
func (t Timed) Prime(d time.Duration, prompt, gen []Token, batch int) error {
	p, err := t.c.ptr()
	if err != nil {
		return err
	}
	if err := t.c.checkRepetition(prompt, gen, &batch); err != nil {
		return err
	}
	return decodeError(int(C.bl_prime(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)), C.int64_t(d))))
}

// PrimedRepetition is Prime, Context.ClearMemory and Repetition in one C call.
// In separate calls the repetition takes about 0.2 ms longer where every CPU
// computes, unless Go has one processor (runtime.GOMAXPROCS): otherwise Go's monitor
// thread wakes about fifty times in the first 10 ms of each C call. In one call these
// 10 ms belong to the priming.
func (t Timed) PrimedRepetition(d time.Duration, prompt, gen []Token, batch int) (time.Duration, error) {
	p, err := t.c.ptr()
	if err != nil {
		return 0, err
	}
	if err := t.c.checkRepetition(prompt, gen, &batch); err != nil {
		return 0, err
	}
	rc := C.bl_primed_repetition(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)), C.int64_t(d))
	return time.Duration(p.elapsed_ns), decodeError(int(rc))
}

// repetitionInside is Repetition with a clock read before and after each library
// call. inside is the time spent in these calls. It measures the harness itself
// and costs two clock reads for each call.
func (t Timed) repetitionInside(prompt, gen []Token, batch int) (elapsed, inside time.Duration, err error) {
	p, err := t.c.ptr()
	if err != nil {
		return 0, 0, err
	}
	if err := t.c.checkRepetition(prompt, gen, &batch); err != nil {
		return 0, 0, err
	}
	rc := C.bl_repetition_inside(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)))
	return time.Duration(p.elapsed_ns), time.Duration(p.inside_ns), decodeError(int(rc))
}

// Generation is one repetition from end to end. It evaluates the prompt in
// chunks of at most batch tokens. Then, for each entry of out, it samples a
// token, turns the token into text, notes the time, and decodes the token unless
// it is the last one.
//
// at must be as long as out. It receives the time from before the first library
// call until the text of each token was there, on the monotonic clock. elapsed
// is the last of these times, or with an error the time that passed. bytes is
// the length of the text. Tokens that end a text, such as EOS, do not end the
// generation: repetitions of different lengths could not be compared.
func (t Timed) Generation(s *SamplerChain, prompt, out []Token, at []time.Duration, batch int) (elapsed time.Duration, bytes int64, err error) {
	p, err := t.c.owned()
	if err != nil {
		return 0, 0, err
	}
	vocab, err := t.c.model.vocab()
	if err != nil {
		return 0, 0, fmt.Errorf("generate: %w", err)
	}
	chain, err := s.picks()
	if err != nil {
		return 0, 0, err
	}
	if err := t.c.checkRepetition(prompt, out, &batch); err != nil {
		return 0, 0, err
	}
	if len(prompt) == 0 || len(out) == 0 || len(at) != len(out) {
		return 0, 0, fmt.Errorf("generate %d tokens with %d times from %d: %w", len(out), len(at), len(prompt), ErrInvalidBatch)
	}
	rc := C.bl_generate(p, vocab, chain, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch),
		tokens(out), (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(at))), C.int32_t(len(out)))
	return time.Duration(p.elapsed_ns), int64(p.bytes), decodeError(int(rc))
}

// TokensDone is the number of tokens done of the Repetition, PrimedRepetition or
// Generation under way, or of the last one: prompt tokens that the library was
// given, plus generated tokens that were computed. It may be called from any
// goroutine, and is 0 after Close.
func (t Timed) TokensDone() int {
	t.c.mu.RLock()
	defer t.c.mu.RUnlock()
	if t.c.c == nil {
		return 0
	}
	return int(C.bl_tokens_done(t.c.c))
}

// checkRepetition refuses arguments on which the library would end the process,
// and limits the batch to the context's own.
func (c *Context) checkRepetition(prompt, gen []Token, batch *int) error {
	if len(prompt) > math.MaxInt32 || len(gen) > math.MaxInt32 || *batch < 1 {
		return fmt.Errorf("repetition of %d and %d tokens in batches of %d: %w", len(prompt), len(gen), *batch, ErrInvalidBatch)
	}
	*batch = min(*batch, c.batch)
	return nil
}

// tokens is the C address of a slice of tokens, for the length of one call.
func tokens(t []Token) *C.llama_token { return (*C.llama_token)(unsafe.Pointer(unsafe.SliceData(t))) }

// bareCall and monotonicNs are for this package's benchmarks: a test file cannot
// import C.
func bareCall() { C.bl_noop() }

func monotonicNs() int64 { return int64(C.bl_monotonic_ns()) }
