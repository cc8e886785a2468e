//go:build cgo && cuda && !cpu

package llamacpp

import (
	"errors"
	"testing"

	"github.com/sparecores/benchmark-llm/bench"
)

// With build tag cuda the engine starts only with a CUDA device, or if the caller
// accepts the CPU.
func TestCUDABuildNeedsADevice(t *testing.T) {
	devices, _, err := Devices(Options{AllowCPU: true})
	if err != nil {
		t.Fatal(err)
	}
	cuda := false
	for _, d := range devices {
		cuda = cuda || d.Backend == "CUDA"
	}
	e, err := New(bench.Job{}, Options{})
	switch {
	case cuda && err != nil:
		t.Errorf("there is a CUDA device, but %v", err)
	case !cuda && !errors.Is(err, ErrNoCUDA):
		t.Errorf("without a CUDA device New returned %v", err)
	case cuda:
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}
