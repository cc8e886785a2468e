//go:build cgo

package llama

import "time"

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

// RepetitionInside is a repetition that also times the library's calls. Only tests
// measure the harness itself.
func (t Timed) RepetitionInside(prompt, gen []Token, batch int) (elapsed, inside time.Duration, err error) {
	return t.repetitionInside(prompt, gen, batch)
}
