//go:build cgo && parity

package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/stats"
)

// judgement compares the rates of three sides, of which the first two are the same
// program.
type judgement struct {
	alike, other []float64      // rates of the first two sides, and of the third, in tokens/second
	ab           stats.Estimate // ratio of the third side to the first two
	aa           stats.Estimate // noise floor: ratio of the second side to the first
	verdict      stats.Verdict
}

// judge compares the rates of three sides, each by load and turn.
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

// between returns the geometric means of two sides' rates, by load and turn. They
// vary less than the rates of one side.
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

// cells are the rates, the ratios and the verdict, as cells of a table.
func (j judgement) cells() table.Row {
	return table.Row{median(j.alike), median(j.other), interval(j.ab), interval(j.aa), j.verdict}
}

// printSign prints whether the ratios of all tests deviate systematically from 1. It
// returns true if they do not, or if there are fewer than three.
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

// median is the median of x as a text.
func median(x []float64) string {
	s, err := stats.New(x)
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", s.Median())
}

// interval is an estimate with its interval as a text.
func interval(e stats.Estimate) string {
	return fmt.Sprintf("%.4f (%.4f…%.4f)", e.Value, e.Interval.Low, e.Interval.High)
}
