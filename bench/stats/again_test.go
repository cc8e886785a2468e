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
		"both":                 {0.01, 0.01, 5, 0.97, 1},
		"noise within":         {0.01, 0.05, 5, 0.97, 1}, // that it is no drift, one run cannot know
		"drift":                {0.087, 0.05, 5, 0.92, 0.97},
		"two values":           {0.01, 0.05, 2, 0.87, 1},
		"many values":          {0.01, 0.05, 50, 0.97, 1},
		"a quieter machine":    {0.003, 0.003, 5, 0.99, 1},
		"a wilder machine":     {0.03, 0.01, 5, 0.40, 0.90}, // nor this
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
			inside, all := 0, 0
			for range pairs {
				again, ok := run().Again(0.95, LoadSpread)
				if !ok {
					continue // it claims nothing
				}
				all++
				if again.Contains(run().Median()) {
					inside++
				}
			}
			if all < pairs/2 {
				t.Fatalf("%d intervals", all)
			}
			if share := float64(inside) / float64(all); share < tt.least || share > tt.most {
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
		if s.N() < 2 && ok {
			t.Fatalf("an interval of %d values", s.N())
		}
		if !ok {
			return
		}
		if !narrow.Contains(s.Median()) || narrow.Low < 0 {
			t.Fatalf("%v does not contain %v", narrow, s.Median())
		}
		if narrow.High > widestAgain*s.Median() {
			t.Fatalf("%v tells nothing of %v", narrow, s.Median())
		}
		if wide, ok := s.Again(0.95, 0.01); ok && !narrow.inside(wide) {
			t.Fatalf("%v is not inside %v", narrow, wide)
		}
	})
}
