package policy_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// noisy returns n repetitions of about a second. The noise has the coefficient of
// variation cv, and neighbours have the correlation r.
func noisy(seed uint64, n int, cv, r float64) []time.Duration {
	random := rand.New(rand.NewPCG(seed, 7))
	state := random.NormFloat64()
	times := make([]time.Duration, n)
	for i := range times {
		times[i] = time.Duration(float64(time.Second) / max(0.1, 1+cv*state))
		state = r*state + math.Sqrt(1-r*r)*random.NormFloat64()
	}
	return times
}

// end is the number of repetitions at which a test ends, and why.
func end(u policy.Until, all []time.Duration, least int) (n int, p result.Precision) {
	for n = range len(all) + 1 {
		if p, enough := u.Enough(all[:n], least, 0, false); enough {
			return n, p
		}
	}
	return n, result.Precision{}
}

func TestEnough(t *testing.T) {
	repeat := func(n int) []time.Duration { return noisy(1, n, 0, 0) }
	u := policy.Until{Within: 0.01, MaxRepetitions: 30}
	type want struct {
		n  int
		by result.StoppedBy
	}
	for name, tt := range map[string]struct {
		u     policy.Until
		times []time.Duration
		least int
		want  want
	}{
		// Six are the fewest for a confidence of 95 %, and two in a row must be narrow.
		"steady":                    {u, repeat(50), 5, want{7, result.StoppedByPrecision}},
		"steady, at least ten":      {u, repeat(50), 10, want{10, result.StoppedByPrecision}},
		"at most four":              {policy.Until{Within: 0.01, MaxRepetitions: 4}, repeat(50), 1, want{4, result.StoppedByRepetitions}},
		"the least counts more":     {policy.Until{Within: 0.01, MaxRepetitions: 4}, repeat(50), 5, want{5, result.StoppedByRepetitions}},
		"five seconds":              {policy.Until{Within: 0.01, MaxRepetitions: 30, MaxTime: 5 * time.Second}, repeat(50), 2, want{5, result.StoppedByTime}},
		"a little noise":            {u, noisy(3, 50, 0.005, 0), 5, want{10, result.StoppedByPrecision}},
		"noise that does not end":   {u, noisy(3, 50, 0.2, 0), 5, want{20, result.StoppedByNoise}},
		"the most comes first":      {policy.Until{Within: 0.01, MaxRepetitions: 15}, noisy(3, 50, 0.2, 0), 5, want{15, result.StoppedByRepetitions}},
		"a clock that stands still": {policy.Until{Within: 0.01, MaxRepetitions: 12}, make([]time.Duration, 20), 5, want{12, result.StoppedByRepetitions}},
	} {
		t.Run(name, func(t *testing.T) {
			n, p := end(tt.u, tt.times, tt.least)
			if diff := cmp.Diff(tt.want, want{n, p.StoppedBy}, cmp.AllowUnexported(want{})); diff != "" {
				t.Errorf("%s\n%+v", diff, p)
			}
		})
	}
}

// A repetition that would exceed the budget is not started.
func TestEnoughBudget(t *testing.T) {
	u := policy.Until{Within: 0.001, MaxRepetitions: 100}
	five := noisy(1, 5, 0.01, 0)
	for name, tt := range map[string]struct {
		left    time.Duration
		limited bool
		enough  bool
	}{
		"room":     {10 * time.Second, true, false},
		"no room":  {900 * time.Millisecond, true, true},
		"no limit": {0, false, false},
	} {
		if _, enough := u.Enough(five, 5, tt.left, tt.limited); enough != tt.enough {
			t.Errorf("%s: enough is %v", name, enough)
		}
		if _, enough := u.Enough(five, 6, tt.left, tt.limited); enough {
			t.Errorf("%s: enough before the least number", name)
		}
	}
}

