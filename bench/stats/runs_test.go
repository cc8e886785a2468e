package stats

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestHolm(t *testing.T) {
	for name, tt := range map[string]struct{ p, want []float64 }{
		"none":      {nil, []float64{}},
		"one":       {[]float64{0.03}, []float64{0.03}},
		"textbook":  {[]float64{0.01, 0.04, 0.03, 0.005}, []float64{0.03, 0.06, 0.06, 0.02}},
		"at most 1": {[]float64{0.9, 0.8}, []float64{1, 1}},
		"equal":     {[]float64{0.02, 0.02}, []float64{0.04, 0.04}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Holm(tt.p), near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRunsRefuse(t *testing.T) {
	for name, tt := range map[string]struct {
		samples []Sample
		want    error
	}{
		"no run":        {nil, ErrEmpty},
		"an empty run":  {[]Sample{{}}, ErrEmpty},
		"a speed of 0":  {[]Sample{sample(t, 0, 1)}, ErrNotRate},
		"negative ones": {[]Sample{sample(t, 1, 2), sample(t, -1)}, ErrNotRate},
	} {
		if _, err := NewRuns(tt.samples, DefaultLoads()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// Of equal runs the ratio is exactly 1. Scaling one side scales the ratio. Swapping the
// sides gives the reciprocal, with the same probability.
func TestRatio(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		side := func(name string) []Sample {
			var all []Sample
			for range rapid.IntRange(1, 5).Draw(t, name+" runs") {
				all = append(all, sample(t, rapid.SliceOfN(rapid.Float64Range(50, 150), 1, 8).Draw(t, name)...))
			}
			return all
		}
		runs := func(s []Sample) Runs {
			r, err := NewRuns(s, DefaultLoads())
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		a, b := runs(side("a")), runs(side("b"))
		if r := a.Over(a); r.Value() != 1 || math.Abs(r.Differs()-1) > 1e-9 {
			t.Fatalf("equal runs: %v, p %v", r.Value(), r.Differs())
		}
		r, back := a.Over(b), b.Over(a)
		if math.Abs(r.Value()*back.Value()-1) > 1e-9 || math.Abs(r.Differs()-back.Differs()) > 1e-9 {
			t.Fatalf("%v and back %v", r, back)
		}
		ci := r.Interval(0.95)
		if !ci.Contains(r.Value()) || ci.Contains(1) != (r.Differs() >= 0.05) && math.Abs(r.Differs()-0.05) > 1e-6 {
			t.Fatalf("interval %v, p %v", ci, r.Differs())
		}
		if (ci.High < 0.97) != (r.Below(0.97) < 0.025) && math.Abs(r.Below(0.97)-0.025) > 1e-6 {
			t.Fatalf("interval %v, below 0.97 with %v", ci, r.Below(0.97))
		}
	})
}

// How often the 95 % interval covers the true ratio: runs differ by a spread of their own
// and values within a run by another. If the true spread between loads is the expected
// one, it must be right for any number of runs; if it is not, for many runs.
func TestRatioCoverage(t *testing.T) {
	const trials = 2000
	for name, tt := range map[string]struct {
		load, within float64 // true spreads
		runs         int
		least, most  float64
	}{
		"one run":                    {0.01, 0.01, 1, 0.93, 1},
		"three runs":                 {0.01, 0.01, 3, 0.93, 0.99},
		"ten runs":                   {0.01, 0.01, 10, 0.93, 0.97},
		"quiet loads":                {0, 0.01, 10, 0.95, 1},
		"wild loads, one run":        {0.03, 0.01, 1, 0.40, 0.80}, // an interval cannot know it
		"wild loads, ten runs":       {0.03, 0.01, 10, 0.86, 0.97},
		"wild loads, thirty runs":    {0.03, 0.01, 30, 0.92, 0.97},
		"noise within, three runs":   {0.01, 0.08, 3, 0.92, 1},
		"much noise within, one run": {0.01, 0.08, 1, 0.90, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(3, 4))
			side := func(speed float64) Runs {
				var all []Sample
				for range tt.runs {
					load := speed * math.Exp(tt.load*random.NormFloat64())
					values := make([]float64, 5)
					for i := range values {
						values[i] = load * math.Exp(tt.within*random.NormFloat64())
					}
					all = append(all, sample(t, values...))
				}
				r, err := NewRuns(all, DefaultLoads())
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			covered := 0
			for range trials {
				if ci := side(95).Over(side(100)).Interval(0.95); ci.Contains(0.95) {
					covered++
				}
			}
			if share := float64(covered) / trials; share < tt.least || share > tt.most {
				t.Errorf("covers in %.1f %%, want %.0f…%.0f %%", share*100, tt.least*100, tt.most*100)
			}
		})
	}
}

// Rows of one comparison share their loads, so a mean over many is no surer than one.
func TestGeometricMean(t *testing.T) {
	one := Ratio{log: math.Log(1.1), variance: 0.0001, freedom: 10}
	other := Ratio{log: math.Log(1.2), variance: 0.0001, freedom: 20}
	mean, err := GeometricMean([]Ratio{one, other, one, other})
	if err != nil {
		t.Fatal(err)
	}
	want := Ratio{log: math.Log(1.1*1.2) / 2, variance: 0.0001, freedom: 10}
	if diff := cmp.Diff(want, mean, cmp.AllowUnexported(Ratio{}), near); diff != "" {
		t.Error(diff)
	}
	if _, err := GeometricMean(nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("no ratio: %v", err)
	}
}
