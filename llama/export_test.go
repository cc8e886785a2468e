//go:build cgo

package llama

// BareCall is a call into C that does nothing: what cgo itself costs.
func BareCall() { bareCall() }

// MonotonicNs is the clock that times repetitions.
func MonotonicNs() int64 { return monotonicNs() }

// WhyNot is what the library logs of a module that it cannot open.
func WhyNot(name, module string) []string {
	takeRecent()
	defer keepErrors()()
	askWhyNot(name, module)
	return takeRecent()
}
