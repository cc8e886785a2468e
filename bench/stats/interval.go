package stats

import (
	"math"
	"sort"

	"gonum.org/v1/gonum/stat/distuv"
)

// Interval is a confidence interval.
type Interval struct {
	Low, High  float64
	Confidence float64 // really achieved, in (0, 1)
}

// Contains tells whether x lies in the closed interval.
func (i Interval) Contains(x float64) bool { return i.Low <= x && x <= i.High }

// inside tells whether all of i lies in outer.
func (i Interval) inside(outer Interval) bool { return outer.Contains(i.Low) && outer.Contains(i.High) }

// MedianCI is the narrowest interval between the k-th smallest and the k-th
// largest value that covers the median of the distribution with at least the
// wanted confidence. Confidence is the coverage really achieved, exact for any
// continuous distribution: 1 - 2·P(Binomial(n, ½) < k). Few values cannot reach
// a high one: the result is then [Min, Max] with what that achieves, 0.9375
// for five values. ok is false for one value, and for want outside (0, 1).
//
// Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
func (s Sample) MedianCI(want float64) (ci Interval, ok bool) {
	n := s.N()
	if n < 2 || !(want > 0 && want < 1) {
		return Interval{}, false
	}
	below := distuv.Binomial{N: float64(n), P: 0.5}
	coverage := func(k int) float64 { return 1 - 2*below.CDF(float64(k-1)) }
	// Coverage falls with k: k is the number of widths that reach what is wanted.
	k := max(1, sort.Search(n/2, func(i int) bool { return coverage(i+1) < want }))
	return Interval{
		Low:        s.sorted[k-1],
		High:       s.sorted[n-k],
		Confidence: coverage(k),
	}, true
}

// noiseDeviation is the relative deviation below which a repetition is never
// remarkable: 5 % of the median.
const noiseDeviation = 0.05

// SlowFirst tells by how much longer the first repetition took than the median
// of the others, for a sample of rates: 0.3 means 30 % more time. slow is true
// above 5 %, which 13 % of the published llama-bench records show: caches,
// clocks or lazily compiled kernels that the warm-up did not reach. It takes
// three positive rates to tell which one is odd.
func (s Sample) SlowFirst() (by float64, slow bool) {
	if s.N() < 3 || s.Min() <= 0 {
		return 0, false
	}
	others, err := New(s.values[1:])
	if err != nil {
		return 0, false
	}
	by = others.Median()/s.values[0] - 1
	return by, by > noiseDeviation
}

// outlierDeviations is how many robust standard deviations from the median an
// outlier lies. 3.5 (Iglewicz and Hoaglin) flags 20 % of undisturbed samples
// of five; hyperfine's 10 flags 3 %.
const outlierDeviations = 10

// madToSD makes the median absolute deviation an estimate of the standard
// deviation of a normal distribution: 1/Φ⁻¹(¾).
const madToSD = 1.482602218505602

// Outliers are the indices, in the order measured, of the values that lie both
// more than 10 robust standard deviations (1.4826 · the median absolute
// deviation) and more than 5 % from the median. The second condition is for
// five repetitions, whose deviation may be near 0 by chance. With it, 6 % of
// the published llama-bench records have an outlier. Fewer than three values
// have none.
//
// Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993; the
// threshold is that of hyperfine.
func (s Sample) Outliers() []int {
	if s.N() < 3 {
		return nil
	}
	median := s.Median()
	distances := make([]float64, s.N())
	for i, v := range s.values {
		distances[i] = math.Abs(v - median)
	}
	d, err := New(distances)
	if err != nil {
		return nil
	}
	limit := max(outlierDeviations*madToSD*d.Median(), noiseDeviation*math.Abs(median))
	var outliers []int
	for i, distance := range distances {
		if distance > limit {
			outliers = append(outliers, i)
		}
	}
	return outliers
}

// unsteadyCV is the coefficient of variation above which a sample is unsteady:
// 8 % of the published llama-bench records are, and 3 % have neither an
// outlier nor a slow first repetition that says so.
const unsteadyCV = 0.1

// Unsteady tells whether the values spread so much that none of them is typical:
// a coefficient of variation above 10 %. Such a spread has no outliers when it
// takes the median deviation along.
func (s Sample) Unsteady() bool {
	cv, ok := s.CV()
	return ok && cv > unsteadyCV
}
