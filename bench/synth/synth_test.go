package synth_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// fake quantises without ggml. Each block is a digest of its numbers, so different
// numbers give different blocks.
type fake struct{}

func (fake) Quantize(t gguf.Type, src []float32, nPerRow int) ([]byte, error) {
	size, n := int(t.BlockSize()), int(t.BlockBytes())
	if nPerRow%size != 0 || len(src)%nPerRow != 0 {
		return nil, fmt.Errorf("%d numbers in rows of %d are not blocks of %d", len(src), nPerRow, size)
	}
	var out []byte
	for ; len(src) > 0; src = src[size:] {
		raw, err := binary.Append(nil, binary.LittleEndian, src[:size])
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(raw)
		out = append(out, bytes.Repeat(sum[:], n/len(sum)+1)[:n]...)
	}
	return out, nil
}

func model(t testing.TB, name string, seed uint64) *synth.Model {
	t.Helper()
	s, err := synth.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := synth.New(s, seed, fake{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const smol = "SmolLM-135M.Q4_K_M.gguf"

// llama-bench prints these sizes for the published files.
var published = []struct {
	name          string
	bytes, params uint64
	tensors       int
	types         map[gguf.Type]int
}{
	{smol, 103_668_480, 134_515_008, 272, map[gguf.Type]int{gguf.F32: 61, gguf.Q5_0: 166, gguf.Q8_0: 15, gguf.Q4_K: 16, gguf.Q6_K: 14}},
	{"qwen1_5-0_5b-chat-q4_k_m.gguf", 401_210_368, 619_570_176, 291, map[gguf.Type]int{gguf.F32: 121, gguf.Q4_K: 145, gguf.Q6_K: 25}},
	{"gemma-2b.Q4_K_M.gguf", 1_489_055_744, 2_506_172_416, 164, map[gguf.Type]int{gguf.F32: 37, gguf.Q4_K: 109, gguf.Q6_K: 18}},
	{"llama-7b.Q4_K_M.gguf", 4_080_263_168, 6_738_415_616, 291, map[gguf.Type]int{gguf.F32: 65, gguf.Q4_K: 193, gguf.Q6_K: 33}},
	{"phi-4-q4.gguf", 9_049_559_040, 14_659_507_200, 243, map[gguf.Type]int{gguf.F32: 81, gguf.Q4_K: 101, gguf.Q5_K: 40, gguf.Q6_K: 21}},
	{"Llama-3.3-70B-Instruct-Q4_K_M.gguf", 42_512_531_712, 70_553_706_560, 724, map[gguf.Type]int{gguf.F32: 162, gguf.Q4_K: 441, gguf.Q5_K: 40, gguf.Q6_K: 81}},
}

func TestShapesAreThePublishedOnes(t *testing.T) {
	for i, want := range published {
		t.Run(want.name, func(t *testing.T) {
			if got := synth.Names(); len(got) != len(published) || got[i] != want.name {
				t.Errorf("names are %q", got)
			}
			s, err := synth.Lookup(want.name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.File()
			if err != nil {
				t.Fatal(err)
			}
			if f.TensorBytes() != want.bytes || f.Params() != want.params {
				t.Errorf("%d bytes, %d parameters; want %d, %d", f.TensorBytes(), f.Params(), want.bytes, want.params)
			}
			types := map[gguf.Type]int{}
			for _, tensor := range f.Tensors {
				types[tensor.Type]++
			}
			if diff := cmp.Diff(want.types, types); diff != "" || len(f.Tensors) != want.tensors {
				t.Errorf("%d tensors, want %d; types (-want +got):\n%s", len(f.Tensors), want.tensors, diff)
			}
			if len(s.Source.Revision) != 40 || strings.Count(s.Source.Repository, "/") != 1 {
				t.Errorf("source is %v", s.Source)
			}
		})
	}
}

func TestHeader(t *testing.T) {
	m := model(t, smol, 1)
	got, err := gguf.Read(io.NewSectionReader(m, 0, m.Size()), m.Size(), gguf.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m.File(), got); diff != "" {
		t.Errorf("header in the stream (-want +got):\n%s", diff)
	}
	want := []gguf.KeyValue{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.name", Value: "SmolLM-135M.Q4_K_M (synthetic weights)"},
		{Key: "general.file_type", Value: uint32(15)},
		{Key: "general.quantization_version", Value: uint32(2)},
		{Key: "tokenizer.ggml.model", Value: "none"},
		{Key: "llama.vocab_size", Value: uint32(49152)},
		{Key: "llama.attention.head_count", Value: uint32(9)},
		{Key: "llama.attention.head_count_kv", Value: uint32(3)},
		{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(1e-5)},
		{Key: "llama.block_count", Value: uint32(30)},
		{Key: "llama.context_length", Value: uint32(2048)},
		{Key: "llama.embedding_length", Value: uint32(576)},
		{Key: "llama.feed_forward_length", Value: uint32(1536)},
		{Key: "llama.rope.dimension_count", Value: uint32(64)},
		{Key: "llama.rope.freq_base", Value: float32(10000)},
	}
	if diff := cmp.Diff(want, got.KV); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestLookup(t *testing.T) {
	for name, want := range map[string]string{
		"smollm-135m.q4_k_m.gguf": `did you mean "SmolLM-135M.Q4_K_M.gguf"`,
		"gemma.gguf":              `did you mean "gemma-2b.Q4_K_M.gguf"`,
		"Llama-3.3-70B":           `did you mean "Llama-3.3-70B-Instruct-Q4_K_M.gguf"`,
		"mistral.gguf":            "the default models are " + strings.Join(synth.Names(), ", "),
		"":                        "the default models are " + smol,
	} {
		s, err := synth.Lookup(name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want an error with %q", name, s, err, want)
		}
	}
}

func TestGolden(t *testing.T) {
	const want = "d6937bb5ec8d548eb12a2c2e6f198d3a77ee442bef17972d898eb3a1485b445c" // if the weights change, note it in the changelog
	h := sha256.New()
	n, err := model(t, smol, 1).WriteTo(h)
	if err != nil || n != 103_685_312 {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("sha256 is %s, want %s", got, want)
	}
}

func TestSeeds(t *testing.T) {
	read := func(seed uint64) []byte {
		m := model(t, smol, seed)
		b := make([]byte, 1<<20)
		if _, err := m.ReadAt(b, m.File().DataOffset); err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := read(1)
	if !bytes.Equal(one, read(1)) {
		t.Error("one seed, different bytes")
	}
	if bytes.Equal(one, read(2)) {
		t.Error("two seeds, the same bytes")
	}
}

// The bytes of the file do not depend on how it is read, also across segments.
func TestReadAt(t *testing.T) {
	m := model(t, smol, 1)
	var whole bytes.Buffer
	if _, err := m.WriteTo(&whole); err != nil {
		t.Fatal(err)
	}
	if int64(whole.Len()) != m.Size() {
		t.Fatalf("wrote %d of %d bytes", whole.Len(), m.Size())
	}
	borders := []int64{0, m.File().DataOffset, m.Size()}
	for _, tensor := range m.File().Tensors {
		start := m.File().DataOffset + int64(tensor.Offset)
		borders = append(borders, start, start+int64(tensor.Bytes()))
	}
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.SampledFrom(borders).Draw(t, "border") + rapid.Int64Range(-300, 300).Draw(t, "shift")
		off = max(0, off)
		p := make([]byte, rapid.IntRange(0, 1<<20).Draw(t, "length"))
		want := whole.Bytes()[min(off, m.Size()):min(off+int64(len(p)), m.Size())]
		n, err := m.ReadAt(p, off)
		if !bytes.Equal(p[:n], want) {
			t.Fatalf("%d bytes from %d differ from the whole", n, off)
		}
		if n < len(p) != errors.Is(err, io.EOF) || n == len(p) && err != nil {
			t.Fatalf("read %d of %d, %v", n, len(p), err)
		}
	})
	if _, err := m.ReadAt(make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read before the start: %v", err)
	}
}

func TestConcurrentReads(t *testing.T) {
	m := model(t, smol, 1)
	const part = 1 << 20
	var wg sync.WaitGroup
	sums := make([][sha256.Size]byte, 8)
	for i := range sums {
		wg.Go(func() {
			b := make([]byte, part)
			for range 20 {
				if _, err := m.ReadAt(b, 5_000_000); err != nil {
					t.Error(err)
				}
			}
			sums[i] = sha256.Sum256(b)
		})
	}
	wg.Wait()
	for _, s := range sums[1:] {
		if s != sums[0] {
			t.Error("concurrent reads differ")
		}
	}
}

func TestReadAtAllocatesNothing(t *testing.T) {
	m := model(t, smol, 1)
	b := make([]byte, 3<<20)
	if n := testing.AllocsPerRun(10, func() { _, _ = m.ReadAt(b, 12345) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Norms are near 1. All numbers are finite and normal.
func TestVectors(t *testing.T) {
	m := model(t, "qwen1_5-0_5b-chat-q4_k_m.gguf", 7)
	for _, tensor := range m.File().Tensors {
		if tensor.Type != gguf.F32 {
			continue
		}
		values := make([]float32, tensor.Elements())
		r := io.NewSectionReader(m, m.File().DataOffset+int64(tensor.Offset), int64(tensor.Bytes()))
		if err := binary.Read(r, binary.LittleEndian, values); err != nil {
			t.Fatal(err)
		}
		mean := 0.0
		if strings.HasSuffix(tensor.Name, "norm.weight") {
			mean = 1
		}
		distinct := map[float32]bool{}
		for _, v := range values {
			distinct[v] = true
			if math.Abs(float64(v)-mean) > 0.071 || v != 0 && math.Abs(float64(v)) < 0x1p-126 {
				t.Fatalf("%s has %g, far from %g", tensor.Name, v, mean)
			}
		}
		if len(distinct) < len(values)*9/10 {
			t.Errorf("%s has %d different numbers of %d", tensor.Name, len(distinct), len(values))
		}
	}
}

// moments collects the numbers that quantisers get.
type moments struct {
	fake
	mu    sync.Mutex
	parts []part
}

type part struct {
	typ              gguf.Type
	mean, sd, max, n float64
}

func (q *moments) Quantize(t gguf.Type, src []float32, nPerRow int) ([]byte, error) {
	var sum, squares, most float64
	for _, v := range src {
		sum += float64(v)
		squares += float64(v) * float64(v)
		most = max(most, math.Abs(float64(v)))
	}
	n := float64(len(src))
	q.mu.Lock()
	q.parts = append(q.parts, part{t, sum / n, math.Sqrt(squares / n), most, n})
	q.mu.Unlock()
	return q.fake.Quantize(t, src, nPerRow)
}

func TestWeightsAreNormal(t *testing.T) {
	s, err := synth.Lookup(smol)
	if err != nil {
		t.Fatal(err)
	}
	var q moments
	if _, err := synth.New(s, 3, &q); err != nil {
		t.Fatal(err)
	}
	types := map[float64]map[gguf.Type]bool{0.02: {}, 1: {}}
	for _, tile := range q.parts {
		want := 0.02
		if tile.sd > 0.5 {
			want = 1 // token embeddings that are also the output
		}
		types[want][tile.typ] = true
		// The tolerance is 5 standard errors of the mean and of the deviation.
		if tolerance := 5 * want / math.Sqrt(tile.n); math.Abs(tile.mean) > tolerance || math.Abs(tile.sd-want) > tolerance {
			t.Errorf("mean %g, standard deviation %g, want 0 and %g within %g", tile.mean, tile.sd, want, tolerance)
		}
		if tile.max > want*3.5 {
			t.Errorf("largest weight is %g", tile.max)
		}
	}
	if diff := cmp.Diff(map[float64]map[gguf.Type]bool{0.02: {gguf.Q4_K: true, gguf.Q5_0: true, gguf.Q6_K: true, gguf.Q8_0: true}, 1: {gguf.Q8_0: true}}, types); diff != "" {
		t.Errorf("types by standard deviation (-want +got):\n%s", diff)
	}
}

// Rows of a tensor differ, and tensors of the same shape differ.
func TestRowsDiffer(t *testing.T) {
	for _, p := range published {
		m := model(t, p.name, 1)
		seen := map[string]string{} // tensor by shape, type and first row
		for _, tensor := range m.File().Tensors {
			if len(tensor.Dims) < 2 {
				continue
			}
			rowBytes := tensor.Bytes() / tensor.Dims[1]
			rows := make([]byte, min(rowBytes*64, tensor.Bytes()))
			if _, err := m.ReadAt(rows, m.File().DataOffset+int64(tensor.Offset)); err != nil {
				t.Fatal(err)
			}
			distinct := map[string]bool{}
			for i := uint64(0); i < uint64(len(rows)); i += rowBytes {
				distinct[string(rows[i:i+rowBytes])] = true
			}
			if len(distinct) != len(rows)/int(rowBytes) {
				t.Errorf("%s: %s has %d different rows of %d", p.name, tensor.Name, len(distinct), len(rows)/int(rowBytes))
			}
			key := fmt.Sprint(tensor.Dims, tensor.Type, string(rows[:rowBytes]))
			if other, ok := seen[key]; ok {
				t.Errorf("%s: %s starts like %s", p.name, tensor.Name, other)
			}
			seen[key] = tensor.Name
		}
	}
}

// brokenQuantizer returns fixed results.
type brokenQuantizer struct {
	out []byte
	err error
}

func (q brokenQuantizer) Quantize(gguf.Type, []float32, int) ([]byte, error) { return q.out, q.err }

func TestQuantizerFails(t *testing.T) {
	s, err := synth.Lookup(smol)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no such type")
	if _, err := synth.New(s, 1, brokenQuantizer{err: broken}); !errors.Is(err, broken) || !strings.Contains(err.Error(), smol) {
		t.Errorf("got %v", err)
	}
	if _, err := synth.New(s, 1, brokenQuantizer{out: []byte("short")}); err == nil || !strings.Contains(err.Error(), "the quantiser returned ") {
		t.Errorf("got %v", err)
	}
}

func TestWriteToFails(t *testing.T) {
	full := errors.New("no space left")
	n, err := model(t, smol, 1).WriteTo(failingWriter{full})
	if n != 0 || !errors.Is(err, full) {
		t.Errorf("wrote %d, %v", n, err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestReaderContract(t *testing.T) {
	m := model(t, smol, 1)
	const n = 100_000
	want := make([]byte, n)
	if _, err := m.ReadAt(want, m.Size()-n); err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(io.NewSectionReader(m, m.Size()-n, n), want); err != nil {
		t.Error(err)
	}
}

func BenchmarkReadAt(b *testing.B) {
	m := model(b, smol, 1)
	for _, size := range []int{32 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("size=%dKiB", size>>10), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			var off int64
			for b.Loop() {
				if _, err := m.ReadAt(p, off); err != nil {
					b.Fatal(err)
				}
				if off += int64(size); off+int64(size) > m.Size() {
					off = 0
				}
			}
		})
	}
}
