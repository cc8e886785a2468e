//go:build cgo && parity

package main

import (
	"math"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/stats"
)

// The third side is compared with the first two, and these with each other.
func TestJudge(t *testing.T) {
	var series [3][][]float64
	for i := range 6 {
		load := float64(i)
		series[0] = append(series[0], []float64{100 + load})
		series[1] = append(series[1], []float64{1.02 * (100 + load)})
		series[2] = append(series[2], []float64{1.1 * math.Sqrt(1.02) * (100 + load)})
	}
	j, err := judge(series)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(j.ab.Value-1.1) > 1e-9 || math.Abs(j.aa.Value-1.02) > 1e-9 || j.verdict != stats.OutsideNoise {
		t.Errorf("%v, noise floor %v: %s", j.ab, j.aa, j.verdict)
	}
	if len(j.alike) != 12 || len(j.other) != 6 {
		t.Errorf("%d and %d rates", len(j.alike), len(j.other))
	}
	series[1][0] = nil
	if _, err := judge(series); err == nil {
		t.Error("turns of one side are missing, but there is no error")
	}
}
