package record_test

import (
	"testing"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// BenchmarkRecord makes a record from the events of a test of five repetitions.
func BenchmarkRecord(b *testing.B) {
	job := jobOf()
	b.Run("test=pp512/reps=5", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if assemble(job, result.Test{Prompt: 512}, 1*s, 1*s, 1*s, 1*s, 1*s).Record == nil {
				b.Fatal("no record")
			}
		}
	})
}
