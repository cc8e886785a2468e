//go:build cgo

package llama

// The directories of the headers and of the library are in CGO_CFLAGS and
// CGO_LDFLAGS, which eval "$(make env)" sets, unless the compiler finds them by
// itself. A #cgo pkg-config line would name no command that helps if the library
// is missing; bridge.h does. The loader, the run path and the libc of the unpacked
// library are in CGO_LDFLAGS too, because Go does not allow them in #cgo lines.

// #cgo CFLAGS: -O2 -std=gnu11 -Wall -Wextra -Wno-unused-parameter
// #cgo LDFLAGS: -lllama -lggml -lggml-base -lpthread -ldl
// #include "bridge.h"
import "C"
