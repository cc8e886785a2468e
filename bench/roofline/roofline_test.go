package roofline

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestNew(t *testing.T) {
	t.Parallel()
	const mib, gib = 1 << 20, 1 << 30
	for _, tc := range []struct {
		name             string
		cache, available uint64
		types            []string
		want             result.LimitsPlan
		err              error
	}{
		{"four times the caches", 300 * mib, 20 * gib, []string{"q4_K"}, result.LimitsPlan{Types: []string{"q4_K"}, Bytes: 1200 * mib, CacheBytes: 300 * mib}, nil},
		{"small caches", 2 * mib, 20 * gib, []string{"q4_K"}, result.LimitsPlan{Types: []string{"q4_K"}, Bytes: 256 * mib, CacheBytes: 2 * mib}, nil},
		{"caches not known", 0, 20 * gib, []string{"f16"}, result.LimitsPlan{Types: []string{"f16"}, Bytes: 256 * mib}, nil},
		{"memory not known", 300 * mib, 0, []string{"f16"}, result.LimitsPlan{Types: []string{"f16"}, Bytes: 1200 * mib, CacheBytes: 300 * mib}, nil},
		{"half the memory", 300 * mib, 2 * gib, []string{"f16"}, result.LimitsPlan{Types: []string{"f16"}, Bytes: gib, CacheBytes: 300 * mib}, nil},
		{"a type twice", mib, gib, []string{"f16", "q6_K", "f16"}, result.LimitsPlan{Types: []string{"f16", "q6_K"}, Bytes: 256 * mib, CacheBytes: mib}, nil},
		{"less than twice the caches", 300 * mib, gib, []string{"f16"}, result.LimitsPlan{}, ErrMemory},
		{"hardly any memory", 2 * mib, 100 * mib, []string{"f16"}, result.LimitsPlan{}, ErrMemory},
		{"an unknown type", mib, gib, []string{"q9"}, result.LimitsPlan{}, ErrType},
		{"integers", mib, gib, []string{"i32"}, result.LimitsPlan{}, ErrType},
		{"a type of activations", mib, gib, []string{"q8_K"}, result.LimitsPlan{}, ErrType},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := New(tc.cache, tc.available, tc.types...)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); err == nil && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestMatrices checks that the weights of several types have the wanted size together,
// and that caches cannot hold a round.
func TestMatrices(t *testing.T) {
	t.Parallel()
	for _, name := range Types() {
		typ, err := gguf.ParseType(name)
		if err != nil {
			t.Fatal(err)
		}
		const want = 600 << 20
		rows := Rows(false, 2)
		matrix := uint64(rows) * Columns / typ.BlockSize() * typ.BlockBytes()
		if got := uint64(Matrices(typ, rows, want)) * matrix; got > want || got < want-matrix {
			t.Errorf("%s: %d bytes, want nearly %d", name, got, want)
		}
		if n := Matrices(typ, rows, 1); n != 2 {
			t.Errorf("%s: %d matrices of too little memory, want 2", name, n)
		}
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	for threads, want := range map[int]int{1: 2048, 8: 2048, 64: 8192, 192: 16384, 512: 16384} {
		if got := Rows(false, threads); got != want {
			t.Errorf("%d rows for %d threads, want %d", got, threads, want)
		}
	}
	if got := Rows(true, 1); got != 16384 {
		t.Errorf("%d rows for a GPU", got)
	}
}

func TestPasses(t *testing.T) {
	t.Parallel()
	p := Passes{Least: 2, Most: 4, Until: time.Second}
	for _, tc := range []struct {
		n       int
		elapsed time.Duration
		want    bool
	}{
		{0, time.Minute, true},
		{1, time.Minute, true},
		{2, time.Minute, false},
		{2, time.Millisecond, true},
		{3, time.Second, false},
		{4, time.Millisecond, false},
	} {
		if got := p.More(tc.n, tc.elapsed); got != tc.want {
			t.Errorf("another pass after %d in %v: %v", tc.n, tc.elapsed, got)
		}
	}
}

var someLimits = []result.DeviceLimits{
	{
		Device: "CPU", Threads: 8, ReadBytesPerSecond: 81.234e9, WeightsBytes: 1 << 30, CacheBytes: 256 << 20,
		Types: []result.TypeLimits{
			{Type: "q4_K", Buffer: "CPU_REPACK", VectorBytesPerSecond: 73.9e9, MatrixOpsPerSecond: 1.91e12},
			{Type: "f16", Buffer: "CPU", VectorBytesPerSecond: 80e9, MatrixOpsPerSecond: 310e9},
		},
	},
	{Device: "CUDA0", WeightsBytes: 1 << 30, Types: []result.TypeLimits{{Type: "q4_K", Reason: "the device does not multiply this type"}}},
}

func TestWrite(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := Write(&out, "table", someLimits, 0); err != nil {
		t.Fatal(err)
	}
	const want = `device  weights     buffer      matrix-vector GB/s  matrix-matrix GFLOP/s
CPU     q4_K        CPU_REPACK               73.90                   1910
CPU     f16         CPU                      80.00                  310.0
CPU     plain read  -                        81.23                      -
CUDA0   q4_K                                     -                      -

CPU with 8 threads: best of several passes over 1.0 GiB of weights, caches of 256 MiB
CUDA0: best of several passes over 1.0 GiB of weights
CUDA0, q4_K: not measured: the device does not multiply this type
`
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSuffix(want, "\n"), "\n"), lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSentence(t *testing.T) {
	t.Parallel()
	for i, want := range []string{
		"CPU with 8 threads: 73.90 GB/s of q4_K weights, 1.910 TFLOP/s, 81.23 GB/s plain read",
		"CUDA0: not measured",
	} {
		if got := Sentence(someLimits[i]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
