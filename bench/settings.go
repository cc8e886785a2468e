package bench

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// The words that settings allow, which are llama-bench's. The caller must not change
// the slices.
var (
	KVTypes    = []string{"f16", "f32", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"} // Settings.TypeK, TypeV
	SplitModes = []string{"layer", "none", "row", "tensor"}                                       // Settings.SplitMode
	LoadModes  = []string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}                   // Settings.LoadMode
	LazyModes  = []string{"auto", "off", "on"}                                                    // Settings.LazyMode
	FlashModes = []string{"on", "off", "auto"}                                                    // of ParseFlashAttn
	NUMAModes  = []string{"distribute", "isolate", "numactl"}                                     // Settings.NUMA
)

// Limits of numbers in settings.
const (
	maxCPUMoE  = 10_000 // layers
	maxMainGPU = 1023   // index
)

// SettingError is a setting with a value that is not allowed.
type SettingError struct {
	Field   string   // the setting's key in JSON: "type_k"
	Value   any      // a string if there are Allowed words, else an int
	Allowed []string // the allowed words; nil: a number
	Min     int      // the allowed numbers
	Max     int
}

// Error says which values are allowed.
func (e *SettingError) Error() string {
	if e.Allowed != nil {
		return fmt.Sprintf("%s: unknown value %q; the values are %s", e.Field, e.Value, strings.Join(e.Allowed, ", "))
	}
	return fmt.Sprintf("%s: %v is outside %d…%d", e.Field, e.Value, e.Min, e.Max)
}

// Validate returns a *SettingError for the first setting with a value that is not
// allowed on this machine. It does not ask for devices: the engine does.
func (s Settings) Validate() error {
	for _, w := range []struct {
		field, value string
		allowed      []string
	}{
		{"type_k", s.TypeK, KVTypes},
		{"type_v", s.TypeV, KVTypes},
		{"split_mode", s.SplitMode, SplitModes},
		{"load_mode", s.LoadMode, LoadModes},
		{"lazy_mode", s.LazyMode, LazyModes},
		{"numa", s.NUMA, NUMAModes},
	} {
		if !slices.Contains(w.allowed, w.value) && (w.field != "numa" || w.value != "") {
			return &SettingError{Field: w.field, Value: w.value, Allowed: w.allowed}
		}
	}
	for _, n := range []struct {
		field           string
		value, min, max int
	}{
		// More threads than CPUs would measure the scheduler. llama-bench allows them.
		{"threads", s.Threads, 1, runtime.NumCPU()},
		{"threads_batch", s.ThreadsBatch, 0, runtime.NumCPU()},
		{"batch", s.Batch, 1, result.MaxTokens},
		{"ubatch", s.UBatch, 1, result.MaxTokens},
		{"poll", s.Poll, 0, 100},
		{"priority", s.Priority, -1, 3},
		{"gpu_layers", s.GPULayers, -1, math.MaxInt32},
		{"cpu_moe", s.CPUMoE, 0, maxCPUMoE},
		{"main_gpu", s.MainGPU, 0, maxMainGPU},
		{"flash_attn", s.FlashAttn, -1, 1},
		{"fit_target_mib", s.FitTargetMiB, 0, math.MaxInt32},
		{"fit_min_ctx", s.FitMinCtx, 0, result.MaxTokens},
	} {
		if n.value < n.min || n.value > n.max {
			return &SettingError{Field: n.field, Value: n.value, Min: n.min, Max: n.max}
		}
	}
	return nil
}

// ParseFlashAttn returns the value of Settings.FlashAttn for a word of FlashModes, or
// for llama-bench's number. The error is a *SettingError.
func ParseFlashAttn(text string) (int, error) {
	switch text {
	case "on", "1":
		return 1, nil
	case "off", "0":
		return 0, nil
	case "auto", "-1":
		return -1, nil
	}
	return 0, &SettingError{Field: "flash_attn", Value: text, Allowed: FlashModes}
}
