package result_test

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestTest(t *testing.T) {
	for _, tt := range []struct {
		test    result.Test
		name    string
		kind    result.Kind
		tokens  int
		context int
		json    string
	}{
		{result.Test{Prompt: 512}, "pp512", result.PromptProcessing, 512, 512, `{"n_prompt":512,"n_gen":0}`},
		{result.Test{Gen: 128}, "tg128", result.TextGeneration, 128, 128, `{"n_prompt":0,"n_gen":128}`},
		{result.Test{Prompt: 512, Gen: 128}, "pp512+tg128", result.PromptGeneration, 640, 640, `{"n_prompt":512,"n_gen":128}`},
		{result.Test{Prompt: 16, Depth: 1}, "pp16 @ d1", result.PromptProcessing, 16, 17, `{"n_prompt":16,"n_gen":0,"n_depth":1}`},
		{result.Test{Gen: 32, Depth: 4096}, "tg32 @ d4096", result.TextGeneration, 32, 4128, `{"n_prompt":0,"n_gen":32,"n_depth":4096}`},
		{result.Test{Prompt: 1, Gen: 2, Depth: 3}, "pp1+tg2 @ d3", result.PromptGeneration, 3, 6, `{"n_prompt":1,"n_gen":2,"n_depth":3}`},
		{result.Test{Prompt: 512, Gen: 128, E2E: true}, "e2e512+128", result.EndToEnd, 640, 640, `{"n_prompt":512,"n_gen":128,"e2e":true}`},
	} {
		if got := tt.test.String(); got != tt.name {
			t.Errorf("%+v is %s, want %s", tt.test, got, tt.name)
		}
		if got := tt.test.Kind(); got != tt.kind {
			t.Errorf("%v is of kind %s, want %s", tt.test, got, tt.kind)
		}
		if got := tt.test.Tokens(); got != tt.tokens {
			t.Errorf("%v has %d tokens, want %d", tt.test, got, tt.tokens)
		}
		if got := tt.test.Context(); got != tt.context {
			t.Errorf("%v has a context of %d tokens, want %d", tt.test, got, tt.context)
		}
		if err := tt.test.Validate(); err != nil {
			t.Errorf("%v: %v", tt.test, err)
		}
		got, err := json.Marshal(tt.test)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.json {
			t.Errorf("%v is %s, want %s", tt.test, got, tt.json)
		}
		r := &result.Record{PromptTokens: tt.test.Prompt, GenTokens: tt.test.Gen, DepthTokens: tt.test.Depth}
		if tt.test.E2E {
			r.Ext.E2E = &result.E2E{}
		}
		if r.Test() != tt.test {
			t.Errorf("the record of %v says %v", tt.test, r.Test())
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		test result.Test
		want string // empty: valid
	}{
		{result.Test{Prompt: 1}, ""},
		{result.Test{Prompt: result.MaxTokens, Gen: result.MaxTokens, Depth: result.MaxTokens}, ""},
		{result.Test{}, "a test needs a prompt or a generation length above 0 tokens"},
		{result.Test{Depth: 1}, "a test needs a prompt or a generation length above 0 tokens"},
		{result.Test{Prompt: -1}, "prompt length -1 is outside 0…16777216 tokens"},
		{result.Test{Prompt: 1, Gen: -1}, "generation length -1 is outside 0…16777216 tokens"},
		{result.Test{Prompt: 1, Gen: -1, Depth: -1}, "generation length -1 is outside 0…16777216 tokens"},
		{result.Test{Gen: 1, Depth: -1}, "depth length -1 is outside 0…16777216 tokens"},
		{result.Test{Prompt: result.MaxTokens + 1}, "prompt length 16777217 is outside 0…16777216 tokens"},
		{result.Test{Gen: math.MaxInt}, "generation length 9223372036854775807 is outside 0…16777216 tokens"},
		{result.Test{Prompt: 1, Gen: 1, E2E: true}, ""},
		{result.Test{Prompt: 1, E2E: true}, "an end-to-end test needs a prompt and a generation length above 0 tokens, and no depth"},
		{result.Test{Gen: 1, E2E: true}, "an end-to-end test needs a prompt and a generation length above 0 tokens, and no depth"},
		{result.Test{Prompt: 1, Gen: 1, Depth: 1, E2E: true}, "an end-to-end test needs a prompt and a generation length above 0 tokens, and no depth"},
		{result.Test{Prompt: math.MinInt}, "prompt length -9223372036854775808 is outside 0…16777216 tokens"},
	} {
		got := ""
		if err := tt.test.Validate(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.test, got, tt.want)
		}
	}
}

func TestSeries(t *testing.T) {
	tests := []result.Test{{Gen: 32}, {Prompt: 16}, {Prompt: 16, Depth: 1}, {Gen: 16}, {Prompt: 16, Gen: 8}, {Prompt: 8, Gen: 16, E2E: true}, {Prompt: 512}}
	for i, series := range []int{0, 1, 2, 0, 4, 5, 1} { // by its first test
		for j, other := range []int{0, 1, 2, 0, 4, 5, 1} {
			if got := tests[i].SameSeries(tests[j]); got != (series == other) {
				t.Errorf("%v and %v are of one series: %v", tests[i], tests[j], got)
			}
			if got, want := tests[i].ShorterInSeries(tests[j]), series == other && tests[i].Tokens() < tests[j].Tokens(); got != want {
				t.Errorf("%v is a shorter test of the series of %v: %v", tests[i], tests[j], got)
			}
		}
	}
	slices.SortStableFunc(tests, result.Test{Gen: 1}.SeriesLast)
	want := []result.Test{{Prompt: 16}, {Prompt: 16, Depth: 1}, {Prompt: 16, Gen: 8}, {Prompt: 8, Gen: 16, E2E: true}, {Prompt: 512}, {Gen: 32}, {Gen: 16}}
	if diff := cmp.Diff(want, tests); diff != "" {
		t.Error(diff)
	}
}

