//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"fmt"
	"math"
	"sync"
	"time"
	"unsafe"
)

// Token is an entry of the vocabulary.
type Token = int32

// Context is a KV cache and a compute graph for one model (struct
// llama_context). The Go value owns it; Close frees it. All methods must be
// called on the OS thread that made it, except Abort, Aborting, ClearAbort and TokensDone.
type Context struct {
	// mu orders Abort, which comes from any goroutine, and Close: without it an
	// abort could write into a freed context.
	mu    sync.RWMutex
	c     *C.struct_bl_context
	model *Model
	pool  *Threadpool
	vocab int
	batch int

	allocation Allocation
}

// NewContext creates a context (llama_init_from_model). The error is a
// *LoadError when the library refused, most often for lack of memory.
func (m *Model) NewContext(p ContextParams) (*Context, error) {
	mc, err := m.ptr()
	if err != nil {
		return nil, err
	}
	cp, err := p.c()
	if err != nil {
		return nil, fmt.Errorf("context: %w", err)
	}
	takeRecent()
	var a Allocation
	stop := readAllocation(&a)
	c := C.bl_context_new(mc, cp, C.bool(p.AnyThread))
	stop()
	if c == nil {
		return nil, newLoadError(fmt.Sprintf("context of %d tokens", cp.n_ctx), ErrInvalidContext, takeRecent())
	}
	m.contexts.Add(1)
	return &Context{c: c, model: m, vocab: m.facts.Vocab, batch: int(C.llama_n_batch(c.ctx)), allocation: a}, nil
}

// Allocation is where the library put the KV cache and the memory to compute in.
func (c *Context) Allocation() Allocation { return c.allocation }

// Close frees the context (llama_free) and detaches its threadpool. It is
// idempotent.
func (c *Context) Close() error {
	entering()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c == nil {
		return nil
	}
	if C.bl_check_thread(c.c) != 0 {
		return fmt.Errorf("close context: %w", ErrWrongThread)
	}
	if c.pool != nil {
		C.llama_detach_threadpool(c.c.ctx)
		c.pool.attached.Add(-1)
	}
	C.bl_context_free(c.c)
	c.c = nil
	c.model.contexts.Add(-1)
	return nil
}

// ptr is the one door to the C pointer.
func (c *Context) ptr() (*C.struct_bl_context, error) {
	entering()
	if c.c == nil {
		return nil, fmt.Errorf("context: %w", ErrClosed)
	}
	return c.c, nil
}

// owned is ptr on the right thread.
func (c *Context) owned() (*C.struct_bl_context, error) {
	p, err := c.ptr()
	if err != nil {
		return nil, err
	}
	return p, decodeError(int(C.bl_check_thread(p)))
}

// Size is the number of tokens that the KV cache holds (llama_n_ctx): what was
// asked for, padded to 256.
func (c *Context) Size() (int, error) {
	p, err := c.ptr()
	if err != nil {
		return 0, err
	}
	return int(C.llama_n_ctx(p.ctx)), nil
}

// Abort makes a decode that is running, on the CPU after the graph node it is
// in, and every later one return ErrAborted, until ClearAbort. It may be called
// from any goroutine and does nothing after Close.
func (c *Context) Abort() { c.setAbort(true) }

// ClearAbort allows decodes again. It may be called from any goroutine.
func (c *Context) ClearAbort() { c.setAbort(false) }

func (c *Context) setAbort(abort bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.c != nil {
		C.bl_abort_set(c.c, C.bool(abort))
	}
}

// Aborting tells whether Abort is in force. It may be called from any goroutine.
func (c *Context) Aborting() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.c != nil && bool(C.bl_abort_get(c.c))
}

// TokensDone is how many tokens of the Repetition under way, or of the last one,
// were given to the library and, of generated ones, computed. It may be called
// from any goroutine.
func (c *Context) TokensDone() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.c == nil {
		return 0
	}
	return int(C.bl_tokens_done(c.c))
}

// Decode evaluates tokens after those in the KV cache, at most Batch of them,
// with logits for the last (llama_decode). It does not wait for a device:
// Synchronize does.
func (c *Context) Decode(tokens []Token) error {
	p, err := c.ptr()
	if err != nil {
		return err
	}
	if len(tokens) == 0 || len(tokens) > c.batch {
		return fmt.Errorf("decode %d tokens: %w (1…%d)", len(tokens), ErrInvalidBatch, c.batch)
	}
	return decodeError(int(C.bl_decode(p, (*C.llama_token)(unsafe.Pointer(&tokens[0])), C.int32_t(len(tokens)))))
}

