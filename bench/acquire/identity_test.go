package acquire

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// modelFile writes a small model whose header has a name and whose data has a length.
func modelFile(t *testing.T, path, name string, elements uint64) {
	t.Helper()
	f, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: "llama"}, {Key: "general.name", Value: name}, {Key: "tokenizer.ggml.model", Value: "gpt2"}},
		[]gguf.Tensor{{Name: "w", Dims: []uint64{elements}, Type: gguf.F32}})
	if err != nil {
		t.Fatal(err)
	}
	header, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(header, make([]byte, elements*4)...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
}

// A resumed run goes on with its file only. With another one of the same name, the test
// that was under way is repeated, and records of the old file forbid it.
func TestResumeNeedsTheFile(t *testing.T) {
	pp, tg := result.Test{Prompt: 16}, result.Test{Gen: 8}
	for _, tt := range []struct {
		name     string
		change   func(t *testing.T, path string)
		past     bool
		keeps    bool // the repetition
		refuses  bool
		warnings int
	}{
		{"same", func(*testing.T, string) {}, true, true, false, 0},
		{"touched", func(t *testing.T, path string) {
			if err := os.Chtimes(path, time.Time{}, time.Unix(1_800_000_000, 0)); err != nil {
				t.Fatal(err)
			}
		}, true, false, false, 1},
		{"longer", func(t *testing.T, path string) { modelFile(t, path, "one", 64) }, true, false, true, 0},
		{"another header", func(t *testing.T, path string) { modelFile(t, path, "two", 32) }, true, false, true, 0},
		{"another header, no record", func(t *testing.T, path string) { modelFile(t, path, "two", 32) }, false, false, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.gguf")
			modelFile(t, path, "one", 32)
			file, err := fetch.Local(path)
			if err != nil {
				t.Fatal(err)
			}
			files, err := identify(file)
			if err != nil {
				t.Fatal(err)
			}
			left := Interrupted{
				Wanted: suite.Entry{Name: path}, Source: path,
				Job: bench.Job{
					Model:       bench.Model{Name: path, Path: path, Weights: result.FileWeights, Files: files},
					Repetitions: 2, Tests: []bench.TestBudget{{Test: tg, Done: []result.Sample{{Repetition: 1, Elapsed: time.Second}}}},
				},
			}
			if tt.past {
				left.Job.Past = []bench.PastTest{{Test: pp, Status: result.OK}}
			}
			tt.change(t, path)
			m, err := Resume(t.Context(), suite.Suite{}, []Interrupted{left}, Options{Finder: Finder{Client: new(fetch.Client), Weights: File}})
			var e *Error
			if refused := errors.As(err, &e) && e.Kind == OtherFile; refused != tt.refuses || !refused && err != nil {
				t.Fatalf("got %v", err)
			}
			if tt.refuses {
				return
			}
			job := m.Jobs()[0]
			if keeps := len(job.Tests[0].Done) == 1; keeps != tt.keeps || len(job.Warnings) != tt.warnings {
				t.Errorf("%d repetitions, warnings %v", len(job.Tests[0].Done), job.Warnings)
			}
		})
	}
}
