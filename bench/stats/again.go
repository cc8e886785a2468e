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

// driftFactor is the variance between runs divided by that between the parts of a run, if
// nothing but the machine's drift moves both: a machine that slows down for minutes moves
// the whole run, and its parts show little of it.
//
// Source: `make honesty` and `make verdicts` on a shared virtual machine, on which runs
// differed 1.2 to 2.9 times as much as the repetitions of a run.
const driftFactor = 3

const widestAgain = 10

// Again is the interval in which the median of another run of the same test, with as
// many values, lies with the wanted confidence, if the machine is as it was. It allows
// for the spread between the fifths of this run, for drift, and for loadSpread between
// loads, a share of the median. MedianCI is narrower: it speaks of the values that this
// load would give, not of another load. ok is false for fewer than two values, for a value
// that is not positive, for want outside (0, 1), and for an interval beyond a tenth or ten
// times the median, which tells nothing.
//
// The variance is that of the logarithm of the ratio of two medians, as in NewRuns. Its
// degrees of freedom follow from Welch and Satterthwaite; the loads' part has infinitely
// many.
//
// Source: Hahn and Meeker, Statistical Intervals, section 4.8 (intervals for the mean of
// a future sample).
func (s Sample) Again(want, loadSpread float64) (ci Interval, ok bool) {
	median := s.Median()
	if s.N() < 2 || !(s.Min() > 0) || !(want > 0 && want < 1) {
		return Interval{}, false
	}
	within, between := 2*driftFactor*s.partsVariance(), 2*loadSpread*loadSpread
	quantile := distuv.UnitNormal.Quantile(0.5 + want/2)
	if within > 0 {
		freedom := float64(min(s.N(), parts)-1) * (within + between) * (within + between) / (within * within)
		quantile = distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}.Quantile(0.5 + want/2)
	}
	half := math.Exp(quantile * math.Sqrt(within+between))
	if half > widestAgain {
		return Interval{}, false
	}
	return Interval{Low: median / half, High: median * half, Confidence: want}, true
}
