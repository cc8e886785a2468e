package stats

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// near allows for rounding only.
var near = cmpopts.EquateApprox(1e-12, 1e-12)

func sample(t interface {
	Helper()
	Fatal(...any)
}, x ...float64,
) Sample {
	t.Helper()
	s, err := New(x)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNewRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		x    []float64
		want error
	}{
		"nil":              {nil, ErrEmpty},
		"empty":            {[]float64{}, ErrEmpty},
		"not a number":     {[]float64{1, math.NaN()}, ErrOutOfRange},
		"infinite":         {[]float64{math.Inf(1)}, ErrOutOfRange},
		"minus infinite":   {[]float64{math.Inf(-1)}, ErrOutOfRange},
		"square overflows": {[]float64{2 * MaxMagnitude}, ErrOutOfRange},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(test.x); !errors.Is(err, test.want) {
				t.Errorf("New(%v) = %v, want %v", test.x, err, test.want)
			}
		})
	}
}

// Methods of the zero Sample, and of samples that are too small, return without a
// panic.
func TestTooSmall(t *testing.T) {
	var zero Sample
	for name, got := range map[string]float64{
		"mean": zero.Mean(), "median": zero.Median(), "min": zero.Min(), "max": zero.Max(), "quantile": zero.Quantile(0.1),
	} {
		if !math.IsNaN(got) {
			t.Errorf("%s of nothing = %g, want NaN", name, got)
		}
	}
	for name, s := range map[string]Sample{"zero": zero, "one": sample(t, 7)} {
		if sd, ok := s.SD(); ok {
			t.Errorf("%s: standard deviation %g", name, sd)
		}
		if cv, ok := s.CV(); ok {
			t.Errorf("%s: coefficient of variation %g", name, cv)
		}
		if ci, ok := s.MedianCI(0.95); ok {
			t.Errorf("%s: interval %v", name, ci)
		}
		if by, slow := s.SlowFirst(); slow {
			t.Errorf("%s: first slow by %g", name, by)
		}
		if o := s.Outliers(); o != nil {
			t.Errorf("%s: outliers %v", name, o)
		}
	}
	for _, p := range []float64{-0.1, 1.1, math.NaN()} {
		if q := sample(t, 1, 2).Quantile(p); !math.IsNaN(q) {
			t.Errorf("quantile %g = %g, want NaN", p, q)
		}
	}
	for _, want := range []float64{0, 1, -1, 2, math.NaN()} {
		if ci, ok := sample(t, 1, 2, 3).MedianCI(want); ok {
			t.Errorf("confidence %g: interval %v", want, ci)
		}
	}
	if cv, ok := sample(t, -1, 1).CV(); ok {
		t.Errorf("coefficient of variation %g around a mean of 0", cv)
	}
}

