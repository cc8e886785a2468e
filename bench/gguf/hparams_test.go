package gguf_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// keys are values by key, without the architecture. They replace those of hparams;
// nil removes a key.
type keys map[string]any

// hparams is the header of a model with one layer, 256 elements wide, with some keys
// changed.
func hparams(t testing.TB, arch string, change keys) *gguf.File {
	t.Helper()
	kv := []gguf.KeyValue{{Key: "general.architecture", Value: arch}}
	all := keys{
		"block_count": uint32(1), "context_length": uint32(2048), "embedding_length": uint32(256), "attention.head_count": uint32(4),
		"attention.head_count_kv": uint32(2), "rope.dimension_count": uint32(64), "vocab_size": uint32(1000),
	}
	for k, v := range change {
		all[k] = v
	}
	for k, v := range all {
		if v != nil {
			kv = append(kv, gguf.KeyValue{Key: arch + "." + k, Value: v})
		}
	}
	f, err := gguf.New(kv, []gguf.Tensor{
		{Name: "token_embd.weight", Dims: []uint64{256, 1000}, Type: gguf.Q8_0}, {Name: "blk.0.attn_norm.weight", Dims: []uint64{256}, Type: gguf.F32},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Headers that crash libllama 0.7.0 are refused. Headers that it loads, or refuses by
// itself, are accepted.
func TestHparams(t *testing.T) {
	for _, tt := range []struct {
		arch string
		keys keys
		kind error // nil: accepted
		text string
	}{
		{"llama", nil, nil, ""},
		{"llama", keys{"block_count": uint32(0)}, gguf.ErrUnsupported, "llama.block_count is 0, not 1 to 512"},
		{"llama", keys{"block_count": uint32(512)}, nil, ""},
		{"llama", keys{"block_count": uint32(513)}, gguf.ErrUnsupported, "llama.block_count is 513, not 1 to 512"},
		{"llama", keys{"block_count": uint32(math.MaxUint32)}, gguf.ErrUnsupported, "llama.block_count is 4294967295, not 1 to 512"},
		{"llama", keys{"block_count": nil}, nil, ""}, // libllama reports this
		{"x", keys{"block_count": uint32(1 << 31)}, gguf.ErrUnsupported, "x.block_count is 2147483648, not 1 to 512"},
		{"clip", keys{"block_count": uint32(0), "expert_count": uint32(math.MaxUint32)}, nil, ""},
		{"glm4moe", keys{"block_count": uint32(2), "nextn_predict_layers": uint32(1)}, nil, ""},
		{"glm4moe", keys{"nextn_predict_layers": uint32(1)}, gguf.ErrUnsupported, "glm4moe.nextn_predict_layers equals block_count, 1: no layer is left to run"},
		{"glm4moe", keys{"nextn_predict_layers": uint32(2)}, gguf.ErrCorrupt, "glm4moe.nextn_predict_layers is 2, more than the 1 of block_count"},
		{"llama", keys{"expert_count": uint32(1024), "expert_used_count": uint32(1024)}, nil, ""},
		{"llama", keys{"expert_count": uint32(1025), "expert_used_count": uint32(2)}, gguf.ErrUnsupported, "llama.expert_count is 1025, more than the limit of 1024"},
		{"llama", keys{"expert_count": uint32(math.MaxUint32)}, gguf.ErrUnsupported, "llama.expert_count is 4294967295, more than the limit of 1024"},
		{"llama", keys{"expert_count": uint32(0), "expert_used_count": uint32(0)}, nil, ""},
		{"llama", keys{"expert_count": uint32(8)}, gguf.ErrCorrupt, "llama.expert_used_count is 0, of 8 experts"},
		{"llama", keys{"expert_used_count": uint32(2)}, gguf.ErrCorrupt, "llama.expert_used_count is 2, of 0 experts"},
		{"llama", keys{"expert_count": uint32(8), "expert_used_count": uint32(1 << 31)}, gguf.ErrCorrupt, "llama.expert_used_count is 2147483648, of 8 experts"},
		{"llama", keys{"expert_count": uint32(8), "expert_used_count": []uint32{0, 8}}, nil, ""},
		{"llama", keys{"expert_count": uint32(8), "expert_used_count": []int32{2, -1}}, gguf.ErrCorrupt, "llama.expert_used_count is 4294967295, of 8 experts"},
		{"deepseek2", keys{"expert_count": uint32(256), "expert_used_count": uint32(8), "expert_group_count": uint32(8), "expert_group_used_count": uint32(4)}, nil, ""},
		{"deepseek2", keys{"expert_count": uint32(64), "expert_used_count": uint32(6), "expert_group_count": uint32(1)}, nil, ""},
		{"deepseek2", keys{"expert_group_count": uint32(1)}, gguf.ErrCorrupt, "deepseek2.expert_group_count is 1, of 0 experts"},
		{"deepseek2", keys{"expert_count": uint32(8), "expert_used_count": uint32(2), "expert_group_count": uint32(8)}, gguf.ErrCorrupt, "deepseek2.expert_group_count is 8, of 8 experts"},
		{"deepseek2", keys{"expert_count": uint32(8), "expert_used_count": uint32(2), "expert_group_count": uint32(3)}, gguf.ErrCorrupt, "deepseek2.expert_group_count is 3, which does not divide 8 experts"},
		{"deepseek2", keys{"expert_count": uint32(8), "expert_used_count": uint32(2), "expert_group_count": uint32(2)}, gguf.ErrCorrupt, "deepseek2.expert_group_used_count is 0, of 2 groups"},
		{"deepseek2", keys{"expert_count": uint32(8), "expert_used_count": uint32(2), "expert_group_count": uint32(2), "expert_group_used_count": uint32(2)}, gguf.ErrCorrupt, "deepseek2.expert_group_used_count is 2, of 2 groups"},
		{"hunyuan-dense", keys{"expert_count": uint32(1)}, nil, ""}, // no experts to libllama
		{"hunyuan-moe", keys{"expert_count": uint32(1)}, gguf.ErrCorrupt, "hunyuan-moe.expert_used_count is 0, of 1 experts"},
		{"llama", keys{"rope.scaling.type": "longrope"}, nil, ""},
		{"llama", keys{"rope.scaling.type": "su"}, gguf.ErrUnsupported, `llama.rope.scaling.type is "su", not one of none, linear, yarn, longrope`},
		{"llama", keys{"embedding_length": uint32(0)}, gguf.ErrCorrupt, "llama.embedding_length is 0"},
		{"llama", keys{"embedding_length": uint32(1001)}, gguf.ErrCorrupt, "llama.embedding_length is 1001, and no tensor has a dimension above 1000"},
		{"llama", keys{"attention.head_count": uint32(1 << 31)}, gguf.ErrCorrupt, "llama.attention.head_count is 2147483648, and no tensor has a dimension above 1000"},
		{"llama", keys{"attention.head_count_kv": []int32{2, -1}}, gguf.ErrCorrupt, "llama.attention.head_count_kv is 4294967295, and no tensor has a dimension above 1000"},
		{"llama", keys{"attention.key_length": uint32(1 << 31)}, gguf.ErrCorrupt, "llama.attention.key_length is 2147483648, and no tensor has a dimension above 1000"},
		{"llama", keys{"attention.value_length": uint32(1 << 31)}, gguf.ErrCorrupt, "llama.attention.value_length is 2147483648, and no tensor has a dimension above 1000"},
		{"llama", keys{"rope.dimension_count": uint32(math.MaxUint32)}, gguf.ErrCorrupt, "llama.rope.dimension_count is 4294967295, and no tensor has a dimension above 1000"},
		{"llama", keys{"vocab_size": uint32(math.MaxUint32)}, gguf.ErrCorrupt, "llama.vocab_size is 4294967295, and no tensor has a dimension above 1000"},
		// Recurrent models, models without positions, and models without a context length.
		{"mamba", keys{"attention.head_count": uint32(0), "attention.head_count_kv": uint32(0), "rope.dimension_count": nil}, nil, ""},
		{"mpt", keys{"rope.dimension_count": uint32(0)}, nil, ""},
		{"lfm2", keys{"attention.head_count_kv": []uint32{0, 8, 0}}, nil, ""},
		{"llama", keys{"context_length": uint32(0)}, nil, ""},
		{"llama", keys{"context_length": uint32(math.MaxUint32)}, nil, ""},
	} {
		t.Run(fmt.Sprint(tt.arch, tt.keys), func(t *testing.T) {
			f := hparams(t, tt.arch, tt.keys)
			got, err := gguf.Read(bytes.NewReader(header(t, f)), f.Size(), gguf.DefaultLimits)
			switch {
			case tt.kind == nil && err != nil:
				t.Errorf("refused: %v", err)
			case tt.kind != nil && (got != nil || !errors.Is(err, tt.kind) || err.Error() != "gguf: "+tt.text):
				t.Errorf("got %v, want %v: %s", err, tt.kind, tt.text)
			}
		})
	}
	// If there are words, libllama ignores vocab_size.
	f := hparams(t, "llama", keys{"vocab_size": uint32(math.MaxUint32)})
	words, err := gguf.New(append(f.KV, gguf.KeyValue{Key: "tokenizer.ggml.tokens", Value: []string{"a"}}), f.Tensors)
	if err == nil {
		_, err = gguf.Read(bytes.NewReader(header(t, words)), words.Size(), gguf.DefaultLimits)
	}
	if err != nil {
		t.Errorf("with words: %v", err)
	}
}

// The files of a split model are checked together.
func TestHparamsOfShards(t *testing.T) {
	first := hparams(t, "llama", keys{"block_count": uint32(0)})
	first.KV = append(first.KV, gguf.KeyValue{Key: "split.count", Value: uint16(2)}, gguf.KeyValue{Key: "split.no", Value: uint16(0)})
	second, err := gguf.New([]gguf.KeyValue{{Key: "split.count", Value: uint16(2)}, {Key: "split.no", Value: uint16(1)}},
		[]gguf.Tensor{{Name: "output_norm.weight", Dims: []uint64{256}, Type: gguf.F32}})
	if err != nil {
		t.Fatal(err)
	}
	read, err := gguf.Read(bytes.NewReader(header(t, first)), first.Size()+1000, gguf.DefaultLimits)
	if err != nil {
		t.Fatalf("a part alone: %v", err)
	}
	if _, err := gguf.Merge([]*gguf.File{read, second}); !errors.Is(err, gguf.ErrUnsupported) || err.Error() != "gguf: llama.block_count is 0, not 1 to 512" {
		t.Errorf("merged: %v", err)
	}
}

// A duplicate word in the vocabulary makes libllama abort. A duplicate empty word does not.
func TestWords(t *testing.T) {
	many := func(more ...string) []string {
		words := make([]string, 0, 5000+len(more))
		for i := range 5000 {
			words = append(words, fmt.Sprint("word", i))
		}
		return append(words, more...)
	}
	for _, tt := range []struct {
		name  string
		model any // tokenizer.ggml.model
		words []string
		text  string // "": accepted
	}{
		{"few", "gpt2", []string{"a", "b", ""}, ""},
		{"few, one twice", "gpt2", []string{"a", "b", "a"}, `the word "a" is twice in tokenizer.ggml.tokens`},
		{"few, none twice", "llama", []string{"", "a", ""}, ""},
		{"many", "llama", many(), ""},
		{"many, one twice", "llama", many("word17"), `the word "word17" is twice in tokenizer.ggml.tokens`},
		{"many, none twice", "llama", many("", ""), ""},
		{"many, for no tokenizer", "none", many("word17"), ""},
		{"many, for none that is named", nil, many("word17"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kv := []gguf.KeyValue{{Key: "general.architecture", Value: "llama"}, {Key: "tokenizer.ggml.tokens", Value: tt.words}}
			if tt.model != nil {
				kv = append(kv, gguf.KeyValue{Key: "tokenizer.ggml.model", Value: tt.model})
			}
			f, err := gguf.New(kv, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = gguf.Read(bytes.NewReader(header(t, f)), f.Size(), gguf.DefaultLimits)
			if tt.text == "" && err != nil || tt.text != "" && (!errors.Is(err, gguf.ErrCorrupt) || !strings.Contains(err.Error(), tt.text)) {
				t.Errorf("%v, want %q", err, tt.text)
			}
		})
	}
}