func TestLongest(t *testing.T) {
	if got := result.Longest(); got != (result.Test{}) {
		t.Errorf("of none: %v", got)
	}
	first := result.Test{Prompt: 16, Depth: 16}
	if got := result.Longest(result.Test{Gen: 16}, first, result.Test{Gen: 32}); got != first {
		t.Errorf("%v, want %v", got, first)
	}
}

func TestElapsed(t *testing.T) {
	if got := result.Elapsed(nil); got != nil {
		t.Errorf("of none: %v", got)
	}
	got := result.Elapsed([]result.Sample{{Elapsed: 2}, {Elapsed: 1}})
	if diff := cmp.Diff([]time.Duration{2, 1}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTokensPerSecond(t *testing.T) {
	for _, tt := range []struct {
		test    result.Test
		elapsed time.Duration
		want    float64
	}{
		{result.Test{Prompt: 512}, time.Second, 512},
		{result.Test{Prompt: 512}, 250 * time.Millisecond, 2048},
		{result.Test{Gen: 128}, 2 * time.Second, 64},
		{result.Test{Prompt: 512, Gen: 128}, time.Second, 640},    // both are timed
		{result.Test{Prompt: 512, Depth: 9999}, time.Second, 512}, // the depth is not
		{result.Test{Prompt: 1}, 1, 1e9},
		{result.Test{Prompt: 1}, 0, 0},
		{result.Test{Prompt: 1}, -time.Second, 0},
	} {
		if got := tt.test.TokensPerSecond(tt.elapsed); got != tt.want {
			t.Errorf("%v in %v: %v, want %v", tt.test, tt.elapsed, got, tt.want)
		}
	}
}

func TestTokensPerSecondIsFinite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		test := result.Test{Prompt: rapid.IntRange(0, result.MaxTokens).Draw(t, "prompt"), Gen: rapid.IntRange(0, result.MaxTokens).Draw(t, "gen")}
		rate := test.TokensPerSecond(time.Duration(rapid.Int64().Draw(t, "elapsed")))
		if math.IsNaN(rate) || math.IsInf(rate, 0) || rate < 0 {
			t.Fatalf("%v: %v", test, rate)
		}
	})
}

// The words that files have; programs compare them.
func TestWords(t *testing.T) {
	statuses := []result.Status{
		result.OK, result.Timeout, result.PredictedTimeout, result.TimeLimit, result.Aborted, result.Failed, result.Crashed,
		result.OutOfMemory, result.NoDisk, result.DownloadFailed, result.Unsupported,
	}
	want := []result.Status{
		"ok", "timeout", "predicted_timeout", "time_limit", "aborted", "failed", "crashed", "out_of_memory", "no_disk", "download_failed", "unsupported",
	}
	if diff := cmp.Diff(want, statuses); diff != "" {
		t.Error(diff)
	}
	if result.FileWeights != "file" || result.SyntheticWeights != "synthetic" || result.BuiltInPrompt != "built_in" || result.GivenPrompt != "given" ||
		result.SchemaVersion != 1 {
		t.Error("words of ext changed")
	}
}

// The fields of llama-bench 0.7.0, in its order, and our two; readers of its
// output depend on every one.
var recordKeys = []string{
	"build_commit", "build_number", "cpu_info", "gpu_info", "backends", "model_filename", "model_type", "model_size",
	"model_n_params", "n_batch", "n_ubatch", "n_threads", "cpu_mask", "cpu_strict", "poll", "type_k", "type_v",
	"n_gpu_layers", "n_cpu_moe", "split_mode", "main_gpu", "no_kv_offload", "flash_attn", "devices", "tensor_split",
	"tensor_buft_overrides", "load_mode", "lazy_mode", "embeddings", "no_op_offload", "no_host", "repack", "fit_target",
	"fit_min_ctx", "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts",
	"samples_ns", "samples_ts",
	"use_mmap", "ext",
}

func TestRecordKeys(t *testing.T) {
	// Even of an empty record: a reader may find a 0, never a missing field.
	data, err := json.Marshal(result.Record{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(recordKeys, keys(t, data)); diff != "" {
		t.Error(diff)
	}
}

func TestExtKeys(t *testing.T) {
	one := 1.
	for _, tt := range []struct {
		ext  result.Ext
		want []string
	}{
		{result.Ext{}, []string{"schema", "version", "weights", "seed", "statistics"}},
		{
			result.Ext{
				Library: map[string]string{"a": "b"}, CPUVariant: "zen4", LoadSeconds: 1, ContextSeconds: 1, WarmupSeconds: 1,
				Statistics: result.Statistics{CV: &one}, Memory: &result.Memory{}, E2E: &result.E2E{}, Warnings: []result.Warning{{}},
			},
			[]string{"schema", "version", "library", "weights", "seed", "cpu_variant", "statistics", "load_s", "context_s", "warmup_s", "memory", "e2e", "warnings"},
		},
	} {
		data, err := json.Marshal(tt.ext)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, keys(t, data)); diff != "" {
			t.Error(diff)
		}
	}
}

// keys are the keys of a JSON object in its order.
func keys(t *testing.T, object []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key.(string))
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}
