//go:build cgo && !llamadebug

package llama

// entering is called before every call into the library.
func entering() {}
