package fetch_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// model is a file of one tensor, 32 bytes of data and all.
func model(t *testing.T, architecture string) []byte {
	t.Helper()
	f, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: architecture}},
		[]gguf.Tensor{{Name: "t", Dims: []uint64{8}, Type: gguf.F32}})
	if err != nil {
		t.Fatal(err)
	}
	header, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	return append(header, make([]byte, 32)...)
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A name is looked for here and then in each directory; a path is not.
func TestLocalFinds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []string // each says its place as its architecture
		model string
		dirs  []string
		want  string // path; empty: none
	}{
		{"here", []string{"m.gguf", "a/m.gguf"}, "m.gguf", []string{"a"}, "m.gguf"},
		{"in a directory", []string{"a/m.gguf"}, "m.gguf", []string{"a"}, "a/m.gguf"},
		{"in the first directory", []string{"a/m.gguf", "b/m.gguf"}, "m.gguf", []string{"b", "a"}, "b/m.gguf"},
		{"in a later directory", []string{"b/m.gguf"}, "m.gguf", []string{"none", "a", "b"}, "b/m.gguf"},
		{"by its path", []string{"b/m.gguf"}, "b/m.gguf", nil, "b/m.gguf"},
		{"a path is not looked up", []string{"a/b/m.gguf"}, "b/m.gguf", []string{"a"}, ""},
		{"neither is one that starts here", []string{"a/m.gguf"}, "./m.gguf", []string{"a"}, ""},
		{"nor one that leaves", []string{"m.gguf", "a/b/c"}, "../m.gguf", []string{"a/b"}, ""},
		{"no name", nil, "", []string{"a"}, ""},
		{"missing", []string{"a/other.gguf"}, "m.gguf", []string{"a"}, ""},
		{"a file here called as a directory there", []string{"m"}, "m", []string{"a"}, "m"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for _, f := range tt.files {
				put(t, f, model(t, f))
			}
			got, err := fetch.Local(tt.model, tt.dirs...)
			if tt.want == "" {
				if !errors.Is(err, fetch.ErrNotFound) || !strings.HasSuffix(err.Error(), ": "+tt.model) {
					t.Errorf("error %v, want %v", err, fetch.ErrNotFound)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Path != tt.want || got.Header.Architecture() != tt.want {
				t.Errorf("found %s, which is %s, want %s", got.Path, got.Header.Architecture(), tt.want)
			}
			if diff := cmp.Diff(int64(len(model(t, tt.want))), got.Bytes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A model that is there and cannot be used is not looked for elsewhere, and
// where it is is said.
func TestLocalRefuses(t *testing.T) {
	whole := model(t, "llama")
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"directory", func(t *testing.T, p string) { put(t, filepath.Join(p, "file"), whole) }, gguf.ErrNotGGUF},
		{"empty", func(t *testing.T, p string) { put(t, p, nil) }, gguf.ErrEmpty},
		{"text", func(t *testing.T, p string) { put(t, p, []byte("<html>404</html>")) }, gguf.ErrNotGGUF},
		{"cut in its header", func(t *testing.T, p string) { put(t, p, whole[:len(whole)/2]) }, gguf.ErrTruncated},
		{"cut in its data", func(t *testing.T, p string) { put(t, p, whole[:len(whole)-1]) }, gguf.ErrTruncated},
		{"noise after the magic", func(t *testing.T, p string) { put(t, p, []byte("GGUF\x03\x00\x00\x00"+strings.Repeat("\xff", 100))) }, gguf.ErrUnsupported},
		{"pipe", func(t *testing.T, p string) {
			if err := syscall.Mkfifo(p, 0o600); err != nil {
				t.Fatal(err)
			}
		}, fetch.ErrNotRegular},
		{"link to nothing", func(t *testing.T, p string) {
			if err := os.Symlink("nothing", p); err != nil {
				t.Fatal(err)
			}
		}, fetch.ErrNotFound},
		{"link to itself", func(t *testing.T, p string) {
			if err := os.Symlink(filepath.Base(p), p); err != nil {
				t.Fatal(err)
			}
		}, syscall.ELOOP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.gguf")
			tt.make(t, path)
			got, err := fetch.Local(path)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("error %q does not name %s", err, path)
			}
			if diff := cmp.Diff(fetch.File{}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("below a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		put(t, file, nil)
		if _, err := fetch.Local(filepath.Join(file, "m.gguf")); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("error %v, want %v", err, syscall.ENOTDIR)
		}
		if _, err := fetch.Local("m.gguf", file); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("error %v of a directory that is a file, want %v", err, syscall.ENOTDIR)
		}
	})
	t.Run("name too long", func(t *testing.T) {
		if _, err := fetch.Local(strings.Repeat("m", 300)); !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Errorf("error %v, want %v", err, syscall.ENAMETOOLONG)
		}
	})
}
