package stats

import (
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/stat/distuv"
)

// Interval is a confidence interval.
type Interval struct {
	Low, High  float64
	Confidence float64 // the coverage achieved, in (0, 1)
}

// Contains reports whether x lies in the closed interval.
func (i Interval) Contains(x float64) bool { return i.Low <= x && x <= i.High }

// inside reports whether all of i lies in outer.
func (i Interval) inside(outer Interval) bool { return outer.Contains(i.Low) && outer.Contains(i.High) }

// MedianCI is a confidence interval of the median of the distribution. It is
// the narrowest interval from the k-th smallest to the k-th largest value that
// reaches the wanted confidence. Its Confidence is the coverage achieved, which
// is exact for any continuous distribution: 1 - 2·P(Binomial(n, ½) < k). If the
// sample is too small for the wanted confidence, the interval is [Min, Max]; its
// Confidence is 0.9375 for five values. ok is false for fewer than two values,
// and for want outside (0, 1).
//
// Source: Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
func (s Sample) MedianCI(want float64) (ci Interval, ok bool) {
	n := s.N()
	if n < 2 || !(want > 0 && want < 1) {
		return Interval{}, false
	}
	below := distuv.Binomial{N: float64(n), P: 0.5}
	coverage := func(k int) float64 { return 1 - 2*below.CDF(float64(k-1)) }
	// Coverage falls as k grows: k is the largest that still reaches want, at least 1.
	k := max(1, sort.Search(n/2, func(i int) bool { return coverage(i+1) < want }))
	return Interval{
		Low:        s.sorted[k-1],
		High:       s.sorted[n-k],
		Confidence: coverage(k),
	}, true
}

// noiseDeviation is a share of the median, 5 %. A repetition that deviates less
// is never reported.
const noiseDeviation = 0.05

// SlowFirst compares the first repetition with the median of the others, for a
// sample of rates. by is the additional time of the first: 0.3 means 30 % more.
// slow is true above 5 %, which is so in 13 % of the published llama-bench
// records. Causes are caches, clocks or lazily compiled kernels that the warm-up
// did not reach. SlowFirst needs three positive rates.
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

// outlierDeviations is the distance of an outlier from the median, in robust
// standard deviations. The usual 3.5 (Iglewicz and Hoaglin) flags 20 % of
// undisturbed samples of five; hyperfine's 10 flags 3 %.
const outlierDeviations = 10

// madToSD times the median absolute deviation estimates the standard deviation
// of a normal distribution: 1/Φ⁻¹(¾).
const madToSD = 1.482602218505602

// Outliers are the indices of the outliers, in the order measured. An outlier
// lies more than 10 robust standard deviations (1.4826 · the median absolute
// deviation) and more than 5 % from the median. The second condition is needed
// because the deviation of five repetitions may be near 0 by chance. Of the
// published llama-bench records, 6 % have an outlier. A sample of fewer than
// three values has none.
//
// Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993, with
// hyperfine's threshold.
func (s Sample) Outliers() []int {
	if s.N() < 3 {
		return nil
	}
	median := s.Median()
	distances := s.deviations()
	limit := max(outlierDeviations*madToSD*distances.Median(), noiseDeviation*math.Abs(median))
	var outliers []int
	for i, distance := range distances.values {
		if distance > limit {
			outliers = append(outliers, i)
		}
	}
	return outliers
}

// Without is the sample without the values at the given indices, in the order
// measured. ok is false if no value is left.
func (s Sample) Without(indices []int) (rest Sample, ok bool) {
	var values []float64
	for i, v := range s.values {
		if !slices.Contains(indices, i) {
			values = append(values, v)
		}
	}
	rest, err := New(values)
	return rest, err == nil
}

// unsteadyCV is the coefficient of variation above which a sample is unsteady.
// Of the published llama-bench records, 8 % are. 3 % are although they have
// neither an outlier nor a slow first repetition.
const unsteadyCV = 0.1

// Unsteady reports whether the coefficient of variation is above 10 %. No value
// of such a sample is typical. It may have no outliers, because a wide spread
// also raises the median deviation.
func (s Sample) Unsteady() bool {
	cv, ok := s.CV()
	return ok && cv > unsteadyCV
}
