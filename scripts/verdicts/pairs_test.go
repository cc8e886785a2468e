package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/result"
)

var (
	pp = result.Test{Prompt: 8}
	tg = result.Test{Gen: 4}
)

// recordOf is a record of a test with these speeds.
func recordOf(t result.Test, speeds ...float64) result.Record {
	r := result.Record{PromptTokens: t.Prompt, GenTokens: t.Gen, SamplesTS: speeds}
	for _, s := range speeds {
		r.AvgTS += s / float64(len(speeds))
	}
	return r
}

func TestSplit(t *testing.T) {
	a, b := recordOf(pp, 1), recordOf(tg, 1)
	for name, tt := range map[string]struct {
		records []result.Record
		want    []run
		fails   bool
	}{
		"none":          {},
		"two runs":      {[]result.Record{a, b, a, b}, []run{{a, b}, {a, b}}, false},
		"one test":      {[]result.Record{a, a, a}, []run{{a}, {a}, {a}}, false},
		"a test missed": {[]result.Record{a, b, a, a, b}, nil, true},
		"another order": {[]result.Record{a, b, b, a}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := split(tt.records)
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestForm(t *testing.T) {
	for name, tt := range map[string]struct {
		n, size, count int
		want           []pair
	}{
		"too few runs":              {3, 2, 10, nil},
		"one place":                 {4, 2, 10, []pair{{{0, 3}, {1, 2}}}},
		"sides take turns":          {6, 3, 1, []pair{{{0, 3, 4}, {1, 2, 5}}}},
		"first and last":            {8, 1, 2, []pair{{{0}, {1}}, {{7}, {6}}}},
		"equally far":               {8, 1, 4, []pair{{{0}, {1}}, {{3}, {2}}, {{4}, {5}}, {{7}, {6}}}},
		"as many as there is place": {3, 1, 10, []pair{{{0}, {1}}, {{2}, {1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, form(tt.n, tt.size, tt.count)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// No run is in both sides or twice in one, and every run is there.
func TestFormUsesRunsOnce(t *testing.T) {
	for size := 1; size <= 10; size++ {
		pairs := form(100, size, 30)
		if len(pairs) != 30 {
			t.Fatalf("%d pairs", len(pairs))
		}
		for _, p := range pairs {
			seen := map[int]bool{}
			for _, side := range p {
				if len(side) != size {
					t.Fatalf("%v has not %d runs a side", p, size)
				}
				for _, i := range side {
					if seen[i] || i < 0 || i >= 100 {
						t.Fatalf("%v has run %d twice, or it is not there", p, i)
					}
					seen[i] = true
				}
			}
		}
	}
}

// A slower record is exactly slower, and the one that it was made of is as it was.
func TestSlower(t *testing.T) {
	r := result.Record{AvgNs: 1000, AvgTS: 110, SamplesNs: []int64{900, 1100}, SamplesTS: []float64{121, 99}}
	want := result.Record{AvgNs: 1100, AvgTS: 100, SamplesNs: []int64{990, 1210}, SamplesTS: []float64{110, 90}}
	if diff := cmp.Diff(want, slower(r, 0.1), cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Error(diff)
	}
	if r.SamplesNs[0] != 900 || r.SamplesTS[0] != 121 {
		t.Errorf("the record was changed: %v", r)
	}
}

// Runs without noise: no A/A pair has a false verdict. A large slowdown is found; a small
// one is found by the ratio of means alone, because one run a side does not show it.
func TestCount(t *testing.T) {
	var runs []run
	for range 8 {
		runs = append(runs, run{recordOf(pp, 100, 100, 100, 100, 100), recordOf(tg, 10, 10, 10, 10, 10)})
	}
	got, err := count(runs, 1, 4)
	if err != nil {
		t.Fatal(err)
	}
	type verdicts = map[compare.Verdict]int
	var want []tally
	for _, test := range []result.Test{pp, tg} {
		for i, by := range slowdowns {
			want = append(want, tally{
				test: test, size: 1, apart: 4, by: by, pairs: 4,
				verdicts: []verdicts{{compare.Unclear: 4}, {compare.Unclear: 4}, {compare.Slower: 4}, {compare.Slower: 4}}[i],
				means:    []verdicts{{compare.Same: 4}, {compare.Slower: 4}, {compare.Slower: 4}, {compare.Slower: 4}}[i],
			})
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(tally{})); diff != "" {
		t.Error(diff)
	}
}

// A record that cannot be compared is not a verdict.
func TestCountNotCompared(t *testing.T) {
	bad := recordOf(tg, 10, 10)
	bad.Ext.Verdict = &result.Verdict{Verdict: result.Invalid}
	got, err := count([]run{{bad}, {bad}}, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, tl := range got {
		if tl.verdicts[""] != 1 || tl.hits(tl.verdicts) != 0 {
			t.Errorf("%v", tl)
		}
	}
}

func TestShortfalls(t *testing.T) {
	of := func(test result.Test, size int, by float64, verdict compare.Verdict, n int) tally {
		return tally{test: test, size: size, by: by, pairs: 100, verdicts: map[compare.Verdict]int{verdict: n}}
	}
	for name, tt := range map[string]struct {
		tally tally
		want  []string
	}{
		"few false":                  {of(pp, 1, 0, compare.Faster, 5), nil},
		"many false":                 {of(pp, 1, 0, compare.Faster, 6), []string{"6.0 % of the A/A rows have a false verdict, at most 5 % may"}},
		"A/A rows that are the same": {of(pp, 1, 0, compare.Same, 100), nil},
		"found":                      {of(tg, 5, 0.05, compare.Slower, 90), nil},
		"not found":                  {of(tg, 5, 0.05, compare.Slower, 89), []string{"tg4, 5 runs a side: a slowdown of 5 % is found in 89 %, and must be in 90 %"}},
		"found the other way round":  {of(tg, 5, 0.05, compare.Faster, 100), []string{"tg4, 5 runs a side: a slowdown of 5 % is found in 0 %, and must be in 90 %"}},
		"fewer runs":                 {of(tg, 3, 0.05, compare.Slower, 0), nil},
		"a prompt":                   {of(pp, 5, 0.05, compare.Slower, 0), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, shortfalls([]tally{tt.tally})); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := shortfalls([]tally{of(pp, 1, 0, compare.Faster, 8), of(tg, 1, 0, compare.Slower, 2)}); got != nil {
		t.Errorf("8 of 100 and 2 of 100 rows: %v", got)
	}
}
