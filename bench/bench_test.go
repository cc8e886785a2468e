package bench_test

import (
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// repetitionDone is the event that is written between any two repetitions.
var repetitionDone = bench.Stamped{At: at, Event: bench.RepetitionDone{
	Sample: result.Sample{Repetition: 3, Start: at, Elapsed: 1398 * time.Millisecond}, UBatch: 350 * time.Millisecond,
}}

func BenchmarkEvent(b *testing.B) {
	line, err := repetitionDone.MarshalLine()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("event=repetition_done/op=encode", func(b *testing.B) {
		b.SetBytes(int64(len(line)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := repetitionDone.MarshalLine(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("event=repetition_done/op=decode", func(b *testing.B) {
		b.SetBytes(int64(len(line)))
		b.ReportAllocs()
		for b.Loop() {
			var s bench.Stamped
			if err := s.UnmarshalLine(line); err != nil {
				b.Fatal(err)
			}
		}
	})
}
