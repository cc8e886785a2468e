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

// Estimate is a value with its confidence interval.
type Estimate struct {
	Value float64
	Interval
}

// Errors of the comparisons.
var (
	ErrTooFew     = errors.New("too few values to compare")
	ErrNotRate    = errors.New("a ratio needs positive values")
	ErrUnpaired   = errors.New("pairs need two series of equal length")
	ErrConfidence = errors.New("confidence is not in (0, 1)")
)

// minCompared is the fewest values of a series that a ratio is made of: fewer
// give resamples so alike that their interval means nothing.
const minCompared = 5

// bootstrapResamples puts some 250 resamples beyond each end of a 95 %
// interval.
const bootstrapResamples = 10_000

// RatioOfMedians is median(a)/median(b) with a percentile bootstrap interval:
// both series are resampled independently, from a fixed seed, so the same
// input gives the same interval. Each series needs five positive values.
//
// Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
// chapter 13. The bias correction of BCa leans on a jackknife, which fails for
// medians.
func RatioOfMedians(a, b []float64, confidence float64) (Estimate, error) {
	sa, sb, err := bothRates(a, b, confidence)
	if err != nil {
		return Estimate{}, err
	}
	return bootstrap(sa, sb, confidence, func(random *rand.Rand, ranksA, ranksB []int) {
		for range sa.N() {
			ranksA[random.IntN(len(ranksA))]++
		}
		for range sb.N() {
			ranksB[random.IntN(len(ranksB))]++
		}
	})
}

// PairedRatioOfMedians is RatioOfMedians for series measured alternately: pairs
// a[i], b[i] are resampled together, so that what neighbours share, the state of
// the machine, does not widen the interval. Source: the same, chapter 8 on the
// unit of resampling.
func PairedRatioOfMedians(a, b []float64, confidence float64) (Estimate, error) {
	if len(a) != len(b) {
		return Estimate{}, ErrUnpaired
	}
	sa, sb, err := bothRates(a, b, confidence)
	if err != nil {
		return Estimate{}, err
	}
	rankA, rankB := sa.ranks(), sb.ranks()
	return bootstrap(sa, sb, confidence, func(random *rand.Rand, ranksA, ranksB []int) {
		for range len(a) {
			pair := random.IntN(len(a))
			ranksA[rankA[pair]]++
			ranksB[rankB[pair]]++
		}
	})
}

// bothRates checks what a ratio of medians is made of.
func bothRates(a, b []float64, confidence float64) (sa, sb Sample, err error) {
	if sa, err = rates(a, minCompared); err != nil {
		return sa, sb, fmt.Errorf("first series: %w", err)
	}
	if sb, err = rates(b, minCompared); err != nil {
		return sa, sb, fmt.Errorf("second series: %w", err)
	}
	if !validConfidence(confidence) {
		return sa, sb, ErrConfidence
	}
	return sa, sb, nil
}

// bootstrap is the ratio of medians with the percentile interval over resamples.
// draw counts how often each rank of either series is drawn.
func bootstrap(sa, sb Sample, confidence float64, draw func(random *rand.Rand, ranksA, ranksB []int)) (Estimate, error) {
	random := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, bootstrapResamples)
	ranksA, ranksB := make([]int, sa.N()), make([]int, sb.N())
	for i := range ratios {
		clear(ranksA)
		clear(ranksB)
		draw(random, ranksA, ranksB)
		ratios[i] = sa.medianOf(ranksA) / sb.medianOf(ranksB)
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

// ranks are the ranks of the values, from 0, in the order measured; equal values
// have different ones.
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

// medianOf is the median of a resample of N values, given how often each rank
// was drawn: counting ranks replaces sorting values.
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

// PairedRatio is exp of the median of log(a[i]/b[i]), with the order-statistic
// interval of [Sample.MedianCI]: for series measured alternately, where
// neighbours share the state of the machine. It needs five pairs of positive
// values.
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
// the pairs of all groups: where pairs are as often above a value as below it, that
// is what their median estimates, from two thirds of the pairs. The pairs of a
// group share what the group has by chance, so its
// interval is that of a percentile bootstrap, from a fixed seed, that resamples
// whole groups: where groups differ it is as wide as theirs, where only pairs do
// it is as narrow as that of all pairs. It needs five groups of positive values.
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

// groupResamples puts 50 resamples beyond each end of a 95 % interval: groups are
// few, so their resamples soon repeat.
const groupResamples = 2_000

// PooledLogRatio is the mean of the logarithms of ratios, one ratio per test,
// with Student's t interval over the tests. "No systematic sign" is an
// interval that contains 0. It needs two positive ratios.
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

// validConfidence also keeps the upper tail's quantile from rounding to that
// of 1, which is infinite.
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

// Verdict is what comparing two programs comes to.
type Verdict string

// The verdicts of Within.
const (
	WithinNoise  Verdict = "within"
	OutsideNoise Verdict = "outside"
	Inconclusive Verdict = "inconclusive" // too noisy to tell: repeat
)

// The bounds on ratios that Within judges by.
var (
	agreement  = Interval{Low: 0.99, High: 1.01} // what counts as equal on a machine without noise
	worstNoise = Interval{Low: 0.97, High: 1.03} // the widest noise floor that can still tell
)

// Within judges a ratio between programs A and B by the ratio of A with itself,
// the noise floor, measured with the same number of pairs in the same run. It
// takes the intervals of both ratios.
//
// An A/A interval that leaves 0.97-1.03 is inconclusive, never a pass.
// Otherwise A/B is within when its whole interval lies in the wider (by the
// quotient of its ends) of 0.99-1.01 and the A/A interval, else outside. An
// interval that is none, with ends that are not positive numbers in order, is
// inconclusive.
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

func (i Interval) ofRatio() bool {
	return 0 < i.Low && i.Low <= i.High && i.High <= math.MaxFloat64
}
