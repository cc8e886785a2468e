package acquire

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// A model in the hub's cache is used where it is: records name that path, headers are
// read there, and the models directory is not created.
func TestCachedModel(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	shape, err := synth.Lookup(synth.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	file, err := shape.File()
	if err != nil {
		t.Fatal(err)
	}
	content, err := file.Header()
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	path := filepath.Join(cache, "models--u--r", "snapshots", commit, "m.gguf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, file.Size()); err != nil {
		t.Fatal(err)
	}
	src, err := source.Parse("hf:u/r/m.gguf@" + commit)
	if err != nil {
		t.Fatal(err)
	}
	client := &fetch.Client{HubCache: cache, Offline: true}
	if h, err := ReadHeader(t.Context(), client, src); err != nil || h.FileBytes != file.Size() || h.Files != 1 {
		t.Errorf("ReadHeader: %+v, %v", h, err)
	}
	dir := filepath.Join(t.TempDir(), "models")
	wanted := suite.Entry{Name: src.Name(), Source: src, Tests: []result.Test{{Prompt: 16}}}
	s := suite.Default()
	s.Models = []suite.Entry{wanted}
	m, err := New(t.Context(), s, Options{
		Finder: Finder{Client: client, Dirs: Dirs{Download: dir}, Weights: File}, Scale: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// Logs and tables have the model's name, records the path of its file.
	if model := m.Jobs()[0].Model; model.Name != filepath.Base(path) || model.Filename != path {
		t.Errorf("the model is called %s, and %s in records, want %s", model.Name, model.Filename, path)
	}
	if got, err := m.queue.Wait(t.Context(), 0, m.options.Deadline); err != nil || got.Path != path {
		t.Errorf("Wait: %s, %v", got.Path, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the models directory: %v", err)
	}
}
