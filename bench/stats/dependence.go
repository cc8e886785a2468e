package stats

import (
	"math"

	"gonum.org/v1/gonum/stat"
)

// mostDependence bounds Dependence. Above it, an interval would widen without end.
const mostDependence = 0.95

// winsorDeviations is how many robust standard deviations from the median a value
// keeps its weight in Dependence. A single outlier would hide the dependence of all
// other values.
const winsorDeviations = 3

// Dependence is the autocorrelation of neighbouring values, in the order measured, in
// [0, 0.95]. It is 0 for independent values, for values that alternate, and for fewer
// than four values. Values far from the median are moved to three robust standard
// deviations from it. The bias of short samples is corrected.
//
// Source of the correction: Kendall, Note on Bias in the Estimation of Autocorrelation,
// Biometrika 41, 1954.
func (s Sample) Dependence() float64 {
	n := s.N()
	if n < 4 {
		return 0
	}
	reach := winsorDeviations * madToSD * s.deviations().Median()
	if reach == 0 {
		return 0
	}
	median := s.Median()
	near := make([]float64, n)
	for i, v := range s.values {
		near[i] = max(median-reach, min(median+reach, v))
	}
	mean := stat.Mean(near, nil)
	var together, alone float64
	for i, v := range near {
		alone += (v - mean) * (v - mean)
		if i > 0 {
			together += (v - mean) * (near[i-1] - mean)
		}
	}
	r := together / alone
	r += (1 + 4*r) / float64(n)
	return max(0, min(mostDependence, r))
}

// deviations are the distances of the values from the median, in the order measured.
func (s Sample) deviations() Sample {
	median := s.Median()
	distances := make([]float64, s.N())
	for i, v := range s.values {
		distances[i] = math.Abs(v - median)
	}
	d, err := New(distances)
	if err != nil { // two values near ±MaxMagnitude
		return Sample{}
	}
	return d
}

// MedianCIDependent is MedianCI for values that may depend on their neighbours, as the
// speeds of a machine do whose clocks and caches change slowly. Dependent values tell
// less than independent ones: the interval is wider by √((1+r)/(1-r)) on both sides of
// the median, where r is Dependence. This is exact in the limit for the mean of an
// autoregressive process, and an approximation for the median. The confidence is that
// of MedianCI.
//
// Source: Box, Jenkins and Reinsel, Time Series Analysis, 4th edition, section 2.1.
func (s Sample) MedianCIDependent(want float64) (ci Interval, ok bool) {
	if ci, ok = s.MedianCI(want); !ok {
		return ci, false
	}
	r, median := s.Dependence(), s.Median()
	wider := math.Sqrt((1 + r) / (1 - r))
	ci.Low, ci.High = median-wider*(median-ci.Low), median+wider*(ci.High-median)
	return ci, true
}
