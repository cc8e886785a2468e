package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// noises are distributions of the logarithm of a speed, with a standard deviation of 1.
var noises = map[string]func(*rand.Rand) float64{
	"normal":    func(r *rand.Rand) float64 { return math.Log1p(0.01*r.NormFloat64()) / 0.01 },
	"lognormal": func(r *rand.Rand) float64 { return r.NormFloat64() },
	"skewed":    func(r *rand.Rand) float64 { return -r.ExpFloat64() }, // slower now and then, never faster
	"outliers": func(r *rand.Rand) float64 { // one of 20 is much slower
		const sd = 1.6
		if r.Float64() < 0.05 {
			return -10 / sd * r.Float64()
		}
		return r.NormFloat64() / sd
	},
}

// simulate returns runs of five values each. load is the spread between runs, within that of the values of a run.
func simulate(t *testing.T, r *rand.Rand, noise func(*rand.Rand) float64, speed, load, within float64, runs int) Runs {
	t.Helper()
	var all []Sample
	for range runs {
		of := speed * math.Exp(load*noise(r))
		values := make([]float64, 5)
		for i := range values {
			values[i] = of * math.Exp(within*noise(r))
		}
		all = append(all, sample(t, values...))
	}
	result, err := NewRuns(all, DefaultLoads())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// How often the 95 % interval covers the true ratio, whatever the distribution of the noise. If loads differ as
// expected, that holds for any number of runs; if they differ by more, for ten runs.
func TestCoverageOfDistributions(t *testing.T) {
	const trials = 2000
	for name, noise := range noises {
		for shape, tt := range map[string]struct {
			load, within float64
			runs         int
			least        float64
		}{
			"one run":                           {0.01, 0.003, 1, 0.93},
			"three runs":                        {0.01, 0.003, 3, 0.94},
			"five runs":                         {0.01, 0.003, 5, 0.93},
			"ten runs":                          {0.01, 0.003, 10, 0.93},
			"five runs, more noise within":      {0.01, 0.01, 5, 0.95},
			"ten runs whose loads differ more":  {0.02, 0.003, 10, 0.92},
			"twenty runs, loads differ by 10 %": {0.10, 0.01, 20, 0.92},
		} {
			t.Run(name+", "+shape, func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(11, 12))
				covered := 0
				for range trials {
					base := simulate(t, r, noise, 100, tt.load, tt.within, tt.runs)
					if simulate(t, r, noise, 95, tt.load, tt.within, tt.runs).Over(base).Interval(0.95).Contains(0.95) {
						covered++
					}
				}
				if share := float64(covered) / trials; share < tt.least {
					t.Errorf("covers in %.1f %%, want %.0f %%", share*100, tt.least*100)
				}
			})
		}
	}
}

// A slowdown of 5 % is found in 90 % of the comparisons of five runs a side if the loads differ by up to 1.5 %. Two tests
// are judged together.
func TestSlowdownFound(t *testing.T) {
	const trials = 500
	for name, noise := range noises {
		for _, load := range []float64{0.005, 0.01, 0.015} {
			r := rand.New(rand.NewPCG(13, 14))
			found := 0
			for range trials {
				var sides [2][]Runs
				for side, speed := range []float64{100, 100 / 1.05} {
					for range 2 {
						sides[side] = append(sides[side], simulate(t, r, noise, speed, load, 0.01, 5))
					}
					sides[side] = Together(sides[side])
				}
				p := Holm([]float64{sides[1][0].Over(sides[0][0]).Differs(), sides[1][1].Over(sides[0][1]).Differs()})
				if p[0] <= 0.05 && sides[1][0].Over(sides[0][0]).Value() < 1 {
					found++
				}
			}
			if share := float64(found) / trials; share < 0.9 {
				t.Errorf("%s, loads differ by %.1f %%: found in %.0f %%", name, load*100, share*100)
			}
		}
	}
}

// Loads that differ by ten times as much as expected: the spread that all tests show keeps a comparison of two or three
// runs a side from false verdicts: about 5 % of the comparisons have one, and most of them without it.
func TestTogetherKeepsFromFalseVerdicts(t *testing.T) {
	const trials = 500
	for _, tt := range []struct{ runs, tests int }{{2, 2}, {3, 2}, {3, 20}, {5, 2}} {
		alone, together := 0, 0
		r := rand.New(rand.NewPCG(15, 16))
		for range trials {
			var sides [2][]Runs
			for side := range sides {
				for range tt.tests {
					sides[side] = append(sides[side], simulate(t, r, noises["lognormal"], 100, 0.10, 0.01, tt.runs))
				}
			}
			false5 := func(a, b []Runs) bool {
				p := make([]float64, len(a))
				for i := range a {
					p[i] = b[i].Over(a[i]).Differs()
				}
				for _, p := range Holm(p) {
					if p <= 0.05 {
						return true
					}
				}
				return false
			}
			if false5(sides[0], sides[1]) {
				alone++
			}
			if false5(Together(sides[0]), Together(sides[1])) {
				together++
			}
		}
		if share := float64(together) / trials; share > 0.06 || alone <= together {
			t.Errorf("%d runs of %d tests: false in %.1f %%, and in %.1f %% without the other tests", tt.runs, tt.tests, share*100, float64(alone)/trials*100)
		}
	}
}

func TestTogether(t *testing.T) {
	few := Runs{n: 1, expected: 1e-4, weight: 4}
	quiet := Runs{n: 3, observed: 0, expected: 1e-4, weight: 4}
	wild := Runs{n: 3, observed: 1e-2, expected: 1e-4, weight: 4}
	raised := wild
	raised.expected = 1e-2 * math.Exp(0.5772156649015329) // minus digamma(1)
	for name, tt := range map[string]struct{ tests, want []Runs }{
		"none":                         {nil, nil},
		"one run each":                 {[]Runs{few, few}, []Runs{few, few}},
		"as expected":                  {[]Runs{quiet, quiet}, []Runs{quiet, quiet}},
		"more than expected":           {[]Runs{wild, wild}, []Runs{raised, raised}},
		"a test with one run is alone": {[]Runs{few, wild}, []Runs{few, raised}},
	} {
		t.Run(name, func(t *testing.T) {
			before := append([]Runs(nil), tt.tests...)
			if diff := cmp.Diff(tt.want, Together(tt.tests), cmp.AllowUnexported(Runs{}), near); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, tt.tests, cmp.AllowUnexported(Runs{})); diff != "" {
				t.Errorf("the argument has changed: %s", diff)
			}
		})
	}
}

// The first half of a run is twice as fast: its fifths tell that, and a run of many values has as many parts as one of five.
func TestPartsVariance(t *testing.T) {
	ln2 := math.Ln2 * math.Ln2
	for name, tt := range map[string]struct {
		x    []float64
		want float64
	}{
		"one":        {[]float64{7}, 0},
		"equal":      {[]float64{7, 7, 7, 7, 7, 7, 7}, 0},
		"two":        {[]float64{1, 2}, ln2 / 2},
		"five":       {[]float64{2, 2, 1, 1, 1}, 0.3 * ln2},
		"fifteen":    {[]float64{2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0.3 * ln2},
		"an outlier": {[]float64{1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0},
	} {
		if diff := cmp.Diff(tt.want, sample(t, tt.x...).partsVariance(), near); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
