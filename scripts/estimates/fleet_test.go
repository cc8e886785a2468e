package main

import (
	"compress/gzip"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Only tests that all three models completed on a CPU count.
func TestReadFleet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.jsonl.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	for _, line := range []string{
		`{"server":"a","vcpus":4,"load_kind":"cpu_mmap","model":"qwen1_5-0_5b-chat-q4_k_m.gguf","cells":[{"kind":"pp","n":512,"outcome":"ok","avg_ts":100},{"kind":"tg","n":128,"outcome":"ok","avg_ts":50}]}`,
		`{"server":"a","vcpus":4,"load_kind":"cpu_mmap","model":"gemma-2b.Q4_K_M.gguf","cells":[{"kind":"pp","n":512,"outcome":"ok","avg_ts":25},{"kind":"tg","n":128,"outcome":"ok","avg_ts":10}]}`,
		`{"server":"a","vcpus":4,"load_kind":"cpu_mmap","model":"llama-7b.Q4_K_M.gguf","cells":[{"kind":"pp","n":512,"outcome":"timeout"},{"kind":"tg","n":128,"outcome":"ok","avg_ts":4}]}`,
		`{"server":"b","vcpus":4,"load_kind":"gpu_full","model":"llama-7b.Q4_K_M.gguf","cells":[{"kind":"tg","n":128,"outcome":"ok","avg_ts":400}]}`,
	} {
		if _, err := z.Write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := readFleet(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[result.Test][]server{{Gen: 128}: {{cpus: 4, small: 0.02, middle: 0.1, target: 0.25}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(server{})); diff != "" {
		t.Error(diff)
	}
}

// A server whose time is linear in layers and work is predicted exactly.
func TestByWork(t *testing.T) {
	files := map[string]*gguf.File{}
	for _, name := range []string{small, middle, target} {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if files[name], err = shape.File(); err != nil {
			t.Fatal(err)
		}
	}
	test := result.Test{Gen: 128}
	seconds := func(name string, layer, gigabyte float64) float64 {
		n, _ := files[name].Uint(files[name].Architecture() + ".block_count")
		return layer*float64(n) + gigabyte*float64(files[name].Work(result.Test{Gen: 1}, gguf.Context{UBatch: 512}).WeightBytes)/1e9
	}
	for _, tt := range [][2]float64{{1e-4, 0.05}, {0, 0.05}, {1e-3, 0}} {
		s := server{small: seconds(small, tt[0], tt[1]), middle: seconds(middle, tt[0], tt[1])}
		if got, want := byWork(test, files, s), seconds(target, tt[0], tt[1]); math.Abs(got/want-1) > 1e-9 {
			t.Errorf("%v: %v, want %v", tt, got, want)
		}
	}
}

// A fit to points on a plane gives these points.
func TestLogLinear(t *testing.T) {
	var servers []server
	for _, xy := range [][2]float64{{1, 2}, {2, 3}, {5, 1}, {4, 4}} {
		servers = append(servers, server{small: xy[0], middle: xy[1], target: 3 * math.Sqrt(xy[0]) * xy[1]})
	}
	got, err := logLinear(servers)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range servers {
		if math.Abs(got[i]/s.target-1) > 1e-9 {
			t.Errorf("%v: %v", s, got[i])
		}
	}
}
