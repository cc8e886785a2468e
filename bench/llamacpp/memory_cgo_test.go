//go:build cgo

package llamacpp

import (
	"testing"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// If the token embedding is also the output, the library keeps it once without
// repacking, and at most twice with it. The estimate of memory counts on this.
func TestWeightsInMemory(t *testing.T) {
	const margin = 2 * 0.01 * (1 << 20) // two buffers, as the library rounds them
	for _, name := range []string{synth.Tiny, "SmolLM-135M.Q4_K_M.gguf"} {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		header, err := shape.File()
		if err != nil {
			t.Fatal(err)
		}
		twice := float64(header.Memory(1, 1, gguf.F16, gguf.F16).Weights)
		once := twice - float64(header.TiedBytes())
		for what, most := range map[string]float64{
			"repacked":     1.03 * twice, // AMX pads, by 2 % of gemma-2b
			"not repacked": once + margin,
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				job := tinyJob(false, nil)
				job.Model.Name, job.Settings.NoRepack = name, what == "not repacked"
				var got float64
				for _, b := range tinyEngine(t, job).model.Allocation().Buffers {
					if b.Kind == "model" {
						got += float64(b.SizeBytes)
					}
				}
				if got < once-margin || got > most {
					t.Errorf("%.0f bytes, estimated %.0f, or %.0f with a second embedding", got, once, twice)
				}
			})
		}
	}
}