// Python's statistics module gave the expected values (mean, stdev, quantiles with
// method "inclusive"). Its definitions are those of R's mean, sd and
// quantile(type = 7).
func TestDescriptive(t *testing.T) {
	type numbers struct{ Mean, SD, CV, Min, Q1, Median, Q3, P90, Max float64 }
	for name, test := range map[string]struct {
		x    []float64
		want numbers
	}{
		"five rates": {
			[]float64{366.12, 364.9, 367.3, 351.2, 366.8},
			numbers{363.264, 6.803784241141109, 6.803784241141109 / 363.264, 351.2, 364.9, 366.12, 366.8, 367.1, 367.3},
		},
		"even": {
			[]float64{4, 2, 1, 3},
			numbers{2.5, math.Sqrt(5.0 / 3), math.Sqrt(5.0/3) / 2.5, 1, 1.75, 2.5, 3.25, 3.7, 4},
		},
		"constant": {
			[]float64{0.1, 0.1, 0.1},
			numbers{0.1, 0, 0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := sample(t, test.x...)
			sd, _ := s.SD()
			cv, _ := s.CV()
			got := numbers{s.Mean(), sd, cv, s.Min(), s.Quantile(0.25), s.Median(), s.Quantile(0.75), s.Quantile(0.9), s.Max()}
			if diff := cmp.Diff(test.want, got, near); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Expected coverages are exact fractions of 2^n.
func TestMedianCI(t *testing.T) {
	for _, test := range []struct {
		n    int
		rank int // rank of the lower end, from 1
		want float64
	}{
		{2, 1, 0.5},
		{3, 1, 0.75},
		{5, 1, 0.9375},
		{6, 1, 0.96875},
		{10, 2, 0.978515625},
		{20, 6, 0.9586105346679688},
		{60, 22, 0.972659866131922},
	} {
		x := make([]float64, test.n)
		for i := range x {
			x[i] = float64(test.n - i)
		}
		got, ok := sample(t, x...).MedianCI(0.95)
		want := Interval{Low: float64(test.rank), High: float64(test.n + 1 - test.rank), Confidence: test.want}
		if diff := cmp.Diff(want, got, near); !ok || diff != "" {
			t.Errorf("n = %d: ok = %t (-want +got)\n%s", test.n, ok, diff)
		}
	}
}

// The interval covers the true median as often as its confidence, here for a
// skewed distribution (exponential, median ln 2). The tolerance is five standard
// errors of the simulated share.
func TestMedianCICoverage(t *testing.T) {
	const runs = 4000
	for _, n := range []int{3, 5, 9, 10, 31} {
		random := rand.New(rand.NewPCG(uint64(n), 0))
		covered, confidence := 0, 0.0
		for range runs {
			x := make([]float64, n)
			for i := range x {
				x[i] = random.ExpFloat64()
			}
			ci, ok := sample(t, x...).MedianCI(0.95)
			if !ok {
				t.Fatalf("n = %d: no interval", n)
			}
			if ci.Contains(math.Ln2) {
				covered++
			}
			confidence = ci.Confidence
		}
		share := float64(covered) / runs
		if tolerance := 5 * math.Sqrt(confidence*(1-confidence)/runs); math.Abs(share-confidence) > tolerance {
			t.Errorf("n = %d: covered in %.4f of the runs, want %.4f ± %.4f", n, share, confidence, tolerance)
		}
	}
}

func TestSlowFirst(t *testing.T) {
	for name, test := range map[string]struct {
		x    []float64
		by   float64
		slow bool
	}{
		"slow":         {[]float64{50, 100, 99, 101, 100}, 1, true},
		"just not":     {[]float64{95.5, 100, 99, 101, 100}, 100/95.5 - 1, false},
		"just":         {[]float64{94.8, 100, 99, 101, 100}, 100/94.8 - 1, true},
		"fast":         {[]float64{125, 100, 99, 101, 100}, -0.2, false},
		"slow later":   {[]float64{100, 50, 99, 101, 100}, -0.005, false},
		"which of two": {[]float64{50, 100}, 0, false},
		"not a rate":   {[]float64{0, 100, 100}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			by, slow := sample(t, test.x...).SlowFirst()
			if slow != test.slow || !cmp.Equal(by, test.by, near) {
				t.Errorf("SlowFirst(%v) = %g, %t, want %g, %t", test.x, by, slow, test.by, test.slow)
			}
		})
	}
}

func TestOutliers(t *testing.T) {
	for name, test := range map[string]struct {
		x    []float64
		want []int
	}{
		"none":                            {[]float64{100, 99, 101, 100.5, 99.5}, nil},
		"low":                             {[]float64{100, 99.8, 100.1, 80, 100.2}, []int{3}},
		"high and low":                    {[]float64{130, 100, 100.1, 99.9, 80, 100.2, 99.8}, []int{0, 4}},
		"far in deviations, near in rate": {[]float64{100, 100, 100, 100, 99}, nil},
		"far in rate, near in deviations": {[]float64{100, 80, 120, 110, 90}, nil},
		"nearly ten deviations":           {[]float64{100, 99, 101, 99, 101, 100, 114}, nil},
		"more than ten deviations":        {[]float64{100, 99, 101, 99, 101, 100, 116}, []int{6}},
		"nearly 5 %":                      {[]float64{100, 100, 100, 100, 95.2}, nil},
		"more than 5 %":                   {[]float64{100, 100, 100, 100, 94.8}, []int{4}},
		"two values":                      {[]float64{1, 100}, nil},
		"zeros":                           {[]float64{0, 0, 0, 0, 1}, []int{4}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, sample(t, test.x...).Outliers()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestUnsteady(t *testing.T) {
	for _, test := range []struct {
		x    []float64
		want bool
	}{
		{[]float64{90.1, 100, 109.9}, false},
		{[]float64{89.9, 100, 110.1}, true},
		{[]float64{100}, false},
	} {
		if got := sample(t, test.x...).Unsteady(); got != test.want {
			t.Errorf("%v is unsteady: %t", test.x, got)
		}
	}
}

func finite() *rapid.Generator[float64] { return rapid.Float64Range(-MaxMagnitude, MaxMagnitude) }

// rate is a realistic rate: from one token in 100 s to a million per second.
func rate() *rapid.Generator[float64] { return rapid.Float64Range(0.01, 1e6) }

func TestNothingPanicsOrChangesItsInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		any := rapid.SliceOf(rapid.Float64())
		a, b := any.Draw(t, "a"), any.Draw(t, "b")
		p, confidence := rapid.Float64().Draw(t, "p"), rapid.Float64().Draw(t, "confidence")
		before := slices.Clone(a)
		s, _ := New(a)
		s.Quantile(p)
		s.MedianCI(confidence)
		s.SlowFirst()
		s.Outliers()
		_, _ = PairedRatio(a, b, confidence)
		_, _ = PooledLogRatio(a, confidence)
		Within(Interval{Low: p, High: confidence}, Interval{Low: confidence, High: p})
		if !cmp.Equal(before, a, cmpopts.EquateNaNs()) {
			t.Fatalf("input changed from %v to %v", before, a)
		}
	})
}

func TestOrderStatisticProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(finite(), 1, 40).Draw(t, "x")
		s := sample(t, x...)
		p, q := rapid.Float64Range(0, 1).Draw(t, "p"), rapid.Float64Range(0, 1).Draw(t, "q")
		if low, high := s.Quantile(min(p, q)), s.Quantile(max(p, q)); low > high {
			t.Fatalf("quantiles fall: %g at %g, %g at %g", low, min(p, q), high, max(p, q))
		}
		if v := s.Quantile(p); v < slices.Min(x) || v > slices.Max(x) {
			t.Fatalf("quantile %g = %g lies outside the sample", p, v)
		}
		want := rapid.Float64Range(0.01, 0.99).Draw(t, "want")
		if ci, ok := s.MedianCI(want); ok {
			if !ci.Contains(s.Median()) {
				t.Fatalf("interval %v does not contain the median %g", ci, s.Median())
			}
			if ci.Confidence < want && (ci.Low != s.Min() || ci.High != s.Max()) {
				t.Fatalf("interval %v falls short of %g though it could be wider", ci, want)
			}
		}
	})
}

