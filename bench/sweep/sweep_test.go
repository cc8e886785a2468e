package sweep_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/sweep"
)

// parameters are the parameters that flags such as "threads=1,2" give.
func parameters(t *testing.T, flags string) *sweep.Parameters {
	t.Helper()
	p := sweep.New(bench.DefaultSettings(1))
	for _, f := range strings.Fields(flags) {
		name, value, _ := strings.Cut(f, "=")
		if err := p.List(name).Set(value); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestOrder(t *testing.T) {
	lengths := suite.Lengths{Prompt: []int{8, 4}, Gen: []int{2}, Depth: []int{0, 16}, E2E: [][2]int{{4, 2}}}
	tests, err := lengths.Tests()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flags string
		want  []string // the names of the tests; a model that is loaded is "load SETTINGS"
	}{
		{"", []string{"load", "pp8", "pp4", "tg2", "pp8 @ d16", "pp4 @ d16", "tg2 @ d16", "e2e4+2"}},
		{"threads=1 threads=2 poll=0,50", []string{
			"load",
			"pp8 -t 1 --poll 0", "pp4 -t 1 --poll 0", "tg2 -t 1 --poll 0", "pp8 -t 1 --poll 50", "pp4 -t 1 --poll 50", "tg2 -t 1 --poll 50",
			"pp8 @ d16 -t 1 --poll 0", "pp4 @ d16 -t 1 --poll 0", "tg2 @ d16 -t 1 --poll 0",
			"pp8 @ d16 -t 1 --poll 50", "pp4 @ d16 -t 1 --poll 50", "tg2 @ d16 -t 1 --poll 50",
			"e2e4+2 -t 1 --poll 0", "e2e4+2 -t 1 --poll 50",
			"pp8 -t 2 --poll 0", "pp4 -t 2 --poll 0", "tg2 -t 2 --poll 0", "pp8 -t 2 --poll 50", "pp4 -t 2 --poll 50", "tg2 -t 2 --poll 50",
			"pp8 @ d16 -t 2 --poll 0", "pp4 @ d16 -t 2 --poll 0", "tg2 @ d16 -t 2 --poll 0",
			"pp8 @ d16 -t 2 --poll 50", "pp4 @ d16 -t 2 --poll 50", "tg2 @ d16 -t 2 --poll 50",
			"e2e4+2 -t 2 --poll 0", "e2e4+2 -t 2 --poll 50",
		}},
	} {
		t.Run(tt.flags, func(t *testing.T) {
			p := parameters(t, tt.flags)
			s := sweep.Of(suite.Suite{Models: []suite.Entry{{Name: "m", Tests: tests}}}, p.Combinations(bench.DefaultSettings(1)), p.Innermost())
			var got []string
			for _, m := range s.Suite.Models {
				got = append(got, strings.TrimSpace("load "+m.Load))
				for _, test := range m.Tests {
					got = append(got, test.String())
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Settings of a load are outside those of a context, whatever the order of the flags.
func TestLoads(t *testing.T) {
	p := parameters(t, "ubatch-size=4,8 n-gpu-layers=0,-1 no-repack=0,1 device=none override-tensor=,a=CPU;b=CPU")
	if loads, cells := p.Loads(), p.Cells(); loads != 8 || cells != 16 {
		t.Errorf("%d loads and %d cells, want 8 and 16", loads, cells)
	}
	s := sweep.Of(suite.Suite{Models: []suite.Entry{{Name: "m", Tests: []result.Test{{Prompt: 1}}}, {Name: "n", Tests: []result.Test{{Gen: 1}}}}},
		p.Combinations(bench.DefaultSettings(1)), p.Innermost())
	var got []string
	for _, m := range s.Suite.Models {
		got = append(got, m.Name+" "+m.Load)
		first := s.Settings[m.Tests[0].Settings]
		for _, test := range m.Tests {
			if own := s.Settings[test.Settings]; !own.SameLoad(first) {
				t.Errorf("%s: %v is loaded otherwise than %v", test, own, first)
			}
		}
	}
	var want []string
	for _, model := range []string{"m", "n"} {
		for _, ngl := range []string{"0", "-1"} {
			for _, ot := range []string{"", "a=CPU;b=CPU"} {
				for _, repack := range []string{"0", "1"} {
					want = append(want, model+" -ngl "+ngl+" -ot "+ot+" --no-repack "+repack)
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestValues(t *testing.T) {
	for _, tt := range []struct {
		flag, text, want string // want is the error, or the values
		bad              bool
	}{
		{"threads", "1,2,4-8+2", "1,2,4,6,8", false},
		{"n-gpu-layers", "-1,0-2", "-1,0,1,2", false},
		{"batch-size", "128-512*2", "128,256,512", false},
		{"flash-attn", "0,on,auto,enabled", "off,on,auto,on", false},
		{"device", "A/B,none", "A/B,none", false},
		{"device", "A//B", `"A//B" has a device without a name`, true},
		{"device", "A/A", "device A is named twice", true},
		{"tensor-split", "1/0.5,0", "1/0.5,0", false},
		{"tensor-split", "1/x", `"x" is not a number`, true},
		{"tensor-split", "1/-2", "-2 is negative", true},
		{"tensor-split", "0/0", "every share is 0", true},
		{"override-tensor", "a=CPU;b=X,", "a=CPU;b=X,", false},
		{"override-tensor", "=CPU", `"=CPU" is not a pattern and a buffer type, as exps=CPU`, true},
		{"cpu-mask", "0x3,f0", "0x3,f0", false},
		{"cpu-mask", "0x", `"0x" is not a mask of at most 512 CPUs, such as 0x3`, true},
		{"no-host", "0,1", "0,1", false},
		{"no-host", "2", `"2" is neither 1 nor 0`, true},
		{"threads", "a", `"a" is not a whole number`, true},
		{"threads", "99999999999999999999", `"99999999999999999999" is not a number of tokens`, true},
		{"cache-type-k", "f16,q9", `unknown value "q9"`, true},
	} {
		l := sweep.New(bench.DefaultSettings(1)).List(tt.flag)
		err := l.Set(tt.text)
		got := l.String()
		if err != nil {
			got = err.Error()
		}
		if got != tt.want || tt.bad != (err != nil) {
			t.Errorf("--%s %s: %q, want %q", tt.flag, tt.text, got, tt.want)
		}
	}
}

func TestRepeated(t *testing.T) {
	var twice *sweep.RepeatedError
	s := bench.DefaultSettings(1)
	if err := parameters(t, "threads=1 threads=1").Apply(&s); !errors.As(err, &twice) || twice.Flag != "threads" || twice.Value != "1" {
		t.Errorf("%v", err)
	}
	if err := parameters(t, "cpu-mask=0x6 poll=7 embeddings=1").Apply(&s); err != nil {
		t.Fatal(err)
	}
	want := bench.DefaultSettings(1)
	want.CPUs, want.Poll, want.Embeddings = []int{1, 2}, 7, true
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
