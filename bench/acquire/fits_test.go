package acquire

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// A model is refused when nothing could make its shortest test fit; one that is too
// large by the second copy of its token embedding alone goes without.
func TestFitInto(t *testing.T) {
	header := func(name string) *gguf.File {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := shape.File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const (
		tied  = "gemma-2b.Q4_K_M.gguf" // 1,420 MiB, 281 MiB of which are the token embedding
		other = "llama-7b.Q4_K_M.gguf" // 3,891 MiB, with an output of its own
		mib   = 1 << 20
	)
	noRepack := func(s *bench.Settings) { s.NoRepack = true }
	mapped := func(s *bench.Settings) { s.LoadMode = "mmap" }
	for _, tt := range []struct {
		name, model string
		weights     result.Weights
		set         func(*bench.Settings)
		mib         uint64
		plain       bool // it is not repacked
		refused     string
	}{
		{"room for both copies", tied, result.SyntheticWeights, nil, 1730, false, ""},
		{"room for one copy", tied, result.SyntheticWeights, nil, 1720, true, ""},
		{"room for just one copy", tied, result.SyntheticWeights, nil, 1445, true, ""},
		{"no room", tied, result.SyntheticWeights, nil, 1435, false, "weights 1.7 GiB"},
		{"one copy was asked for", tied, result.SyntheticWeights, noRepack, 1445, true, ""},
		{"no room for the one that was asked for", tied, result.SyntheticWeights, noRepack, 1435, true, "weights 1.4 GiB"},
		{"mapped", tied, result.FileWeights, mapped, 30, false, ""},
		{"mapped, no room for the rest", tied, result.FileWeights, mapped, 10, false, "weights 0 B"},
		{"an output of its own", other, result.SyntheticWeights, nil, 4100, false, ""},
		{"no room for it", other, result.SyntheticWeights, nil, 3900, false, "weights 3.8 GiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := bench.Job{
				Model: bench.Model{Name: tt.model, Weights: tt.weights}, Settings: bench.DefaultSettings(2),
				Tests: []bench.TestBudget{{Test: result.Test{Prompt: 16384}}, {Test: result.Test{Prompt: 16}}},
			}
			if tt.set != nil {
				tt.set(&job.Settings)
			}
			asked := job.Settings.NoRepack
			err := fitInto(&job, header(tt.model), tt.mib*mib, gguf.RepackUnknown)
			var missing *supervise.Missing
			if (err == nil) != (tt.refused == "") || err != nil && (!errors.As(err, &missing) || missing.Status != result.OutOfMemory || !strings.Contains(missing.Reason, tt.refused)) {
				t.Errorf("got %v, want %q", err, tt.refused)
			}
			if got := job.Effective().NoRepack; got != tt.plain {
				t.Errorf("no repacking: %v", got)
			}
			warned := len(job.Warnings) == 1 && job.Warnings[0].Code == "no_repack" && strings.Contains(job.Warnings[0].Message, "repacked weights need more memory")
			if want := tt.plain && !asked; warned != want || !want && len(job.Warnings) > 0 {
				t.Errorf("warnings %v", job.Warnings)
			}
		})
	}
}

// The KV cache counts with the types of the settings: a model that fits with a
// quantised cache is not refused, and one that does not fit with f32 is.
func TestFitIntoCacheTypes(t *testing.T) {
	shape, err := synth.Lookup("llama-7b.Q4_K_M.gguf")
	if err != nil {
		t.Fatal(err)
	}
	header, err := shape.File()
	if err != nil {
		t.Fatal(err)
	}
	// 16,384 tokens of f16 are 8 GiB in its 32 layers of 4,096 keys and values.
	for _, tt := range []struct {
		k, v string
		gib  uint64
		fits bool
	}{
		{"f16", "f16", 13, true}, {"f16", "f16", 11, false}, {"q4_0", "q4_0", 7, true}, {"q4_0", "q4_0", 6, false},
		{"f32", "f32", 13, false}, {"f32", "f32", 21, true}, {"f16", "q8_0", 11, true},
	} {
		job := bench.Job{
			Model: bench.Model{Weights: result.SyntheticWeights}, Settings: bench.DefaultSettings(2), Tests: []bench.TestBudget{{Test: result.Test{Prompt: 16384}}},
		}
		job.Settings.TypeK, job.Settings.TypeV = tt.k, tt.v
		if err := fitInto(&job, header, tt.gib<<30, gguf.RepackUnknown); (err == nil) != tt.fits {
			t.Errorf("%s and %s in %d GiB: %v", tt.k, tt.v, tt.gib, err)
		}
	}
}

// How the settings and the CPU decide the memory.
func TestContextOf(t *testing.T) {
	for _, tt := range []struct {
		set      func(*bench.Settings)
		features []string
		want     gguf.Context
	}{
		{func(*bench.Settings) {}, []string{"avx2", "amx_int8"}, gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16, Repack: gguf.RepackAMX}},
		{func(*bench.Settings) {}, []string{"fma", "avx2"}, gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16, Repack: gguf.RepackAVX2}},
		{func(*bench.Settings) {}, []string{"asimd"}, gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16, Repack: gguf.RepackUnknown}},
		{func(s *bench.Settings) { s.NoRepack = true }, []string{"avx2"}, gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16, Repack: gguf.RepackNone}},
		{func(s *bench.Settings) { s.Batch, s.FlashAttn, s.TypeV = 64, 0, "f32" }, nil, gguf.Context{UBatch: 64, K: gguf.F16, V: gguf.F32, FlashOff: true}},
		{func(s *bench.Settings) { s.UBatch, s.FlashAttn, s.TypeK = 64, -1, "q8_0" }, nil, gguf.Context{UBatch: 64, K: gguf.Q8_0, V: gguf.F16}},
	} {
		s := bench.DefaultSettings(1)
		tt.set(&s)
		if diff := cmp.Diff(tt.want, contextOf(s, repackOf(tt.features))); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.features, diff)
		}
	}
}
