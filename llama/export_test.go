//go:build cgo

package llama

// BareCall is a call into C that does nothing: what cgo itself costs.
func BareCall() { bareCall() }

// MonotonicNs is the clock that times repetitions.
func MonotonicNs() int64 { return monotonicNs() }
