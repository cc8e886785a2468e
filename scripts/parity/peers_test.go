//go:build cgo && parity

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestFromGollama(t *testing.T) {
	const printed = `{"n_prompt":0,"n_gen":4,"repetitions":[{"ns":2000000000,"eval_us":400000,"allocs":1.25},{"ns":1000000000}]}`
	got, err := fromGollama(strings.NewReader(printed), result.Test{Gen: 4})
	if err != nil {
		t.Fatal(err)
	}
	want := []sample{{rate: 2, parts: parts{EvalUS: 400000, Allocations: 1.25}}, {rate: 4}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sample{})); diff != "" {
		t.Error(diff)
	}
	if _, err := fromGollama(strings.NewReader(printed), result.Test{Prompt: 4}); err == nil {
		t.Error("another test's samples were taken")
	}
}

// If go-llama.cpp has three quarters of llama-bench's speed because of sampling, its
// parts explain the difference. Without the parts, the difference is unexplained.
func TestPeerFigures(t *testing.T) {
	side := func(rate, evaluation float64) [][]sample {
		s := sample{rate: rate, parts: parts{EvalUS: 1e6 / evaluation, SampleUS: 1e6/rate - 1e6/evaluation}}
		return [][]sample{{s, s}, {s, s}, {s, s}, {s, s}, {s, s}}
	}
	bench := side(100, 100)
	for name, test := range map[string]struct {
		ours, theirs [][]sample
		alike        bool
	}{
		"alike":                      {bench, side(75, 100), true},
		"not explained by its parts": {bench, side(75, 75), false},
		"this program is faster":     {side(110, 110), side(75, 100), false},
	} {
		figures, alike, err := peerFigures([][][]sample{bench, bench, test.ours, test.theirs})
		if err != nil {
			t.Fatal(err)
		}
		if alike != test.alike {
			t.Errorf("%s: alike is %v: %v", name, alike, figures)
		}
		if got, want := len(figures), len(peerRows)-2; got != want {
			t.Errorf("%s: %d figures for %d rows", name, got, want)
		}
	}
}