// How often the median of a test that reached ±1 % lies within ±1 % of the true one, and
// how often its interval covers the true one, over 1,000 simulated tests. Looking after
// every repetition must not cost the confidence. Neighbours that depend on one another
// cost some.
func TestUntilIsHonest(t *testing.T) {
	const tests = 1000
	for name, tt := range map[string]struct {
		cv, r        float64
		within, near float64 // least shares
	}{
		"little noise":      {0.003, 0, 0.99, 0.95},
		"noise":             {0.01, 0, 0.98, 0.95},
		"dependent":         {0.01, 0.3, 0.97, 0.93},
		"very dependent":    {0.01, 0.6, 0.93, 0.84},
		"much noise, often": {0.02, 0, 0.96, 0.92},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			within, covered, reached := 0, 0, 0
			for i := range uint64(tests) {
				u := policy.Until{Within: 0.01, MaxRepetitions: 300}
				times := noisy(i, 300, tt.cv, tt.r)
				n, p := end(u, times, 5)
				if p.StoppedBy != result.StoppedByPrecision {
					continue
				}
				reached++
				off := math.Abs(medianRate(times[:n]) - 1)
				if off <= u.Within {
					within++
				}
				if off <= *p.Reached {
					covered++
				}
			}
			if share := float64(reached) / tests; share < 0.9 {
				t.Errorf("%.1f %% reached the precision", share*100)
			}
			if share := float64(within) / float64(reached); share < tt.within {
				t.Errorf("%.1f %% within ±1 %%, want %.1f %%", share*100, tt.within*100)
			}
			if share := float64(covered) / float64(reached); share < tt.near {
				t.Errorf("%.1f %% within the stated precision, want %.1f %%", share*100, tt.near*100)
			}
		})
	}
}

func medianRate(times []time.Duration) float64 {
	sorted := slices.Sorted(slices.Values(times))
	n := len(sorted)
	return (1/sorted[(n-1)/2].Seconds() + 1/sorted[n/2].Seconds()) / 2
}

// Every test ends, at the latest with the most repetitions, and never before the least.
func TestEnoughEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := policy.Until{
			Within:         rapid.Float64Range(0.0001, 0.5).Draw(t, "within"),
			MaxRepetitions: rapid.IntRange(1, 40).Draw(t, "most"),
			MaxTime:        time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "time")),
		}
		if err := u.Validate(); err != nil {
			t.Fatal(err)
		}
		least := rapid.IntRange(1, 40).Draw(t, "least")
		var times []time.Duration
		for range 40 {
			times = append(times, time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "took")))
		}
		n, p := end(u, times, least)
		if p.StoppedBy == "" || n < least || n > max(least, u.MaxRepetitions) {
			t.Fatalf("ended after %d repetitions by %q, at least %d", n, p.StoppedBy, least)
		}
		if p.StoppedBy == result.StoppedByPrecision && !(*p.Reached <= u.Within) {
			t.Fatalf("reached %v of %v", *p.Reached, u.Within)
		}
	})
}

func TestParseWithin(t *testing.T) {
	for text, want := range map[string]float64{"1%": 0.01, "0.5 %": 0.005, "±2%": 0.02, " 50% ": 0.5, "0.01%": 0.0001} {
		if got, err := policy.ParseWithin(text); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"0%":   "0 % is outside 0.01 %…50 %",
		"-1%":  "-1 % is outside 0.01 %…50 %",
		"51%":  "51 % is outside 0.01 %…50 %",
		"NaN%": "NaN % is outside 0.01 %…50 %",
		"1":    `"1" has no %: 1% stands for ±1 % of the median`,
		"":     `"" has no %: 1% stands for ±1 % of the median`,
		"x%":   `"x%" is not a percentage`,
	} {
		if _, err := policy.ParseWithin(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestStable(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		passes []time.Duration
		want   bool
	}{
		"none":            {nil, false},
		"one":             {[]time.Duration{ms}, false},
		"equal":           {[]time.Duration{100 * ms, 100 * ms}, true},
		"getting faster":  {[]time.Duration{100 * ms, 95 * ms}, false},
		"settled":         {[]time.Duration{100 * ms, 90 * ms, 89 * ms}, true},
		"slower again":    {[]time.Duration{90 * ms, 89 * ms, 100 * ms}, false},
		"no time at all":  {[]time.Duration{0, 0}, false},
		"two percent off": {[]time.Duration{100 * ms, 102 * ms}, true},
	} {
		if got := policy.Stable(tt.passes); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
