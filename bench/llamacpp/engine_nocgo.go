//go:build !cgo

package llamacpp

import (
	"context"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Engine cannot be made without the library.
type Engine struct{ bench.Engine }

// Version returns ErrNoLibrary.
func Version() (string, error) { return "", ErrNoLibrary }

// New returns ErrNoLibrary.
func New(bench.Job, Options) (*Engine, error) { return nil, ErrNoLibrary }

// Devices returns ErrNoLibrary.
func Devices(Options) ([]Device, bench.EngineFacts, error) {
	return nil, bench.EngineFacts{}, ErrNoLibrary
}

// CheckRPC returns ErrNoLibrary when there is something to ask.
func CheckRPC(_ context.Context, servers []string) error {
	if len(servers) == 0 {
		return nil
	}
	return ErrNoLibrary
}

// Quantizer returns ErrNoLibrary.
type Quantizer struct{}

var _ synth.Quantizer = Quantizer{}

// Quantize returns ErrNoLibrary.
func (Quantizer) Quantize(gguf.Type, []float32, int) ([]byte, error) { return nil, ErrNoLibrary }
