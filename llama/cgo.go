//go:build cgo

package llama

// The rest of what the linker must know (loader, run path, libc of the
// unpacked library) travels in CGO_LDFLAGS, because Go's flag allow-list
// refuses it here: `eval "$(make env)"` sets it.

// #cgo pkg-config: llama
// #cgo CFLAGS: -O2 -std=gnu11 -Wall -Wextra -Wno-unused-parameter
// #cgo LDFLAGS: -lpthread -ldl
// #include "bridge.h"
import "C"
