//go:build cgo

package llama

// The linker also needs the loader, the run path and the libc of the unpacked
// library. Go's list of allowed flags refuses them here, so they are in
// CGO_LDFLAGS: eval "$(make env)" sets it.

// #cgo pkg-config: llama
// #cgo CFLAGS: -O2 -std=gnu11 -Wall -Wextra -Wno-unused-parameter
// #cgo LDFLAGS: -lpthread -ldl
// #include "bridge.h"
import "C"
