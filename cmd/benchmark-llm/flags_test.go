package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
			l := lengthsFlag{values: []int{512}}
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
				if diff := cmp.Diff(tc.want, l.values); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

// A flag that is given twice with different values is refused by its name, unless its
// values add up. This holds for every flag of every command, and for llama-bench's
// short names.
func TestFlagsGivenTwice(t *testing.T) {
	texts := map[string][2]string{ // by type; others take any text
		"bool": {"true", "false"}, "int": {"1", "2"}, "uint64": {"1", "2"}, "float64": {"1", "2"}, "duration": {"1s", "2s"},
		"devices": {"CUDA0", "CUDA1"}, "shares": {"1/2", "2/1"}, "size": {"1GiB", "2GiB"},
		"tokens": {"16", "32"}, "pp,tg": {"16,1", "32,1"}, "models": {"a.gguf", "b.gguf"}, "servers": {"h:1", "h:2"}, "intSlice": {"0", "1"},
	}
	adding := []string{"model", "model-urls", "n-prompt", "n-gen", "n-depth", "pg", "e2e", "rpc", "cpus"}
	short := map[string]string{}
	for s, long := range llamaBenchFlags {
		short[strings.TrimPrefix(long, "--")] = s
	}
	var check func(path []string)
	checked := 0
	check = func(path []string) {
		find := func() *cobra.Command {
			c, _, err := newRootCommand().Find(path)
			if err != nil {
				t.Fatal(err)
			}
			c.InheritedFlags() // merges them
			return c
		}
		c := find()
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			two, ok := texts[f.Value.Type()]
			if !ok {
				two = [2]string{"a", "b"}
			}
			names := []string{"--" + f.Name}
			if s := short[f.Name]; s != "" {
				names = append(names, s)
			}
			for _, name := range names {
				long := longFlags([]string{name})[0]
				for _, second := range two {
					err := find().ParseFlags([]string{long + "=" + two[0], long + "=" + second})
					refused := second != two[0] && !slices.Contains(adding, f.Name) || second == two[0] && f.Name == "rpc" // no server twice
					if refused != (err != nil) || refused && !strings.Contains(err.Error(), "--"+f.Name) {
						t.Errorf("%v %s=%s %s=%s: %v", path, name, two[0], name, second, err)
					}
					checked++
				}
			}
		})
		for _, sub := range c.Commands() {
			check(append(slices.Clone(path), sub.Name()))
		}
	}
	check(nil)
	if checked < 200 {
		t.Errorf("only %d checks", checked)
	}
}

// FuzzLengths: whatever is accepted is in range, bounded, and the same when its
// text is read again; whatever is refused changes nothing.
func FuzzLengths(f *testing.F) {
	for _, s := range []string{"512", "16,128", "1-5+2", "16-512*2", "-5", "1--5", "0-0", "1-8*0", "16777216-16777216*2", " 3 , 4", "+4", "1-+4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l lengthsFlag
		if err := l.Set(s); err != nil {
			if l.changed || l.values != nil {
				t.Errorf("%q was refused (%v) and left %v", s, err, l.values)
			}
			return
		}
		if len(l.values) == 0 || len(l.values) > suite.MaxLengths {
			t.Fatalf("%q is %d lengths", s, len(l.values))
		}
		for _, n := range l.values {
			if n < 0 || n > result.MaxTokens {
				t.Fatalf("%q has %d", s, n)
			}
		}
		var again lengthsFlag
		if err := again.Set(l.String()); err != nil || !slices.Equal(again.values, l.values) {
			t.Errorf("%q is %v, then %v (%v)", s, l.values, again.values, err)
		}
	})
}

func TestPairs(t *testing.T) {
	var p pairsFlag
	for _, s := range []string{"512,128", "0,16"} {
		if err := p.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([][2]int{{512, 128}, {0, 16}}, p.values); diff != "" {
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
	for text, want := range map[string]devicesFlag{
		"CUDA0": {"CUDA0"}, "CUDA0/CUDA1": {"CUDA0", "CUDA1"}, "RPC1,RPC0": {"RPC1", "RPC0"},
		"": nil, "CUDA0,": nil, "/": nil, "CUDA0/CUDA0": nil,
	} {
		var got devicesFlag
		if err := got.Set(text); (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestSharesFlag(t *testing.T) {
	for text, want := range map[string]sharesFlag{
		"1": {1}, "3/1": {3, 1}, "0.5,0.5": {0.5, 0.5}, "0/1": {0, 1},
		"": nil, "3/": nil, "0/0": nil, "-1/2": nil, "a/b": nil, "NaN": nil, "Inf/1": nil, "1e39": nil,
	} {
		var got sharesFlag
		if err := got.Set(text); (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}
