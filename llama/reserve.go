//go:build cgo

package llama

// #include "bridge.h"
import "C"

import "github.com/dustin/go-humanize"

// MaxOffloadDevices is how many devices beside the CPU a context takes: one more
// ends the process with an assertion. It is GGML_SCHED_MAX_BACKENDS of ggml
// 0.27.0, which no header tells, less the CPU.
const MaxOffloadDevices = 15

// Reservation is memory of a device that is held for what will be allocated
// there later. The Go value owns it: Release frees it.
type Reservation struct {
	c C.ggml_backend_buffer_t
}

// Reserve allocates memory on a device (ggml_backend_buft_alloc_buffer). Its
// error is a LoadError of class ErrOutOfMemory when the device does not give that
// much, whatever it says of its free memory.
func Reserve(device string, bytes uint64) (*Reservation, error) {
	entering()
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
