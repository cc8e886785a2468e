package stats

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// ErrNoLine says that values do not determine a rising line.
var ErrNoLine = errors.New("the values do not rise with x")

// Group holds the runs at one x, one Sample for each. Every value is positive.
type Group struct {
	X    float64
	Runs []Sample
}

// Line is y = Intercept + Slope·x, fitted to groups. Its errors are shares of y.
type Line struct {
	Intercept, Slope float64

	groups        []Group
	weights       []float64 // 1/y² of each group: the errors are shares
	own           float64   // variance of one run, as a share, without what the runs of a turn share
	shared        float64   // variance that the runs of a turn share
	freedom       float64   // of own
	turns         float64   // 0: the runs of the groups do not belong together
	sharedFreedom float64
}

// turnsKnown are the degrees of freedom that the variance between turns has besides those of
// the turns: machines whose speed changes by a hundred percent from turn to turn are not
// expected. Without it, two turns have one degree of freedom, and an interval of 95 % would
// be 13 standard deviations wide on each side.
//
// Source: TestLineCoverage. With it, intervals of two turns of a speed that changes by 10 % hold 84 % of
// the values and are ±42 % wide; without it, 89 % and ±116 %.
const turnsKnown = 1

// NewLine fits a line to groups at two x or more. The value of a group is the geometric
// mean of the medians of its runs; see polished for runs that took turns. Groups count by
// the inverse square of their values, because the error of a run is a share of its value.
//
// If all groups have the same number of runs, the first runs of all were measured in turn,
// and so were the second ones. What makes all runs of a turn slower is then told apart
// from what makes one run slower: only the latter changes the slope. The variance between
// runs is expected to be that of loads and that of a median within a run; the variance
// between turns, at least that between the fifths of a run. All runs correct the former
// expectation, as in NewRuns. The repetitions of the runs of a turn took turns, too: see
// withinTurn.
func NewLine(groups []Group, loads Loads) (Line, error) {
	l := Line{groups: groups, freedom: loads.Weight}
	if len(groups) > 0 {
		l.turns = float64(len(groups[0].Runs))
	}
	var x, y []float64
	var off [][]float64 // of each run from the mean of its group, as a logarithm
	within, parts, runs := 0.0, 0.0, 0.0
	var inTurn [][]float64
	if len(groups) > 0 {
		inTurn = polished(groups)
	}
	for _, g := range groups {
		logs := make([]float64, len(g.Runs))
		for i, s := range g.Runs {
			if s.N() == 0 || !(s.Min() > 0) {
				return Line{}, fmt.Errorf("x = %v: %w", g.X, ErrNotRate)
			}
			logs[i] = math.Log(s.Median())
			if i < len(inTurn) {
				logs[i] = inTurn[i][len(x)]
			}
			parts += s.partsVariance()
			runs++
		}
		if len(logs) == 0 {
			return Line{}, fmt.Errorf("x = %v: %w", g.X, ErrEmpty)
		}
		if float64(len(logs)) != l.turns {
			l.turns = 0
		}
		mean := stat.Mean(logs, nil)
		floats.AddConst(-mean, logs)
		off = append(off, logs)
		value := math.Exp(mean)
		x, y, l.weights = append(x, g.X), append(y, value), append(l.weights, 1/(value*value))
	}
	if len(x) < 2 || slices.Min(x) == slices.Max(x) {
		return Line{}, fmt.Errorf("%w: there are fewer than two x", ErrNoLine)
	}
	for turn := range int(l.turns) {
		within += withinTurn(groups, turn) * float64(len(groups))
	}
	for _, g := range groups {
		for _, s := range g.Runs {
			if v, ok := s.medianVariance(); ok && l.turns == 0 {
				within += v / (s.Median() * s.Median())
			}
		}
	}
	sum, shared := 0.0, 0.0
	for turn := range int(l.turns) {
		mean := 0.0
		for _, logs := range off {
			mean += logs[turn] / float64(len(off))
		}
		for _, logs := range off {
			logs[turn] -= mean
		}
		shared += mean * mean
	}
	for _, logs := range off {
		sum += floats.Dot(logs, logs)
		l.freedom += float64(len(logs) - 1)
	}
	if l.turns > 0 {
		l.freedom -= l.turns - 1
	}
	l.own = (loads.Weight*(loads.Spread*loads.Spread+within/runs) + sum) / l.freedom
	if l.turns > 0 {
		l.shared, l.sharedFreedom = parts/runs, loads.Weight
		// The mean of a turn's runs has their share of the runs' own variance, too.
		if seen := shared/(l.turns-1) - l.own/float64(len(off)); l.turns > 1 && seen > l.shared {
			l.shared, l.sharedFreedom = seen, l.turns-1+turnsKnown
		}
	}
	l.Intercept, l.Slope = stat.LinearRegression(x, y, l.weights, false)
	if !(l.Slope > 0) {
		return Line{}, ErrNoLine
	}
	return l, nil
}

