package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// How often the median of a second run lies in the interval of the first, over 3,000
// simulated pairs. Runs differ by a spread between loads, and values within a run by noise.
func TestAgainIsHonest(t *testing.T) {
	const pairs = 3000
	for name, tt := range map[string]struct {
		load, within float64 // true spreads
		n            int
		least, most  float64
	}{
		"noise of loads alone": {0.01, 0, 5, 0.93, 0.97},
		"both":                 {0.01, 0.01, 5, 0.92, 0.99},
		"noise within":         {0.01, 0.05, 5, 0.91, 0.99},
		"two values":           {0.01, 0.05, 2, 0.87, 1},
		"many values":          {0.01, 0.05, 50, 0.92, 0.98},
		"a quieter machine":    {0.003, 0.003, 5, 0.99, 1},
		"a wilder machine":     {0.03, 0.01, 5, 0.40, 0.80}, // no interval of one run can know
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(7, 8))
			run := func() Sample {
				load := 100 * math.Exp(tt.load*random.NormFloat64())
				values := make([]float64, tt.n)
				for i := range values {
					values[i] = load * math.Exp(tt.within*random.NormFloat64())
				}
				return sample(t, values...)
			}
			inside := 0
			for range pairs {
				again, ok := run().Again(0.95, LoadSpread)
				if !ok {
					t.Fatal("no interval")
				}
				if again.Contains(run().Median()) {
					inside++
				}
			}
			if share := float64(inside) / pairs; share < tt.least || share > tt.most {
				t.Errorf("%.1f %% inside, want %.0f…%.0f %%", share*100, tt.least*100, tt.most*100)
			}
		})
	}
}

// The interval contains the run's own median, and more confidence never narrows it.
func TestAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := sample(t, rapid.SliceOfN(rapid.Float64Range(1, 1000), 1, 30).Draw(t, "x")...)
		narrow, ok := s.Again(0.9, 0.01)
		if ok != (s.N() >= 2) {
			t.Fatalf("ok is %v for %d values", ok, s.N())
		}
		if !ok {
			return
		}
		if !narrow.Contains(s.Median()) || narrow.Low < 0 {
			t.Fatalf("%v does not contain %v", narrow, s.Median())
		}
		if wide, _ := s.Again(0.95, 0.01); !narrow.inside(wide) {
			t.Fatalf("%v is not inside %v", narrow, wide)
		}
	})
}
