//go:build cgo

package llama_test

import (
	"errors"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/llama"
)

// rooflineOf opens the CPU with a small matrix of each type.
func rooflineOf(t *testing.T, use func(r *llama.Roofline)) {
	t.Helper()
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		if err := llama.LoadBackends(llama.AllBackends); err != nil {
			t.Error(err)
			return
		}
		r, err := llama.NewRoofline(llama.RooflineParams{Device: "CPU", Threads: llama.ThreadpoolParams{Threads: 2}})
		if err != nil {
			t.Error(err)
			return
		}
		use(r)
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		if _, err := r.Weights(int32(gguf.F16), 1, 256, 1, make([]byte, 512)); !errors.Is(err, llama.ErrClosed) {
			t.Errorf("weights of a closed device: %v", err)
		}
	})
}

func TestRoofline(t *testing.T) {
	rooflineOf(t, func(r *llama.Roofline) {
		for _, typ := range []gguf.Type{gguf.F32, gguf.F16, gguf.BF16, gguf.Q8_0, gguf.Q4_0, gguf.Q4_K, gguf.Q6_K, gguf.IQ4_NL, gguf.MXFP4} {
			values := make([]float32, 3*512)
			for i := range values {
				values[i] = float32(i%7) / 7
			}
			data, err := llama.Quantize(int32(typ), values, 512)
			if err != nil {
				t.Errorf("%s: %v", typ, err)
				continue
			}
			w, err := r.Weights(int32(typ), 64, 512, 5, data)
			if err != nil {
				t.Errorf("%s: %v", typ, err)
				continue
			}
			if w.Buffer() == "" {
				t.Errorf("%s: no buffer", typ)
			}
			if got, want := w.Bytes(5), uint64(len(data)/3*64*5); got != want {
				t.Errorf("%s: %d bytes, want %d", typ, got, want)
			}
			if got, want := w.Ops(2, 512), 2.0*2*64*512*512; got != want {
				t.Errorf("%s: %v operations, want %v", typ, got, want)
			}
			for _, product := range [][2]int{{5, 1}, {5, 1}, {2, 512}, {1, 3}, {5, 1}} {
				if elapsed, err := w.Multiply(product[0], product[1]); err != nil || elapsed <= 0 {
					t.Errorf("%s: %d matrices times %d columns: %v, %v", typ, product[0], product[1], elapsed, err)
				}
			}
			if _, err := w.Multiply(6, 1); err == nil {
				t.Errorf("%s: more matrices than there are were multiplied", typ)
			}
			if elapsed, err := w.Read(); err != nil || elapsed <= 0 {
				t.Errorf("%s: read in %v, %v", typ, elapsed, err)
			}
			w.Release()
			w.Release()
			if _, err := w.Read(); !errors.Is(err, llama.ErrClosed) {
				t.Errorf("%s: read after Release: %v", typ, err)
			}
		}
	})
}

func TestRooflineRefuses(t *testing.T) {
	rooflineOf(t, func(r *llama.Roofline) {
		for _, tc := range []struct {
			name             string
			typ              int32
			rows, cols, n, b int
		}{
			{"no such type", 1000, 8, 256, 1, 256},
			{"a removed type", 4, 8, 256, 1, 256},
			{"a part of a block", int32(gguf.Q4_K), 8, 100, 1, 144},
			{"no rows", int32(gguf.F16), 0, 256, 1, 512},
			{"no matrices", int32(gguf.F16), 8, 256, 0, 512},
			{"a part of a row", int32(gguf.F16), 8, 256, 1, 300},
			{"no data", int32(gguf.F16), 8, 256, 1, 0},
		} {
			if _, err := r.Weights(tc.typ, tc.rows, tc.cols, tc.n, make([]byte, tc.b)); err == nil {
				t.Errorf("%s: no error", tc.name)
			}
		}
		if _, err := r.Weights(int32(gguf.F16), 1<<20, 1<<20, 1<<10, make([]byte, 2<<20)); !errors.Is(err, llama.ErrOutOfMemory) {
			t.Errorf("2 PiB of weights: %v", err)
		}
	})
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		if _, err := llama.NewRoofline(llama.RooflineParams{Device: "CUDA7", Threads: llama.ThreadpoolParams{Threads: 1}}); err == nil {
			t.Error("a device that does not exist was opened")
		}
		if _, err := llama.NewRoofline(llama.RooflineParams{Device: "CPU"}); err == nil {
			t.Error("a device was opened without threads")
		}
	})
}

func TestRooflineAbort(t *testing.T) {
	rooflineOf(t, func(r *llama.Roofline) {
		w, err := r.Weights(int32(gguf.F16), 64, 512, 5, make([]byte, 1024))
		if err != nil {
			t.Error(err)
			return
		}
		defer w.Release()
		r.Abort()
		if _, err := w.Multiply(5, 1); !errors.Is(err, llama.ErrAborted) {
			t.Errorf("a product after Abort: %v", err)
		}
		if _, err := w.Read(); !errors.Is(err, llama.ErrAborted) {
			t.Errorf("a read after Abort: %v", err)
		}
	})
}
