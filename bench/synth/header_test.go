package synth_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// words are n different words.
func words(n int) []string {
	w := make([]string, n)
	for i := range w {
		w[i] = fmt.Sprint("w", i)
	}
	return w
}

// wordy is a header with words, like that of a published file.
func wordy(t testing.TB, more ...gguf.KeyValue) *gguf.File {
	t.Helper()
	kv := append([]gguf.KeyValue{
		{Key: "general.architecture", Value: "bert"},
		{Key: "general.name", Value: "A model"},
		{Key: "bert.vocab_size", Value: uint32(7)}, // the number of words takes precedence
		{Key: "bert.block_count", Value: uint32(1)},
		{Key: "bert.attention.head_count", Value: []int32{4}},
		{Key: "tokenizer.ggml.model", Value: "gpt2"},
		{Key: "tokenizer.ggml.pre", Value: "smaug"},
		{Key: "tokenizer.ggml.tokens", Value: words(5000)},
		{Key: "tokenizer.ggml.scores", Value: make([]float32, 5000)},
		{Key: "tokenizer.ggml.token_type_count", Value: uint32(2)},
		{Key: "tokenizer.ggml.add_bos_token", Value: true},
		{Key: "tokenizer.chat_template", Value: "{{ hello }}"},
		{Key: "somebody.notes", Value: make([]uint8, 3000)},
	}, more...)
	f, err := gguf.New(kv, []gguf.Tensor{
		{Name: "token_embd.weight", Dims: []uint64{256, 5000}, Type: gguf.Q4_K},
		{Name: "blk.0.attn_norm.weight", Dims: []uint64{256}, Type: gguf.F32},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	read, err := gguf.Read(bytes.NewReader(b), f.Size(), gguf.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func TestOutline(t *testing.T) {
	f := wordy(t)
	got, err := synth.Outline("a.gguf", f)
	if err != nil {
		t.Fatal(err)
	}
	want := []gguf.KeyValue{
		{Key: "tokenizer.ggml.model", Value: "none"},
		{Key: "bert.vocab_size", Value: uint32(5000)},
		{Key: "general.architecture", Value: "bert"},
		{Key: "general.name", Value: "A model (synthetic weights)"},
		{Key: "bert.block_count", Value: uint32(1)},
		{Key: "bert.attention.head_count", Value: []int32{4}},
		{Key: "tokenizer.ggml.token_type_count", Value: uint32(2)},
	}
	if diff := cmp.Diff(want, got.KV); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(f.Tensors, got.Tensors); diff != "" {
		t.Errorf("tensors (-want +got):\n%s", diff)
	}
	if got.Params() != f.Params() || got.TensorBytes() != f.TensorBytes() || got.DataOffset >= f.DataOffset {
		t.Errorf("%d parameters in %d bytes behind %d bytes", got.Params(), got.TensorBytes(), got.DataOffset)
	}
	again, err := synth.Outline("a.gguf", got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again); diff != "" {
		t.Errorf("outline of an outline (-once +twice):\n%s", diff)
	}
}

func TestOutlineRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		file *gguf.File
		want string
	}{
		"shard":      {wordy(t, gguf.KeyValue{Key: "split.count", Value: uint16(3)}), "it is one of 3 files"},
		"long array": {wordy(t, gguf.KeyValue{Key: "bert.swa", Value: make([]bool, 2000)}), `key "bert.swa" holds 2000 values`},
		"many words": {&gguf.File{
			KV:      []gguf.KeyValue{{Key: "general.architecture", Value: "bert"}, {Key: "bert.vocab_size", Value: uint32(1 << 30)}},
			Tensors: []gguf.Tensor{{Name: "token_embd.weight", Dims: []uint64{256, 5000}, Type: gguf.Q4_K}},
		}, "it has 1073741824 tokens, but embeddings for 5000"},
		"nothing": {&gguf.File{KV: []gguf.KeyValue{{Key: "general.architecture", Value: "llama"}}}, "no tensors"},
		"no name": {&gguf.File{Tensors: []gguf.Tensor{{Name: "w"}}}, "no architecture"},
	} {
		if f, err := synth.Outline("a.gguf", tt.file); !errors.Is(err, synth.ErrHeader) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "synthetic weights cannot be made for a.gguf: ") {
			t.Errorf("%s: %v, %v; want %q", name, f, err, tt.want)
		}
	}
}

func TestHeaderFile(t *testing.T) {
	want, err := synth.Outline("a.gguf", wordy(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.gguf.header")
	for range 2 { // the second call replaces the file
		if err := synth.WriteHeaderFile(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := synth.ReadHeaderFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
	m, err := synth.FromHeader("a.gguf", got, 1, fake{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, io.NewSectionReader(m, 0, math.MaxInt64)); n != want.Size() || err != nil {
		t.Errorf("stream of %d bytes, %v; want %d", n, err, want.Size())
	}

	if err := synth.WriteHeaderFile(filepath.Join(dir, "none", "a"), want); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("written where nothing is: %v", err)
	}
	if err := synth.WriteHeaderFile(filepath.Join(dir, "b"), wordy(t)); !errors.Is(err, gguf.ErrUnsupported) {
		t.Errorf("written without its words: %v", err)
	}
	if err := os.WriteFile(path, []byte("GGUF\x03"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := synth.ReadHeaderFile(path); !errors.Is(err, gguf.ErrTruncated) {
		t.Errorf("cut off: %v", err)
	}
	if err := os.Truncate(path, 1<<40); err == nil {
		if _, err := synth.ReadHeaderFile(path); err == nil || !strings.Contains(err.Error(), "more than the limit of a header") {
			t.Errorf("a terabyte: %v", err)
		}
	}
}

// FromHeader refuses a header that was changed after its layout.
func TestFromHeaderRefuses(t *testing.T) {
	f, err := synth.Outline("a.gguf", wordy(t))
	if err != nil {
		t.Fatal(err)
	}
	f.KV = append(f.KV, gguf.KeyValue{Key: "note", Value: strings.Repeat("x", 100)})
	if _, err := synth.FromHeader("a.gguf", f, 1, fake{}); err == nil || !strings.Contains(err.Error(), "data start at") {
		t.Errorf("got %v", err)
	}
	if _, err := synth.FromHeader("a.gguf", wordy(t), 1, fake{}); !errors.Is(err, gguf.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// Each kind of tensor has its mean, with names of the published models and others.
func TestFills(t *testing.T) {
	for name, mean := range map[string]float64{
		"blk.0.attn_norm.weight": 1, "blk.11.attn_norm_2.weight": 1, "output_norm.weight": 1, "blk.0.attn_q_norm.weight": 1,
		"blk.0.attn_norm.bias": 0, "rope_freqs.weight": 1, "rope_factors_long.weight": 1, "rope_factors_short.weight": 1,
		"blk.3.ssm_a": -1, "blk.3.ssm_d": 1, "blk.3.ssm_dt.bias": 0, "blk.0.ffn_gate_inp.weight": 0, "blk.0.exp_probs_b.bias": 0,
		"blk.0.ffn_up_exps.scale": 1, "blk.0.attn_sinks.weight": 0, "blk.0.attn_q.bias": 0, "norm": 0,
	} {
		f, err := gguf.New(nil, []gguf.Tensor{{Name: name, Dims: []uint64{4096}}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := synth.FromHeader("a.gguf", f, 1, fake{})
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, v := range floats(t, m, 0) {
			sum += float64(v)
		}
		if got := sum / 4096; math.Abs(got-mean) > 0.003 { // 10 standard errors
			t.Errorf("%s has the mean %g, want %g", name, got, mean)
		}
	}
}

// floats are the elements of an f32 tensor.
func floats(t testing.TB, m *synth.Model, tensor int) []float32 {
	t.Helper()
	entry := m.File().Tensors[tensor]
	values := make([]float32, entry.Elements())
	r := io.NewSectionReader(m, m.File().DataOffset+int64(entry.Offset), int64(entry.Bytes()))
	if err := binary.Read(r, binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	return values
}

// A router chooses all experts about equally often, over many random tokens.
func TestRoutersSpreadTokens(t *testing.T) {
	for _, tt := range []struct{ embedding, experts, used int }{{512, 8, 2}, {2048, 64, 8}, {4096, 128, 8}} {
		t.Run(fmt.Sprintf("%d of %d", tt.used, tt.experts), func(t *testing.T) {
			f, err := gguf.New(nil, []gguf.Tensor{
				{Name: "output_norm.weight", Dims: []uint64{32}},
				{Name: "blk.0.ffn_gate_inp.weight", Dims: []uint64{uint64(tt.embedding), uint64(tt.experts)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			m, err := synth.FromHeader("moe.gguf", f, 1, fake{})
			if err != nil {
				t.Fatal(err)
			}
			router := floats(t, m, 1)
			rng := rand.New(rand.NewPCG(1, 2))
			const tokens = 2000
			chosen := make([]float64, tt.experts)
			x := make([]float32, tt.embedding)
			for range tokens {
				for i := range x {
					x[i] = float32(rng.NormFloat64())
				}
				logits := make([]float32, tt.experts)
				order := make([]int, tt.experts)
				for e := range logits {
					order[e] = e
					for i, v := range x {
						logits[e] += v * router[e*tt.embedding+i]
					}
				}
				slices.SortFunc(order, func(a, b int) int { return int(math.Copysign(1, float64(logits[b]-logits[a]))) })
				for _, e := range order[:tt.used] {
					chosen[e]++
				}
			}
			p := float64(tt.used) / float64(tt.experts)
			// The norms of rows differ by some per cent, so the counts of experts differ more.
			mean, sd := tokens*p, math.Sqrt(tokens*p*(1-p))
			for e, n := range chosen {
				if math.Abs(n-mean) > 6*sd+0.1*mean {
					t.Errorf("expert %d has %v of %d tokens, want about %v", e, n, tokens, mean)
				}
			}
		})
	}
}

// BenchmarkStream streams each type, which copies from a tile.
func BenchmarkStream(b *testing.B) {
	for typ := gguf.Type(0); typ < 64; typ++ {
		if !typ.Valid() || typ == gguf.F32 {
			continue
		}
		f, err := gguf.New(nil, []gguf.Tensor{{Name: "w.weight", Dims: []uint64{4096, 16384}, Type: typ}})
		if err != nil {
			b.Fatal(err)
		}
		m, err := synth.FromHeader("w.gguf", f, 1, fake{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run("type="+typ.String(), func(b *testing.B) {
			p := make([]byte, min(16<<20, m.Size()))
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.ReadAt(p, m.Size()-int64(len(p))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