func TestPermutationInvariance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rate(), 2, 20).Draw(t, "x")
		s, p := sample(t, x...), sample(t, rapid.Permutation(x).Draw(t, "permuted")...)
		ci, _ := s.MedianCI(0.95)
		pci, _ := p.MedianCI(0.95)
		sd, _ := s.SD()
		psd, _ := p.SD()
		same := cmpopts.EquateApprox(1e-9, 1e-6) // rounding of sums depends on the order
		if !cmp.Equal([]float64{s.Median(), s.Mean(), sd}, []float64{p.Median(), p.Mean(), psd}, same) || ci != pci {
			t.Fatal("statistics depend on the order")
		}
		if len(s.Outliers()) != len(p.Outliers()) {
			t.Fatal("the number of outliers depends on the order")
		}
	})
}

// Scaling by a power of two does not round, so the comparison is exact.
func TestScaleEquivariance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rate(), 2, 20).Draw(t, "x")
		factor := math.Ldexp(1, rapid.IntRange(-20, 20).Draw(t, "exponent"))
		scaled := make([]float64, len(x))
		for i, v := range x {
			scaled[i] = factor * v
		}
		s, f := sample(t, x...), sample(t, scaled...)
		ci, _ := s.MedianCI(0.95)
		fci, _ := f.MedianCI(0.95)
		sd, _ := s.SD()
		fsd, _ := f.SD()
		cv, _ := s.CV()
		fcv, _ := f.CV()
		want := []float64{factor * s.Mean(), factor * s.Median(), factor * sd, factor * ci.Low, factor * ci.High, cv}
		if diff := cmp.Diff(want, []float64{f.Mean(), f.Median(), fsd, fci.Low, fci.High, fcv}); diff != "" {
			t.Fatalf("factor %g (-want +got)\n%s", factor, diff)
		}
		if diff := cmp.Diff(s.Outliers(), f.Outliers()); diff != "" {
			t.Fatalf("outliers (-want +got)\n%s", diff)
		}
		by, slow := s.SlowFirst()
		if fby, fslow := f.SlowFirst(); by != fby || slow != fslow {
			t.Fatal("a slow first repetition depends on the scale")
		}
	})
}

func TestPseudoMedian(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := sample(t, rapid.SliceOfN(rate(), 1, 12).Draw(t, "x")...)
		var means []float64
		for i, a := range s.sorted {
			for _, b := range s.sorted[i:] {
				means = append(means, a+(b-a)/2)
			}
		}
		slices.Sort(means)
		if got, want := s.PseudoMedian(), means[(len(means)-1)/2]; got != want {
			t.Fatalf("%v has the pseudo-median %g, want %g", s.sorted, got, want)
		}
	})
}

// For normal values the pseudo-median varies less than the median. In theory its
// variance is π/3 of the mean's; the median's is π/2 of it.
func TestPseudoMedianNeedsFewerValues(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	var pseudo, medians []float64
	for range 1000 {
		x := make([]float64, 40)
		for i := range x {
			x[i] = random.NormFloat64()
		}
		s := sample(t, x...)
		pseudo, medians = append(pseudo, s.PseudoMedian()), append(medians, s.Median())
	}
	a, _ := sample(t, pseudo...).SD()
	b, _ := sample(t, medians...).SD()
	if got := a * a / (b * b); got > 0.75 {
		t.Errorf("variance is %.2f of the median's, in theory 0.67", got)
	}
}
