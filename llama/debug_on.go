//go:build cgo && llamadebug

package llama

import "runtime"

// entering is called before every call into the library. It collects garbage, so
// a Go pointer that C kept too long crashes at once.
func entering() { runtime.GC() }
