//go:build cgo && !llamadebug

package llama

// entering is called first by every method that calls the library.
func entering() {}
