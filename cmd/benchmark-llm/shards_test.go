//go:build cgo

package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// split is a directory with a small model that llama.cpp's own tool has split
// into three files, and the name of the first.
func split(t *testing.T) (dir, first string) {
	t.Helper()
	dir = t.TempDir()
	whole := filepath.Join(dir, "whole.gguf")
	if err := os.WriteFile(whole, tinyModel(t), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join("..", "..", "scripts", "llama-tool"), "llama-gguf-split",
		"--split", "--split-max-tensors", "5", whole, filepath.Join(dir, "tiny"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("llama-gguf-split: %v: %s", err, out)
	}
	return dir, "tiny-00001-of-00003.gguf"
}

// program runs the real main to its end.
func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "benchmark-llm", args...)
	c.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir(), "XDG_STATE_HOME="+t.TempDir())
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// A model in several files is measured by its files, fetched or here, or by their
// headers, as the one that it is.
func TestShards(t *testing.T) {
	dir, first := split(t)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	of := func(weights, model string) result.Record {
		t.Helper()
		code, stdout, stderr := program(t, "run", "--weights", weights, "-m", model, "--models-dir", t.TempDir(),
			"-p", "8", "-n", "2", "-r", "1", "-t", "1")
		records, err := report.ReadRecords(strings.NewReader(stdout))
		if code != exitOK || err != nil || len(records) != 2 {
			t.Fatalf("%s, weights %s: exit code %d, %d records, %v: %s", model, weights, code, len(records), err, stderr)
		}
		return records[0]
	}
	whole := of("file", filepath.Join(dir, "whole.gguf"))
	for _, tt := range []struct {
		model string
		asked string
		used  result.Weights
	}{
		{filepath.Join(dir, first), "file", result.FileWeights},
		{filepath.Join(dir, first), "auto", result.FileWeights},
		{filepath.Join(dir, first), "synthetic", result.SyntheticWeights},
		{server.URL + "/" + first, "synthetic", result.SyntheticWeights},
		{server.URL + "/" + first, "file", result.FileWeights},
		{server.URL + "/" + first, "auto", result.FileWeights},
	} {
		got := of(tt.asked, tt.model)
		if got.ModelSizeBytes != whole.ModelSizeBytes || got.ModelParams != whole.ModelParams || got.ModelType != whole.ModelType ||
			got.Ext.Weights != tt.used || filepath.Base(got.ModelFilename) != first {
			t.Errorf("%s, weights %s: %s of %d bytes, %d parameters, %q, weights %s", tt.model, tt.asked,
				got.ModelFilename, got.ModelSizeBytes, got.ModelParams, got.ModelType, got.Ext.Weights)
		}
	}
	for _, model := range []string{filepath.Join(dir, first), server.URL + "/" + first} {
		if code, stdout, stderr := program(t, "models", "inspect", model); code != exitOK || !strings.Contains(stdout, " in 3 files\n") {
			t.Errorf("%s: exit code %d: %s%s", model, code, stdout, stderr)
		}
	}
}

