package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/perf/benchfmt"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// comparison compares sides of speeds: runs of pp512, pp1024 and tg128.
func comparison(t *testing.T, model string, labels []string, factor ...float64) *compare.Comparison {
	t.Helper()
	return compared(t, model, labels, nil, factor...)
}

// pricedComparison has prices in these currencies, from 0.53 an hour on.
func pricedComparison(t *testing.T, currencies []string, factor ...float64) *compare.Comparison {
	t.Helper()
	labels := []string{"small", "large", "other"}
	return compared(t, "m.gguf", labels[:len(factor)], func(side int, r *result.Record) {
		if side == 1 && r.PromptTokens == 1024 {
			return // a record without a price
		}
		if err := AddCost(r, &result.Prices{Machine: &result.Price{PerHour: 0.53 * (1 + 0.1*float64(side)), Currency: currencies[side]}}); err != nil {
			t.Fatal(err)
		}
	}, factor...)
}

func compared(t *testing.T, model string, labels []string, change func(side int, r *result.Record), factor ...float64) *compare.Comparison {
	t.Helper()
	var sides []compare.Side
	for i, label := range labels {
		var runs []compare.Run
		for run := range 2 {
			var records []result.Record
			for _, test := range []struct {
				test  result.Test
				speed float64
			}{{result.Test{Prompt: 512}, 1234.5}, {result.Test{Prompt: 1024}, 200}, {result.Test{Gen: 128}, 12.345}} {
				speed := test.speed * factor[i]
				if test.test.Prompt == 1024 {
					speed = test.speed
				}
				speed *= 1 + float64(run)/1000
				r := result.Record{
					ModelFilename: model, ModelType: "llama 1B", PromptTokens: test.test.Prompt, GenTokens: test.test.Gen, AvgTS: speed,
					SamplesTS: []float64{speed, speed * 1.01, speed * 0.99, speed * 1.005, speed * 0.995}, CPUInfo: "CPU " + label,
				}
				if change != nil {
					change(i, &r)
				}
				records = append(records, r)
			}
			runs = append(runs, compare.Run{Records: records})
		}
		sides = append(sides, compare.Side{Label: label, Runs: runs})
	}
	last := &sides[len(sides)-1]
	last.Runs[0].Records = last.Runs[0].Records[:2] // the last side has one run of tg128
	o := compare.DefaultOptions()
	o.Across = []string{"cpu_info"}
	c, err := compare.Compare(sides, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestComparisonGolden(t *testing.T) {
	for name, c := range map[string]*compare.Comparison{
		"two":   comparison(t, "m.gguf", []string{"old", "new"}, 1, 1.2),
		"three": comparison(t, "m.gguf", []string{"a", "b", "c"}, 1, 1.2, 0.8),

		"cost":       pricedComparison(t, []string{"EUR", "EUR"}, 1, 1.2),
		"cost-three": pricedComparison(t, []string{"EUR", "EUR", "=USD"}, 1, 1.2, 0.8),
	} {
		for _, format := range ComparisonFormats() {
			t.Run(name+" "+format, func(t *testing.T) {
				var b strings.Builder
				if err := WriteComparison(format, &b, c, Options{Width: 100}); err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", "comparison-"+name+"."+format)
				if *update {
					if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), b.String()); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// Names from outside do not become markup, formulas, or lines.
func TestComparisonEscapes(t *testing.T) {
	for _, model := range []string{"<script>alert(1)</script>", "=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "a=b", "a|b\nc", "`x`*y*", "\x1b[31m"} {
		c := comparison(t, model, []string{"=old", "a|new\n<b>"}, 1, 1.2)
		for _, format := range ComparisonFormats() {
			var b strings.Builder
			if err := WriteComparison(format, &b, c, Options{}); err != nil {
				t.Fatal(err)
			}
			text := b.String()
			switch format {
			case "md":
				for _, line := range strings.Split(text, "\n") {
					if strings.Contains(strings.ReplaceAll(line, `\<`, ""), "<") {
						t.Errorf("%q in md: %s", model, line)
					}
				}
				rows := 0
				for _, line := range strings.Split(text, "\n") {
					if strings.HasPrefix(line, "|") {
						rows++
						if n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); n != 8 {
							t.Errorf("%q in md: a row of %d bars: %s", model, n, line)
						}
					}
				}
				if rows != 2+3+1 {
					t.Errorf("%q in md: %d rows:\n%s", model, rows, text)
				}
			case "csv":
				rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
				if err != nil || len(rows) != 4 {
					t.Fatalf("%d rows, %v", len(rows), err)
				}
				for _, row := range rows {
					for _, cell := range row {
						if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
							t.Errorf("%q in csv begins a formula", cell)
						}
					}
				}
			case "benchstat":
				r := benchfmt.NewReader(strings.NewReader(text), "comparison")
				n := 0
				for r.Scan() {
					if bad, ok := r.Result().(*benchfmt.SyntaxError); ok {
						t.Errorf("%q in benchstat: %v", model, bad)
					}
					if _, ok := r.Result().(*benchfmt.Result); ok {
						n++
					}
				}
				if r.Err() != nil || n != 55 || strings.Contains(text, "\x1b") {
					t.Errorf("%q in benchstat: %d results, %v", model, n, r.Err())
				}
			case "table":
				if strings.Contains(text, "\x1b") {
					t.Errorf("%q in table: an escape sequence", model)
				}
			}
		}
	}
}

// The notes name records that are left out or not compared, at most a hundred of each.
func TestComparisonNamesRecords(t *testing.T) {
	c := comparison(t, "m.gguf", []string{"old", "new"}, 1, 1.2)
	c.LeftOut = []compare.Alone{{Side: 1, Model: "m.gguf", Test: result.Test{Gen: 128}, Reason: "invalid: 30 % was stolen"}}
	for i := range 130 {
		c.Alone = append(c.Alone, compare.Alone{Model: "m.gguf", Test: result.Test{Prompt: i + 1}, Reason: "not measured by the others"})
	}
	for _, format := range []string{"table", "md"} {
		var b strings.Builder
		if err := WriteComparison(format, &b, c, Options{Width: 200}); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		for part, n := range map[string]int{
			"left out: a record of tg128 of m.gguf in new: invalid: 30 % was stolen\n": 1,
			"in old: not measured by the others\n":                                     100,
			"not compared: 30 records more; -o json lists all\n":                       1,
		} {
			if strings.Count(text, part) != n {
				t.Errorf("%s has not %d times %q:\n%s", format, n, part, text)
			}
		}
	}
}

// benchstat's reader understands the format, and every repetition is there.
func TestComparisonBenchstat(t *testing.T) {
	c := comparison(t, "m.gguf", []string{"old", "new"}, 1, 1.2)
	var b strings.Builder
	if err := WriteComparison("benchstat", &b, c, Options{}); err != nil {
		t.Fatal(err)
	}
	r := benchfmt.NewReader(strings.NewReader(b.String()), "comparison")
	got := map[string]int{}
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.Result:
			got[rec.GetConfig("side")+" "+string(rec.Name.Full())]++
			if _, ok := rec.Value("tokens/s"); !ok {
				t.Errorf("no tokens/s in %v", rec)
			}
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"old m.gguf/pp512": 10, "old m.gguf/pp1024": 10, "old m.gguf/tg128": 10,
		"new m.gguf/pp512": 10, "new m.gguf/pp1024": 10, "new m.gguf/tg128": 5,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestComparisonGitHub(t *testing.T) {
	var b strings.Builder
	if err := WriteComparison("github-action", &b, comparison(t, "m.gguf", []string{"old", "new"}, 1, 1.2), Options{}); err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Name, Unit string
		Value      float64
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range got {
		lines = append(lines, fmt.Sprintf("%s %.1f %s", e.Name, e.Value, e.Unit))
	}
	if diff := cmp.Diff([]string{"m.gguf pp512 1482.1 tokens/s", "m.gguf pp1024 200.1 tokens/s", "m.gguf tg128 14.8 tokens/s"}, lines); diff != "" {
		t.Error(diff)
	}
}

// The speed of doubtful records has a mark, and a note says what it means.
func TestComparisonDoubtful(t *testing.T) {
	for format, want := range map[string]string{
		"table": "1482 !",
		"md":    "1482 !",
		"csv":   ",true,",
		"json":  `"doubtful": true`,
	} {
		c := comparison(t, "m.gguf", []string{"old", "new"}, 1, 1.2)
		text := func() string {
			var b strings.Builder
			if err := WriteComparison(format, &b, c, Options{}); err != nil {
				t.Fatal(err)
			}
			return b.String()
		}
		if got := text(); strings.Contains(got, want) || strings.Contains(got, "doubtful record") {
			t.Errorf("%s without doubt: %s", format, got)
		}
		c.Rows[0].Cells[1].Doubtful = true
		got := text()
		if !strings.Contains(got, want) || (format == "table" || format == "md") != strings.Contains(got, "of a doubtful record") {
			t.Errorf("%s: %s", format, got)
		}
	}
}
