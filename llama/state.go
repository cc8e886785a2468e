//go:build cgo

package llama

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// ErrState is the error for a saved state that does not fit a context.
var ErrState = errors.New("saved state does not fit the context")

// State is a copy of a context's KV cache, in C memory. With it a long prompt is
// evaluated once and restored as often as needed. The Go value owns it, and Close
// frees it.
type State struct {
	data unsafe.Pointer
	size C.size_t
}

// SaveState copies the context's KV cache (llama_state_seq_get_data for sequence
// 0).
func (c *Context) SaveState() (*State, error) {
	p, err := c.owned()
	if err != nil {
		return nil, err
	}
	size := C.llama_state_seq_get_size(p.ctx, 0)
	s := &State{data: C.malloc(max(size, 1)), size: size}
	if n := C.llama_state_seq_get_data(p.ctx, (*C.uint8_t)(s.data), size, 0); n != size {
		s.Close()
		return nil, fmt.Errorf("save state: %d of %d bytes copied", n, size)
	}
	return s, nil
}

// RestoreState replaces the context's KV cache by a saved one
// (llama_state_seq_set_data). The state can be restored again.
func (c *Context) RestoreState(s *State) error {
	p, err := c.owned()
	if err != nil {
		return err
	}
	if s.data == nil {
		return fmt.Errorf("state: %w", ErrClosed)
	}
	if C.llama_state_seq_set_data(p.ctx, (*C.uint8_t)(s.data), s.size, 0) == 0 {
		return fmt.Errorf("restore %d bytes: %w", s.size, ErrState)
	}
	return nil
}

// Bytes is the size of the state in bytes; 0 after Close.
func (s *State) Bytes() int { return int(s.size) }

// Close frees the state. It is idempotent.
func (s *State) Close() {
	C.free(s.data)
	s.data, s.size = nil, 0
}
