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
		"a field twice":     {row + "\n" + `{"n_prompt":512,"avg_ts":1,"n_gen":0, "avg_ts" :2}`, nil, `line 2: read record: field "avg_ts" twice`},
		"a text as number":  {`{"n_prompt":512,"avg_ts":"1"}`, nil, `line 1: read record: field "avg_ts" is a string`},
		"a long line":       {row + "\n" + `{"model_filename":"` + strings.Repeat("x", MaxLineBytes), nil, "line 2: longer than 1048576 bytes"},
		"a cut CSV":         {"build_commit,n_prompt,avg_ts\nx,5,1\nx,\"5", nil, "line 3"},
		"twice in a list":   {"[" + `{"n_prompt":512,"avg_ts":1,"avg_ts":2}` + "]", nil, `record 1, up to line 1: read record: field "avg_ts" twice`},
		"many lines":        {strings.Repeat(row+"\n", MaxRecords+1), nil, "line 100001: more than 100000 records"},
		"a long list":       {"[" + strings.Repeat(row+",\n", MaxRecords) + row + "]", nil, "more than 100000 records"},
		"many CSV rows":     {"build_commit,n_prompt,avg_ts\n" + strings.Repeat("x,5,1\n", MaxRecords+1), nil, "line 100002: more than 100000 records"},
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

// A name that is twice in a record is an error; twice as a value, or inside other objects, is not.
func TestReadFileNames(t *testing.T) {
	for name, line := range map[string]string{
		"a value as a name":  `{"n_prompt":512,"avg_ts":1,"model_type":"avg_ts","model_filename":"avg_ts"}`,
		"inside":             `{"n_prompt":512,"avg_ts":1,"ext":{"avg_ts":1,"n_prompt":[{"x":1},{"x":2}]}}`,
		"quotes":             `{"n_prompt":512,"avg_ts":1,"model_type":"\"n_prompt\": \\","model_filename":"{\"n_prompt\":["}`,
		"a name of fields x": `{"n_prompt":512,"avg_ts":1,"avg_ts\"":2}`,
	} {
		if _, err := ReadFile(strings.NewReader(line + "\n")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Records of b4753, as the published runs of servers have them: fields in another order, settings that are booleans, no
// n_depth, spaces inside lists, the path of the model, and a GPU's name.
func TestReadFileOfServers(t *testing.T) {
	const lines = `{"build_commit": "51f311e0", "build_number": 4753, "cpu_info": "CPU", "gpu_info": "", "backends": "CPU", "model_filename": "/models/a.gguf", "model_type": "llama ?B Q4_K - Medium", "model_size": 100, "model_n_params": 200, "n_batch": 2048, "n_ubatch": 512, "n_threads": 2, "cpu_mask": "0x0", "cpu_strict": false, "poll": 50, "type_k": "f16", "type_v": "f16", "n_gpu_layers": 0, "split_mode": "layer", "main_gpu": 0, "no_kv_offload": false, "flash_attn": true, "tensor_split": "0.00", "use_mmap": true, "embeddings": false, "n_prompt": 16, "n_gen": 0, "test_time": "2025-04-16T14:18:00Z", "avg_ns": 10, "stddev_ns": 6, "avg_ts": 135.888880, "stddev_ts": 7.145883, "samples_ns": [ 8, 12 ],"samples_ts": [ 140.802, 132.58 ]}
{"build_commit": "51f311e0", "build_number": 4753, "cpu_info": "a CPU", "gpu_info": "NVIDIA X, NVIDIA X", "backends": "CUDA", "model_filename": "/models/a.gguf", "model_type": "llama ?B Q4_K - Medium", "model_size": 100, "model_n_params": 200, "n_threads": 30, "n_gpu_layers": 999, "flash_attn": false, "use_mmap": true, "n_prompt": 0, "n_gen": 128, "test_time": "2025-04-16T14:18:00Z", "avg_ts": 1e+06, "samples_ns": [  ],"samples_ts": [  ]}
`
	got, err := ReadFile(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	want := []result.Record{
		{
			BuildCommit: "51f311e0", BuildNumber: 4753, CPUInfo: "CPU", Backends: "CPU", ModelFilename: "/models/a.gguf", ModelType: "llama ?B Q4_K - Medium",
			ModelSizeBytes: 100, ModelParams: 200, Batch: 2048, UBatch: 512, Threads: 2, CPUMask: "0x0", Poll: 50, TypeK: "f16", TypeV: "f16", SplitMode: "layer",
			FlashAttn: 1, TensorSplit: "0.00", UseMmap: true, PromptTokens: 16, TestTime: "2025-04-16T14:18:00Z", AvgNs: 10, StddevNs: 6, AvgTS: 135.88888, StddevTS: 7.145883,
			SamplesNs: []int64{8, 12}, SamplesTS: []float64{140.802, 132.58},
		},
		{
			BuildCommit: "51f311e0", BuildNumber: 4753, CPUInfo: "a CPU", GPUInfo: "NVIDIA X, NVIDIA X", Backends: "CUDA", ModelFilename: "/models/a.gguf",
			ModelType: "llama ?B Q4_K - Medium", ModelSizeBytes: 100, ModelParams: 200, Threads: 30, GPULayers: 999, UseMmap: true, GenTokens: 128,
			TestTime: "2025-04-16T14:18:00Z", AvgTS: 1e6, SamplesNs: []int64{}, SamplesTS: []float64{},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
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
