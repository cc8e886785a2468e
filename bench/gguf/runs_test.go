package gguf_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// whole is the header of a model with these keys and tensors of one row of 32.
func whole(t *testing.T, kv []gguf.KeyValue, tensors ...gguf.Tensor) *gguf.File {
	t.Helper()
	f, err := gguf.New(kv, tensors)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func named(name string, dims ...uint64) gguf.Tensor { return gguf.Tensor{Name: name, Dims: dims} }

func key(key string, value any) gguf.KeyValue { return gguf.KeyValue{Key: key, Value: value} }

// Each file that cannot be measured is refused by an error of its own.
func TestCheckFile(t *testing.T) {
	llama, words, weight := key("general.architecture", "llama"), key("tokenizer.ggml.model", "gpt2"), named("w", 32)
	for _, tt := range []struct {
		file  *gguf.File
		model error // of CheckModel
		want  error // of CheckFile
	}{
		{whole(t, []gguf.KeyValue{llama, words}, weight), nil, nil},
		{whole(t, []gguf.KeyValue{llama, words, key("general.type", "model")}, weight), nil, nil},
		{whole(t, []gguf.KeyValue{llama}, weight), nil, gguf.ErrNoTokenizer},
		{whole(t, []gguf.KeyValue{llama, words}), gguf.ErrVocabularyOnly, gguf.ErrVocabularyOnly},
		{whole(t, []gguf.KeyValue{words}, weight), gguf.ErrNoArchitecture, gguf.ErrNoArchitecture},
		{whole(t, []gguf.KeyValue{llama, key("general.type", "adapter")}, weight), gguf.ErrAdapter, gguf.ErrAdapter},
		{whole(t, []gguf.KeyValue{key("general.type", "imatrix")}, weight), gguf.ErrImatrix, gguf.ErrImatrix},
		{whole(t, []gguf.KeyValue{key("general.architecture", "clip")}, weight), gguf.ErrProjector, gguf.ErrProjector},
		{whole(t, []gguf.KeyValue{llama, key("general.type", "mmproj")}, weight), gguf.ErrProjector, gguf.ErrProjector},
		{whole(t, []gguf.KeyValue{key("general.architecture", "controlvector")}, weight), gguf.ErrControlVector, gguf.ErrControlVector},
		{whole(t, []gguf.KeyValue{key("general.architecture", "t5"), words}, named("enc.w", 32), named("dec.w", 32)), gguf.ErrEncoderDecoder, gguf.ErrEncoderDecoder},
		{whole(t, []gguf.KeyValue{key("general.architecture", "t5encoder"), words}, named("enc.w", 32)), nil, nil},
	} {
		if err := tt.file.CheckModel(); !errors.Is(err, tt.model) || (err == nil) != (tt.model == nil) {
			t.Errorf("%v: CheckModel: %v, want %v", tt.file.KV, err, tt.model)
		}
		err := tt.file.CheckFile()
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%v: CheckFile: %v, want %v", tt.file.KV, err, tt.want)
		}
		if err != nil && (!errors.Is(err, gguf.ErrUnsupported) || !strings.Contains(err.Error(), tt.want.Error())) {
			t.Errorf("%v: %q does not say %q", tt.file.KV, err, tt.want)
		}
	}
}

