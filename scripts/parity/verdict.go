//go:build cgo && parity

package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/stats"
)

// judgement is what the rates of three sides come to, of which the first two are
// alike: of the third to both, and beside it of the second to the first.
type judgement struct {
	alike, other []float64 // rates, in tokens/second
	ab, aa       stats.Estimate
	verdict      stats.Verdict
}

// judge compares three sides' rates, load by load and turn by turn.
func judge(series [3][][]float64) (judgement, error) {
	j := judgement{
		alike: slices.Concat(slices.Concat(series[0], series[1])...),
		other: slices.Concat(series[2]...),
	}
	both, err := between(series[0], series[1])
	if err != nil {
		return j, err
	}
	if j.ab, err = stats.GroupedRatio(series[2], both, confidence); err != nil {
		return j, err
	}
	if j.aa, err = stats.GroupedRatio(series[1], series[0], confidence); err != nil {
		return j, err
	}
	j.verdict = stats.Within(j.ab.Interval, j.aa.Interval)
	return j, nil
}

// between are the geometric means of the rates of two sides in each turn. They
// vary less than the rates of one.
func between(a, b [][]float64) ([][]float64, error) {
	means := make([][]float64, len(a))
	for load := range a {
		if len(a[load]) != len(b[load]) {
			return nil, stats.ErrUnpaired
		}
		for turn, rate := range a[load] {
			means[load] = append(means[load], math.Sqrt(rate*b[load][turn]))
		}
	}
	return means, nil
}

// cells are both rates, both ratios and the verdict, for a table.
func (j judgement) cells() table.Row {
	return table.Row{median(j.alike), median(j.other), interval(j.ab), interval(j.aa), j.verdict}
}

// printSign prints whether the ratios of several tests have a sign in common, and
// returns true where they have none. Two say little about that.
func printSign(ratios []float64) (signless bool, err error) {
	if len(ratios) < 3 {
		return true, nil
	}
	pooled, err := stats.PooledLogRatio(ratios, confidence)
	if err != nil {
		return false, err
	}
	sign := "no systematic sign"
	if signless = pooled.Contains(0); !signless {
		sign = "a systematic sign"
	}
	fmt.Printf("pooled log-ratio over %d tests: %+.4f (%+.4f…%+.4f), %s\n", len(ratios), pooled.Value, pooled.Low, pooled.High, sign)
	return signless, nil
}

func median(x []float64) string {
	s, err := stats.New(x)
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", s.Median())
}

func interval(e stats.Estimate) string {
	return fmt.Sprintf("%.4f (%.4f…%.4f)", e.Value, e.Interval.Low, e.Interval.High)
}
