//go:build cgo

package llama

// #include "roofline.h"
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/dustin/go-humanize"
)

// ErrNotMultiplied means that a device does not multiply weights of a type.
var ErrNotMultiplied = errors.New("the device does not multiply this type")

// RooflineParams say on which device a Roofline measures, and with which threads.
type RooflineParams struct {
	Device   string           // as in [Device.Name]
	Threads  ThreadpoolParams // of the CPU back-end
	NoRepack bool             // as ModelParams.NoRepack
}

// Roofline times the two operations that a language model consists of, and the plain
// read of memory, on one device. All methods but Abort are called on the Thread that
// made it.
type Roofline struct {
	c    *C.struct_bl_roofline
	pool *Threadpool

	mu sync.Mutex // protects c from Abort after Close
}

// NewRoofline opens a device (ggml_backend_dev_init). Close closes it.
func NewRoofline(p RooflineParams) (*Roofline, error) {
	entering()
	if err := opened(); err != nil {
		return nil, fmt.Errorf("open %s: %w", p.Device, err)
	}
	dev, err := deviceByName(p.Device)
	if err != nil {
		return nil, err
	}
	pool, err := NewThreadpool(p.Threads)
	if err != nil {
		return nil, err
	}
	cpus := make([]C.int32_t, max(len(p.Threads.CPUs), 1))
	for i, cpu := range p.Threads.CPUs {
		cpus[i] = C.int32_t(cpu)
	}
	defer keepErrors()()
	takeRecent()
	c := C.bl_roofline_new(dev, C.int32_t(p.Threads.Threads), pool.c, &cpus[0], C.int32_t(len(p.Threads.CPUs)), C.bool(p.NoRepack))
	if c == nil {
		return nil, errors.Join(&LoadError{Source: "open " + p.Device, Class: ErrOutOfMemory, Log: takeRecent()}, pool.Close())
	}
	return &Roofline{c: c, pool: pool}, nil
}

// Close frees the device's stream. The weights must have been released. It is
// idempotent.
func (r *Roofline) Close() error {
	entering()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c == nil {
		return nil
	}
	C.bl_roofline_free(r.c)
	r.c = nil
	return r.pool.Close()
}

// Abort makes the current call and all later ones return ErrAborted. Any goroutine may
// call it. A GPU first ends the product that it computes.
func (r *Roofline) Abort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c != nil {
		C.bl_roofline_abort(r.c, true)
	}
}

// RooflineWeights are matrices of one type in a device's memory.
type RooflineWeights struct {
	c    *C.struct_bl_weights
	rows int
	cols int
	row  int // bytes
	n    int
}

// Weights puts n matrices of rows × cols values into the device's memory, in the type of
// buffer that llama.cpp's loader chooses for them. data is the content of some rows,
// which are repeated. The error wraps ErrNotMultiplied, ErrOutOfMemory or ErrAborted.
// Release frees the memory.
func (r *Roofline) Weights(ggmlType int32, rows, cols, n int, data []byte) (*RooflineWeights, error) {
	entering()
	if r.c == nil {
		return nil, ErrClosed
	}
	t := C.enum_ggml_type(ggmlType)
	if ggmlType < 0 || ggmlType >= C.GGML_TYPE_COUNT || C.ggml_type_size(t) == 0 || rows < 1 || n < 1 || cols < 1 || cols%int(C.ggml_blck_size(t)) != 0 {
		return nil, fmt.Errorf("%d matrices of %d × %d values of type %d cannot be made", n, rows, cols, ggmlType)
	}
	row := int(C.ggml_row_size(t, C.int64_t(cols)))
	if len(data) == 0 || len(data)%row != 0 {
		return nil, fmt.Errorf("%d bytes are no rows of %d bytes", len(data), row)
	}
	defer keepErrors()()
	takeRecent()
	var supported C.bool
	c := C.bl_weights_new(r.c, t, C.int64_t(cols), C.int64_t(rows), C.int32_t(n), unsafe.Pointer(&data[0]), C.size_t(len(data)), &supported)
	switch {
	case c == nil && !bool(supported):
		return nil, fmt.Errorf("%s: %w", C.GoString(C.ggml_type_name(t)), ErrNotMultiplied)
	case c == nil:
		return nil, &LoadError{Source: humanize.IBytes(uint64(row) * uint64(rows) * uint64(n)), Class: ErrOutOfMemory, Log: takeRecent()}
	}
	return &RooflineWeights{c: c, rows: rows, cols: cols, row: row, n: n}, nil
}

// Release frees the memory. It is idempotent.
func (w *RooflineWeights) Release() {
	entering()
	if w.c != nil {
		C.bl_weights_free(w.c)
		w.c = nil
	}
}

// Buffer is the type of the buffer that holds the weights, such as "CPU_REPACK".
func (w *RooflineWeights) Buffer() string { return C.GoString(C.bl_weights_buffer(w.c)) }

// Bytes is the size of n of the matrices, in the file's format.
func (w *RooflineWeights) Bytes(n int) uint64 { return uint64(n) * uint64(w.rows) * uint64(w.row) }

// Ops is the number of operations of a product of n matrices: a multiplication and an
// addition for each value and column.
func (w *RooflineWeights) Ops(n, columns int) float64 {
	return 2 * float64(n) * float64(w.rows) * float64(w.cols) * float64(columns)
}

// Multiply returns the time of the product of each of the first n matrices with a matrix
// of columns columns (ggml_mul_mat). The first call with other numbers also allocates
// memory for the product, outside the time.
func (w *RooflineWeights) Multiply(n, columns int) (time.Duration, error) {
	entering()
	if w.c == nil {
		return 0, ErrClosed
	}
	if n < 1 || n > w.n || columns < 1 {
		return 0, fmt.Errorf("%d of %d matrices times %d columns", n, w.n, columns)
	}
	return rooflineTime(C.bl_weights_multiply(w.c, C.int32_t(n), C.int32_t(columns)))
}

// Read returns the time in which the CPU's threads read all matrices once, by plain loads
// of this package. The memory must be the host's.
func (w *RooflineWeights) Read() (time.Duration, error) {
	entering()
	if w.c == nil {
		return 0, ErrClosed
	}
	return rooflineTime(C.bl_weights_read(w.c))
}

// rooflineTime turns a time or a code of roofline.h into a time or an error.
func rooflineTime(ns C.int64_t) (time.Duration, error) {
	switch ns {
	case C.BL_ROOFLINE_ABORTED:
		return 0, ErrAborted
	case C.BL_ROOFLINE_MEMORY:
		return 0, ErrOutOfMemory
	case C.BL_ROOFLINE_FAILED:
		return 0, ErrCompute
	}
	return time.Duration(ns), nil
}
