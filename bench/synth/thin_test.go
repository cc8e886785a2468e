package synth_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// A thin default model has the same parts per layer as the full one, and nearly the same
// mean size of a layer.
func TestThinDefaultModels(t *testing.T) {
	for _, name := range synth.Names() {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := shape.File()
		if err != nil {
			t.Fatal(err)
		}
		k, err := synth.KindsOf(f)
		if diff := cmp.Diff(synth.Kinds{Layers: shape.Layers(), Period: 1}, k); diff != "" || err != nil {
			t.Fatalf("%s: %v %s", name, err, diff)
		}
		layer := float64(k.LayerBytes(f)) / float64(k.Layers)
		outside := f.TensorBytes() - k.LayerBytes(f)
		for _, depth := range []int{2, 4, 8} {
			thin, err := k.Thin(f, depth)
			if err != nil {
				t.Fatal(err)
			}
			in, err := synth.KindsOf(thin)
			if err != nil || in.Layers != depth {
				t.Errorf("%s: %d layers in a header of %d, %v", name, in.Layers, depth, err)
			}
			if got := thin.TensorBytes() - in.LayerBytes(thin); got != outside {
				t.Errorf("%s: %d bytes outside of layers, want %d", name, got, outside)
			}
			if got := float64(in.LayerBytes(thin)) / float64(depth); math.Abs(got/layer-1) > 0.021 {
				t.Errorf("%s: layers of a model of %d have %.4f of the size of a layer", name, depth, got/layer)
			}
			if got, want := thin.Vocabulary(), f.Vocabulary(); got != want {
				t.Errorf("%s: %d tokens, want %d", name, got, want)
			}
		}
	}
}

// layered is a header whose layers have the feed-forward networks of a list: its width.
func layered(t *testing.T, arch string, widths []uint64, change ...gguf.KeyValue) *gguf.File {
	t.Helper()
	kv := []gguf.KeyValue{{Key: "general.architecture", Value: arch}, {Key: arch + ".block_count", Value: uint32(len(widths))}, {Key: arch + ".embedding_length", Value: uint32(32)}}
	tensors := []gguf.Tensor{{Name: "token_embd.weight", Dims: []uint64{32, 10}, Type: gguf.F16}}
	for i, width := range widths {
		tensors = append(tensors, gguf.Tensor{Name: fmt.Sprintf("blk.%d.ffn_up.weight", i), Dims: []uint64{32, width}, Type: gguf.F16})
	}
	f, err := gguf.New(append(kv, change...), tensors)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Thin models keep the pattern of a model with several kinds of layers. Without a
// pattern, the model is refused.
func TestThinKinds(t *testing.T) {
	same := []uint64{8, 8, 8, 8, 8, 8, 8, 8}
	for name, tt := range map[string]struct {
		file   *gguf.File
		kinds  synth.Kinds
		depths []int
		text   string // of the error
	}{
		"alike":                 {layered(t, "llama", same), synth.Kinds{Layers: 8, Period: 1}, []int{1, 2, 3, 4, 5, 6, 7}, ""},
		"a dense first layer":   {layered(t, "deepseek2", []uint64{4, 8, 8, 8, 8, 8}), synth.Kinds{Layers: 6, Lead: 1, Period: 1}, []int{2, 3, 4, 5}, ""},
		"every third":           {layered(t, "jamba", []uint64{4, 4, 8, 4, 4, 8, 4, 4, 8}), synth.Kinds{Layers: 9, Period: 3}, []int{3, 6}, ""},
		"numbers in the header": {layered(t, "lfm2", same, gguf.KeyValue{Key: "lfm2.attention.head_count_kv", Value: []uint32{0, 4, 0, 4, 0, 4, 0, 4}}), synth.Kinds{Layers: 8, Period: 2}, []int{2, 4, 6}, ""},
		"windows":               {layered(t, "gemma2", same, gguf.KeyValue{Key: "gemma2.attention.sliding_window", Value: uint32(9)}), synth.Kinds{Layers: 8, Period: 2}, []int{2, 4, 6}, ""},
		"a layer that predicts": {layered(t, "glm4moe", append(same, 3), gguf.KeyValue{Key: "glm4moe.nextn_predict_layers", Value: uint32(1)}), synth.Kinds{Layers: 8, Period: 1}, []int{1, 2, 3, 4, 5, 6, 7}, ""},
		"unknown windows":       {layered(t, "new", same, gguf.KeyValue{Key: "new.attention.sliding_window", Value: uint32(9)}), synth.Kinds{}, nil, "no model with fewer layers has its kinds of layers: which layers of the architecture new have a sliding window is not known"},
		"no pattern":            {layered(t, "llama", []uint64{1, 2, 3, 4, 5, 6}), synth.Kinds{}, nil, "no model with fewer layers has its kinds of layers: its 6 layers follow no pattern that repeats"},
		"one layer":             {layered(t, "llama", []uint64{1}), synth.Kinds{}, nil, "no model with fewer layers has its kinds of layers: its 1 layers follow no pattern that repeats"},
		"windows, and a first":  {layered(t, "gemma2", []uint64{1, 8, 8, 8, 8, 8}, gguf.KeyValue{Key: "gemma2.attention.sliding_window", Value: uint32(9)}), synth.Kinds{}, nil, "no model with fewer layers has its kinds of layers: its 6 layers follow no pattern that repeats"},
	} {
		k, err := synth.KindsOf(tt.file)
		if diff := cmp.Diff(tt.kinds, k); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if tt.text != "" {
			if !errors.Is(err, synth.ErrThin) || err.Error() != tt.text {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if diff := cmp.Diff(tt.depths, k.Depths()); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
		depth := tt.depths[len(tt.depths)/2]
		thin, err := k.Thin(tt.file, depth)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		arch := thin.Architecture()
		if n, _ := thin.Uint(arch + ".block_count"); int(n) != depth || len(thin.Tensors) != 1+depth {
			t.Errorf("%s: %d layers and %d tensors, want %d", name, n, len(thin.Tensors), depth)
		}
		if v, ok := thin.Get(arch + ".attention.head_count_kv"); ok {
			if diff := cmp.Diff([]uint32{0, 4, 0, 4}, v); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		// The kinds come in the same order as in the full model.
		for i := range depth {
			j := i
			if i >= k.Lead {
				j = k.Lead + (i-k.Lead)%k.Period
			}
			if a, b := thin.Tensors[1+i].Dims, tt.file.Tensors[1+j].Dims; !cmp.Equal(a, b) {
				t.Errorf("%s: layer %d is %d, want %d", name, i, a, b)
			}
		}
		if _, err := k.Thin(tt.file, k.Layers); !errors.Is(err, synth.ErrThin) {
			t.Errorf("%s: made with all layers: %v", name, err)
		}
	}
}
