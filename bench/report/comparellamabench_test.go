package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// compareLlamaBench are the fields without which compare-llama-bench.py refuses a record.
// It pairs records whose fields are equal, and takes the type of each from SQLite.
var compareLlamaBench = map[string]string{
	"text":    "build_commit cpu_info gpu_info backends tensor_buft_overrides model_filename model_type cpu_mask type_k type_v split_mode tensor_split test_time",
	"whole":   "n_gpu_layers n_batch n_ubatch poll n_threads main_gpu flash_attn n_prompt n_gen n_depth",
	"logical": "embeddings cpu_strict use_mmap no_kv_offload",
	"number":  "avg_ts",
}

func TestCompareLlamaBench(t *testing.T) {
	record := &result.Record{BuildCommit: "Debian", PromptTokens: 16, FlashAttn: -1, SamplesNs: []int64{5}, SamplesTS: []float64{0.5}, AvgTS: 0.5}
	for _, format := range []string{"jsonl", "json", "csv"} {
		var out bytes.Buffer
		w, err := report.New(format, &out, report.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(result.Outcome{Status: result.OK, Record: record}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		fields := map[string]any{}
		switch format {
		case "csv":
			rows, err := csv.NewReader(&out).ReadAll()
			if err != nil || len(rows) != 2 {
				t.Fatalf("%d rows, %v", len(rows), err)
			}
			for i, name := range rows[0] {
				fields[name] = rows[1][i]
			}
		case "json":
			var all []map[string]any
			if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 1 {
				t.Fatal(err)
			}
			fields = all[0]
		default: // one line is one record
			if err := json.Unmarshal(bytes.TrimSuffix(out.Bytes(), []byte("\n")), &fields); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
				t.Fatal(err)
			}
		}
		for kind, names := range compareLlamaBench {
			for _, name := range strings.Fields(names) {
				if got := kindOf(fields[name], format == "csv"); !strings.Contains(got, kind) {
					t.Errorf("%s: %s is %v: %q, want %s", format, name, fields[name], got, kind)
				}
			}
		}
	}
}

// kindOf lists what a value can be.
func kindOf(v any, isText bool) string {
	switch v := v.(type) {
	case bool:
		return "logical"
	case float64:
		if v == float64(int64(v)) {
			return "whole number"
		}
		return "number"
	case string:
		if !isText {
			return "text"
		}
		kinds := "text"
		if _, err := strconv.ParseFloat(v, 64); err == nil {
			kinds += " number"
		}
		if _, err := strconv.Atoi(v); err == nil {
			kinds += " whole"
		}
		if v == "0" || v == "1" {
			kinds += " logical"
		}
		return kinds
	default:
		return "absent"
	}
}
