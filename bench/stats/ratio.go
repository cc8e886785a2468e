package stats

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Estimate is an estimated value with its confidence interval.
type Estimate struct {
	Value float64
	Interval
}

// Errors of the functions that compare two series.
var (
	ErrTooFew     = errors.New("too few values to compare")
	ErrNotRate    = errors.New("a ratio needs positive values")
	ErrUnpaired   = errors.New("pairs need two series of equal length")
	ErrConfidence = errors.New("confidence is not in (0, 1)")
)

// minCompared is the least number of values in a series of a ratio. Resamples of
// fewer values are too similar for a useful interval.
const minCompared = 5

// bootstrapResamples puts about 250 resamples beyond each end of a 95 %
// interval.
const bootstrapResamples = 10_000

// PairedRatioOfMedians is median(a)/median(b) with a percentile bootstrap
// interval, for series measured alternately. The pairs a[i], b[i] are resampled
// together: the state of the machine, which neighbours share, does not widen the
// interval. The seed is fixed, so the same input gives the same interval. Each
// series needs five positive values.
//
// Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
// 13, and chapter 8 on the unit of resampling. BCa's bias correction relies on a
// jackknife, which fails for medians.
func PairedRatioOfMedians(a, b []float64, confidence float64) (Estimate, error) {
	if len(a) != len(b) {
		return Estimate{}, ErrUnpaired
	}
	sa, err := rates(a, minCompared)
	if err != nil {
		return Estimate{}, fmt.Errorf("first series: %w", err)
	}
	sb, err := rates(b, minCompared)
	if err != nil {
		return Estimate{}, fmt.Errorf("second series: %w", err)
	}
	if !validConfidence(confidence) {
		return Estimate{}, ErrConfidence
	}
	random := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, bootstrapResamples)
	rankA, rankB := sa.ranks(), sb.ranks()
	drawnA, drawnB := make([]int, sa.N()), make([]int, sb.N()) // how often each rank was drawn
	for i := range ratios {
		clear(drawnA)
		clear(drawnB)
		for range len(a) {
			pair := random.IntN(len(a))
			drawnA[rankA[pair]]++
			drawnB[rankB[pair]]++
		}
		ratios[i] = sa.medianOf(drawnA) / sb.medianOf(drawnB)
	}
	r, err := New(ratios)
	if err != nil {
		return Estimate{}, fmt.Errorf("ratio: %w", err)
	}
	tail := (1 - confidence) / 2
	return Estimate{
		Value:    sa.Median() / sb.Median(),
		Interval: Interval{Low: r.Quantile(tail), High: r.Quantile(1 - tail), Confidence: confidence},
	}, nil
}

// ranks are the ranks of the values, from 0, in the order measured. Equal values
// have different ranks.
func (s Sample) ranks() []int {
	order := make([]int, s.N())
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(s.values[i], s.values[j]) })
	ranks := make([]int, s.N())
	for rank, i := range order {
		ranks[i] = rank
	}
	return ranks
}

// medianOf is the median of a resample of N values. counts says how often each
// rank was drawn, which avoids sorting the resample.
func (s Sample) medianOf(counts []int) float64 {
	n := s.N()
	atRank := func(rank int) float64 {
		for i, c := range counts {
			if rank -= c; rank < 0 {
				return s.sorted[i]
			}
		}
		return s.sorted[n-1]
	}
	low, high := atRank((n-1)/2), atRank(n/2)
	return low + (high-low)/2
}

// PairedRatio is exp of the median of log(a[i]/b[i]), with the interval of
// [Sample.MedianCI]. It is for series measured alternately, whose neighbours
// share the state of the machine. It needs five pairs of positive values.
func PairedRatio(a, b []float64, want float64) (Estimate, error) {
	logs, err := logRatios(a, b)
	if err != nil {
		return Estimate{}, err
	}
	if logs.N() < minCompared {
		return Estimate{}, fmt.Errorf("%d pairs: %w", logs.N(), ErrTooFew)
	}
	ci, ok := logs.MedianCI(want)
	if !ok {
		return Estimate{}, ErrConfidence
	}
	return Estimate{
		Value:    math.Exp(logs.Median()),
		Interval: Interval{Low: math.Exp(ci.Low), High: math.Exp(ci.High), Confidence: ci.Confidence},
	}, nil
}

