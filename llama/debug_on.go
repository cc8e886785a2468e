//go:build cgo && llamadebug

package llama

import "runtime"

// entering is called first by every method that calls the library. Collecting
// garbage here turns memory that C kept too long into a crash at once.
func entering() { runtime.GC() }
