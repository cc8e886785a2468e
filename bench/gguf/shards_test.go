package gguf_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

func TestShardNames(t *testing.T) {
	for _, tt := range []struct {
		first string
		count uint64
		want  []string // nil: refused
		text  string   // part of the error
	}{
		{"m.gguf", 1, []string{"m.gguf"}, ""},
		{"m.gguf", 0, []string{"m.gguf"}, ""},
		{"dir/m-00001-of-00003.gguf", 3, []string{"dir/m-00001-of-00003.gguf", "dir/m-00002-of-00003.gguf", "dir/m-00003-of-00003.gguf"}, ""},
		{"m.gguf", 3, nil, "does not end in -00001-of-00003.gguf"},
		{"https://h/m.gguf?secret", 3, nil, `"m.gguf" is one of 3 files`},
		{"m-00001-of-00002.gguf", 3, nil, "one of 3 files by its header, and of 2 by its name"},
		{"m-00002-of-00003.gguf", 3, nil, "is not the first of its 3 files"},
		{"m-00001-of-99999.gguf", 99999, nil, "more than the limit of 9999"},
		{"m-00001-of-00003.gguf", 1 << 60, nil, "more than the limit"},
	} {
		got, err := gguf.ShardNames(tt.first, tt.count)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s of %d (-want +got):\n%s", tt.first, tt.count, diff)
		}
		if (err == nil) != (tt.want != nil) || err != nil && (!strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s of %d: %v, want %q", tt.first, tt.count, err, tt.text)
		}
	}
}