// Files that are not those of one model are refused before the library sees
// them, here and on a server.
func TestShardsRefused(t *testing.T) {
	dir, first := split(t)
	second, third := "tiny-00002-of-00003.gguf", "tiny-00003-of-00003.gguf"
	for _, tt := range []struct {
		name, model, want string
		from              map[string]string // what each of the files is a copy of
	}{
		{"missing", first, "one of 3 files: ", map[string]string{first: first, third: third}},
		{"twice", first, "file 3 of 3 says that it is file 2", map[string]string{first: first, second: second, third: second}},
		{"cyclic", first, "file 2 of 3 says that it is file 1", map[string]string{first: first, second: first, third: first}},
		{"in another order", first, "file 2 of 3 says that it is file 3", map[string]string{first: first, second: third, third: second}},
		{"one of no several", first, "file 2 of 3 is one of 1 by its header", map[string]string{first: first, second: "whole.gguf", third: third}},
		{"not the first", second, "is not the first of its 3 files", map[string]string{first: first, second: second, third: third}},
		{"another name", "tiny.gguf", "does not end in -00001-of-00003.gguf", map[string]string{"tiny.gguf": first, second: second, third: third}},
		{"another count", "tiny-00001-of-00002.gguf", "one of 3 files by its header, and of 2 by its name", map[string]string{"tiny-00001-of-00002.gguf": first}},
		{"cut", first, "\"blk.0.ffn_down.weight\" ends at byte ", map[string]string{first: first, second: "cut.gguf", third: third}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			here := t.TempDir()
			for to, from := range tt.from {
				if from == "cut.gguf" {
					from = second
				}
				b, err := os.ReadFile(filepath.Join(dir, from))
				if err != nil {
					t.Fatal(err)
				}
				if tt.from[to] == "cut.gguf" {
					b = b[:len(b)-1000]
				}
				if err := os.WriteFile(filepath.Join(here, to), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			server := httptest.NewServer(http.FileServer(http.Dir(here)))
			defer server.Close()
			for _, args := range [][]string{
				{"run", "--weights", "file", "-m", filepath.Join(here, tt.model)},
				{"models", "inspect", filepath.Join(here, tt.model)},
				{"models", "inspect", server.URL + "/" + tt.model},
				{"run", "--weights", "synthetic", "-m", server.URL + "/" + tt.model, "--models-dir", t.TempDir()},
			} {
				code, stdout, stderr := program(t, args...)
				if code != exitModel || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 2 {
					t.Errorf("%v: exit code %d, want %q: %s%s", args, code, tt.want, stdout, stderr)
				}
			}
			if tt.model == "tiny.gguf" { // by its name a single file, and so fetched before it is looked into
				return
			}
			models := t.TempDir()
			code, stdout, stderr := program(t, "run", "--weights", "file", "-m", server.URL+"/"+tt.model, "--models-dir", models)
			_, verdict, _ := strings.Cut("\n"+stderr, "\nbenchmark-llm: ")
			if code != exitModel || stdout != "" || !strings.Contains(verdict, tt.want) || strings.Count(verdict, "\n") != 2 || !strings.Contains(verdict, "\nhint: ") {
				t.Errorf("fetched: exit code %d, want %q: %s%s", code, tt.want, stdout, stderr)
			}
			if left, err := os.ReadDir(models); err != nil || len(left) > 0 {
				t.Errorf("fetched: %v, %v", left, err)
			}
		})
	}
}

// A run that ends between two files of its model goes on with the rest of them.
func TestShardsResumed(t *testing.T) {
	dir, first := split(t)
	const third = "tiny-00003-of-00003.gguf"
	files := http.FileServer(http.Dir(dir))
	reached := make(chan struct{})
	var mu sync.Mutex
	fetches := make(map[string]int) // of more than a header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") {
			mu.Lock()
			fetches[path.Base(r.URL.Path)]++
			n = fetches[path.Base(r.URL.Path)]
			mu.Unlock()
		}
		if path.Base(r.URL.Path) == third && n == 1 {
			close(reached)
			<-r.Context().Done()
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	models := t.TempDir()
	r := fetched(t, models, server.URL+"/"+first)
	select {
	case <-reached:
	case <-t.Context().Done():
	}
	r.kill(r.Process.Pid, syscall.SIGINT)
	if code := r.exitCode(); code != exitSignal+int(syscall.SIGINT) || !strings.Contains(r.stderr.String(), "--resume") {
		t.Fatalf("exit code %d: %s", code, r.stderr.String())
	}
	if _, err := os.Stat(filepath.Join(models, "tiny-00002-of-00003.gguf")); err != nil {
		t.Errorf("what was fetched is gone: %v", err)
	}
	runs, err := filepath.Glob(filepath.Join(r.results, "*"))
	if err != nil || len(runs) != 1 {
		t.Fatalf("runs %v, %v", runs, err)
	}
	code, stdout, stderr := program(t, "run", "--resume", runs[0])
	records, err := report.ReadRecords(strings.NewReader(stdout))
	if code != exitOK || err != nil || len(records) != 1 {
		t.Fatalf("exit code %d, %d records, %v: %s", code, len(records), err, stderr)
	}
	if got := records[0]; got.ModelFilename != filepath.Join(models, first) || got.Ext.Weights != result.FileWeights {
		t.Errorf("record of %s with weights %s", got.ModelFilename, got.Ext.Weights)
	}
	if diff := cmp.Diff(map[string]int{first: 1, "tiny-00002-of-00003.gguf": 1, third: 2}, fetches); diff != "" {
		t.Errorf("fetches (-want +got):\n%s", diff)
	}
}
