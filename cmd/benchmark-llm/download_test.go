//go:build cgo

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// served is a server of one model and of errors.
func served(t *testing.T) (address, name string) {
	t.Helper()
	name = synth.Names()[0]
	shape, err := synth.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	model, err := synth.New(shape, 1, llamacpp.Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := synth.WriteFile(t.Context(), path, model); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	mux.HandleFunc("/gated.gguf", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	mux.HandleFunc("/page.gguf", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>no model")) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, name
}

// fetched is a run of weights from a file.
func fetched(t *testing.T, models, source string) *run {
	t.Helper()
	r := newRun(t, "--weights", "file", "-m", source, "--models-dir", models, "-p", "16", "-n", "0", "-r", "1")
	r.start()
	return r
}

// A model is fetched once, into the models directory, and its record has the
// name that readers join on.
func TestFetchedModelRuns(t *testing.T) {
	server, name := served(t)
	models := t.TempDir()
	for try, fetches := range []bool{true, false} {
		r := fetched(t, models, server+"/"+name)
		if code := r.exitCode(); code != 0 {
			t.Fatalf("exit code %d: %s", code, r.stderr.String())
		}
		records, err := report.ReadRecords(&r.stdout)
		if err != nil || len(records) != 1 {
			t.Fatalf("%d records, %v", len(records), err)
		}
		if got := records[0]; filepath.Base(got.ModelFilename) != name || got.Ext.Weights != result.FileWeights || got.ModelSizeBytes != 103_668_480 {
			t.Errorf("record of %s with weights %s and %d bytes", got.ModelFilename, got.Ext.Weights, got.ModelSizeBytes)
		}
		if said := strings.Contains(r.stderr.String(), "100 MiB") || strings.Contains(r.stderr.String(), "99 MiB"); try == 0 && said != fetches {
			t.Errorf("the size of the download was not told: %s", r.stderr.String())
		}
	}
	if _, err := os.Stat(filepath.Join(models, name)); err != nil {
		t.Error(err)
	}
}

// What cannot be fetched is one line and a hint, with the exit code of a bad
// model, and leaves no file that looks like one.
func TestNotFetched(t *testing.T) {
	server, _ := served(t)
	for source, want := range map[string]string{
		server + "/none.gguf":  "check the repository",
		server + "/gated.gguf": "set HF_TOKEN",
		server + "/page.gguf":  "give a path, an https URL",
		"ftp://host/x.gguf":    "give a path, an https URL",
		"hf:user/x.gguf":       "give a path, an https URL",
	} {
		models := t.TempDir()
		r := fetched(t, models, source)
		if code := r.exitCode(); code != exitModel || r.stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, stdout %q", source, code, r.stdout.String())
		}
		out := r.stderr.String()
		if strings.Count(out, "benchmark-llm: ") != 1 || !strings.Contains(out, "hint: "+want) {
			t.Errorf("%s: %s", source, out)
		}
		if left, _ := filepath.Glob(filepath.Join(models, "*.gguf")); len(left) > 0 {
			t.Errorf("%s left %v", source, left)
		}
	}
}
