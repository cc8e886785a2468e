package stats

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkSample computes every statistic that a record has of its repetitions.
func BenchmarkSample(b *testing.B) {
	for _, n := range []int{5, 100} {
		x := noisy(n)
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := New(x)
				if err != nil {
					b.Fatal(err)
				}
				s.Mean()
				s.SD()
				s.CV()
				s.Median()
				s.MedianCI(0.95)
				s.SlowFirst()
				s.Outliers()
			}
		})
	}
}

func BenchmarkRatio(b *testing.B) {
	const n = 20
	x, y := noisy(n), noisy(n)
	for _, of := range []struct {
		name  string
		ratio func(a, b []float64, confidence float64) (Estimate, error)
	}{{"paired-medians", PairedRatioOfMedians}, {"paired", PairedRatio}} {
		b.Run(fmt.Sprintf("of=%s/n=%d", of.name, n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := of.ratio(x, y, 0.95); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// noisy are n rates around 100.
func noisy(n int) []float64 {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	x := make([]float64, n)
	for i := range x {
		x[i] = 100 + random.NormFloat64()
	}
	return x
}