func TestCheckTest(t *testing.T) {
	pp := func(n int) result.Test { return result.Test{Prompt: n} }
	tg := func(n int) result.Test { return result.Test{Gen: n} }
	causal := key("llama.attention.causal", false)
	for _, tt := range []struct {
		arch   string
		keys   []gguf.KeyValue
		rows   uint64 // learned positions; 0: none
		test   result.Test
		ubatch int
		want   error
		text   string
	}{
		{"llama", nil, 0, pp(4096), 512, nil, ""},
		{"llama", nil, 0, tg(4096), 512, nil, ""},
		{"llama", []gguf.KeyValue{key("llama.attention.causal", true)}, 0, pp(4096), 512, nil, ""},
		{"llama", []gguf.KeyValue{causal}, 0, pp(512), 512, nil, ""},
		{"llama", []gguf.KeyValue{causal}, 0, pp(513), 512, gguf.ErrUBatch, "513 tokens exceed the 512 of -b and -ub"},
		{"llama", []gguf.KeyValue{causal}, 0, pp(2049), 4096, gguf.ErrUBatch, "2049 tokens exceed the 2048 of -b and -ub"},
		{"llama", []gguf.KeyValue{causal}, 0, tg(1), 512, gguf.ErrEncoder, ""},
		{"bert", nil, 0, pp(512), 512, nil, ""},
		{"bert", nil, 0, pp(513), 512, gguf.ErrUBatch, "513 tokens"},
		{"modern-bert", nil, 0, tg(1), 512, gguf.ErrEncoder, ""},
		{"t5encoder", nil, 0, result.Test{Prompt: 8, Gen: 1}, 512, gguf.ErrEncoder, ""},
		{"gemma-embedding", nil, 0, result.Test{Prompt: 8, Gen: 1, E2E: true}, 512, gguf.ErrEncoder, ""},
		{"bert", nil, 0, result.Test{Prompt: 8, Depth: 8}, 512, gguf.ErrEncoder, ""},
		{"llada", nil, 0, tg(1), 512, gguf.ErrDiffusion, ""},
		{"dream", nil, 0, pp(512), 512, nil, ""},
		{"dream", nil, 0, pp(513), 512, gguf.ErrUBatch, ""},
		{"gpt2", nil, 1024, pp(1024), 512, nil, ""},
		{"gpt2", nil, 1024, pp(1025), 512, gguf.ErrPositions, "1025 tokens exceed its 1024"},
		{"gpt2", nil, 1024, tg(1025), 512, gguf.ErrPositions, "1025 tokens exceed its 1024"},
		{"gpt2", nil, 1024, result.Test{Gen: 1, Depth: 1024}, 512, gguf.ErrPositions, "1025 tokens exceed its 1024"},
		{"bert", nil, 512, pp(600), 1024, gguf.ErrPositions, "600 tokens exceed its 512"},
		{"mamba", nil, 0, tg(4096), 512, nil, ""},
	} {
		tensors := []gguf.Tensor{named("w", 32)}
		if tt.rows > 0 {
			tensors = append(tensors, named("position_embd.weight", 32, tt.rows))
		}
		f := whole(t, append([]gguf.KeyValue{key("general.architecture", tt.arch)}, tt.keys...), tensors...)
		err := f.CheckTest(tt.test, 2048, tt.ubatch)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || err != nil && (!errors.Is(err, gguf.ErrUnsupported) || !strings.Contains(err.Error(), tt.text)) {
			t.Errorf("%s, %v, -ub %d: %v, want %v: %s", tt.arch, tt.test, tt.ubatch, err, tt.want, tt.text)
		}
	}
}

func TestMappable(t *testing.T) {
	aligned := func(n uint32) []gguf.KeyValue { return []gguf.KeyValue{key("general.alignment", n)} }
	for _, tt := range []struct {
		keys    []gguf.KeyValue
		tensors []gguf.Tensor
		files   int
		want    bool
	}{
		{nil, []gguf.Tensor{named("a", 1), named("b", 1)}, 1, true},
		{nil, []gguf.Tensor{named("a", 1), named("b", 1)}, 2, true},
		{aligned(64), []gguf.Tensor{named("a", 1)}, 1, true},
		{aligned(8), []gguf.Tensor{named("aaa", 1), named("b", 1)}, 1, false}, // the second starts 8 bytes after the first
		{aligned(8), []gguf.Tensor{named("a", 8)}, 2, false},                  // the offsets of a merged header are not the files'
	} {
		f := whole(t, tt.keys, tt.tensors...)
		if got := f.Mappable(tt.files); got != tt.want {
			t.Errorf("alignment %d, data at byte %d, %d tensors in %d files: %v, want %v", f.Alignment, f.DataOffset, len(f.Tensors), tt.files, got, tt.want)
		}
	}
	// Some files of alignment 8 happen to have every tensor at a multiple of 32.
	for pad := range 4 {
		f := whole(t, aligned(8), named(strings.Repeat("x", 1+8*pad), 8), named("y", 8))
		if want := f.DataOffset%32 == 0; f.Mappable(1) != want {
			t.Errorf("data at byte %d: mappable %v", f.DataOffset, !want)
		}
	}
}
