//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"fmt"
	"sync/atomic"

	"github.com/dustin/go-humanize/english"
)

// Priority is the scheduling priority of a threadpool.
type Priority int

// Priorities. The zero value is the normal one. PriorityHigh and PriorityRealtime
// need privileges. Without them they have no effect, and the library logs a
// warning.
const (
	PriorityNormal Priority = iota
	PriorityLow
	PriorityMedium
	PriorityHigh
	PriorityRealtime
)

// ThreadpoolParams says how the CPU back-end's threads behave (struct
// ggml_threadpool_params). Threads is required. The other zero values are
// llama-bench's defaults, except Poll's.
type ThreadpoolParams struct {
	Threads  int   // 1…512
	CPUs     []int // logical CPUs to run on, 0…511; nil: any
	Strict   bool  // each thread has one CPU of CPUs for itself
	Priority Priority
	Poll     int // 0 (no polling) … 100 (aggressive); llama-bench: 50
}

// Threadpool is a pool of compute threads (ggml_threadpool_t). The Go value owns
// it. Close frees it, after the contexts that it is attached to are closed.
type Threadpool struct {
	c        C.ggml_threadpool_t
	attached atomic.Int32
}

// NewThreadpool starts the threads of a pool (ggml_threadpool_new of the CPU
// back-end).
func NewThreadpool(p ThreadpoolParams) (*Threadpool, error) {
	entering()
	if err := opened(); err != nil {
		return nil, fmt.Errorf("threadpool: %w", err)
	}
	if p.Threads < 1 || p.Threads > C.GGML_MAX_N_THREADS {
		return nil, fmt.Errorf("threadpool: %d threads are outside 1…%d", p.Threads, C.GGML_MAX_N_THREADS)
	}
	if p.Poll < 0 || p.Poll > 100 {
		return nil, fmt.Errorf("threadpool: poll level %d is outside 0…100", p.Poll)
	}
	var cp C.struct_ggml_threadpool_params
	C.ggml_threadpool_params_init(&cp, C.int(p.Threads))
	for _, cpu := range p.CPUs {
		if cpu < 0 || cpu >= C.GGML_MAX_N_THREADS {
			return nil, fmt.Errorf("threadpool: CPU %d is outside 0…%d", cpu, C.GGML_MAX_N_THREADS-1)
		}
		cp.cpumask[cpu] = true
	}
	cp.strict_cpu = C.bool(p.Strict)
	cp.poll = C.uint32_t(p.Poll)
	switch p.Priority {
	case PriorityNormal:
		cp.prio = C.GGML_SCHED_PRIO_NORMAL
	case PriorityLow:
		cp.prio = C.GGML_SCHED_PRIO_LOW
	case PriorityMedium:
		cp.prio = C.GGML_SCHED_PRIO_MEDIUM
	case PriorityHigh:
		cp.prio = C.GGML_SCHED_PRIO_HIGH
	case PriorityRealtime:
		cp.prio = C.GGML_SCHED_PRIO_REALTIME
	default:
		return nil, fmt.Errorf("threadpool: unknown priority %d", p.Priority)
	}
	c := C.bl_threadpool_new(&cp)
	if c == nil {
		return nil, fmt.Errorf("threadpool of %d threads: %w", p.Threads, ErrNoBackend)
	}
	return &Threadpool{c: c}, nil
}

// Close stops the threads (ggml_threadpool_free). It is idempotent. While a
// context uses the pool it does nothing and returns ErrInUse.
func (t *Threadpool) Close() error {
	entering()
	if t.c == nil {
		return nil
	}
	if n := t.attached.Load(); n > 0 {
		return fmt.Errorf("threadpool of %s: %w", english.Plural(int(n), "open context", ""), ErrInUse)
	}
	C.bl_threadpool_free(t.c)
	t.c = nil
	return nil
}

// AttachThreadpool makes the context compute prompts and single tokens on the pool
// (llama_attach_threadpool with one pool, as llama-bench does). The pool must stay
// open until the context is closed. A pool attached earlier is detached.
func (c *Context) AttachThreadpool(t *Threadpool) error { return c.AttachThreadpools(t, nil) }

// AttachThreadpools is AttachThreadpool with another pool for batches of several tokens,
// as llama-server has it; nil: t computes them, too.
func (c *Context) AttachThreadpools(t, batch *Threadpool) error {
	p, err := c.owned()
	if err != nil {
		return err
	}
	if t.c == nil || batch != nil && batch.c == nil {
		return fmt.Errorf("threadpool: %w", ErrClosed)
	}
	c.detach()
	if batch == nil {
		C.llama_attach_threadpool(p.ctx, t.c, nil)
	} else {
		C.llama_attach_threadpool(p.ctx, t.c, batch.c)
		batch.attached.Add(1)
	}
	c.pool, c.batchPool = t, batch
	t.attached.Add(1)
	return nil
}

// detach lets the pools of the context be closed.
func (c *Context) detach() {
	for _, pool := range []*Threadpool{c.pool, c.batchPool} {
		if pool != nil {
			pool.attached.Add(-1)
		}
	}
	c.pool, c.batchPool = nil, nil
}
