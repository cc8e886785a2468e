package stats

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRatiosRefuse(t *testing.T) {
	five := []float64{1, 2, 3, 4, 5}
	for name, test := range map[string]struct {
		a, b       []float64
		confidence float64
		want       error
	}{
		"empty":              {nil, nil, 0.95, ErrEmpty},
		"too few":            {five[:4], five[:4], 0.95, ErrTooFew},
		"zero":               {[]float64{0, 1, 2, 3, 4}, five, 0.95, ErrNotRate},
		"negative":           {five, []float64{1, 2, -3, 4, 5}, 0.95, ErrNotRate},
		"not a number":       {five, []float64{1, 2, math.NaN(), 4, 5}, 0.95, ErrOutOfRange},
		"confidence 0":       {five, five, 0, ErrConfidence},
		"confidence 1":       {five, five, 1, ErrConfidence},
		"confidence unknown": {five, five, math.NaN(), ErrConfidence},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := PairedRatioOfMedians(test.a, test.b, test.confidence); !errors.Is(err, test.want) {
				t.Errorf("PairedRatioOfMedians = %v, %v, want %v", got, err, test.want)
			}
			if got, err := PairedRatio(test.a, test.b, test.confidence); !errors.Is(err, test.want) {
				t.Errorf("PairedRatio = %v, %v, want %v", got, err, test.want)
			}
		})
	}
	if _, err := PairedRatio(five, five[:4], 0.95); !errors.Is(err, ErrUnpaired) {
		t.Errorf("unequal lengths: %v", err)
	}
	for _, ratios := range [][]float64{nil, {1}, {1, 0}, {1, math.Inf(1)}} {
		if got, err := PooledLogRatio(ratios, 0.95); err == nil {
			t.Errorf("PooledLogRatio(%v) = %v", ratios, got)
		}
	}
	for _, confidence := range []float64{0, 1, math.Nextafter(1, 0), math.NaN()} {
		if got, err := PooledLogRatio(five, confidence); !errors.Is(err, ErrConfidence) {
			t.Errorf("confidence %g: %v, %v", confidence, got, err)
		}
	}
}

func TestPairedRatio(t *testing.T) {
	// All pairs but one are 2:1. The drift between pairs cancels.
	a := []float64{2, 20, 200, 20, 2, 30}
	b := []float64{1, 10, 100, 10, 1, 10}
	got, err := PairedRatio(a, b, 0.95)
	want := Estimate{Value: 2, Interval: Interval{Low: 2, High: 3, Confidence: 0.96875}}
	if diff := cmp.Diff(want, got, near); err != nil || diff != "" {
		t.Errorf("err = %v (-want +got)\n%s", err, diff)
	}
}

// The t quantile is R's qt(0.975, 4) = 2.776445. Python's statistics module gave
// the mean and the standard deviation of the logarithms.
func TestPooledLogRatio(t *testing.T) {
	got, err := PooledLogRatio([]float64{1.01, 0.99, 1.02, 1, 0.995}, 0.95)
	want := Estimate{
		Value:    0.002938016094460417,
		Interval: Interval{Low: -0.01193772316917259, High: 0.017813755358093424, Confidence: 0.95},
	}
	if diff := cmp.Diff(want, got, near); err != nil || diff != "" {
		t.Errorf("err = %v (-want +got)\n%s", err, diff)
	}
}

func TestPairedRatioOfMediansProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(5, 12).Draw(t, "n")
		x := rapid.SliceOfN(rate(), n, n)
		a, b := x.Draw(t, "a"), x.Draw(t, "b")
		r, err := PairedRatioOfMedians(a, b, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		sa, sb := sample(t, a...), sample(t, b...)
		if r.Value != sa.Median()/sb.Median() {
			t.Fatalf("%g is not the ratio of the medians", r.Value)
		}
		if r.Low > r.High || r.Low < sa.Min()/sb.Max() || r.High > sa.Max()/sb.Min() {
			t.Fatalf("interval %v is impossible", r.Interval)
		}
		again, err := PairedRatioOfMedians(a, b, 0.95)
		if err != nil || again != r {
			t.Fatalf("repeated: %v, %v, want %v", again, err, r)
		}
	})
}

