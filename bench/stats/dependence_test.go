package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// autoregressive returns n values around 100 whose neighbours have the correlation r.
func autoregressive(random *rand.Rand, n int, r float64) []float64 {
	values := make([]float64, n)
	state := random.NormFloat64()
	for i := range values {
		values[i] = 100 + state
		state = r*state + math.Sqrt(1-r*r)*random.NormFloat64()
	}
	return values
}

func TestDependence(t *testing.T) {
	long := func(r float64) []float64 { return autoregressive(rand.New(rand.NewPCG(1, 2)), 2000, r) }
	spoiled := long(0.6)
	spoiled[1000] = 1e6
	for name, tt := range map[string]struct {
		x       []float64
		at, off float64
	}{
		"three values":       {[]float64{1, 2, 3}, 0, 0},
		"all equal":          {[]float64{5, 5, 5, 5, 5, 5}, 0, 0},
		"alternating":        {[]float64{1, 2, 1, 2, 1, 2, 1, 2}, 0, 0},
		"independent":        {long(0), 0, 0.05},
		"dependent":          {long(0.6), 0.6, 0.05},
		"very dependent":     {long(0.9), 0.9, 0.05},
		"with one outlier":   {spoiled, 0.6, 0.05},
		"a drift is at most": {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, 0.95, 0.03},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sample(t, tt.x...).Dependence(); math.Abs(got-tt.at) > tt.off {
				t.Errorf("dependence %.3f, want %.3f ± %.3f", got, tt.at, tt.off)
			}
		})
	}
}

// The interval of dependent values contains that of independent ones, and is the same if
// the values do not depend on one another.
func TestMedianCIDependent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rapid.Float64Range(1, 1000), 1, 60).Draw(t, "x")
		s := sample(t, x...)
		narrow, ok := s.MedianCI(0.95)
		wide, wideOK := s.MedianCIDependent(0.95)
		if ok != wideOK {
			t.Fatalf("ok is %v and %v", ok, wideOK)
		}
		if !ok {
			return
		}
		d := s.Dependence()
		if d < 0 || d > mostDependence {
			t.Fatalf("dependence %v", d)
		}
		if d == 0 {
			if diff := cmp.Diff(narrow, wide, near); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		if slack := 1e-9 * s.Max(); wide.Low > narrow.Low+slack || wide.High < narrow.High-slack {
			t.Fatalf("%v does not contain %v", wide, narrow)
		}
	})
}
