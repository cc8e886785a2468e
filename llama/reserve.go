//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"fmt"

	"github.com/dustin/go-humanize"
)

// MaxOffloadDevices is the largest number of devices besides the CPU that a
// context can use. With one more the library ends the process with an assertion.
// It is GGML_SCHED_MAX_BACKENDS of ggml 0.27.0, which is in no header, less the
// CPU.
const MaxOffloadDevices = 15

// Reservation is memory of a device that is held for a later allocation. The Go
// value owns it, and Release frees it.
type Reservation struct {
	c C.ggml_backend_buffer_t
}

// Reserve allocates memory on a device (ggml_backend_buft_alloc_buffer). If the
// device does not give that much, the error is a *LoadError of class
// ErrOutOfMemory. A device may report more free memory than it gives.
func Reserve(device string, bytes uint64) (*Reservation, error) {
	entering()
	if err := opened(); err != nil {
		return nil, fmt.Errorf("reserve memory on %s: %w", device, err)
	}
	dev, err := deviceByName(device)
	if err != nil {
		return nil, err
	}
	defer keepErrors()()
	takeRecent()
	c := C.ggml_backend_buft_alloc_buffer(C.ggml_backend_dev_buffer_type(dev), C.size_t(bytes))
	if c == nil {
		err := LoadError{Source: humanize.IBytes(bytes) + " on " + device, Class: ErrOutOfMemory, Log: takeRecent()}
		return nil, &err
	}
	return &Reservation{c: c}, nil
}

// Release frees the memory (ggml_backend_buffer_free). It is idempotent.
func (r *Reservation) Release() {
	entering()
	if r.c != nil {
		C.ggml_backend_buffer_free(r.c)
		r.c = nil
	}
}