// The bootstrap interval covers the true ratio (1.1) of ten independent pairs
// about as often as its confidence. Percentile intervals of medians are known to
// be slightly conservative here, never below 0.92.
func TestPairedRatioOfMediansCoverage(t *testing.T) {
	const runs = 300
	random := rand.New(rand.NewPCG(3, 4))
	covered := 0
	for range runs {
		a, b := make([]float64, 10), make([]float64, 10)
		for i := range a {
			a[i] = 110 * math.Exp(0.02*random.NormFloat64())
			b[i] = 100 * math.Exp(0.02*random.NormFloat64())
		}
		r, err := PairedRatioOfMedians(a, b, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		if r.Contains(1.1) {
			covered++
		}
	}
	if share := float64(covered) / runs; share < 0.92 {
		t.Errorf("covered in %.3f of the runs, want about 0.95", share)
	}
}

// Effects that neighbours share do not widen the paired interval. With a common
// drift of 20 % it is still as narrow as the noise of 1 % allows, and covers the
// ratio as often as its confidence. Pairs that are not neighbours, as in the
// exchanged series, have a wide interval.
func TestPairedRatioOfMedians(t *testing.T) {
	const runs = 300
	random := rand.New(rand.NewPCG(5, 6))
	covered := 0
	var paired, independent float64
	for range runs {
		a, b := make([]float64, 15), make([]float64, 15)
		for i := range a {
			drift := math.Exp(0.2 * random.NormFloat64())
			a[i] = 110 * drift * math.Exp(0.01*random.NormFloat64())
			b[i] = 100 * drift * math.Exp(0.01*random.NormFloat64())
		}
		r, err := PairedRatioOfMedians(a, b, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		if r.Contains(1.1) {
			covered++
		}
		paired += r.High - r.Low
		exchanged := append(slices.Clone(b[1:]), b[0])
		u, err := PairedRatioOfMedians(a, exchanged, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		independent += u.High - u.Low
	}
	if share := float64(covered) / runs; share < 0.92 {
		t.Errorf("covered in %.3f of the runs, want about 0.95", share)
	}
	if paired > independent/3 {
		t.Errorf("mean widths: %.3f paired, %.3f independent", paired/runs, independent/runs)
	}
	if _, err := PairedRatioOfMedians(make([]float64, 5), make([]float64, 6), 0.95); !errors.Is(err, ErrUnpaired) {
		t.Errorf("unpaired: %v", err)
	}
}

// If the groups differ, the interval covers the ratio about as often as its
// confidence, slightly less with ten groups. If only pairs differ, it is narrower
// than an interval over the groups' medians.
func TestGroupedRatio(t *testing.T) {
	const runs, groups, pairs = 60, 10, 5
	for name, test := range map[string]struct{ ofGroup, ofPair float64 }{
		"groups differ": {0.03, 0.01},
		"pairs differ":  {0, 0.05},
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(7, 8))
			covered := 0
			var together, apart float64
			for range runs {
				a, b := make([][]float64, groups), make([][]float64, groups)
				medians, ones := make([]float64, groups), make([]float64, groups)
				for g := range groups {
					shared := test.ofGroup * random.NormFloat64()
					ratios := make([]float64, pairs)
					for i := range pairs {
						drift := math.Exp(0.2 * random.NormFloat64())
						ratios[i] = 1.1 * math.Exp(shared+test.ofPair*random.NormFloat64())
						a[g], b[g] = append(a[g], 100*drift*ratios[i]), append(b[g], 100*drift)
					}
					medians[g], ones[g] = sample(t, ratios...).Median(), 1
				}
				r, err := GroupedRatio(a, b, 0.95)
				if err != nil {
					t.Fatal(err)
				}
				if r.Contains(1.1) {
					covered++
				}
				ofMedians, err := PairedRatio(medians, ones, 0.95)
				if err != nil {
					t.Fatal(err)
				}
				together, apart = together+r.High-r.Low, apart+ofMedians.High-ofMedians.Low
			}
			if share := float64(covered) / runs; share < 0.88 {
				t.Errorf("covered in %.3f of the runs, want about 0.95", share)
			}
			if test.ofGroup == 0 && together > 0.8*apart {
				t.Errorf("mean widths: %.4f of all pairs, %.4f of the groups' medians", together/runs, apart/runs)
			}
		})
	}
}

func TestGroupedRatioRefuses(t *testing.T) {
	five := [][]float64{{1}, {2, 3}, {4}, {5}, {6}}
	for name, test := range map[string]struct {
		a, b       [][]float64
		confidence float64
		want       error
	}{
		"too few groups":       {five[:4], five[:4], 0.95, ErrTooFew},
		"unlike groups":        {five, five[:4], 0.95, ErrUnpaired},
		"unlike pairs":         {five, [][]float64{{1}, {2}, {4}, {5}, {6}}, 0.95, ErrUnpaired},
		"a group of none":      {append(five[:4:4], nil), append(five[:4:4], nil), 0.95, ErrEmpty},
		"zero":                 {five, [][]float64{{1}, {2, 0}, {4}, {5}, {6}}, 0.95, ErrNotRate},
		"confidence not known": {five, five, math.NaN(), ErrConfidence},
	} {
		if got, err := GroupedRatio(test.a, test.b, test.confidence); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, test.want)
		}
	}
}

func TestWithin(t *testing.T) {
	interval := func(low, high float64) Interval { return Interval{Low: low, High: high, Confidence: 0.95} }
	quiet := interval(0.998, 1.002)
	for name, test := range map[string]struct {
		ab, aa Interval
		want   Verdict
	}{
		"equal on a quiet machine":    {interval(0.995, 1.004), quiet, WithinNoise},
		"up to the bounds":            {interval(0.99, 1.01), quiet, WithinNoise},
		"one end out":                 {interval(0.989, 1.004), quiet, OutsideNoise},
		"the other end out":           {interval(0.996, 1.011), quiet, OutsideNoise},
		"all of it out":               {interval(1.05, 1.06), quiet, OutsideNoise},
		"within a wider floor":        {interval(0.985, 1.01), interval(0.98, 1.02), WithinNoise},
		"outside a wider floor":       {interval(0.97, 1), interval(0.98, 1.02), OutsideNoise},
		"wider, not the union":        {interval(0.991, 1.009), interval(0.995, 1.025), OutsideNoise},
		"floor at its worst":          {interval(0.98, 1.02), interval(0.97, 1.03), WithinNoise},
		"too noisy, though equal":     {interval(0.999, 1.001), interval(0.96, 1.01), Inconclusive},
		"too noisy, though different": {interval(1.5, 1.6), interval(0.99, 1.031), Inconclusive},
		"no comparison":               {Interval{}, quiet, Inconclusive},
		"no floor":                    {quiet, Interval{}, Inconclusive},
		"not a number":                {interval(math.NaN(), 1), quiet, Inconclusive},
		"infinite":                    {interval(0.99, math.Inf(1)), quiet, Inconclusive},
		"ends exchanged":              {interval(1.01, 0.99), quiet, Inconclusive},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Within(test.ab, test.aa); got != test.want {
				t.Errorf("Within(%v, %v) = %s, want %s", test.ab, test.aa, got, test.want)
			}
		})
	}
}
