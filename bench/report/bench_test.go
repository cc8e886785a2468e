package report

import (
	"bytes"
	"io"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// BenchmarkWrite writes one record, or the table of one, in every format.
func BenchmarkWrite(b *testing.B) {
	o := completed(result.Test{Prompt: 512}, 366.12, 364.9, 367.3, 365.2, 366.8)
	for _, format := range Formats() {
		b.Run("format="+format, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w, err := New(format, io.Discard, Options{})
				if err != nil {
					b.Fatal(err)
				}
				if err := w.Write(o); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	var line bytes.Buffer
	w, err := New("jsonl", &line, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Write(completed(result.Test{Prompt: 512}, 366.12, 364.9, 367.3, 365.2, 366.8)); err != nil {
		b.Fatal(err)
	}
	b.Run("format=jsonl", func(b *testing.B) {
		b.SetBytes(int64(line.Len()))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ReadRecords(bytes.NewReader(line.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}
