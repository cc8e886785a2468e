package report

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// twoRecords are what every format must give back.
func twoRecords() []result.Outcome {
	record := func(t result.Test, speed float64) result.Outcome {
		return result.Outcome{Status: result.OK, Test: t, Record: &result.Record{
			BuildCommit: "Debian", BuildNumber: 11669, CPUInfo: `a "quoted", CPU`, Backends: "CPU", ModelFilename: "m.gguf", ModelType: "llama",
			ModelSizeBytes: 1 << 40, ModelParams: 7e9, Threads: 2, CPUStrict: true, FlashAttn: -1, PromptTokens: t.Prompt, GenTokens: t.Gen,
			AvgNs: 5, AvgTS: speed, StddevTS: 0.25, SamplesNs: []int64{4, 6}, SamplesTS: []float64{speed, speed},
			Ext: result.Ext{Schema: 1, Weights: result.FileWeights},
		}}
	}
	return []result.Outcome{record(result.Test{Prompt: 512}, 100.5), record(result.Test{Gen: 128}, 10.25)}
}

func TestReadFile(t *testing.T) {
	for _, format := range []string{"jsonl", "json", "csv"} {
		for name, change := range map[string]func(string) string{
			"as written":        func(s string) string { return s },
			"byte-order mark":   func(s string) string { return "\xef\xbb\xbf" + s },
			"Windows line ends": func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
			"blank lines first": func(s string) string { return "\n \n" + s },
		} {
			t.Run(format+", "+name, func(t *testing.T) {
				var b strings.Builder
				w, err := New(format, &b, Options{})
				if err != nil {
					t.Fatal(err)
				}
				var want []result.Record
				for _, o := range twoRecords() {
					if err := w.Write(o); err != nil {
						t.Fatal(err)
					}
					if format == "csv" {
						o.Record.SamplesNs, o.Record.SamplesTS, o.Record.Ext = nil, nil, result.Ext{}
					}
					want = append(want, *o.Record)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				got, err := ReadFile(strings.NewReader(change(b.String())))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestReadFileRefuses(t *testing.T) {
	const row = `{"model_filename":"m","n_prompt":512,"avg_ts":1}`
	for name, tt := range map[string]struct {
		text string
		want error
		says string
	}{
		"empty":             {"", ErrNoRecords, ""},
		"blank":             {" \r\n\t\n", ErrNoRecords, ""},
		"an empty list":     {"[\n]\n", ErrNoRecords, ""},
		"text":              {"Hello, world\n", ErrNotResults, "line 1"},
		"other CSV":         {"build_commit,b\n1,2\n", ErrNotResults, "line 1"},
		"a cut line":        {row + "\n" + row[:20], nil, "line 2"},
		"a cut list":        {"[\n" + row + ",\n" + row[:20], io.ErrUnexpectedEOF, "record 2, up to line 3"},
		"an unended list":   {"[\n" + row + "\n", io.ErrUnexpectedEOF, "does not end"},
		"not a number":      {`{"n_prompt":512,"avg_ts":NaN}`, nil, "line 1"},
		"no test":           {`{"avg_ts":1}`, nil, "line 1"},
		"NaN in CSV":        {"build_commit,n_prompt,avg_ts\n\"x\",\"512\",\"nan\"\n", nil, `line 2: avg_ts: "nan" is not a number`},
		"a column twice":    {"build_commit,avg_ts,avg_ts\n", nil, `line 1: column "avg_ts" twice`},
		"a short CSV row":   {"build_commit,n_prompt,avg_ts\n\"x\"\n", nil, "line 2"},
		"a fraction of one": {"build_commit,n_prompt,avg_ts\nx,5.5,1\n", nil, `line 2: n_prompt: "5.5" is not a whole number`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadFile(strings.NewReader(tt.text))
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %v with %q", err, tt.want, tt.says)
			}
		})
	}
}

func FuzzReadFile(f *testing.F) {
	f.Add("[{\"n_prompt\":512,\"avg_ts\":1}]")
	f.Add("{\"n_prompt\":512,\"avg_ts\":1}\n")
	f.Add("build_commit,n_prompt,avg_ts\n\"x\",\"512\",\"1\"\n")
	f.Add("\xef\xbb\xbf[")
	f.Fuzz(func(t *testing.T, text string) {
		records, err := ReadFile(strings.NewReader(text))
		if err == nil && len(records) == 0 {
			t.Fatal("no records and no error")
		}
		for _, r := range records {
			if err := r.Test().Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
