//go:build cgo

package llama_test

import (
	stdcontext "context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/llama"
)

// benchModel is the path of a GGUF file that the benchmarks use instead of the
// embedded SmolLM.
var benchModel = os.Getenv("BENCH_MODEL")

var threads = runtime.NumCPU()

// named is the name of a sub-benchmark. It consists of key=value pairs, because
// benchstat can project on those.
func named(keys string) string {
	name := smolLM
	if benchModel != "" {
		name = filepath.Base(benchModel)
	}
	return fmt.Sprintf("model=%s/%s/threads=%d", name, keys, threads)
}

// weights is the source of the benchmarks' model.
type weights struct {
	llama.Stream
	path string // of its file; empty for synthetic weights
}

// newWeights is the file in BENCH_MODEL, or the embedded SmolLM. The file is checked
// first, because the library ends the process on some bad files.
func newWeights(b *testing.B) weights {
	if benchModel == "" {
		return weights{smol(b), ""}
	}
	local, err := fetch.Local(benchModel)
	if err != nil {
		b.Fatalf("BENCH_MODEL: %v", err)
	}
	f, err := os.Open(local.Path)
	if err != nil {
		b.Fatalf("BENCH_MODEL: %v", err)
	}
	b.Cleanup(func() { must(f.Close()) })
	return weights{fileStream{f, local.Bytes}, local.Path}
}

type fileStream struct {
	*os.File
	bytes int64
}

func (f fileStream) Size() int64 { return f.bytes }

func (w weights) load() (*llama.Model, error) {
	if w.path != "" {
		return llama.LoadModel(w.path, llama.ModelParams{}, nil)
	}
	return llama.LoadModelStream(smolLM, w, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
}

// shared is a model that most benchmarks of a process use, and its thread. It is
// loaded once.
var shared struct {
	thread *llama.Thread
	model  *llama.Model
}

// onModel runs f on the thread of the shared model. If f fails by must, this
// benchmark fails and the others go on.
func onModel(b *testing.B, f func(*llama.Model)) {
	b.Helper()
	defer failed(b)
	if shared.model == nil {
		w := newWeights(b)
		thread := llama.StartThread()
		defer func() {
			if shared.model == nil {
				thread.Stop()
			}
		}()
		thread.Do(func() {
			must(llama.LoadBackends(llama.AllBackends))
			m, err := w.load()
			must(err)
			shared.thread, shared.model = thread, m
		})
	}
	shared.thread.Do(func() { f(shared.model) })
}

// release closes the shared model, for a benchmark that loads its own. The next
// benchmark that needs it loads it again.
func release() {
	if shared.model == nil {
		return
	}
	shared.thread.Do(func() { must(shared.model.Close()) })
	shared.thread.Stop()
	shared.model = nil
}

// failed turns a panic of must into a failed benchmark. Defer it.
func failed(b *testing.B) {
	b.Helper()
	switch r := recover().(type) {
	case nil:
	case runtime.Error:
		panic(r)
	case error:
		b.Fatal(r)
	default:
		panic(r)
	}
}

// onContext runs f with a context and a threadpool, as the engine makes them.
func onContext(b *testing.B, size int, f func(*llama.Model, *llama.Context)) {
	b.Helper()
	onModel(b, func(m *llama.Model) { withContext(m, size, false, func(c *llama.Context) { f(m, c) }) })
}

func withContext(m *llama.Model, size int, anyThread bool, f func(*llama.Context)) {
	pool, err := llama.NewThreadpool(llama.ThreadpoolParams{Threads: threads, Poll: 50})
	must(err)
	defer func() { must(pool.Close()) }()
	c, err := m.NewContext(llama.ContextParams{
		Context: size, Threads: threads, FlashAttention: llama.FlashOn, AnyThread: anyThread,
	})
	must(err)
	defer func() { must(c.Close()) }()
	must(c.AttachThreadpool(pool))
	f(c)
}

// tokens are n tokens of the model's vocabulary that are not all equal.
func tokens(m *llama.Model, n int) []llama.Token {
	t := prompt(n)
	for i := range t {
		t[i] %= int32(max(1, m.Facts().Vocab))
	}
	return t
}

// If BENCH_MODEL is no model, each benchmark fails with one line, and those that
// need no model run. The test runs this test binary again to see it.
func TestBenchModelRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, bytes int64) string {
		path := filepath.Join(dir, name)
		b := make([]byte, bytes)
		_, err := smol(t).ReadAt(b, 0)
		must(err)
		must(os.WriteFile(path, b, 0o600))
		return path
	}
	text := filepath.Join(dir, "notes.txt")
	must(os.WriteFile(text, []byte("this is no model at all\n"), 0o600))
	unknown := write("unknown.gguf", 4<<20)
	data, err := os.ReadFile(unknown)
	must(err)
	const architecture = "\x05\x00\x00\x00\x00\x00\x00\x00"
	must(os.WriteFile(unknown, []byte(strings.Replace(string(data), architecture+"llama", architecture+"mamma", 1)), 0o600))
	must(os.Truncate(unknown, smol(t).Size()))
	for _, tt := range []struct{ name, path, says string }{
		{"missing", filepath.Join(dir, "none.gguf"), "no such model file"},
		{"directory", dir, "is a directory"},
		{"not a GGUF", text, "not a gguf file"},
		{"header cut", write("header.gguf", 1<<10), "of a 1024 byte file"},
		{"data cut", write("data.gguf", 4<<20), "of a 4194304 byte file"},
		{"unknown architecture", unknown, "mamma"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := stdcontext.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$", "-test.bench=.", "-test.benchtime=1x")
			cmd.Env = append(os.Environ(), "BENCH_MODEL="+tt.path)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("%v:\n%s", err, out)
			}
			said := 0
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, ".go:") {
					said++
					if !strings.Contains(line, tt.says) || !strings.Contains(line, tt.path) {
						t.Error(line)
					}
				}
			}
			for _, name := range []string{"SynchronizeIdle", "DecodeAdds", "Decode", "Repetition", "Context", "ClearMemory", "State", "Abort", "Load", "ThreadRule"} {
				if !strings.Contains(string(out), "--- FAIL: Benchmark"+name) {
					t.Errorf("Benchmark%s did not fail", name)
				}
			}
			if said < 10 || !strings.Contains(string(out), "ns/op") || strings.Contains(string(out), "goroutine ") {
				t.Errorf("%d messages:\n%s", said, out)
			}
		})
	}
}
