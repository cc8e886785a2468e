package compare

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/result"
)

var (
	pp512 = result.Test{Prompt: 512}
	tg128 = result.Test{Gen: 128}
)

// record is a record of a test with these speeds, changed by changes.
func record(t result.Test, speeds []float64, changes ...func(*result.Record)) result.Record {
	r := result.Record{
		BuildCommit: "Debian", BuildNumber: 11669, CPUInfo: "a CPU", Backends: "CPU", ModelFilename: "m.gguf", ModelType: "llama 1B Q4_K - Medium",
		ModelSizeBytes: 1000, ModelParams: 2000, Batch: 2048, UBatch: 512, Threads: 2, TypeK: "f16", TypeV: "f16",
		PromptTokens: t.Prompt, GenTokens: t.Gen, DepthTokens: t.Depth, SamplesTS: speeds,
		Ext: result.Ext{Weights: result.FileWeights, Library: map[string]string{"libllama0": "0.7.0", "libggml0": "0.27.0"}},
	}
	for _, s := range speeds {
		r.AvgTS += s / float64(len(speeds))
	}
	for _, change := range changes {
		change(&r)
	}
	return r
}

func around(speed float64) []float64 {
	return []float64{speed * 0.999, speed, speed * 1.001, speed * 0.9995, speed * 1.0005}
}

func side(label string, runs ...[]result.Record) Side {
	s := Side{Label: label}
	for i, records := range runs {
		s.Runs = append(s.Runs, Run{Name: fmt.Sprintf("%s%d", label, i), Records: records})
	}
	return s
}

// one is a run of one record.
func one(r result.Record) []result.Record { return []result.Record{r} }

// brief is a comparison in lines: rows with verdicts, then what stands alone.
func brief(c *Comparison) (lines []string) {
	for _, row := range c.Rows {
		line := row.Model + " " + row.Test.String()
		if row.Settings != "" {
			line += " " + row.Settings
		}
		for _, cell := range row.Cells[1:] {
			switch {
			case cell.Ratio != nil:
				line += fmt.Sprintf(" %.3f %s", cell.Ratio.Value, cell.Ratio.Verdict)
			default:
				line += " - " + string(cell.Status)
			}
		}
		lines = append(lines, line)
	}
	for _, a := range c.Alone {
		lines = append(lines, fmt.Sprintf("%s alone: %s %s: %s", c.Sides[a.Side], a.Model, a.Test, a.Reason))
	}
	return lines
}

