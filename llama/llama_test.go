//go:build cgo

package llama_test

import (
	"bytes"
	stdcontext "context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

const smolLM = "SmolLM-135M.Q4_K_M.gguf"

// onThread runs f on a new Thread with the back-ends open.
func onThread(t testing.TB, f func()) {
	t.Helper()
	th := llama.StartThread()
	defer th.Stop()
	th.Do(func() {
		must(llama.LoadBackends(llama.AllBackends))
		f()
	})
}

// smol is the embedded SmolLM as a stream.
func smol(t testing.TB) *synth.Model {
	t.Helper()
	shape, err := synth.Lookup(smolLM)
	if err != nil {
		t.Fatal(err)
	}
	m, err := synth.New(shape, 1, llamacpp.Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// load loads SmolLM and closes it at the end of f.
func load(t testing.TB, f func(*llama.Model)) {
	t.Helper()
	onThread(t, func() {
		m, err := llama.LoadModelStream(smolLM, smol(t), llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(m)
	})
}

// context makes a context and closes it at the end of f.
func context(t testing.TB, p llama.ContextParams, f func(*llama.Context)) {
	t.Helper()
	load(t, func(m *llama.Model) {
		if p.Threads == 0 {
			p.Threads = 1 // two would wait for each other on a busy machine
		}
		c, err := m.NewContext(p)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(c)
	})
}

func TestFactsOfStreamAndFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), smolLM)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := smol(t).WriteTo(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	load(t, func(streamed *llama.Model) {
		f := streamed.Facts()
		if f.SizeBytes != 103_668_480 || f.Params != 134_515_008 || f.Layers != 30 || f.Vocab != 49152 ||
			!strings.HasPrefix(f.Description, "llama ") || f.FileType != "Q4_K - Medium" {
			t.Errorf("facts of the stream: %+v", f)
		}
		var last float32
		filed, err := llama.LoadModel(path, llama.ModelParams{LoadMode: llama.LoadMmap}, func(share float32) bool {
			last = share
			return true
		})
		if err != nil {
			t.Error(err)
			return
		}
		if filed.Facts() != f {
			t.Errorf("facts of the file %+v differ from the stream's %+v", filed.Facts(), f)
		}
		if last != 1 {
			t.Errorf("the load ended at a progress of %v", last)
		}
		if err := filed.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The wording of the library's log decides the class of an error. If it changes,
// this test must fail.
func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	header := make([]byte, 64<<10)
	if _, err := smol(t).ReadAt(header, 0); err != nil {
		t.Fatal(err)
	}
	unknown := []byte(strings.Replace(string(header), "\x05\x00\x00\x00\x00\x00\x00\x00llama", "\x05\x00\x00\x00\x00\x00\x00\x00mamma", 1))
	// The data may be absent, but the file must be long enough for it.
	unknownPath := write("unknown.gguf", unknown)
	if err := os.Truncate(unknownPath, smol(t).Size()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		class      error
		says       string
	}{
		{"missing", filepath.Join(dir, "none.gguf"), fs.ErrNotExist, "load model: open "},
		{"directory", dir, llama.ErrInvalidModel, ""},
		{"garbage", write("garbage.gguf", []byte("this is no model at all")), llama.ErrInvalidModel, "magic"},
		{"truncated", write("short.gguf", header), llama.ErrInvalidModel, ""},
		{"architecture", unknownPath, llama.ErrUnsupportedArchitecture, "mamma"},
	} {
		onThread(t, func() {
			m, err := llama.LoadModel(tt.path, llama.ModelParams{}, nil)
			if m != nil || !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.path) {
				t.Errorf("%s: %v", tt.name, err)
			}
		})
	}
}

func TestContextOutOfMemory(t *testing.T) {
	load(t, func(m *llama.Model) {
		c, err := m.NewContext(llama.ContextParams{Context: 1 << 22, Threads: 1}) // 90 GiB
		if c != nil || !errors.Is(err, llama.ErrOutOfMemory) {
			t.Errorf("a context of 2^22 tokens: %v", err)
		}
	})
}

func TestLoadCancelled(t *testing.T) {
	onThread(t, func() {
		stream, params := smol(t), llama.ModelParams{LoadMode: llama.LoadNone}
		_, err := llama.LoadModelStream(smolLM, stream, params, func(share float32) bool { return share < 0.5 })
		if !errors.Is(err, llama.ErrCancelled) {
			t.Errorf("a cancelled load: %v", err)
		}
		m, err := llama.LoadModelStream(smolLM, stream, params, nil)
		if err != nil {
			t.Errorf("the load after it: %v", err)
			return
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// broken is a stream that fails half way.
type broken struct{ *synth.Model }

var errMedium = errors.New("the medium failed")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off > b.Size()/2 {
		return 0, errMedium
	}
	return b.Model.ReadAt(p, off)
}

func TestStreamFails(t *testing.T) {
	onThread(t, func() {
		_, err := llama.LoadModelStream("broken", broken{smol(t)}, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		if !errors.Is(err, errMedium) {
			t.Errorf("got %v", err)
		}
		_, err = llama.LoadModelStream("mapped", smol(t), llama.ModelParams{LoadMode: llama.LoadMmap}, nil)
		if err == nil || !strings.Contains(err.Error(), "load mode none") {
			t.Errorf("a mapped stream: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	onThread(t, func() {
		m, err := llama.LoadModelStream(smolLM, smol(t), llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		pool, err := llama.NewThreadpool(llama.ThreadpoolParams{Threads: 2, Poll: 50})
		if err != nil {
			t.Error(err)
			return
		}
		c, err := m.NewContext(llama.ContextParams{Context: 256, Threads: 2})
		if err != nil {
			t.Error(err)
			return
		}
		if err := c.AttachThreadpool(pool); err != nil {
			t.Error(err)
		}
		if err := m.Close(); !errors.Is(err, llama.ErrInUse) {
			t.Errorf("model with an open context: %v", err)
		}
		if err := pool.Close(); !errors.Is(err, llama.ErrInUse) {
			t.Errorf("threadpool of an open context: %v", err)
		}
		state, err := c.SaveState()
		if err != nil {
			t.Error(err)
		}
		state.Close()
		state.Close()
		if err := c.RestoreState(state); !errors.Is(err, llama.ErrClosed) {
			t.Errorf("restore of a closed state: %v", err)
		}
		for range 2 { // the second time nothing happens
			for _, closer := range []io.Closer{c, pool, m} {
				if err := closer.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		c.Abort() // does nothing
		_, sizeErr := c.Size()
		_, repetitionErr := c.Timed().Repetition(nil, []llama.Token{1}, 1)
		_, logitsErr := c.Logits()
		_, saveErr := c.SaveState()
		_, contextErr := m.NewContext(llama.ContextParams{})
		for name, err := range map[string]error{
			"Decode": c.Decode([]llama.Token{1}), "Synchronize": c.Synchronize(), "ClearMemory": c.ClearMemory(),
			"AttachThreadpool": c.AttachThreadpool(pool), "Size": sizeErr, "Repetition": repetitionErr, "Logits": logitsErr,
			"SaveState": saveErr, "NewContext": contextErr,
		} {
			if !errors.Is(err, llama.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
	})
}

func TestWrongThread(t *testing.T) {
	context(t, llama.ContextParams{Context: 256}, func(c *llama.Context) {
		other := llama.StartThread()
		defer other.Stop()
		other.Do(func() {
			_, repetitionErr := c.Timed().Repetition([]llama.Token{1}, nil, 1)
			for name, err := range map[string]error{
				"Decode": c.Decode([]llama.Token{1}), "Repetition": repetitionErr, "Synchronize": c.Synchronize(),
				"ClearMemory": c.ClearMemory(), "Close": c.Close(),
			} {
				if !errors.Is(err, llama.ErrWrongThread) {
					t.Errorf("%s on another thread: %v", name, err)
				}
			}
		})
		if err := c.Decode([]llama.Token{1}); err != nil {
			t.Errorf("on its own thread: %v", err)
		}
	})
	context(t, llama.ContextParams{Context: 256, AnyThread: true}, func(c *llama.Context) {
		other := llama.StartThread()
		defer other.Stop()
		other.Do(func() {
			if err := c.Decode([]llama.Token{1}); err != nil {
				t.Errorf("with AnyThread: %v", err)
			}
		})
	})
}

func TestDecodeErrors(t *testing.T) {
	context(t, llama.ContextParams{Context: 256, Batch: 128}, func(c *llama.Context) {
		if n, err := c.Size(); n != 256 || err != nil {
			t.Errorf("size %d, %v", n, err)
		}
		if _, err := c.Logits(); err == nil {
			t.Error("logits before any decode")
		}
		for _, tt := range []struct {
			name   string
			tokens []llama.Token
			want   error
		}{
			{"nothing", nil, llama.ErrInvalidBatch},
			{"more than a batch", make([]llama.Token, 129), llama.ErrInvalidBatch},
			{"negative token", []llama.Token{-7}, llama.ErrInvalidBatch},
			{"token beyond the vocabulary", []llama.Token{1 << 30}, llama.ErrInvalidBatch},
			{"half of the cache", make([]llama.Token, 128), nil},
			{"the other half", make([]llama.Token, 128), nil},
			{"one too many", make([]llama.Token, 1), llama.ErrNoKVSlot},
		} {
			if err := c.Decode(tt.tokens); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		if err := c.ClearMemory(); err != nil {
			t.Error(err)
		}
		c.Abort()
		if err := c.Decode(make([]llama.Token, 8)); !errors.Is(err, llama.ErrAborted) {
			t.Errorf("aborted: %v", err)
		}
		if _, err := c.Timed().Repetition(nil, make([]llama.Token, 8), 1); !errors.Is(err, llama.ErrAborted) {
			t.Errorf("aborted repetition: %v", err)
		}
		c.ClearAbort()
		if err := c.ClearMemory(); err != nil {
			t.Error(err)
		}
		if err := c.Decode(make([]llama.Token, 8)); err != nil {
			t.Errorf("after an abort: %v", err)
		}
		if _, err := c.Timed().Repetition([]llama.Token{1}, nil, 0); !errors.Is(err, llama.ErrInvalidBatch) {
			t.Errorf("batches of 0: %v", err)
		}
	})
}

// must fails a test from inside Thread.Do, where t.Fatal must not be called: Do
// panics again in the test.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// prompt is n tokens that are not all equal.
func prompt(n int) []llama.Token {
	p := make([]llama.Token, n)
	for i := range p {
		p[i] = int32(i*7919) % 49152
	}
	return p
}

// A repetition computes what single decodes compute. After a whole prompt the
// logits are finite and differ: synthetic weights neither saturate nor vanish.
func TestRepetitionComputes(t *testing.T) {
	context(t, llama.ContextParams{Context: 600}, func(c *llama.Context) {
		elapsed, err := c.Timed().Repetition(prompt(512), prompt(3), 2048)
		must(err)
		if elapsed <= 0 {
			t.Errorf("a repetition took %v", elapsed)
		}
		whole, err := c.Logits()
		must(err)
		low, high := math.Inf(1), math.Inf(-1)
		for _, l := range whole {
			if math.IsNaN(float64(l)) || math.IsInf(float64(l), 0) {
				panic(fmt.Sprintf("logit %v", l))
			}
			low, high = min(low, float64(l)), max(high, float64(l))
		}
		if high-low < 0.1 || high-low > 1000 {
			t.Errorf("logits from %v to %v", low, high)
		}

		must(c.ClearMemory())
		elapsed, inside, err := c.Timed().RepetitionInside(prompt(512), prompt(3), 2048)
		must(err)
		if inside <= 0 || inside > elapsed {
			t.Errorf("%v of %v inside the library", inside, elapsed)
		}
		same, err := c.Logits()
		must(err)

		// Priming leaves nothing behind, and its time is not the repetition's.
		must(c.ClearMemory())
		const forTime = 20 * time.Millisecond
		start := time.Now()
		elapsed, err = c.Timed().PrimedRepetition(forTime, prompt(64), prompt(64), 2048)
		must(err)
		if outside := time.Since(start) - elapsed; elapsed <= 0 || outside < forTime {
			t.Errorf("primed for %v, want %v; a repetition of %v", outside, forTime, elapsed)
		}
		must(c.ClearMemory())
		_, err = c.Timed().PrimedRepetition(time.Nanosecond, prompt(512), prompt(3), 2048)
		must(err)
		primed, err := c.Logits()
		must(err)

		must(c.ClearMemory())
		must(c.Decode(prompt(512)))
		for _, token := range prompt(3) {
			must(c.Decode([]llama.Token{token}))
		}
		must(c.Synchronize())
		steps, err := c.Logits()
		must(err)
		for i := range whole {
			if whole[i] != same[i] || whole[i] != steps[i] || whole[i] != primed[i] {
				panic(fmt.Sprintf("logit %d: %v in one call, %v with clocks, %v primed, %v in steps", i, whole[i], same[i], primed[i], steps[i]))
			}
		}
	})
}

func TestStateRestoresDepth(t *testing.T) {
	context(t, llama.ContextParams{Context: 256}, func(c *llama.Context) {
		must(c.Decode(prompt(64)))
		state, err := c.SaveState()
		must(err)
		defer state.Close()
		if state.Bytes() < 64 {
			t.Errorf("a state of %d bytes", state.Bytes())
		}
		must(c.Decode([]llama.Token{5}))
		want, err := c.Logits()
		must(err)

		must(c.ClearMemory())
		must(c.RestoreState(state))
		must(c.Decode([]llama.Token{5}))
		got, err := c.Logits()
		must(err)
		for i := range want {
			if got[i] != want[i] {
				panic(fmt.Sprintf("logit %d is %v at the restored depth, %v at the computed one", i, got[i], want[i]))
			}
		}
	})
}

func TestUnknownParams(t *testing.T) {
	load(t, func(m *llama.Model) {
		for name, p := range map[string]llama.ContextParams{
			"KV cache type \"q9\"":      {TypeK: "q9"},
			"KV cache type \"Q8_0\"":    {TypeV: "Q8_0"},
			"flash attention setting 9": {FlashAttention: 9},
			"threads":                   {Threads: 513},
			"-1 threads":                {Threads: -1},
			"batch":                     {Batch: -1},
			"ubatch":                    {UBatch: -1},
			"context length":            {Context: -1},
		} {
			if c, err := m.NewContext(p); c != nil || err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, p := range map[string]llama.ThreadpoolParams{
			"0 threads": {}, "poll": {Threads: 1, Poll: 101}, "CPU 512": {Threads: 1, CPUs: []int{512}}, "priority": {Threads: 1, Priority: 7},
		} {
			if pool, err := llama.NewThreadpool(p); pool != nil || err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, p := range map[string]llama.ModelParams{
			"load mode":          {LoadMode: 77},
			"lazy mode":          {LazyMode: 77},
			"split mode":         {SplitMode: 77},
			"device \"Abacus\"":  {Devices: []string{"Abacus"}},
			"tensor override":    {TensorOverrides: []llama.TensorOverride{{Pattern: "x", Buffer: "Abacus"}}},
			"tensor split":       {TensorSplit: make([]float32, 1000)},
			"GPU layers":         {GPULayers: 1 << 40},
			"without allocation": {NoAlloc: true},
		} {
			if m, err := llama.LoadModel("never.gguf", p, nil); m != nil || err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A model loads with all that ModelParams can say.
func TestModelParams(t *testing.T) {
	for name, p := range map[string]llama.ModelParams{
		"one device":    {LoadMode: llama.LoadNone, Devices: []string{"CPU"}},
		"no repacking":  {LoadMode: llama.LoadNone, NoRepack: true, NoHost: true, CheckTensors: true},
		"overrides":     {LoadMode: llama.LoadNone, TensorOverrides: []llama.TensorOverride{{Pattern: `blk\.1\.`, Buffer: "CPU"}}},
		"no allocation": {LoadMode: llama.LoadNone, NoAlloc: true},
	} {
		onThread(t, func() {
			m, err := llama.LoadModelStream(name, smol(t), p, nil)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestQuantize(t *testing.T) {
	values := make([]float32, 512)
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	const f32, q8_0, q4K, q8K, i32 = 0, 8, 12, 15, 26
	for _, tt := range []struct {
		ggml int32
		n    int
		want int // bytes
	}{{f32, 512, 2048}, {q8_0, 32, 16 * 34}, {q4K, 256, 2 * 144}, {16, 256, 2 * 66} /* iq2_xxs, which needs a matrix */} {
		got, err := llama.Quantize(tt.ggml, values, tt.n)
		if err != nil || len(got) != tt.want {
			t.Errorf("type %d: %d bytes, %v", tt.ggml, len(got), err)
		}
	}
	for _, bad := range []struct {
		ggml int32
		n    int
	}{{q4K, 100}, {q4K, 0}, {-1, 256}, {9999, 256}, {4, 256} /* removed q4_2 */, {q8K, 256}, {i32, 256}, {q4K, 1024}} {
		if _, err := llama.Quantize(bad.ggml, values, bad.n); err == nil {
			t.Errorf("type %d in rows of %d was quantised", bad.ggml, bad.n)
		}
	}
}

// lines keeps what is logged.
type lines struct {
	slog.Handler
	got *[]slog.Record
}

func newLines() lines {
	return lines{slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}), new([]slog.Record)}
}

func (l lines) Handle(_ stdcontext.Context, r slog.Record) error {
	*l.got = append(*l.got, r)
	return nil
}
func (l lines) WithAttrs([]slog.Attr) slog.Handler { return l }

func TestLog(t *testing.T) {
	l := newLines()
	llama.SetLog(l, slog.LevelInfo)
	defer llama.SetLog(nil, 0)
	load(t, func(*llama.Model) {})
	found := false
	for _, r := range *l.got {
		if strings.ContainsAny(r.Message, "\n\r") || r.Message == "" {
			t.Errorf("not a line: %q", r.Message)
		}
		found = found || strings.Contains(r.Message, "n_layer") && strings.HasSuffix(r.Message, "30")
	}
	if !found {
		t.Errorf("the library's lines did not arrive: %d records", len(*l.got))
	}

	quiet := newLines()
	llama.SetLog(quiet, slog.LevelWarn)
	load(t, func(*llama.Model) {})
	for _, r := range *quiet.got {
		if r.Level < slog.LevelWarn {
			t.Errorf("at level %v: %s", r.Level, r.Message)
		}
	}
}

// Allocation reads the log of the real library: it finds all bytes of the weights,
// and a device for every layer. The level of SetLog makes no difference.
func TestAllocation(t *testing.T) {
	quiet := newLines()
	llama.SetLog(quiet, slog.LevelWarn)
	defer llama.SetLog(nil, 0)
	load(t, func(m *llama.Model) {
		a, f := m.Allocation(), m.Facts()
		cpu := llama.Devices()[slices.IndexFunc(llama.Devices(), func(d llama.Device) bool { return d.Type == llama.CPUDevice })]
		most := f.SizeBytes
		if slices.ContainsFunc(a.Buffers, func(b llama.Buffer) bool { return b.Type == "AMX" }) {
			most += 49152 * 576 * 5 / 4 // AMX has its own copy of the embedding that is also the output: Q8_0 with sums
		}
		if cpu := a.SizeOn(cpu, "model"); cpu < f.SizeBytes-1<<20 || cpu > most+1<<20 {
			t.Errorf("%d bytes of weights of %d: %+v", cpu, f.SizeBytes, a)
		}
		if a.Layers["CPU"] != f.Layers+1 {
			t.Errorf("layers: %v, want %d", a.Layers, f.Layers+1)
		}
		c, err := m.NewContext(llama.ContextParams{Context: 256, Threads: 1})
		if err != nil {
			t.Error(err)
			return
		}
		for _, kind := range []string{"KV", "compute", "output"} {
			if c.Allocation().SizeOn(cpu, kind) == 0 {
				t.Errorf("no %s memory: %+v", kind, c.Allocation())
			}
		}
		if got, want := c.Allocation().Cache["CPU"], c.Allocation().SizeOn(cpu, "KV"); math.Abs(float64(got)-float64(want)) > 1<<14 {
			t.Errorf("a cache of %d bytes in buffers of %d", got, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, r := range *quiet.got {
		if r.Level < slog.LevelWarn {
			t.Errorf("at level %v: %s", r.Level, r.Message)
		}
	}
}

func TestThread(t *testing.T) {
	th := llama.StartThread()
	defer th.Stop()
	ran := false
	th.Do(func() { ran = true })
	if !ran || th.ID() <= 0 {
		t.Errorf("ran %v on thread %d", ran, th.ID())
	}
	func() {
		defer func() {
			if r := recover(); r != "loud" {
				t.Errorf("recovered %v", r)
			}
		}()
		th.Do(func() { panic("loud") })
	}()
	th.Do(func() { ran = false }) // it survived
	if ran {
		t.Error("a panic ended the thread")
	}
	th.Stop()
	th.Stop()
}

// BackendProblems says why a module cannot be opened. A back-end that is open is
// not opened again.
func TestBackendProblems(t *testing.T) {
	module := filepath.Join(t.TempDir(), "libggml-cuda.so")
	if err := os.WriteFile(module, []byte(strings.Repeat("not a library ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	onThread(t, func() {
		if p := llama.BackendProblems(); len(p) != 0 {
			t.Errorf("the back-ends of the packages: %q", p)
		}
		var log bytes.Buffer
		llama.SetLog(slog.NewTextHandler(&log, nil), slog.LevelInfo)
		defer llama.SetLog(nil, 0)
		if p := llama.WhyNot("no such back-end", module); len(p) != 1 || !strings.Contains(p[0], "invalid ELF header") {
			t.Errorf("a broken module: %q", p)
		}
		if !strings.Contains(log.String(), "level=INFO") || strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("an error that is told as data is logged as one:\n%s", &log)
		}
		if p := llama.WhyNot("CPU", module); len(p) != 0 {
			t.Errorf("a back-end that is open: %q", p)
		}
	})
}

func TestDevices(t *testing.T) {
	onThread(t, func() {
		var cpu bool
		for _, d := range llama.Devices() {
			cpu = cpu || d.Type == llama.CPUDevice && d.MemoryTotalBytes > 0 && d.Description != ""
		}
		if !cpu {
			t.Errorf("no CPU among %+v", llama.Devices())
		}
		if !strings.HasPrefix(llama.Version(), "0.") || llama.LibraryDir() == "" || len(llama.BackendNames()) == 0 {
			t.Errorf("version %q in %q with %v", llama.Version(), llama.LibraryDir(), llama.BackendNames())
		}
	})
}
