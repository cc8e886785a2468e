//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"fmt"
	"unsafe"
)

// Quantize encodes rows of n values each as a ggml type, given by its number in
// enum ggml_type (ggml_quantize_chunk). A type that needs an importance matrix gets
// one in which all values are 1. Quantize may be called from any goroutine.
func Quantize(ggmlType int32, values []float32, n int) ([]byte, error) {
	entering()
	t := C.enum_ggml_type(ggmlType)
	if ggmlType < 0 || ggmlType >= C.GGML_TYPE_COUNT || C.ggml_type_size(t) == 0 {
		return nil, fmt.Errorf("quantize: unknown tensor type %d", ggmlType)
	}
	if block := int(C.ggml_blck_size(t)); n < 1 || n%block != 0 || len(values) == 0 || len(values)%n != 0 {
		return nil, fmt.Errorf("quantize %d values in rows of %d: %s has blocks of %d",
			len(values), n, C.GoString(C.ggml_type_name(t)), block)
	}
	switch t {
	case C.GGML_TYPE_I8, C.GGML_TYPE_I16, C.GGML_TYPE_I32, C.GGML_TYPE_I64, C.GGML_TYPE_F64, C.GGML_TYPE_Q8_1, C.GGML_TYPE_Q8_K:
		// The library would end the process with an assertion.
		return nil, fmt.Errorf("quantize: the library does not produce %s", C.GoString(C.ggml_type_name(t)))
	}
	var matrix *C.float
	if C.ggml_quantize_requires_imatrix(t) {
		flat := make([]float32, n)
		for i := range flat {
			flat[i] = 1
		}
		matrix = (*C.float)(unsafe.Pointer(&flat[0]))
	}
	rows := len(values) / n
	out := make([]byte, int(C.ggml_row_size(t, C.int64_t(n)))*rows)
	written := C.ggml_quantize_chunk(t, (*C.float)(unsafe.Pointer(&values[0])), unsafe.Pointer(&out[0]), 0, C.int64_t(rows), C.int64_t(n), matrix)
	if int(written) != len(out) {
		return nil, fmt.Errorf("quantize: %d of %d bytes written", int(written), len(out))
	}
	return out, nil
}
