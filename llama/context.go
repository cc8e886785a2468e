//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"fmt"
	"sync"
	"unsafe"
)

// Token is the number of an entry in the vocabulary, counted from 0.
type Token = int32

// Context is a KV cache and a compute graph for one model (struct
// llama_context). The Go value owns it, and Close frees it. Methods must be called
// on the OS thread that made the context, except Abort and ClearAbort.
type Context struct {
	// mu protects c from being freed by Close while another goroutine is in Abort,
	// ClearAbort or Timed.TokensDone.
	mu        sync.RWMutex
	c         *C.struct_bl_context
	model     *Model
	pool      *Threadpool
	batchPool *Threadpool // nil: pool
	vocab     int         // tokens of the vocabulary
	batch     int         // most tokens of one decode

	allocation Allocation
	changes    []Change
}

// NewContext creates a context (llama_init_from_model). The error is a *LoadError
// if the library refuses, most often because memory is short.
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
	changes := stop()
	if c == nil {
		return nil, newLoadError(fmt.Sprintf("context of %d tokens", cp.n_ctx), ErrInvalidContext, takeRecent())
	}
	m.contexts.Add(1)
	return &Context{c: c, model: m, vocab: m.facts.Vocab, batch: int(C.llama_n_batch(c.ctx)), allocation: a, changes: changes}, nil
}

// Allocation says where the KV cache and the compute buffers are.
func (c *Context) Allocation() Allocation { return c.allocation }

// Changes are the settings of ContextParams that the library did not use as it was
// asked to, at most one of each kind.
func (c *Context) Changes() []Change { return c.changes }

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
	}
	c.detach()
	C.bl_context_free(c.c)
	c.c = nil
	c.model.contexts.Add(-1)
	return nil
}

// ptr returns the C pointer, or ErrClosed. Every method gets the pointer here.
func (c *Context) ptr() (*C.struct_bl_context, error) {
	entering()
	if c.c == nil {
		return nil, fmt.Errorf("context: %w", ErrClosed)
	}
	return c.c, nil
}

// owned is ptr with the thread checked.
func (c *Context) owned() (*C.struct_bl_context, error) {
	p, err := c.ptr()
	if err != nil {
		return nil, err
	}
	return p, decodeError(int(C.bl_check_thread(p)))
}

// Size is the number of tokens that the KV cache holds (llama_n_ctx):
// ContextParams.Context, rounded up to a multiple of 256.
func (c *Context) Size() (int, error) {
	p, err := c.ptr()
	if err != nil {
		return 0, err
	}
	return int(C.llama_n_ctx(p.ctx)), nil
}

// Autoregressive returns ErrNotAutoregressive if the context has no KV cache
// (llama_get_memory), or if tokens attend to later ones (llama_get_causal_attn). Then
// the library needs a whole prompt in one pass, at most ContextParams.UBatch tokens. It
// would end the process for a longer one.
func (c *Context) Autoregressive() error {
	p, err := c.ptr()
	if err != nil {
		return err
	}
	if C.llama_get_memory(p.ctx) == nil || !bool(C.llama_get_causal_attn(p.ctx)) {
		return ErrNotAutoregressive
	}
	return nil
}

// Abort ends the running decode and all later ones with ErrAborted, until
// ClearAbort. On a CPU the running decode ends after the current node of the
// graph. Abort may be called from any goroutine. It does nothing after Close.
func (c *Context) Abort() { c.setAbort(true) }

// ClearAbort takes Abort back. It may be called from any goroutine.
func (c *Context) ClearAbort() { c.setAbort(false) }

func (c *Context) setAbort(abort bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.c != nil {
		C.bl_abort_set(c.c, C.bool(abort))
	}
}

// Decode evaluates tokens after those in the KV cache, at most
// ContextParams.Batch of them, and computes the logits of the last
// (llama_decode). It may return before a device is done; Synchronize waits.
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

// Synchronize waits until all computation is done (llama_synchronize).
func (c *Context) Synchronize() error {
	p, err := c.owned()
	if err != nil {
		return err
	}
	C.llama_synchronize(p.ctx)
	return nil
}

// ClearMemory empties the KV cache without overwriting its buffers
// (llama_memory_clear with data false, as llama-bench calls it).
func (c *Context) ClearMemory() error {
	p, err := c.owned()
	if err != nil {
		return err
	}
	C.llama_memory_clear(C.llama_get_memory(p.ctx), C.bool(false))
	return nil
}

// Logits returns a copy of the logits of the last token decoded, one for each
// entry of the vocabulary (llama_get_logits_ith with index -1).
func (c *Context) Logits() ([]float32, error) {
	p, err := c.owned()
	if err != nil {
		return nil, err
	}
	l := C.llama_get_logits_ith(p.ctx, -1)
	if l == nil {
		return nil, fmt.Errorf("logits: %w", ErrNoLogits)
	}
	out := make([]float32, c.vocab)
	copy(out, unsafe.Slice((*float32)(unsafe.Pointer(l)), c.vocab))
	return out, nil
}