// GroupedRatio is exp of the [Sample.PseudoMedian] of log(a[g][i]/b[g][i]) over
// the pairs of all groups. The pairs of a group have chance effects in common, so
// the interval is a percentile bootstrap that resamples whole groups. If the
// groups differ, the interval is as wide as one over the groups; if only pairs
// differ, it is as narrow as one over all pairs. The seed is fixed. GroupedRatio
// needs five groups of positive values.
//
// Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997,
// section 3.8, on resampling the upper level alone.
func GroupedRatio(a, b [][]float64, confidence float64) (Estimate, error) {
	switch {
	case len(a) != len(b):
		return Estimate{}, ErrUnpaired
	case len(a) < minCompared:
		return Estimate{}, fmt.Errorf("%d groups: %w", len(a), ErrTooFew)
	case !validConfidence(confidence):
		return Estimate{}, ErrConfidence
	}
	groups := make([][]float64, len(a))
	for g := range a {
		logs, err := logRatios(a[g], b[g])
		if err != nil {
			return Estimate{}, fmt.Errorf("group %d: %w", g+1, err)
		}
		groups[g] = logs.values
	}
	all, err := New(slices.Concat(groups...))
	if err != nil {
		return Estimate{}, err
	}
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]float64, groupResamples)
	drawn := make([][]float64, len(groups))
	for i := range values {
		for g := range drawn {
			drawn[g] = groups[random.IntN(len(groups))]
		}
		resample, err := New(slices.Concat(drawn...))
		if err != nil {
			return Estimate{}, err
		}
		values[i] = resample.PseudoMedian()
	}
	m, err := New(values)
	if err != nil {
		return Estimate{}, err
	}
	tail := (1 - confidence) / 2
	return Estimate{
		Value: math.Exp(all.PseudoMedian()),
		Interval: Interval{
			Low: math.Exp(m.Quantile(tail)), High: math.Exp(m.Quantile(1 - tail)), Confidence: confidence,
		},
	}, nil
}

// groupResamples puts 50 resamples beyond each end of a 95 % interval. Resamples
// of the few groups soon repeat, so more would add little.
const groupResamples = 2_000

// PooledLogRatio is the mean of the logarithms of ratios, one ratio per test,
// with Student's t interval over the tests. If the interval contains 0, there is
// no systematic difference. PooledLogRatio needs two positive ratios.
func PooledLogRatio(ratios []float64, confidence float64) (Estimate, error) {
	s, err := rates(ratios, 2)
	if err != nil {
		return Estimate{}, err
	}
	if !validConfidence(confidence) {
		return Estimate{}, ErrConfidence
	}
	logs := make([]float64, s.N())
	for i, r := range s.values {
		logs[i] = math.Log(r)
	}
	if s, err = New(logs); err != nil {
		return Estimate{}, err
	}
	sd, _ := s.SD()
	n := float64(s.N())
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile((1 + confidence) / 2)
	half := t * sd / math.Sqrt(n)
	mean := s.Mean()
	return Estimate{Value: mean, Interval: Interval{Low: mean - half, High: mean + half, Confidence: confidence}}, nil
}

// validConfidence reports whether c is in (0, 1) and so far from 1 that (1+c)/2,
// whose quantile is needed, does not round to 1.
func validConfidence(c float64) bool { return c > 0 && (1+c)/2 < 1 }

// rates is a sample of at least n positive values.
func rates(x []float64, n int) (Sample, error) {
	s, err := New(x)
	switch {
	case err != nil:
		return Sample{}, err
	case s.Min() <= 0:
		return Sample{}, ErrNotRate
	case s.N() < n:
		return Sample{}, fmt.Errorf("%d of the %d needed: %w", s.N(), n, ErrTooFew)
	}
	return s, nil
}

// logRatios is the sample of log(a[i]/b[i]).
func logRatios(a, b []float64) (Sample, error) {
	if len(a) != len(b) {
		return Sample{}, ErrUnpaired
	}
	if _, err := rates(a, 1); err != nil {
		return Sample{}, fmt.Errorf("first series: %w", err)
	}
	if _, err := rates(b, 1); err != nil {
		return Sample{}, fmt.Errorf("second series: %w", err)
	}
	logs := make([]float64, len(a))
	for i := range a {
		logs[i] = math.Log(a[i]) - math.Log(b[i])
	}
	return New(logs)
}

// Verdict is the result of comparing two programs.
type Verdict string

// The verdicts of Within.
const (
	WithinNoise  Verdict = "within"
	OutsideNoise Verdict = "outside"
	Inconclusive Verdict = "inconclusive" // too much noise: measure again
)

// The bounds of ratios in Within.
var (
	agreement  = Interval{Low: 0.99, High: 1.01} // counts as equal on a machine without noise
	worstNoise = Interval{Low: 0.97, High: 1.03} // the widest noise floor that allows a verdict
)

// Within compares the ratio of programs A and B with the noise floor: the ratio of
// A to itself, measured with the same number of pairs in the same run. ab and aa
// are the intervals of the two ratios.
//
// The result is Inconclusive if aa leaves 0.97-1.03, or if the ends of an
// interval are not positive numbers in ascending order. Otherwise it is
// WithinNoise if all of ab lies in the wider of 0.99-1.01 and aa, where the width
// is the quotient of the ends. Else it is OutsideNoise.
func Within(ab, aa Interval) Verdict {
	if !ab.ofRatio() || !aa.ofRatio() || !aa.inside(worstNoise) {
		return Inconclusive
	}
	floor := agreement
	if aa.High/aa.Low > agreement.High/agreement.Low {
		floor = aa
	}
	if ab.inside(floor) {
		return WithinNoise
	}
	return OutsideNoise
}

// ofRatio reports whether the ends of i are positive, finite and in ascending
// order.
func (i Interval) ofRatio() bool {
	return 0 < i.Low && i.Low <= i.High && i.High <= math.MaxFloat64
}
