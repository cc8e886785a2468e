//go:build cgo

package llamacpp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// Every type that ggml produces can be streamed, and the same seed gives the same
// bytes. Other types are refused by name.
func TestEveryType(t *testing.T) {
	refused := map[gguf.Type]bool{
		gguf.Q8_1: true, gguf.Q8_K: true, // only for intermediate results
		gguf.I8: true, gguf.I16: true, gguf.I32: true, gguf.I64: true, gguf.F64: true,
	}
	golden := sha256.New()
	for typ := gguf.Type(0); typ < 64; typ++ {
		if !typ.Valid() {
			continue
		}
		f, err := gguf.New(nil, []gguf.Tensor{{Name: "w.weight", Dims: []uint64{1024, 256}, Type: typ}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		m, err := synth.FromHeader("w.gguf", f, 1, Quantizer{})
		t.Logf("%v: %v", typ, time.Since(start).Round(time.Millisecond))
		if refused[typ] {
			if err == nil || !strings.Contains(err.Error(), typ.String()) {
				t.Errorf("%v: %v, want a refusal that names it", typ, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", typ, err)
			continue
		}
		if _, err := io.Copy(golden, io.NewSectionReader(m, 0, m.Size())); err != nil {
			t.Error(err)
		}
	}
	const want = "3b1067fe51176859396b9a175b1f72dc2c4ac6750ecb29a267ad59828d91c344" // if synthetic weights or the library's quantisers change: say so in the changelog
	if got := hex.EncodeToString(golden.Sum(nil)); got != want {
		t.Errorf("sha256 of all types is %s, want %s", got, want)
	}
}

// The logits of 512 tokens in a model with synthetic weights are finite.
func TestLogitsAreFinite(t *testing.T) {
	const tokens = 512
	for _, arch := range []string{"llama", "qwen2", "gemma", "phi3", "moe"} {
		t.Run(arch, func(t *testing.T) {
			finite(t, arch, small(t, arch), tokens)
		})
	}
}

// The same for the default models. Those above 1 GiB run only if LARGEST_MODEL_BYTES
// allows it: 7 billion parameters take a minute on two cores.
func TestDefaultLogitsAreFinite(t *testing.T) {
	asked, _ := strconv.ParseUint(os.Getenv("LARGEST_MODEL_BYTES"), 10, 64)
	for _, name := range synth.Names() {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		header, err := shape.File()
		if err != nil {
			t.Fatal(err)
		}
		if header.TensorBytes() <= max(asked, 1<<30) {
			t.Run(name, func(t *testing.T) { finite(t, name, header, 512) })
		}
	}
}

// small is the header of a small model that scripts/parity uses.
func small(t *testing.T, arch string) *gguf.File {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../scripts/parity/testdata", arch+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	shape, err := synth.ParseShape(arch+".gguf", text)
	if err != nil {
		t.Fatal(err)
	}
	header, err := shape.File()
	if err != nil {
		t.Fatal(err)
	}
	return header
}

// finite checks that the logits of a prompt are finite and differ.
func finite(t *testing.T, name string, header *gguf.File, n int) {
	t.Helper()
	stream, err := synth.FromHeader(name, header, 1, Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		if err := llama.LoadBackends(llama.AllBackends); err != nil {
			t.Error(err)
			return
		}
		m, err := llama.LoadModelStream(name, stream, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}()
		if f := m.Facts(); f.SizeBytes != header.TensorBytes() || f.Params != header.Params() {
			t.Errorf("the library counts %d bytes and %d parameters, the header has %d and %d", f.SizeBytes, f.Params, header.TensorBytes(), header.Params())
		}
		c, err := m.NewContext(llama.ContextParams{Context: n, Threads: 2, FlashAttention: llama.FlashOn})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		prompt := make([]llama.Token, n)
		for i := range prompt {
			prompt[i] = int32(i * 7919 % m.Facts().Vocab)
		}
		if _, err := c.Timed().Repetition(prompt, nil, n); err != nil {
			t.Error(err)
			return
		}
		logits, err := c.Logits()
		if err != nil {
			t.Error(err)
			return
		}
		var squares, most float64
		for i, v := range logits {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Errorf("logit %d is %v", i, v)
				return
			}
			squares += float64(v) * float64(v)
			most = max(most, math.Abs(float64(v)))
		}
		sd := math.Sqrt(squares / float64(len(logits)))
		t.Logf("%s: %d logits, root mean square %.3g, largest %.3g", m.Facts().Description, len(logits), sd, most)
		if len(logits) == 0 || sd < 1e-3 || most > 1e4 {
			t.Errorf("logits of root mean square %g, largest %g", sd, most)
		}
	})
}

// A model with synthetic weights can come from a header file. The library reports
// the same facts as for the whole file, including the vocabulary.
func TestEngineLoadsByHeader(t *testing.T) {
	whole := small(t, "qwen2")
	tokens, scores, types := make([]string, 32000), make([]float32, 32000), make([]int32, 32000)
	for i := range tokens {
		tokens[i], types[i] = fmt.Sprintf("w%d", i), 1
	}
	for i := range 256 {
		tokens[3+i], types[3+i] = fmt.Sprintf("<0x%02X>", i), 6 // LLAMA_TOKEN_TYPE_BYTE
	}
	var kv []gguf.KeyValue
	for _, k := range whole.KV {
		if k.Key != "tokenizer.ggml.model" && k.Key != "qwen2.vocab_size" {
			kv = append(kv, k)
		}
	}
	wordy, err := gguf.New(append(kv,
		gguf.KeyValue{Key: "tokenizer.ggml.model", Value: "llama"},
		gguf.KeyValue{Key: "tokenizer.ggml.tokens", Value: tokens},
		gguf.KeyValue{Key: "tokenizer.ggml.scores", Value: scores},
		gguf.KeyValue{Key: "tokenizer.ggml.token_type", Value: types},
	), whole.Tensors)
	if err != nil {
		t.Fatal(err)
	}
	outline, err := synth.Outline("small.gguf", wordy)
	if err != nil {
		t.Fatal(err)
	}
	if outline.DataOffset > wordy.DataOffset/10 {
		t.Errorf("an outline of %d bytes of a header of %d", outline.DataOffset, wordy.DataOffset)
	}
	path := filepath.Join(t.TempDir(), "small.gguf-header")
	if err := synth.WriteHeaderFile(path, outline); err != nil {
		t.Fatal(err)
	}
	job := bench.Job{Model: bench.Model{Name: "small.gguf", Path: path, Weights: result.SyntheticWeights, Seed: 1}, Settings: testSettings()}
	e, err := New(job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Load(t.Context(), func(bench.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	if n := e.model.Facts().Vocab; n != len(tokens) {
		t.Errorf("%d tokens, want %d", n, len(tokens))
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if got.Mapped == nil || *got.Mapped {
		t.Errorf("mapped %v, want a stream", got.Mapped)
	}
	got.Mapped = nil
	if diff := cmp.Diff(fileFacts(t, wordy), got); diff != "" {
		t.Errorf("facts (-whole +outline):\n%s", diff)
	}
	if _, err := (&Engine{job: bench.Job{Model: bench.Model{Name: "small.gguf", Path: path + ".none"}}}).stream(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its header: %v", err)
	}
}

// fileFacts is what the library reports for a header with weights and vocabulary.
func fileFacts(t *testing.T, header *gguf.File) bench.ModelFacts {
	t.Helper()
	stream, err := synth.FromHeader("whole.gguf", header, 1, Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	var facts bench.ModelFacts
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		var m *llama.Model
		if err = llama.LoadBackends(llama.AllBackends); err != nil {
			return
		}
		if m, err = llama.LoadModelStream("whole.gguf", stream, llama.ModelParams{LoadMode: llama.LoadNone}, nil); err != nil {
			return
		}
		f := m.Facts()
		facts = bench.ModelFacts{Type: f.Description, SizeBytes: f.SizeBytes, Params: f.Params, Layers: f.Layers}
		if f.Vocab != 32000 {
			t.Errorf("%d tokens", f.Vocab)
		}
		err = m.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

// BenchmarkLoad7B loads seven billion parameters in turns: from a stream, and from
// a file with the same bytes in the page cache. The stream must not take over a
// tenth longer than the file in load mode none.
func BenchmarkLoad7B(b *testing.B) {
	const name = "llama-7b.Q4_K_M.gguf"
	shape, err := synth.Lookup(name)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), name)
	write := func() error {
		m, err := synth.New(shape, 1, Quantizer{})
		if err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = m.WriteTo(f)
		return errors.Join(err, f.Close())
	}
	if err := write(); err != nil {
		b.Fatal(err)
	}
	loads := []struct {
		unit string
		load func() (*llama.Model, error)
	}{
		{"stream-s", func() (*llama.Model, error) {
			m, err := synth.New(shape, 1, Quantizer{}) // a part of every load
			if err != nil {
				return nil, err
			}
			return llama.LoadModelStream(name, m, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{"file-none-s", func() (*llama.Model, error) {
			return llama.LoadModel(path, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{"file-mmap-s", func() (*llama.Model, error) {
			return llama.LoadModel(path, llama.ModelParams{LoadMode: llama.LoadMmap}, nil)
		}},
	}
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		if err := llama.LoadBackends(llama.AllBackends); err != nil {
			b.Error(err)
			return
		}
		took := make([]time.Duration, len(loads))
		rounds := 0
		for b.Loop() {
			for i, l := range loads {
				start := time.Now()
				m, err := l.load()
				took[i] += time.Since(start)
				if err == nil {
					err = m.Close()
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
			rounds++
		}
		for i, l := range loads {
			b.ReportMetric(took[i].Seconds()/float64(rounds), l.unit)
		}
	})
}