// shard is one file of a model that has two tensors per file.
func shard(t testing.TB, no, count int) *gguf.File {
	t.Helper()
	kv := []gguf.KeyValue{
		{Key: "split.no", Value: uint16(no)}, {Key: "split.count", Value: uint16(count)},
		{Key: "split.tensors.count", Value: int32(2 * count)},
	}
	if no == 0 {
		kv = append(kv, gguf.KeyValue{Key: "general.architecture", Value: "llama"})
	}
	f, err := gguf.New(kv, []gguf.Tensor{
		{Name: fmt.Sprintf("a%d", no), Dims: []uint64{7}},
		{Name: fmt.Sprintf("b%d", no), Dims: []uint64{32, 2}, Type: gguf.Q8_0},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestIsShard(t *testing.T) {
	for name, want := range map[string]bool{
		"m-00001-of-00003.gguf": true, "m-00003-of-00003.gguf": true,
		"m-00001-of-00001.gguf": false, "m.gguf": false, "m-1-of-3.gguf": false, "m-00001-of-00003.txt": false,
	} {
		if got := gguf.IsShard(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMerge(t *testing.T) {
	shards := []*gguf.File{shard(t, 0, 3), shard(t, 1, 3), shard(t, 2, 3)}
	words := gguf.KeyValue{Key: "words", Value: gguf.Skipped{Len: 5000}}
	shards[0].KV = append(shards[0].KV, words)
	got, err := gguf.Merge(shards)
	if err != nil {
		t.Fatal(err)
	}
	want, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: "llama"}}, []gguf.Tensor{
		{Name: "a0", Dims: []uint64{7}}, {Name: "b0", Dims: []uint64{32, 2}, Type: gguf.Q8_0},
		{Name: "a1", Dims: []uint64{7}}, {Name: "b1", Dims: []uint64{32, 2}, Type: gguf.Q8_0},
		{Name: "a2", Dims: []uint64{7}}, {Name: "b2", Dims: []uint64{32, 2}, Type: gguf.Q8_0},
	})
	if err != nil {
		t.Fatal(err)
	}
	want.KV = append(want.KV, words)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	for _, f := range shards {
		f.KV = slices.DeleteFunc(f.KV, func(kv gguf.KeyValue) bool { return kv.Key == "split.tensors.count" })
	}
	if got, err := gguf.Merge(shards); err != nil || len(got.Tensors) != 6 {
		t.Errorf("without a count of tensors: %v, %v", got, err)
	}
	single := example(t)
	if got, err := gguf.Merge([]*gguf.File{single}); err != nil || got != single {
		t.Errorf("a single file merged is %v, %v", got, err)
	}
}

func TestReadShards(t *testing.T) {
	const first, second = "dir/m-00001-of-00002.gguf", "dir/m-00002-of-00002.gguf"
	gone := errors.New("gone")
	for name, tt := range map[string]struct {
		first string
		files map[string]*gguf.File
		names []string // nil: refused
		text  string   // part of the error
	}{
		"single":     {"m.gguf", map[string]*gguf.File{"m.gguf": example(t)}, []string{"m.gguf"}, ""},
		"both":       {first, map[string]*gguf.File{first: shard(t, 0, 2), second: shard(t, 1, 2)}, []string{first, second}, ""},
		"no first":   {first, nil, nil, "gone"},
		"no second":  {first, map[string]*gguf.File{first: shard(t, 0, 2)}, nil, "one of 2 files: gone"},
		"other name": {"m.gguf", map[string]*gguf.File{"m.gguf": shard(t, 0, 2)}, nil, "does not end in -00001-of-00002.gguf"},
		"other file": {first, map[string]*gguf.File{first: shard(t, 0, 2), second: shard(t, 0, 2)}, nil, "file 2 of 2 says that it is file 1"},
	} {
		merged, names, err := gguf.ReadShards(tt.first, func(name string) (*gguf.File, error) {
			if f := tt.files[name]; f != nil {
				return f, nil
			}
			return nil, gone
		})
		if diff := cmp.Diff(tt.names, names); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", name, diff)
		}
		if tt.names == nil {
			if err == nil || !strings.Contains(err.Error(), tt.text) || merged != nil {
				t.Errorf("%s: %v, want %q", name, err, tt.text)
			}
			continue
		}
		var tensors int
		for _, f := range tt.files {
			tensors += len(f.Tensors)
		}
		if err != nil || len(merged.Tensors) != tensors {
			t.Errorf("%s: %v, %v", name, merged, err)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		shards []*gguf.File
		want   string
	}{
		"none":        {nil, "no files"},
		"missing":     {[]*gguf.File{shard(t, 0, 3), shard(t, 1, 3)}, "file 1 of 2 is one of 3"},
		"only one":    {[]*gguf.File{shard(t, 0, 3)}, "file 1 of 1 is one of 3"},
		"cyclic":      {[]*gguf.File{shard(t, 0, 2), shard(t, 0, 2)}, "file 2 of 2 says that it is file 1"},
		"other order": {[]*gguf.File{shard(t, 1, 2), shard(t, 0, 2)}, "file 1 of 2 says that it is file 2"},
		"other model": {[]*gguf.File{shard(t, 0, 2), shard(t, 1, 3)}, "file 2 of 2 is one of 3"},
		"not split":   {[]*gguf.File{shard(t, 0, 2), example(t)}, "file 2 of 2 is one of 1"},
		"not at all":  {[]*gguf.File{example(t), example(t)}, "file 1 of 2 is one of 1"},
		"no number":   {[]*gguf.File{{KV: []gguf.KeyValue{{Key: "split.count", Value: uint16(2)}}}, shard(t, 1, 2)}, "file 1 of 2 has no key split.no"},
	} {
		if f, err := gguf.Merge(tt.shards); !errors.Is(err, gguf.ErrCorrupt) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q", name, f, err, tt.want)
		}
	}
	// Too many tensors, the same name in two files, fewer tensors than announced.
	many := []*gguf.File{shard(t, 0, 2), shard(t, 1, 2)}
	for _, f := range many {
		f.Tensors = make([]gguf.Tensor, gguf.DefaultLimits.Tensors/2+1)
	}
	if _, err := gguf.Merge(many); !errors.Is(err, gguf.ErrUnsupported) || !strings.Contains(err.Error(), "more tensors than the limit of 65536") {
		t.Errorf("many tensors: %v", err)
	}
	twice := shard(t, 1, 2)
	twice.Tensors[0].Name = "a0"
	if _, err := gguf.Merge([]*gguf.File{shard(t, 0, 2), twice}); err == nil || !strings.Contains(err.Error(), `"a0" has the name of tensor 0`) {
		t.Errorf("one name twice: %v", err)
	}
	fewer := shard(t, 1, 2)
	fewer.Tensors = fewer.Tensors[:1]
	if _, err := gguf.Merge([]*gguf.File{shard(t, 0, 2), fewer}); err == nil || !strings.Contains(err.Error(), "have 3 tensors, but split.tensors.count is 4") {
		t.Errorf("fewer tensors: %v", err)
	}
}

func TestMemory(t *testing.T) {
	const mib = 1 << 20
	model := func(arch string, kv map[string]any, vocab uint64) *gguf.File {
		keys := []gguf.KeyValue{{Key: "general.architecture", Value: arch}}
		for k, v := range kv {
			keys = append(keys, gguf.KeyValue{Key: arch + "." + k, Value: v})
		}
		f, err := gguf.New(keys, []gguf.Tensor{{Name: "token_embd.weight", Dims: []uint64{256, vocab}, Type: gguf.Q4_K}})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	type keys = map[string]any
	smol := keys{
		"block_count": uint32(30), "embedding_length": uint32(576), "feed_forward_length": uint32(1536),
		"attention.head_count": uint32(9), "attention.head_count_kv": uint32(3),
	}
	qwen := keys{"block_count": uint32(24), "embedding_length": uint32(1024), "feed_forward_length": uint32(2816), "attention.head_count": uint32(16)}
	gemma := keys{
		"block_count": uint32(18), "embedding_length": uint32(2048), "feed_forward_length": uint32(16384), "attention.head_count": uint32(8),
		"attention.head_count_kv": uint32(1), "attention.key_length": uint32(256), "attention.value_length": uint32(256),
	}
	// libllama 0.7.0 logs these sizes for the default models.
	for _, tt := range []struct {
		name           string
		file           *gguf.File
		tokens         int
		cache, compute float64 // MiB
	}{
		{"SmolLM", model("llama", smol, 49152), 128, 5.625, 25.47},
		{"SmolLM", model("llama", smol, 49152), 512, 11.25, 102.14},
		{"SmolLM", model("llama", smol, 49152), 4096, 90, 106.77},
		{"qwen", model("qwen2", qwen, 151936), 512, 48, 307.27},
		{"gemma", model("gemma", gemma, 256000), 128, 4.5, 130.07},
	} {
		m := tt.file.Memory(gguf.Context{Tokens: tt.tokens, UBatch: 512, K: gguf.F16, V: gguf.F16})
		if got := float64(m.Cache) / mib; got != tt.cache {
			t.Errorf("%s %d: cache of %g MiB, want %g", tt.name, tt.tokens, got, tt.cache)
		}
		if got := float64(m.Compute) / mib; got < tt.compute || got > tt.compute+1 {
			t.Errorf("%s %d: compute buffers of %g MiB, want %g", tt.name, tt.tokens, got, tt.compute)
		}
		if m.Weights != 2*tt.file.TensorBytes() || m.Total() != m.Weights+m.Cache+m.Compute {
			t.Errorf("%s %d: %+v", tt.name, tt.tokens, m)
		}
	}
	// Cache types of fewer bits, and latent attention.
	f := model("llama", smol, 49152)
	if got, want := f.Memory(gguf.Context{Tokens: 512, UBatch: 512, K: gguf.Q8_0, V: gguf.Q8_0}).Cache, uint64(11.25*mib*34/64); got != want {
		t.Errorf("cache of q8_0 has %d bytes, want %d", got, want)
	}
	f = model("deepseek2", keys{"block_count": uint32(1), "attention.head_count": uint32(128), "attention.kv_lora_rank": uint32(512), "rope.dimension_count": uint32(64)}, 1)
	if got, want := f.Memory(gguf.Context{Tokens: 256, UBatch: 1, K: gguf.F16, V: gguf.F16}).Cache, uint64(256*576*2); got != want {
		t.Errorf("latent cache has %d bytes, want %d", got, want)
	}
	// Invalid numbers do not overflow.
	huge := keys{"block_count": ^uint64(0), "embedding_length": ^uint64(0), "feed_forward_length": ^uint64(0), "attention.head_count": uint32(1), "attention.key_length": ^uint64(0)}
	m := model("x", huge, 1).Memory(gguf.Context{Tokens: 1 << 40, UBatch: 1 << 30, K: gguf.F32, V: gguf.Type(9999)})
	f = model("x", keys{"block_count": uint32(1), "embedding_length": uint32(64), "attention.head_count": uint32(1), "attention.key_length": uint64(1 << 63)}, 1)
	if m := f.Memory(gguf.Context{Tokens: 1, UBatch: 1, K: gguf.Q8_0, V: gguf.F16}); m.Compute != math.MaxInt64 {
		t.Errorf("a head without measure needs %+v", m)
	}
	if m.Cache != math.MaxInt64 || m.Compute != math.MaxInt64 || m.Total() != math.MaxInt64 || m.Fits(1<<50) == nil {
		t.Errorf("a model without measure needs %+v", m)
	}
}

// The keys that decide the memory: one token in a context of 256, keys and values of
// 2 bytes per element, two layers of four heads of 16 elements, one token in the
// vocabulary.
func TestMemoryOfKeys(t *testing.T) {
	const cache = 2 * 256 * 4 * (16 + 16) * 2
	type keys = map[string]any
	for name, tt := range map[string]struct {
		keys           keys
		tokens, ubatch int
		want           gguf.Memory
	}{
		"heads":                {nil, 1, 1, gguf.Memory{Tokens: 256, Cache: cache}},
		"nothing asked for":    {nil, 0, 0, gguf.Memory{Tokens: 256, Cache: cache}},
		"a pass of the prompt": {nil, 300, 100, gguf.Memory{Tokens: 512, Cache: 2 * cache}},
		"heads of the cache":   {keys{"attention.head_count_kv": uint32(1)}, 1, 1, gguf.Memory{Tokens: 256, Cache: cache / 4}},
		"by layer":             {keys{"attention.head_count_kv": []int32{3, 0}}, 1, 1, gguf.Memory{Tokens: 256, Cache: cache / 8 * 3}},
		"by layer, unsigned":   {keys{"attention.head_count_kv": []uint32{2, 3}}, 1, 1, gguf.Memory{Tokens: 256, Cache: cache / 8 * 5}},
		"by layer, long":       {keys{"attention.head_count_kv": []uint64{2, 3}}, 1, 1, gguf.Memory{Tokens: 256, Cache: cache / 8 * 5}},
		"fewer than layers":    {keys{"attention.head_count_kv": []uint32{2}}, 1, 1, gguf.Memory{Tokens: 256, Cache: cache / 2}},
		"none":                 {keys{"attention.head_count_kv": []uint32{}, "attention.head_count": "?"}, 1, 1, gguf.Memory{Tokens: 256}},
		"length of a head":     {keys{"attention.key_length": uint32(8), "attention.value_length": uint32(32)}, 1, 1, gguf.Memory{Tokens: 256, Cache: 2 * 256 * 4 * (8 + 32) * 2}},
	} {
		kv := []gguf.KeyValue{{Key: "general.architecture", Value: "x"}, {Key: "x.vocab_size", Value: uint32(1)}}
		all := keys{"block_count": uint32(2), "embedding_length": uint32(64), "attention.head_count": uint32(4)}
		maps.Copy(all, tt.keys)
		for k, v := range all {
			kv = append(kv, gguf.KeyValue{Key: "x." + k, Value: v})
		}
		f := gguf.File{KV: kv}
		if diff := cmp.Diff(tt.want, f.Memory(gguf.Context{Tokens: tt.tokens, UBatch: tt.ubatch, K: gguf.F16, V: gguf.F16}), cmpopts.IgnoreFields(gguf.Memory{}, "Compute")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What the compute buffer consists of, for a pass of 512 tokens: five embeddings and
// the mask of the attention, and beside them the logits or the feed-forward network.
// Without flash attention each element of a value has a number of its cell.
// libllama 0.7.0 reports these sizes for graphs of such shapes.
func TestCompute(t *testing.T) {
	const (
		vocabulary, embedding, wide = 65536, 1024, 32768
		rows                        = 4 * 512 // bytes per element of a float for all tokens
	)
	type keys = map[string]any
	tensors := func(names ...string) (t []gguf.Tensor) {
		for _, n := range names {
			t = append(t, gguf.Tensor{Name: "blk.0." + n + ".weight", Dims: []uint64{1}, Type: gguf.F32})
		}
		return t
	}
	for name, tt := range map[string]struct {
		keys     keys
		tensors  []gguf.Tensor
		context  gguf.Context
		elements uint64 // for each token
		mask     uint64 // bytes
	}{
		"logits":                      {nil, nil, gguf.Context{}, vocabulary + 5*embedding, 2 * 512 * 512},
		"longer context":              {nil, nil, gguf.Context{Tokens: 768}, vocabulary + 5*embedding, 2 * 512 * 768},
		"feed-forward":                {keys{"feed_forward_length": uint32(wide)}, nil, gguf.Context{}, 3*wide + 5*embedding, 2 * 512 * 512},
		"feed-forward, by layer":      {keys{"feed_forward_length": []uint32{wide, 1, 1}}, nil, gguf.Context{}, 3*wide + 5*embedding, 2 * 512 * 512},
		"gate and up in one":          {keys{"feed_forward_length": uint32(wide)}, tensors("ffn_up"), gguf.Context{}, 3*wide + 5*embedding, 2 * 512 * 512},
		"gate and up apart":           {keys{"feed_forward_length": uint32(wide)}, tensors("ffn_up", "ffn_gate"), gguf.Context{}, 3*wide + 5*embedding, 2 * 512 * 512},
		"experts":                     {keys{"feed_forward_length": uint32(1), "expert_feed_forward_length": uint32(wide / 4), "expert_used_count": uint32(4)}, nil, gguf.Context{}, 3*wide + 5*embedding, 2 * 512 * 512},
		"queries wider than the rest": {keys{"attention.key_length": uint32(wide / 4), "attention.value_length": uint32(wide / 4)}, nil, gguf.Context{}, 2*wide + 5*embedding, 2 * 512 * 512},
		"no flash attention":          {nil, nil, gguf.Context{FlashOff: true}, vocabulary + 5*embedding + 2*256, 4 * 512 * 512},
		"a second mask":               {keys{"attention.sliding_window": uint32(1)}, nil, gguf.Context{}, vocabulary + 5*embedding, 2 * 2 * 512 * 512},
	} {
		kv := []gguf.KeyValue{{Key: "general.architecture", Value: "x"}, {Key: "x.vocab_size", Value: uint32(vocabulary)}}
		all := keys{
			"block_count": uint32(3), "embedding_length": uint32(embedding), "feed_forward_length": uint32(256),
			"attention.head_count": uint32(4), "attention.head_count_kv": uint32(1),
		}
		maps.Copy(all, tt.keys)
		for k, v := range all {
			kv = append(kv, gguf.KeyValue{Key: "x." + k, Value: v})
		}
		f := gguf.File{KV: kv, Tensors: tt.tensors}
		c := tt.context
		c.Tokens, c.UBatch, c.K, c.V = max(c.Tokens, 512), 512, gguf.F16, gguf.F16
		got, want := float64(f.Memory(c).Compute), float64(rows*tt.elements+tt.mask+4*vocabulary)
		if got < want || got > want*1.0005 {
			t.Errorf("%s: %.0f bytes, want %.0f: %+.2f embeddings", name, got, want, (got-want)/(rows*embedding))
		}
	}
}

// What repacking adds to the weights.
func TestRepack(t *testing.T) {
	embedding := gguf.Tensor{Name: "token_embd.weight", Dims: []uint64{256, 64}}
	other := gguf.Tensor{Name: "blk.0.ffn_up.weight", Dims: []uint64{256, 64}, Type: gguf.F32}
	for _, tt := range []struct {
		of        gguf.Type
		rows      uint64
		avx2, amx uint64 // bytes beside those of one copy
		other     gguf.Type
		tied      bool
	}{
		{of: gguf.Q4_K, rows: 64, avx2: 64 * 144, amx: 64 * 148, tied: true},
		{of: gguf.Q8_0, rows: 64, avx2: 0, amx: 64 * 8 * 38, tied: true},
		{of: gguf.Q6_K, rows: 64, avx2: 0, amx: 64 * 210, tied: true},
		{of: gguf.Q4_0, rows: 40, avx2: 40 * 8 * 18, amx: 40 * 8 * 18, tied: true}, // no whole tiles of AMX
		{of: gguf.Q4_0, rows: 63, avx2: 0, amx: 0, tied: true},
		{of: gguf.F16, rows: 64, avx2: 0, amx: 0, tied: true},
		{of: gguf.Q4_K, rows: 64, avx2: 0, amx: 0},
		{of: gguf.F16, rows: 64, other: gguf.IQ4_XS, avx2: 0, amx: 64 * 2},
		{of: gguf.F16, rows: 64, other: gguf.Q5_K, avx2: 0, amx: 64 * 4},
	} {
		embedding.Type, embedding.Dims[1], other.Type = tt.of, tt.rows, tt.other
		f := gguf.File{Tensors: []gguf.Tensor{embedding, other}}
		if !tt.tied {
			f.Tensors = append(f.Tensors, gguf.Tensor{Name: "output.weight", Dims: []uint64{256}, Type: gguf.F32})
		}
		once := f.TensorBytes()
		for r, want := range map[gguf.Repack]uint64{
			gguf.RepackNone: once, gguf.RepackAVX2: once + tt.avx2, gguf.RepackAMX: once + tt.amx, gguf.RepackUnknown: once + f.TiedBytes(),
		} {
			if got := f.Memory(gguf.Context{Repack: r}).Weights; got != want {
				t.Errorf("%+v: layout %d has %d bytes, want %d", tt, r, got, want)
			}
		}
	}
}

func TestFits(t *testing.T) {
	m := gguf.Memory{Tokens: 512, Weights: 42_512_531_712, Cache: 160 << 20, Compute: 379 << 20}
	if err := m.Fits(m.Total()); err != nil {
		t.Errorf("it fits exactly, but %v", err)
	}
	err := m.Fits(24 << 30)
	const want = "needs 40 GiB of memory (weights 40 GiB, KV cache of 512 tokens 160 MiB, compute buffers 379 MiB), but only 24 GiB are available"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var detail *gguf.MemoryError
	if !errors.As(err, &detail) || detail.AvailableBytes != 24<<30 {
		t.Errorf("got %#v", err)
	}
}
