package compare

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestGate(t *testing.T) {
	// The ratios are 0.9, shown; 0.985, unclear; 1.1, shown. tg16 has no partner.
	var base, other []result.Record
	for i, ratio := range []float64{0.9, 0.985, 1.1} {
		test := result.Test{Prompt: i + 1}
		base = append(base, record(test, around(100)))
		other = append(other, record(test, around(100*ratio)))
	}
	base = append(base, record(result.Test{Gen: 16}, around(10)))
	other = append(other, record(result.Test{Gen: 32}, around(10)))
	missing := result.Outcome{Model: "m.gguf", Test: result.Test{Gen: 16}, Status: result.Timeout}
	c, err := Compare([]Side{side("old", base), {Label: "new", Runs: []Run{{Records: other, Missing: []result.Outcome{missing}}}}}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		gate Gate
		want []string
	}{
		"none":                {Gate{}, nil},
		"shown to be below":   {Gate{Below: 0.97}, []string{"pp1"}},
		"below or unclear":    {Gate{Below: 0.97, Unclear: true}, []string{"pp1", "pp2", "tg16"}},
		"nothing is so slow":  {Gate{Below: 0.5}, nil},
		"a missing test only": {Gate{Below: 0.5, Unclear: true}, []string{"tg16"}},
		"all must be faster":  {Gate{Below: 1.09, Unclear: true}, []string{"pp1", "pp2", "pp3", "tg16"}},
	} {
		err := tt.gate.Pass(c)
		var got []string
		var e *GateError
		if errors.As(err, &e) {
			for _, f := range e.Failing {
				got = append(got, f.Test.String())
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || errors.Is(err, ErrGate) != (tt.want != nil) {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%s: several lines: %q", name, err)
		}
	}
	err = Gate{Below: 0.97}.Pass(c)
	if want := "1 row below 0.97 of the base: pp1 of m.gguf in new (0.900, "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// Of three sides, a side that did not measure a row is unclear.
func TestGateThreeSides(t *testing.T) {
	c, err := Compare([]Side{
		side("a", one(record(pp512, around(100)))), side("b", one(record(pp512, around(100)))), {Label: "c", Runs: []Run{{}}},
	}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := (Gate{Below: 0.9}).Pass(c); err != nil {
		t.Error(err)
	}
	if err := (Gate{Below: 0.9, Unclear: true}).Pass(c); err == nil || !strings.Contains(err.Error(), "in c (not measured)") {
		t.Errorf("%v", err)
	}
}

// What an untrusted record does to its row.
func TestVerdictOfRecords(t *testing.T) {
	judged := func(j result.Judgement) func(*result.Record) {
		return func(r *result.Record) {
			r.Ext.Verdict = &result.Verdict{Verdict: j, Reasons: []result.Reason{{Code: "steal", Message: "12 % was stolen"}}}
		}
	}
	c, err := Compare([]Side{
		side("a", []result.Record{record(pp512, around(100)), record(tg128, around(10))}),
		side("b", []result.Record{record(pp512, around(100), judged(result.Doubtful)), record(tg128, around(10), judged(result.Invalid))}),
	}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"m.gguf pp512 1.000 unclear",
		"a alone: m.gguf tg128: the record of b is invalid: 12 % was stolen",
		"b alone: m.gguf tg128: the record of b is invalid: 12 % was stolen",
	}
	if diff := cmp.Diff(want, brief(c)); diff != "" {
		t.Error(diff)
	}
	if cells := c.Rows[0].Cells; cells[0].Doubtful || !cells[1].Doubtful {
		t.Errorf("doubtful: %t, %t; want false, true", cells[0].Doubtful, cells[1].Doubtful)
	}
}

func TestNoSpeed(t *testing.T) {
	for _, speeds := range [][]float64{nil, {0}, {10, -1}} {
		_, err := Compare([]Side{side("a", one(record(tg128, around(10)))), side("b", one(record(tg128, speeds)))}, DefaultOptions())
		if want := "the record of b has no speed above 0"; !errors.Is(err, ErrNoRow) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %v: %s", speeds, err, ErrNoRow, want)
		}
	}
}

// The hint names what makes the rows pair, and with it they do.
func TestHint(t *testing.T) {
	for _, tt := range []struct {
		change func(*result.Record)
		want   string
	}{
		{func(r *result.Record) { r.CPUInfo = "another" }, "compare them with --across cpu_info"},
		{func(r *result.Record) { r.CPUInfo, r.Threads = "another", 9 }, "compare them with --across machine"},
		{func(r *result.Record) { r.CPUInfo, r.Threads, r.TypeK = "another", 9, "q8_0" }, "compare them with --across machine,type_k"},
		{func(r *result.Record) { r.Ext.Verdict = &result.Verdict{Verdict: result.Invalid} }, "leave these records out, or measure their tests again"},
		{func(r *result.Record) { r.ModelParams++ }, "give results of the same models and tests"},
	} {
		sides := []Side{side("a", one(record(tg128, around(10)))), side("b", one(record(tg128, around(10), tt.change)))}
		_, err := Compare(sides, DefaultOptions())
		if got := Hint(err); !errors.Is(err, ErrNoRow) || got != tt.want {
			t.Errorf("%v: %q, want %q", err, got, tt.want)
		}
		var e *NoRowError
		if errors.As(err, &e) && len(e.Across) > 0 {
			o := DefaultOptions()
			o.Across = e.Across
			if c, err := Compare(sides, o); err != nil || len(c.Rows) != 1 {
				t.Errorf("across %q: %v", e.Across, err)
			}
		}
	}
}

// suiteOf are the records of a whole suite: 66 tests.
func suiteOf(speed float64) []result.Record {
	var records []result.Record
	for i := range 66 {
		records = append(records, record(result.Test{Prompt: i + 1}, around(speed), func(r *result.Record) {
			r.ModelFilename = fmt.Sprintf("m%d.gguf", i%6)
			r.ModelParams = uint64(i % 6)
		}))
	}
	return records
}

func BenchmarkCompare(b *testing.B) {
	for _, runs := range []int{1, 500} {
		b.Run(fmt.Sprintf("%d runs a side", runs), func(b *testing.B) {
			var old, now [][]result.Record
			for i := range runs {
				old, now = append(old, suiteOf(100+float64(i)/1000)), append(now, suiteOf(101+float64(i)/1000))
			}
			sides := []Side{side("old", old...), side("new", now...)}
			for b.Loop() {
				if _, err := Compare(sides, DefaultOptions()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
