package acquire

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// headerWith is the header of a model with a tensor and these keys.
func headerWith(t *testing.T, arch string, keys ...gguf.KeyValue) *gguf.File {
	t.Helper()
	kv := append([]gguf.KeyValue{{Key: "general.architecture", Value: arch}}, keys...)
	f, err := gguf.New(kv, []gguf.Tensor{{Name: "aaa", Dims: []uint64{1}}, {Name: "b", Dims: []uint64{1}}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCheckFile(t *testing.T) {
	good := headerWith(t, "llama", gguf.KeyValue{Key: "tokenizer.ggml.model", Value: "gpt2"})
	if err := checkFile(fetch.File{Path: "m.gguf", Header: good}); err != nil {
		t.Error(err)
	}
	bad := headerWith(t, "llama", gguf.KeyValue{Key: "general.type", Value: "adapter"})
	err := checkFile(fetch.File{Path: "m.gguf", Header: bad})
	if !errors.Is(err, gguf.ErrAdapter) || !strings.HasPrefix(err.Error(), "m.gguf: ") {
		t.Errorf("an adapter: %v", err)
	}
}

// A job keeps all tests; those that the library cannot run say why. The settings of the
// job decide, not the defaults.
func TestCheckTests(t *testing.T) {
	job := func(ubatch int) bench.Job {
		s := bench.DefaultSettings(1)
		s.UBatch = ubatch
		return bench.Job{Settings: s, Tests: []bench.TestBudget{{Test: result.Test{Prompt: 512}}, {Test: result.Test{Prompt: 1024}}, {Test: result.Test{Gen: 8}}}}
	}
	for _, tt := range []struct {
		arch   string
		ubatch int
		want   []bool // whether each test can run
	}{
		{"llama", 512, []bool{true, true, true}},
		{"bert", 512, []bool{true, false, false}},
		{"bert", 1024, []bool{true, true, false}},
		{"bert", 16, []bool{false, false, false}},
	} {
		j := job(tt.ubatch)
		before := j.Tests
		checkTests(&j, headerWith(t, tt.arch))
		var got []bool
		for _, b := range j.Tests {
			got = append(got, b.Unsupported == "")
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s, -ub %d (-want +got):\n%s", tt.arch, tt.ubatch, diff)
		}
		if before[2].Unsupported != "" {
			t.Error("the caller's tests were changed")
		}
	}
}

func TestLoadUnmapped(t *testing.T) {
	small := gguf.KeyValue{Key: "general.alignment", Value: uint32(8)}
	for _, tt := range []struct {
		weights result.Weights
		header  *gguf.File
		mode    string
		want    string
	}{
		{result.FileWeights, headerWith(t, "llama", small), "auto", "none"},
		{result.FileWeights, headerWith(t, "llama", small), "mmap", "none"},
		{result.FileWeights, headerWith(t, "llama", small), "mmap+mlock", "mlock"},
		{result.FileWeights, headerWith(t, "llama", small), "none", "none"},
		{result.FileWeights, headerWith(t, "llama", small), "mlock", "mlock"},
		{result.FileWeights, headerWith(t, "llama", small), "dio", "dio"},
		{result.FileWeights, headerWith(t, "llama"), "auto", "auto"},
		{result.SyntheticWeights, headerWith(t, "llama", small), "auto", "auto"}, // a stream, whatever the mode
	} {
		s := bench.DefaultSettings(1)
		s.LoadMode = tt.mode
		job := bench.Job{Model: bench.Model{Weights: tt.weights}, Settings: s}
		loadUnmapped(&job, tt.header, 1)
		warned := len(job.Warnings) == 1 && job.Warnings[0].Code == result.WarnLoadMode && strings.Contains(job.Warnings[0].Message, tt.want+" instead of "+tt.mode)
		if got := job.Effective().LoadMode; got != tt.want || warned != (tt.want != tt.mode) || job.Settings.LoadMode != tt.mode {
			t.Errorf("%s of a %s: %s, warnings %v; want %s", tt.mode, tt.weights, got, job.Warnings, tt.want)
		}
	}
}

// A plan leaves out the tests that a run would not start, and says why.
func TestPlanLeavesOutUnsupported(t *testing.T) {
	m := PlannedModel{header: headerWith(t, "bert")}
	planned := suite.Plan{Tests: []suite.PlannedTest{{Test: result.Test{Prompt: 16}}, {Test: result.Test{Gen: 8}}, {Test: result.Test{Gen: 16}}}}
	cannot := m.dropUnsupported(&planned, nil)
	if len(planned.Tests) != 1 || planned.Tests[0].Test.Prompt != 16 {
		t.Errorf("planned: %v", planned.Tests)
	}
	if len(cannot) != 2 || cannot[0].Name != "tg8" || cannot[0].Unsupported != gguf.ErrEncoder.Error() {
		t.Errorf("left out: %v", cannot)
	}
	if diff := cmp.Diff([]string{"cannot run tg8 tg16: " + gguf.ErrEncoder.Error()}, m.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}
