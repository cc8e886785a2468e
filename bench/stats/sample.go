// Package stats holds the estimators behind every printed number, each with
// its definition and its source.
//
// [New] checks the input once: a [Sample] is finite and not empty, so its methods
// return plain numbers. Methods that need more values return ok = false if there
// are too few. No function panics or changes the caller's slice.
package stats

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// MaxMagnitude is the largest absolute value in a sample. The square of a larger
// number, which the standard deviation needs, may overflow a float64.
const MaxMagnitude = 1e150

// Errors of New.
var (
	ErrEmpty      = errors.New("sample is empty")
	ErrOutOfRange = fmt.Errorf("sample value is not a number in ±%g", MaxMagnitude)
)

// Sample is a set of measurements in the order they were taken. It is immutable.
// The zero Sample is empty: its methods return NaN, or false.
type Sample struct {
	values []float64 // in the order measured
	sorted []float64 // ascending
}

// New copies x into a sample. The error is ErrEmpty or wraps ErrOutOfRange
// with the index of the first bad value.
func New(x []float64) (Sample, error) {
	if len(x) == 0 {
		return Sample{}, ErrEmpty
	}
	for i, v := range x {
		if math.IsNaN(v) || math.Abs(v) > MaxMagnitude {
			return Sample{}, fmt.Errorf("value %d is %g: %w", i, v, ErrOutOfRange)
		}
	}
	return Sample{values: slices.Clone(x), sorted: slices.Sorted(slices.Values(x))}, nil
}

// N is the number of values.
func (s Sample) N() int { return len(s.values) }

// Mean is the arithmetic mean, like llama-bench's avg_ts.
func (s Sample) Mean() float64 {
	if s.N() == 0 {
		return math.NaN()
	}
	return stat.Mean(s.values, nil)
}

// SD is the sample standard deviation, with n-1 in the denominator, like
// llama-bench's stddev_ts. It needs two values.
func (s Sample) SD() (sd float64, ok bool) {
	if s.N() < 2 {
		return 0, false
	}
	return stat.StdDev(s.values, nil), true
}

// CV is the coefficient of variation, SD divided by the mean: 0.01 is 1 %. It
// needs two values and a positive mean.
func (s Sample) CV() (cv float64, ok bool) {
	sd, ok := s.SD()
	mean := s.Mean()
	if !ok || mean <= 0 {
		return 0, false
	}
	return sd / mean, true
}

// Min is the smallest value.
func (s Sample) Min() float64 { return s.Quantile(0) }

// Max is the largest value.
func (s Sample) Max() float64 { return s.Quantile(1) }

// Median is the middle value, or the mean of the two middle values.
func (s Sample) Median() float64 { return s.Quantile(0.5) }

// PseudoMedian is the median of the means of all pairs of values, including the
// pairs of a value with itself. If the number of means is even, it is the lower
// of the two middle ones. For a symmetric distribution it estimates the median.
// It tolerates up to 29 % outliers and needs two thirds of the values that the
// sample median needs for the same precision.
//
// Source: Hodges and Lehmann, Estimates of Location Based on Rank Tests, The Annals
// of Mathematical Statistics 34(2), 1963.
func (s Sample) PseudoMedian() float64 {
	n := s.N()
	if n == 0 {
		return math.NaN()
	}
	half := (n*(n+1)/2 + 1) / 2
	low, high := s.Min(), s.Max() // low <= result <= high
	for {
		middle := low + (high-low)/2
		if middle <= low || middle >= high {
			break // no float64 lies between them
		}
		if s.pairsUpTo(middle) >= half {
			high = middle
		} else {
			low = middle
		}
	}
	if s.pairsUpTo(low) >= half {
		return low
	}
	return high
}

// pairsUpTo counts the pairs of PseudoMedian whose mean is at most x.
func (s Sample) pairsUpTo(x float64) int {
	count, j := 0, s.N()-1
	for i := range s.sorted {
		for j >= i && s.sorted[i]+(s.sorted[j]-s.sorted[i])/2 > x {
			j--
		}
		if j < i {
			break
		}
		count += j - i + 1
	}
	return count
}

// Quantile is the p-quantile, by linear interpolation between the order
// statistics around (n-1)·p. It is NaN for p outside [0, 1].
//
// Source: type 7 of Hyndman and Fan, Sample quantiles in statistical packages,
// The American Statistician 50(4), 1996. R and NumPy use it by default. gonum's
// LinInterp is type 4: its median of an even number of values is not the mean of
// the middle two.
func (s Sample) Quantile(p float64) float64 {
	if s.N() == 0 || !(p >= 0 && p <= 1) {
		return math.NaN()
	}
	whole, fraction := math.Modf(p * float64(s.N()-1))
	i := int(whole)
	if fraction == 0 {
		return s.sorted[i]
	}
	// Rounding may exceed high if low and high are equal.
	low, high := s.sorted[i], s.sorted[i+1]
	return min(low+fraction*(high-low), high)
}