// withinTurn is the variance of the median of a run under repetition, as a share, without
// what makes a repetition of all runs of the turn slower: the runs took turns after each
// repetition. It is 0 if they have fewer than two repetitions in common.
func withinTurn(groups []Group, turn int) float64 {
	n := math.MaxInt
	for _, g := range groups {
		n = min(n, g.Runs[turn].N())
	}
	if n < 2 {
		return 0
	}
	off := mat.NewDense(len(groups), n, nil)
	for i, g := range groups {
		row := off.RawRowView(i)
		for k := range row {
			row[k] = math.Log(g.Runs[turn].values[k])
		}
		floats.AddConst(-stat.Mean(row, nil), row)
	}
	var sum float64
	for k := range n {
		column := mat.Col(nil, k, off)
		sum += stat.Variance(column, nil) // of len(groups)-1 degrees of freedom
	}
	return sum / float64(n-1) / float64(n) * medianOverMean * medianOverMean
}

// polished returns the logarithms of the medians of all runs, by turn and group, without
// what makes a repetition of all runs of a turn slower or faster. It returns nil if the
// runs did not take turns.
//
// Source: Tukey, Exploratory Data Analysis, 1977 (median polish), with the mean of the
// groups in place of their median, because there are few.
func polished(groups []Group) (turns [][]float64) {
	for turn := range len(groups[0].Runs) {
		var logs [][]float64
		for _, g := range groups {
			if len(g.Runs) != len(groups[0].Runs) || g.Runs[turn].N() != groups[0].Runs[turn].N() || !(g.Runs[turn].Min() > 0) {
				return nil
			}
			var own []float64
			for _, v := range g.Runs[turn].values {
				own = append(own, math.Log(v))
			}
			logs = append(logs, own)
		}
		together := make([]float64, len(logs[0])) // what the repetitions share
		for _, own := range logs {
			middle := median(own)
			for k, v := range own {
				together[k] += (v - middle) / float64(len(logs))
			}
		}
		var values []float64
		for _, own := range logs {
			floats.Sub(own, together)
			values = append(values, median(own)+median(together))
		}
		turns = append(turns, values)
	}
	return turns
}

// median is that of values, of which there is at least one.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return Sample{values: values, sorted: sorted}.Median()
}

// At is the value at x.
func (l Line) At(x float64) float64 { return l.Intercept + l.Slope*x }

// Interval is where the value of another run at x lies with the wanted confidence. more
// is a further error, a standard deviation as a share of the value.
//
// Source: Draper and Smith, Applied Regression Analysis, section 3.1 (the interval of an
// individual observation), with the errors of the groups as shares of their values.
func (l Line) Interval(x, confidence, more float64) Interval {
	var sum, sumX float64
	for i, g := range l.groups {
		sum, sumX = sum+l.weights[i], sumX+l.weights[i]*g.X
	}
	mean, spread := sumX/sum, 0.0
	for i, g := range l.groups {
		spread += l.weights[i] * (g.X - mean) * (g.X - mean)
	}
	y, variance := l.At(x), 0.0
	for i, g := range l.groups {
		// How much the value at x changes with that of the group.
		share := l.weights[i]/sum + l.weights[i]*(g.X-mean)*(x-mean)/spread
		own := share * l.At(g.X)
		variance += own * own * l.own / float64(len(g.Runs))
	}
	variance = variance/(y*y) + l.own + more*more
	shared, freedom := 0.0, l.freedom
	if l.turns > 0 {
		shared = l.shared * (1 + 1/l.turns)
		freedom = welch(variance, l.freedom, shared, l.sharedFreedom)
	}
	half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}.Quantile(0.5+confidence/2) * math.Sqrt(variance+shared)
	return Interval{Low: y * math.Exp(-half), High: y * math.Exp(half), Confidence: confidence}
}

// medianOverMean is the standard error of the median of a normal sample divided by
// that of its mean: √(π/2).
const medianOverMean = 1.2533141373155003

// medianVariance estimates the variance of the median under repetition, as that of a
// normal sample whose neighbours depend on one another. ok is false for fewer than two
// values.
func (s Sample) medianVariance() (variance float64, ok bool) {
	sd, ok := s.SD()
	r := s.Dependence()
	return sd * sd / float64(s.N()) * medianOverMean * medianOverMean * (1 + r) / (1 - r), ok
}
