package stats

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// A line goes through two groups, and through any number of groups on it.
func TestLine(t *testing.T) {
	for name, xs := range map[string][]float64{"two": {2, 6}, "three": {1, 4, 9}} {
		var groups []Group
		for _, x := range xs {
			groups = append(groups, Group{X: x, Runs: []Sample{sample(t, 3+2*x), sample(t, 3+2*x)}})
		}
		l, err := NewLine(groups, DefaultLoads())
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(l.Intercept-3) > 1e-9 || math.Abs(l.Slope-2) > 1e-9 || math.Abs(l.At(32)-67) > 1e-8 {
			t.Errorf("%s: %v + %v·x", name, l.Intercept, l.Slope)
		}
		near, far, more := l.Interval(xs[1], 0.9, 0), l.Interval(32, 0.9, 0), l.Interval(32, 0.9, 0.05)
		width := func(i Interval) float64 { return i.High / i.Low }
		if !(width(near) < width(far) && width(far) < width(more)) || !far.Contains(67) {
			t.Errorf("%s: %v %v %v", name, near, far, more)
		}
	}
}

// Values that spread within a run make the interval wider.
func TestLineWithinRuns(t *testing.T) {
	width := func(spread float64) float64 {
		l, err := NewLine([]Group{
			{X: 4, Runs: []Sample{sample(t, 11*(1-spread), 11, 11*(1+spread))}}, {X: 12, Runs: []Sample{sample(t, 27*(1-spread), 27, 27*(1+spread))}},
		}, DefaultLoads())
		if err != nil {
			t.Fatal(err)
		}
		i := l.Interval(32, 0.95, 0)
		return i.High / i.Low
	}
	if same, spread := width(0), width(0.1); spread < 1.1*same {
		t.Errorf("%v with a spread of 10 %%, %v without", spread, same)
	}
}

// What slows a repetition of all runs of a turn down changes neither the line nor, much,
// its interval, whichever repetitions it hits.
func TestLineInTurn(t *testing.T) {
	slower := []float64{1, 1.5, 1, 3, 1.01, 0.99, 1.3}
	run := func(x float64) Sample {
		var values []float64
		for _, by := range slower {
			values = append(values, (3+2*x)*by)
		}
		return sample(t, values...)
	}
	own := func(s Sample, odd float64) Sample { // one repetition of this run alone
		values := slices.Clone(s.values)
		values[2] *= odd
		return sample(t, values...)
	}
	l, err := NewLine([]Group{{X: 4, Runs: []Sample{own(run(4), 1.4)}}, {X: 12, Runs: []Sample{own(run(12), 1.2)}}}, DefaultLoads())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := l.At(32), 67*1.3; math.Abs(got/want-1) > 0.01 { // 1.3: the median of what slows both down
		t.Errorf("%.4g, want %.4g", got, want)
	}
}

// How often the interval holds the value of another run, without and with a speed of the
// machine that changes from turn to turn. What is expected of the variances makes it a
// little too wide. Two turns do not show enough of a speed that changes by much.
func TestLineCoverage(t *testing.T) {
	const spread, trials = 0.01, 2000
	for _, tt := range []struct {
		turns       int
		drift       float64
		least, most float64
	}{
		{2, 0, 0.95, 1}, {2, 0.01, 0.93, 0.99}, {2, 0.1, 0.83, 0.95},
		{3, 0, 0.95, 1}, {3, 0.01, 0.93, 0.99}, {3, 0.1, 0.88, 0.96},
		{4, 0, 0.95, 1}, {4, 0.01, 0.93, 0.99}, {4, 0.1, 0.9, 0.97},
		{20, 0.1, 0.93, 0.97},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		turn := func() (run func(x float64) Sample) {
			slower := tt.drift * random.NormFloat64()
			return func(x float64) Sample { return sample(t, (3+2*x)*math.Exp(slower+spread*random.NormFloat64())) }
		}
		held, width := 0, 0.0
		for range trials {
			few, many := Group{X: 4}, Group{X: 12}
			for range tt.turns {
				run := turn()
				few.Runs, many.Runs = append(few.Runs, run(4)), append(many.Runs, run(12))
			}
			l, err := NewLine([]Group{few, many}, DefaultLoads())
			if err != nil {
				t.Fatal(err)
			}
			i := l.Interval(32, 0.95, 0)
			if i.Contains(turn()(32).Median()) {
				held++
			}
			width += math.Log(i.High/i.Low) / 2 / trials
		}
		if share := float64(held) / trials; share < tt.least || share > tt.most {
			t.Errorf("%d turns, a drift of %v: the interval of 95 %%, ±%.0f %% wide, holds %.3f", tt.turns, tt.drift, 100*width, share)
		}
	}
}

func TestLineRefuses(t *testing.T) {
	one := []Sample{sample(t, 1)}
	for name, tt := range map[string]struct {
		groups []Group
		err    error
	}{
		"nothing":  {nil, ErrNoLine},
		"one x":    {[]Group{{X: 1, Runs: one}, {X: 1, Runs: one}}, ErrNoLine},
		"falling":  {[]Group{{X: 1, Runs: []Sample{sample(t, 2)}}, {X: 2, Runs: one}}, ErrNoLine},
		"no run":   {[]Group{{X: 1, Runs: one}, {X: 2}}, ErrEmpty},
		"negative": {[]Group{{X: 1, Runs: one}, {X: 2, Runs: []Sample{sample(t, -2)}}}, ErrNotRate},
	} {
		if _, err := NewLine(tt.groups, DefaultLoads()); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
