package bench_test

import (
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/sparecores/benchmark-llm/bench"
)

// Every setting with a range or a list of words refuses what is outside, and says
// which field it is, by its key in JSON.
func TestValidateSettings(t *testing.T) {
	if err := bench.DefaultSettings(1).Validate(); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
	text, err := json.Marshal(bench.DefaultSettings(1))
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field string
		set   func(*bench.Settings)
		want  string
	}{
		{"threads", func(s *bench.Settings) { s.Threads = 0 }, ""},
		{"threads", func(s *bench.Settings) { s.Threads = runtime.NumCPU() + 1 }, ""},
		{"batch", func(s *bench.Settings) { s.Batch = 0 }, "batch: 0 is outside 1…16777216"},
		{"ubatch", func(s *bench.Settings) { s.UBatch = -1 }, ""},
		{"poll", func(s *bench.Settings) { s.Poll = 101 }, "poll: 101 is outside 0…100"},
		{"priority", func(s *bench.Settings) { s.Priority = 4 }, ""},
		{"priority", func(s *bench.Settings) { s.Priority = -2 }, ""},
		{"gpu_layers", func(s *bench.Settings) { s.GPULayers = -2 }, ""},
		{"cpu_moe", func(s *bench.Settings) { s.CPUMoE = -1 }, ""},
		{"main_gpu", func(s *bench.Settings) { s.MainGPU = 1024 }, ""},
		{"flash_attn", func(s *bench.Settings) { s.FlashAttn = 2 }, ""},
		{"type_k", func(s *bench.Settings) { s.TypeK = "q9_9" }, `type_k: unknown value "q9_9"; the values are f16, f32, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1`},
		{"type_v", func(s *bench.Settings) { s.TypeV = "" }, ""},
		{"split_mode", func(s *bench.Settings) { s.SplitMode = "diagonal" }, ""},
		{"load_mode", func(s *bench.Settings) { s.LoadMode = "MMAP" }, ""},
		{"lazy_mode", func(s *bench.Settings) { s.LazyMode = "x" }, ""},
	} {
		s := bench.DefaultSettings(1)
		tc.set(&s)
		err := s.Validate()
		var setting *bench.SettingError
		if !errors.As(err, &setting) || setting.Field != tc.field || tc.want != "" && err.Error() != tc.want {
			t.Errorf("%s: %v", tc.field, err)
		}
		if _, ok := keys[tc.field]; !ok {
			t.Errorf("settings have no key %s", tc.field)
		}
	}
}

// llama-bench takes words and numbers.
func TestParseFlashAttn(t *testing.T) {
	for text, want := range map[string]int{"on": 1, "1": 1, "off": 0, "0": 0, "auto": -1, "-1": -1} {
		if got, err := bench.ParseFlashAttn(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, mode := range bench.FlashModes {
		if _, err := bench.ParseFlashAttn(mode); err != nil {
			t.Error(err)
		}
	}
	var setting *bench.SettingError
	if _, err := bench.ParseFlashAttn("2"); !errors.As(err, &setting) || !slices.Equal(setting.Allowed, bench.FlashModes) {
		t.Errorf("2: %v", err)
	}
}