func TestCompare(t *testing.T) {
	threads := func(n int) func(*result.Record) { return func(r *result.Record) { r.Threads = n } }
	synthetic := func(r *result.Record) { r.Ext.Weights = result.SyntheticWeights }
	noGPU := func(r *result.Record) { r.Ext.Warnings = []result.Warning{{Code: result.WarnGPUNotUsed}} }
	named := func(name string) func(*result.Record) { return func(r *result.Record) { r.ModelFilename = name } }
	other := func(r *result.Record) { r.ModelSizeBytes++ }
	three := func(speed float64) [][]result.Record {
		return [][]result.Record{one(record(tg128, around(speed*0.998))), one(record(tg128, around(speed))), one(record(tg128, around(speed*1.002)))}
	}
	for name, tt := range map[string]struct {
		sides  []Side
		across []string
		want   []string
	}{
		"faster, slower": {
			[]Side{
				side("a", []result.Record{record(pp512, around(100)), record(tg128, around(10))}),
				side("b", []result.Record{record(pp512, around(120)), record(tg128, around(8))}),
			}, nil,
			[]string{"m.gguf pp512 1.200 faster", "m.gguf tg128 0.800 slower"},
		},
		"three per cent is unclear with one run each": {[]Side{side("a", three(100)[1]), side("b", three(103)[1])}, nil, []string{"m.gguf tg128 1.030 unclear"}},
		"three per cent is shown by three runs each":  {[]Side{side("a", three(100)...), side("b", three(103)...)}, nil, []string{"m.gguf tg128 1.030 faster"}},
		"the same is shown by three runs each":        {[]Side{side("a", three(100)...), side("b", three(100.1)...)}, nil, []string{"m.gguf tg128 1.001 same"}},
		"a model is its content, its name a label":    {[]Side{side("a", one(record(pp512, around(100)))), side("b", one(record(pp512, around(200), named("copy.gguf"))))}, nil, []string{"m.gguf pp512 2.000 faster"}},
		"threads that are compared":                   {[]Side{side("a", one(record(pp512, around(100)))), side("b", one(record(pp512, around(200), threads(4))))}, []string{"n_threads"}, []string{"m.gguf pp512 2.000 faster"}},
		"threads as part of the machine":              {[]Side{side("a", one(record(pp512, around(100)))), side("b", one(record(pp512, around(200), threads(4))))}, []string{"machine"}, []string{"m.gguf pp512 2.000 faster"}},
		"a side is of one kind in what is compared": {
			[]Side{
				side("a", []result.Record{record(pp512, around(100)), record(pp512, around(150), threads(4)), record(tg128, around(10))}),
				side("b", []result.Record{record(pp512, around(300), threads(8)), record(tg128, around(20), threads(8))}),
			}, []string{"n_threads"},
			[]string{
				"m.gguf tg128 2.000 faster", "a alone: m.gguf pp512: records of a differ in n_threads, which is compared",
				"b alone: m.gguf pp512: records of a differ in n_threads, which is compared",
			},
		},
		"two settings of one test on both sides": {
			[]Side{
				side("a", []result.Record{record(pp512, around(100)), record(pp512, around(150), threads(4))}),
				side("b", []result.Record{record(pp512, around(100)), record(pp512, around(300), threads(4))}),
			}, nil,
			[]string{"m.gguf pp512 n_threads=2 1.000 unclear", "m.gguf pp512 n_threads=4 2.000 faster"},
		},
		"rows of one side": {
			[]Side{
				side("a", []result.Record{record(pp512, around(100)), record(tg128, around(10)), record(tg128, around(10), other)}),
				{Label: "b", Runs: []Run{{Records: one(record(pp512, around(150))), Missing: []result.Outcome{{Model: "m.gguf", Test: tg128, Status: result.Timeout}}}}},
			}, nil,
			[]string{"m.gguf pp512 1.500 faster", "a alone: m.gguf tg128: b has no record: timeout", "a alone: m.gguf tg128: b has no record: timeout"},
		},
		"settings keep rows apart": {
			[]Side{
				side("a", []result.Record{record(pp512, around(100)), record(tg128, around(10))}),
				side("b", []result.Record{record(pp512, around(150)), record(tg128, around(10), threads(4))}),
			}, nil,
			[]string{"m.gguf pp512 1.500 faster", "a alone: m.gguf tg128: differs in n_threads", "b alone: m.gguf tg128: differs in n_threads"},
		},
		"weights and GPUs that cannot be compared": {
			[]Side{
				side("a", []result.Record{record(pp512, around(100)), record(tg128, around(10)), record(result.Test{Gen: 1}, around(10))}),
				side("b", []result.Record{record(pp512, around(150), synthetic), record(tg128, around(10), noGPU), record(result.Test{Gen: 1}, around(5))}),
			}, nil,
			[]string{
				"m.gguf tg1 0.500 slower",
				"a alone: m.gguf pp512: one side has synthetic weights, the other a file's",
				"b alone: m.gguf pp512: one side has synthetic weights, the other a file's",
				"a alone: m.gguf tg128: one side used the GPU, the other fell back to the CPU",
				"b alone: m.gguf tg128: one side used the GPU, the other fell back to the CPU",
			},
		},
		"three sides, one without the test": {
			[]Side{
				side("a", one(record(pp512, around(100)))), side("b", one(record(pp512, around(200)))),
				{Label: "c", Runs: []Run{{Missing: []result.Outcome{{Model: "m.gguf", Test: pp512, Status: result.OutOfMemory}}}}},
			}, nil,
			[]string{"m.gguf pp512 2.000 faster - out_of_memory"},
		},
		"a record without samples": {
			[]Side{side("a", one(record(pp512, around(100)))), side("b", one(record(pp512, nil, func(r *result.Record) { r.AvgTS = 150 })))}, nil,
			[]string{"m.gguf pp512 1.500 faster"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions()
			o.Across = tt.across
			c, err := Compare(tt.sides, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, brief(c)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompareRefuses(t *testing.T) {
	a := side("a", one(record(pp512, around(100))))
	for name, tt := range map[string]struct {
		sides []Side
		want  error
		text  string
	}{
		"one side":       {[]Side{a}, ErrFewSides, ""},
		"another test":   {[]Side{a, side("b", one(record(tg128, around(100))))}, ErrNoRow, "not measured by the others"},
		"another CPU":    {[]Side{a, side("b", one(record(pp512, around(100), func(r *result.Record) { r.CPUInfo = "another" })))}, ErrNoRow, "they differ in cpu_info"},
		"nothing at all": {[]Side{a, {Label: "b", Runs: []Run{{}}}}, ErrNoRow, ""},
	} {
		_, err := Compare(tt.sides, DefaultOptions())
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, tt.want, tt.text)
		}
	}
}

func TestDifferences(t *testing.T) {
	c, err := Compare([]Side{
		side("a", []result.Record{record(pp512, around(100)), record(pp512, around(100), func(r *result.Record) { r.Threads = 4 })}),
		side("b", []result.Record{record(pp512, around(100), func(r *result.Record) { r.CPUInfo = "another" })}),
	}, Options{Across: []string{"cpu_info"}, Loads: DefaultOptions().Loads})
	if err != nil {
		t.Fatal(err)
	}
	want := []Difference{{"cpu_info", []string{"a CPU", "another"}, true}, {"n_threads", []string{"2 | 4", "2"}, false}}
	if diff := cmp.Diff(want, c.Differences); diff != "" {
		t.Error(diff)
	}
}

// Suites of 66 rows of equal sides: a false verdict is rare in the whole table, not only in
// a row, whatever the distribution of the noise, and also if the runs share their loads.
func TestFalseVerdicts(t *testing.T) {
	const tables, rows = 150, 66
	for name, noise := range map[string]func(*rand.Rand) float64{
		"normal": (*rand.Rand).NormFloat64,
		"skewed": func(r *rand.Rand) float64 { return -r.ExpFloat64() },
		"outliers": func(r *rand.Rand) float64 {
			const sd = 1.3 // of all values before the division by it
			if r.Float64() < 0.02 {
				return -10 / sd * r.Float64()
			}
			return r.NormFloat64() / sd
		},
	} {
		for _, tt := range []struct {
			runs   int
			load   float64
			shared bool
		}{{1, 0.01, false}, {3, 0.01, false}, {3, 0.01, true}, {3, 0.10, false}, {5, 0.03, false}} {
			t.Run(fmt.Sprintf("%s, %d runs, loads differ by %v, shared %t", name, tt.runs, tt.load, tt.shared), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(5, 6))
				run := func() []result.Record {
					var records []result.Record
					load := 100 * math.Exp(tt.load*noise(random))
					for i := range rows {
						if !tt.shared {
							load = 100 * math.Exp(tt.load*noise(random))
						}
						speeds := make([]float64, 5)
						for j := range speeds {
							speeds[j] = load * math.Exp(0.01*noise(random))
						}
						records = append(records, record(result.Test{Prompt: i + 1}, speeds))
					}
					return records
				}
				wrong := 0
				for range tables {
					var sides []Side
					for _, label := range []string{"a", "b"} {
						var runs [][]result.Record
						for range tt.runs {
							runs = append(runs, run())
						}
						sides = append(sides, side(label, runs...))
					}
					c, err := Compare(sides, DefaultOptions())
					if err != nil {
						t.Fatal(err)
					}
					if slices.ContainsFunc(c.Rows, func(r Row) bool { v := r.Cells[1].Ratio.Verdict; return v == Faster || v == Slower }) {
						wrong++
					}
				}
				if share := float64(wrong) / tables; share > 0.05 {
					t.Errorf("%.1f %% of tables of equal sides have a false verdict", share*100)
				}
			})
		}
	}
}

// An invalid record is left out if its side has another one of the test. The row stays, the
// gate passes, and the record is named.
func TestInvalidLeftOut(t *testing.T) {
	bad := func(r *result.Record) {
		r.Ext.Verdict = &result.Verdict{Verdict: result.Invalid, Reasons: []result.Reason{{Code: "steal", Message: "30 % was stolen"}}}
	}
	c, err := Compare([]Side{
		side("a", one(record(tg128, around(100))), one(record(tg128, around(30), bad)), one(record(tg128, around(100.1)))),
		side("b", one(record(tg128, around(120))), one(record(tg128, around(120)))),
	}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"m.gguf tg128 1.199 faster"}, brief(c)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Alone{{Side: 0, Model: "m.gguf", Test: tg128, Reason: "invalid: 30 % was stolen"}}, c.LeftOut); diff != "" {
		t.Error(diff)
	}
	if c.Rows[0].Cells[0].Runs != 2 {
		t.Errorf("%d runs of the base", c.Rows[0].Cells[0].Runs)
	}
	if err := (Gate{Below: 0.97, Unclear: true}).Pass(c); err != nil {
		t.Error(err)
	}
}

// Comparing a with b and b with a gives opposite verdicts.
func TestOpposite(t *testing.T) {
	opposite := map[Verdict]Verdict{Faster: Slower, Slower: Faster, Unclear: Unclear}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) Side {
			var runs [][]result.Record
			for range rapid.IntRange(1, 3).Draw(t, name) {
				runs = append(runs, one(record(pp512, rapid.SliceOfN(rapid.Float64Range(80, 120), 1, 6).Draw(t, name+" speeds"))))
			}
			return side(name, runs...)
		}
		a, b := draw("a"), draw("b")
		o := DefaultOptions()
		o.Margin = 0 // 1/(1+m) is not 1-m
		ab, err := Compare([]Side{a, b}, o)
		if err != nil {
			t.Fatal(err)
		}
		ba, err := Compare([]Side{b, a}, o)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := ba.Rows[0].Cells[1].Ratio.Verdict, opposite[ab.Rows[0].Cells[1].Ratio.Verdict]; got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}
