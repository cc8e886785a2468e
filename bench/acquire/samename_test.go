package acquire

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Two downloaded files with the same name are kept apart, and records name them
// apart. A bad model between them costs only itself.
func TestFetchedFilesOfOneName(t *testing.T) {
	shape, err := synth.Lookup(synth.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	file, err := shape.File()
	if err != nil {
		t.Fatal(err)
	}
	header, err := file.Header()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content := append(bytes.Clone(header), make([]byte, file.Size()-int64(len(header)))...)
		content[len(content)-1] = r.URL.Path[1] // the folder's first letter
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	dir := t.TempDir()
	s := suite.Default()
	s.GivenOrder, s.Models = true, nil
	for _, text := range []string{server.URL + "/a/m.gguf", filepath.Join(dir, "none.gguf"), server.URL + "/b/m.gguf"} {
		src, err := source.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		s.Models = append(s.Models, suite.Entry{Name: src.Name(), Source: src, Tests: []result.Test{{Prompt: 16}}})
	}
	if first, second := suite.NameApart(s.Models); second >= 0 {
		t.Fatalf("%d and %d are the same", first, second)
	}
	m, err := New(t.Context(), s, Options{Finder: Finder{Client: &fetch.Client{}, Dirs: Dirs{Download: dir}, Weights: File}, Scale: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sums := map[string]bool{}
	for i, want := range map[int]string{0: "a/m.gguf", 2: "b/m.gguf"} {
		if name := m.Jobs()[i].Model.Name; name != want {
			t.Errorf("model %d is called %s, want %s", i, name, want)
		}
		got, err := m.queue.Wait(t.Context(), m.all[i].item, time.Time{})
		if err != nil || got.Path != filepath.Join(dir, want) {
			t.Errorf("model %d is in %s, want %s: %v", i, got.Path, want, err)
		}
		sums[got.SHA256] = true
	}
	if len(sums) != 2 {
		t.Errorf("%d different files, want 2", len(sums))
	}
	if names, errs := m.Bad(); len(names) != 1 || names[0] != "none.gguf" || len(errs) != 1 {
		t.Errorf("bad models %q: %v", names, errs)
	}
}
