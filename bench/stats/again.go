package stats

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// LoadSpread is the standard deviation of the speed between two loads of the same model
// on the same quiet machine, as a share of the speed. A loaded model keeps its speed,
// because its pages stay where they are; the next load places them anew.
//
// Source: chosen as a round number; `make honesty` measures it on a machine.
const LoadSpread = 0.01

// medianOverMean is the standard error of the median of a normal sample divided by
// that of its mean: √(π/2).
const medianOverMean = 1.2533141373155003

// Again is the interval in which the median of another run of the same test, with as
// many values, lies with the wanted confidence, if the machine is as it was. It allows
// for the spread within a run, for neighbours that depend on one another, and for
// loadSpread between runs, a share of the median. MedianCI is narrower: it speaks of the
// values that this load would give, not of another load. ok is false for fewer than two
// values, for a median that is not positive, and for want outside (0, 1).
//
// The variance is that of the difference of two medians. Its degrees of freedom follow
// from Welch and Satterthwaite; the load's part has infinitely many.
//
// Source: Hahn and Meeker, Statistical Intervals, section 4.8 (intervals for the mean of
// a future sample), with the median's standard error in place of the mean's.
func (s Sample) Again(want, loadSpread float64) (ci Interval, ok bool) {
	n, median := float64(s.N()), s.Median()
	one, has := s.medianVariance()
	if !has || !(median > 0) || !(want > 0 && want < 1) {
		return Interval{}, false
	}
	load := loadSpread * median
	within, between := 2*one, 2*load*load
	quantile := distuv.UnitNormal.Quantile(0.5 + want/2)
	if within > 0 {
		freedom := (n - 1) * (within + between) * (within + between) / (within * within)
		quantile = distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}.Quantile(0.5 + want/2)
	}
	half := quantile * math.Sqrt(within+between)
	return Interval{Low: max(0, median-half), High: median + half, Confidence: want}, true
}

// medianVariance estimates the variance of the median under repetition, as that of a
// normal sample whose neighbours depend on one another. ok is false for fewer than two
// values.
func (s Sample) medianVariance() (variance float64, ok bool) {
	sd, ok := s.SD()
	r := s.Dependence()
	return sd * sd / float64(s.N()) * medianOverMean * medianOverMean * (1 + r) / (1 - r), ok
}