// Synchronize waits for all computation (llama_synchronize).
func (c *Context) Synchronize() error {
	p, err := c.owned()
	if err != nil {
		return err
	}
	C.llama_synchronize(p.ctx)
	return nil
}

// ClearMemory empties the KV cache; its buffers keep their bytes
// (llama_memory_clear with data false, as llama-bench does).
func (c *Context) ClearMemory() error {
	p, err := c.owned()
	if err != nil {
		return err
	}
	C.llama_memory_clear(C.llama_get_memory(p.ctx), C.bool(false))
	return nil
}

// Repetition runs one whole repetition in one C call: prompt in chunks of at
// most batch tokens, one synchronise; then each token of gen as a decode of its
// own, each with a synchronise. Either may be empty. It returns the time on the
// monotonic clock from before the first to after the last library call, also
// with ErrAborted. Nothing is cleared before or after.
func (c *Context) Repetition(prompt, gen []Token, batch int) (time.Duration, error) {
	p, err := c.ptr()
	if err != nil {
		return 0, err
	}
	if err := c.checkRepetition(prompt, gen, &batch); err != nil {
		return 0, err
	}
	rc := C.bl_repetition(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)))
	return time.Duration(p.elapsed_ns), decodeError(int(rc))
}

// Prime runs an untimed pass that brings the CPUs to the state in which a
// repetition finds them that follows another: the whole prompt, then tokens of gen
// until d has passed, at least one. Nothing is cleared before or after.
func (c *Context) Prime(d time.Duration, prompt, gen []Token, batch int) error {
	p, err := c.ptr()
	if err != nil {
		return err
	}
	if err := c.checkRepetition(prompt, gen, &batch); err != nil {
		return err
	}
	return decodeError(int(C.bl_prime(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)), C.int64_t(d))))
}

// PrimedRepetition is Prime, ClearMemory and Repetition in one C call. Apart, a
// repetition took 0.16 ms longer where every CPU computes: about what the Go
// runtime's monitor takes, which wakes some fifty times in the first 10 ms of a call
// into C. Here they fall into the priming.
func (c *Context) PrimedRepetition(d time.Duration, prompt, gen []Token, batch int) (time.Duration, error) {
	p, err := c.ptr()
	if err != nil {
		return 0, err
	}
	if err := c.checkRepetition(prompt, gen, &batch); err != nil {
		return 0, err
	}
	rc := C.bl_primed_repetition(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)), C.int64_t(d))
	return time.Duration(p.elapsed_ns), decodeError(int(rc))
}

// RepetitionInside is Repetition with a clock read around every library call:
// inside is the time spent in them. It exists to measure the harness and costs
// two clock reads per call.
func (c *Context) RepetitionInside(prompt, gen []Token, batch int) (elapsed, inside time.Duration, err error) {
	p, err := c.ptr()
	if err != nil {
		return 0, 0, err
	}
	if err := c.checkRepetition(prompt, gen, &batch); err != nil {
		return 0, 0, err
	}
	rc := C.bl_repetition_inside(p, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)))
	return time.Duration(p.elapsed_ns), time.Duration(p.inside_ns), decodeError(int(rc))
}

// checkRepetition refuses what the library would answer with an assertion, and
// limits the batch to what the context takes.
func (c *Context) checkRepetition(prompt, gen []Token, batch *int) error {
	if len(prompt) > math.MaxInt32 || len(gen) > math.MaxInt32 || *batch < 1 {
		return fmt.Errorf("repetition of %d and %d tokens in batches of %d: %w", len(prompt), len(gen), *batch, ErrInvalidBatch)
	}
	*batch = min(*batch, c.batch)
	return nil
}

func tokens(t []Token) *C.llama_token { return (*C.llama_token)(unsafe.Pointer(unsafe.SliceData(t))) }

// Logits copies the logits of the last token of the last decode
// (llama_get_logits_ith(-1)), one per entry of the vocabulary.
func (c *Context) Logits() ([]float32, error) {
	p, err := c.owned()
	if err != nil {
		return nil, err
	}
	l := C.llama_get_logits_ith(p.ctx, -1)
	if l == nil {
		return nil, fmt.Errorf("logits: %w (nothing was decoded)", ErrInvalidBatch)
	}
	out := make([]float32, c.vocab)
	copy(out, unsafe.Slice((*float32)(unsafe.Pointer(l)), c.vocab))
	return out, nil
}

// bareCall and monotonicNs are for this package's benchmarks, which cannot hold
// C themselves.
func bareCall() { C.bl_noop() }

func monotonicNs() int64 { return int64(C.bl_monotonic_ns()) }
