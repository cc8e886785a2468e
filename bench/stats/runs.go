package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Loads is what is known beforehand about the spread between runs, each of which loads
// the model anew.
type Loads struct {
	Spread float64 `json:"spread"` // standard deviation of the speed between loads, as a share
	Weight float64 `json:"weight"` // how much that counts: as much as so many runs more; above 0
}

// DefaultLoads is LoadSpread. With a weight of 4, the runs themselves count more than
// it from six runs on.
func DefaultLoads() Loads { return Loads{Spread: LoadSpread, Weight: 4} }

// Runs holds the speeds of the same test in several runs, one Sample per run.
type Runs struct {
	log      float64 // mean of the logarithms of the runs' medians
	n        float64 // number of runs
	observed float64 // variance of these logarithms between runs; 0 for one run
	expected float64 // the same, as expected without looking at it
	weight   float64 // of expected, in runs
}

// NewRuns estimates the speed of a test from its runs. Each value must be positive. A
// run of one value counts as if its spread were that of the loads.
//
// The unit is the run: the logarithm of its median. What is expected of its variance
// between runs is that of loads, and that between the fifths of a run: a machine that is
// faster or slower for a while is so for whole repetitions, so many of them in one run do
// not tell what the next run meets. Each run more corrects this expectation: variance =
// (w·expected + (n-1)·observed)/(w+n-1), with w+n-1 degrees of freedom. So one run gives
// an interval, and many runs one that hardly depends on the expectation.
//
// Source: Smyth, Linear Models and Empirical Bayes Methods for Assessing Differential
// Expression in Microarray Experiments, 2004 (the moderated t-statistic).
func NewRuns(samples []Sample, loads Loads) (Runs, error) {
	if len(samples) == 0 {
		return Runs{}, ErrEmpty
	}
	logs := make([]float64, len(samples))
	var within float64
	for i, s := range samples {
		if s.N() == 0 {
			return Runs{}, fmt.Errorf("run %d: %w", i+1, ErrEmpty)
		}
		if !(s.Min() > 0) {
			return Runs{}, fmt.Errorf("run %d: %w", i+1, ErrNotRate)
		}
		logs[i] = math.Log(s.Median())
		within += s.partsVariance() / float64(len(samples))
	}
	r := Runs{log: stat.Mean(logs, nil), n: float64(len(samples)), expected: loads.Spread*loads.Spread + within, weight: loads.Weight}
	if len(samples) > 1 {
		r.observed = stat.Variance(logs, nil)
	}
	return r, nil
}

// parts is into how many parts partsVariance divides a run. Five repetitions, the
// default, are a part each.
const parts = 5

// partsVariance is the variance of the logarithms of the medians of a sample's parts: the
// first fifth, the second and so on, in the order measured. All values are positive. It is
// 0 for one value.
func (s Sample) partsVariance() float64 {
	n := s.N()
	if n < 2 {
		return 0
	}
	of := min(n, parts)
	logs := make([]float64, of)
	for i := range logs {
		part := slices.Sorted(slices.Values(s.values[i*n/of : (i+1)*n/of]))
		logs[i] = math.Log(Sample{values: part, sorted: part}.Median())
	}
	return stat.Variance(logs, nil)
}

// Together returns the runs of several tests that ran in the same processes, with what is
// expected of each raised to the spread that all of them show. Two or three runs of one
// test cannot tell how much the runs of a machine differ; those of all tests can. A test
// with one run stays as it is.
//
// The common variance is the geometric mean of the observed ones, corrected for its bias.
//
// Source: Smyth, as for NewRuns, section 6.2; the degrees of freedom are not estimated,
// because a comparison may have two tests.
func Together(tests []Runs) []Runs {
	var logs []float64
	for _, r := range tests {
		if half := (r.n - 1) / 2; half > 0 {
			logs = append(logs, math.Log(max(r.observed, leastVariance))-mathext.Digamma(half)+math.Log(half))
		}
	}
	tests = slices.Clone(tests)
	if len(logs) == 0 {
		return tests
	}
	common := math.Exp(stat.Mean(logs, nil))
	for i, r := range tests {
		if r.n > 1 {
			tests[i].expected = max(r.expected, common)
		}
	}
	return tests
}

// leastVariance stands for the variance of runs that are equal to the last digit: 0.0001 %
// of the speed, squared.
const leastVariance = 1e-12

func (r Runs) freedom() float64 { return r.weight + r.n - 1 }

// variance is that of log.
func (r Runs) variance() float64 {
	return (r.weight*r.expected + (r.n-1)*r.observed) / r.freedom() / r.n
}

// Speed is the geometric mean of the runs' medians; of one run its median.
func (r Runs) Speed() float64 { return math.Exp(r.log) }

// Ratio is the ratio of two speeds.
type Ratio struct {
	log      float64
	variance float64
	freedom  float64
}

// Over compares r with a base.
func (r Runs) Over(base Runs) Ratio {
	v, b := r.variance(), base.variance()
	return Ratio{r.log - base.log, v + b, welch(v, r.freedom(), b, base.freedom())}
}

// welch is the number of degrees of freedom of the sum of two variances.
func welch(a, freedomA, b, freedomB float64) float64 {
	if a+b == 0 {
		return freedomA + freedomB
	}
	return (a + b) * (a + b) / (a*a/freedomA + b*b/freedomB)
}

// Value is the ratio.
func (r Ratio) Value() float64 { return math.Exp(r.log) }

// Interval is the confidence interval of the ratio.
func (r Ratio) Interval(confidence float64) Interval {
	half := r.t().Quantile(0.5+confidence/2) * math.Sqrt(r.variance)
	return Interval{Low: math.Exp(r.log - half), High: math.Exp(r.log + half), Confidence: confidence}
}

// Differs is the probability of a ratio at least as far from 1 if the true one is 1.
func (r Ratio) Differs() float64 { return 2 * r.below(-math.Abs(r.log)) }

// Below is the probability of a ratio as small as this one if the true one is limit: if
// it is small, the ratio is shown to be below limit.
func (r Ratio) Below(limit float64) float64 { return r.below(r.log - math.Log(limit)) }

// below is the probability of a deviation of at most d.
func (r Ratio) below(d float64) float64 {
	if r.variance == 0 {
		switch {
		case d < 0:
			return 0
		case d > 0:
			return 1
		}
		return 0.5
	}
	return r.t().CDF(d / math.Sqrt(r.variance))
}

func (r Ratio) t() distuv.StudentsT { return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: max(1, r.freedom)} }

// GeometricMean is the geometric mean of ratios. The ratios of one comparison share the
// loads of their runs, so their errors are taken to move together: the interval does not
// become narrower by more rows.
func GeometricMean(ratios []Ratio) (Ratio, error) {
	if len(ratios) == 0 {
		return Ratio{}, ErrEmpty
	}
	var mean Ratio
	var sd float64
	mean.freedom = ratios[0].freedom
	for _, r := range ratios {
		mean.log += r.log / float64(len(ratios))
		sd += math.Sqrt(r.variance) / float64(len(ratios))
		mean.freedom = min(mean.freedom, r.freedom)
	}
	mean.variance = sd * sd
	return mean, nil
}

// Holm corrects probabilities for their number: with it, the chance that any of them
// falls below a limit although its hypothesis is true is at most the limit.
//
// Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian
// Journal of Statistics 6, 1979.
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	corrected := make([]float64, len(p))
	most := 0.0
	for rank, i := range order {
		most = max(most, min(1, p[i]*float64(len(p)-rank)))
		corrected[i] = most
	}
	return corrected
}
