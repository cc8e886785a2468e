//go:build cgo

package llamacpp

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// The library has a value for every word that settings allow.
func TestSettingsWords(t *testing.T) {
	words := func(have []string) []string { slices.Sort(have); return have }
	for name, d := range map[string]string{
		"split modes": cmp.Diff(words(slices.Clone(bench.SplitModes)), keysOf(splitModes)),
		"load modes":  cmp.Diff(words(slices.Clone(bench.LoadModes)), keysOf(loadModes)),
		"lazy modes":  cmp.Diff(words(slices.Clone(bench.LazyModes)), keysOf(lazyModes)),
	} {
		if d != "" {
			t.Errorf("%s (-settings +library):\n%s", name, d)
		}
	}
}

// The library makes a context with every type of KV cache that settings allow.
func TestKVTypes(t *testing.T) {
	for _, kv := range bench.KVTypes {
		t.Run(kv, func(t *testing.T) {
			job := tinyJob(false, nil)
			job.Settings.TypeK, job.Settings.TypeV = kv, kv
			if err := tinyEngine(t, job).Begin(result.Test{Gen: 1}); err != nil {
				t.Error(err)
			}
		})
	}
}

func keysOf[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
