package commandline

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

func TestLengths(t *testing.T) {
	for _, tc := range []struct {
		set   []string
		want  []int
		error string // part of
	}{
		{set: nil, want: []int{512}},
		{set: []string{"16"}, want: []int{16}},
		{set: []string{"0"}, want: []int{0}},
		{set: []string{"16,128, 512"}, want: []int{16, 128, 512}},
		{set: []string{"16", "128"}, want: []int{16, 128}},
		{set: []string{"1-4"}, want: []int{1, 2, 3, 4}},
		{set: []string{"1-5+2"}, want: []int{1, 3, 5}},
		{set: []string{"1-6+2"}, want: []int{1, 3, 5}},
		{set: []string{"16-512*2"}, want: []int{16, 32, 64, 128, 256, 512}},
		{set: []string{"16-500*2"}, want: []int{16, 32, 64, 128, 256}},
		{set: []string{"7-7"}, want: []int{7}},
		{set: []string{"0-2"}, want: []int{0, 1, 2}},
		{set: []string{"8,1-3,16-64*4"}, want: []int{8, 1, 2, 3, 16, 64}},
		{set: []string{"16777216"}, want: []int{1 << 24}},
		{set: []string{"16777217"}, error: "outside"},
		{set: []string{"-1"}, error: "outside"},
		{set: []string{"1--1"}, error: "outside"},
		{set: []string{""}, error: "not a number of tokens"},
		{set: []string{"16,"}, error: "not a number of tokens"},
		{set: []string{"sixteen"}, error: "not a number of tokens"},
		{set: []string{"1e3"}, error: "not a number of tokens"},
		{set: []string{"0x10"}, error: "not a number of tokens"},
		{set: []string{"99999999999999999999"}, error: "not a number of tokens"},
		{set: []string{"5-1"}, error: "does not go up"},
		{set: []string{"0-8*2"}, error: "does not go up"},
		{set: []string{"1-"}, error: `range "1-": "" is not`},
		{set: []string{"1-8+0"}, error: "step"},
		{set: []string{"1-8+"}, error: "step"},
		{set: []string{"1-8*1"}, error: "factor"},
		{set: []string{"1-8*-2"}, error: "factor"},
		{set: []string{"1-8+16777216"}, want: []int{1}},
		{set: []string{"1-8+9223372036854775807"}, error: "step"},
		{set: []string{"1-8*9223372036854775807"}, error: "factor"},
		{set: []string{"1-1001"}, error: "more than 1000"},
		{set: []string{"1-600,1-600"}, error: "more than 1000"},
	} {
		t.Run(strings.Join(tc.set, " "), func(t *testing.T) {
			l := Lengths{Values: []int{512}}
			var err error
			for _, s := range tc.set {
				if err = l.Set(s); err != nil {
					break
				}
			}
			switch {
			case tc.error != "":
				if err == nil || !strings.Contains(err.Error(), tc.error) {
					t.Errorf("error %v, want one with %q", err, tc.error)
				}
			case err != nil:
				t.Error(err)
			default:
				if diff := cmp.Diff(tc.want, l.Values); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

// FuzzLengths: whatever is accepted is in range, bounded, and the same when its
// text is read again; whatever is refused changes nothing.
func FuzzLengths(f *testing.F) {
	for _, s := range []string{"512", "16,128", "1-5+2", "16-512*2", "-5", "1--5", "0-0", "1-8*0", "16777216-16777216*2", " 3 , 4", "+4", "1-+4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l Lengths
		if err := l.Set(s); err != nil {
			if l.changed || l.Values != nil {
				t.Errorf("%q was refused (%v) and left %v", s, err, l.Values)
			}
			return
		}
		if len(l.Values) == 0 || len(l.Values) > suite.MaxLengths {
			t.Fatalf("%q is %d lengths", s, len(l.Values))
		}
		for _, n := range l.Values {
			if n < 0 || n > result.MaxTokens {
				t.Fatalf("%q has %d", s, n)
			}
		}
		var again Lengths
		if err := again.Set(l.String()); err != nil || !slices.Equal(again.Values, l.Values) {
			t.Errorf("%q is %v, then %v (%v)", s, l.Values, again.Values, err)
		}
	})
}

func TestPairs(t *testing.T) {
	var p Pairs
	for _, s := range []string{"512,128", "0,16"} {
		if err := p.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([][2]int{{512, 128}, {0, 16}}, p.Values); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p.String() != "512,128 0,16" {
		t.Errorf("text %q", p.String())
	}
	for _, s := range []string{"", "512", "512,", ",1", "1,2,3", "-1,4", "4,16777217"} {
		if err := p.Set(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestDevicesFlag(t *testing.T) {
	for text, want := range map[string]Devices{
		"CUDA0": {"CUDA0"}, "CUDA0/CUDA1": {"CUDA0", "CUDA1"}, "RPC1,RPC0": {"RPC1", "RPC0"},
		"": nil, "CUDA0,": nil, "/": nil, "CUDA0/CUDA0": nil,
	} {
		var got Devices
		if err := got.Set(text); (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestSharesFlag(t *testing.T) {
	for text, want := range map[string]Shares{
		"1": {1}, "3/1": {3, 1}, "0.5,0.5": {0.5, 0.5}, "0/1": {0, 1},
		"": nil, "3/": nil, "0/0": nil, "-1/2": nil, "a/b": nil, "NaN": nil, "Inf/1": nil, "1e39": nil,
	} {
		var got Shares
		if err := got.Set(text); (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"2GiB": 2 << 30, "256 MiB": 256 << 20, "0": 0, "1GB": 1e9} {
		var s Size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q is %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "much", "-1GiB", "9EiB9"} {
		s := Size(5)
		if err := s.Set(text); err == nil || s != 5 {
			t.Errorf("%q is %d", text, s)
		}
	}
	if s := Size(2 << 30); s.String() != "2.0GiB" {
		t.Errorf("%s", s.String())
	}
}

func TestShare(t *testing.T) {
	for text, want := range map[string]float64{"0.97": 0.97, "97%": 0.97, "2 %": 0.02, "0": 0, "1e-3": 0.001} {
		s := Share{Max: 1}
		if err := s.Set(text); err != nil || s.Value != want {
			t.Errorf("%q: %g, %v; want %g", text, s.Value, err, want)
		}
	}
	for _, text := range []string{"", "%", "x", "NaN", "Inf", "-1%", "1.01", "101%", "2%%"} {
		s := Share{Value: 0.5, Max: 1}
		if err := s.Set(text); err == nil || s.Value != 0.5 {
			t.Errorf("%q is accepted as %g", text, s.Value)
		}
	}
}

func TestWords(t *testing.T) {
	w := Words{Allowed: []string{"machine", "n_threads"}}
	if err := errors.Join(w.Set("machine, n_threads"), w.Set("machine")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"machine", "n_threads", "machine"}, w.Values); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"", "machin", "n_threads,,"} {
		if err := w.Set(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
