//go:build cgo

package llama

// BareCall calls a C function that does nothing: the cost of cgo itself.
func BareCall() { bareCall() }

// MonotonicNs reads the clock that times repetitions, in nanoseconds.
func MonotonicNs() int64 { return monotonicNs() }

// WhyNot returns what the library logs about a module that it cannot open.
func WhyNot(name, module string) []string {
	takeRecent()
	defer keepErrors()()
	askWhyNot(name, module)
	return takeRecent()
}
