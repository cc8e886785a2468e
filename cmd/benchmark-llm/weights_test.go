//go:build cgo

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// headerOf is the header of the embedded model, as its file begins.
func headerOf(t *testing.T) zeros {
	t.Helper()
	shape, err := synth.Lookup(embeddedName)
	if err != nil {
		t.Fatal(err)
	}
	f, err := shape.File()
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	return zeros{b, f.Size()}
}

const embeddedName = "SmolLM-135M.Q4_K_M.gguf"

// automatic is a run with --weights auto, in a home of its own.
func automatic(t *testing.T, models string, args ...string) *run {
	t.Helper()
	r := newRun(t, withUsual(args, "--weights", "auto", "--models-dir", models, "-p", "8", "-n", "0", "-r", "1")...)
	r.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(t.TempDir(), "cache"))
	r.start()
	return r
}

// measured checks that a run has one record of the embedded model's shape, with
// its file's name, and returns it.
func measured(t *testing.T, r *run, name string) result.Record {
	t.Helper()
	if code := r.exitCode(); code != exitOK {
		t.Fatalf("exit code %d: %s", code, r.stderr.String())
	}
	records, err := report.ReadRecords(strings.NewReader(r.stdout.String()))
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	rec := records[0]
	if filepath.Base(rec.ModelFilename) != name || rec.ModelSizeBytes != 103_668_480 || rec.ModelParams != 134_515_008 {
		t.Errorf("record of %s, %d bytes, %d parameters", rec.ModelFilename, rec.ModelSizeBytes, rec.ModelParams)
	}
	return rec
}

// generated checks that a record, and every report of its run, say that the
// weights are generated, and why.
func generated(t *testing.T, r *run, rec result.Record, why string) {
	t.Helper()
	if rec.Ext.Weights != result.SyntheticWeights || rec.LoadMode != "none" || rec.UseMmap {
		t.Errorf("weights %s, load mode %s, mapped %v", rec.Ext.Weights, rec.LoadMode, rec.UseMmap)
	}
	said := ""
	for _, w := range rec.Ext.Warnings {
		if w.Code == result.WarnSyntheticWeights {
			said += w.Message
		}
	}
	if !strings.Contains(said, why) {
		t.Errorf("the record says %q, want %q", said, why)
	}
	for what, text := range map[string]string{
		"report.md": r.file("report.md"), "results.jsonl": r.file("results.jsonl"), "events.jsonl": r.file("events.jsonl"), "the log": r.stderr.String(),
	} {
		if !strings.Contains(text, "the weights are synthetic, because the file is not available") {
			t.Errorf("%s does not say that the weights are generated:\n%s", what, text)
		}
	}
}

// With --weights auto a file that is here, or arrives, is used.
func TestAutoUsesTheFile(t *testing.T) {
	server, name := served(t)
	models := t.TempDir()
	for _, source := range []string{server + "/" + name, name} {
		rec := measured(t, automatic(t, models, "-m", source), name)
		if rec.Ext.Weights != result.FileWeights || !rec.UseMmap {
			t.Errorf("%s: weights %s, mapped %v", source, rec.Ext.Weights, rec.UseMmap)
		}
	}
}

// A model whose file cannot be fetched is measured all the same, by its shape or its
// header, and everything says so.
func TestAutoGenerates(t *testing.T) {
	whole := headerOf(t)
	empty := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(empty.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in")) }))
	t.Cleanup(page.Close)
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(whole.size, 10))
		_, _ = w.Write(whole.header)
		for r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 1000))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}))
	t.Cleanup(slow.Close)
	for _, tt := range []struct {
		name, source, why string
		args              []string
	}{
		{"not here", embeddedName, "no such model file", nil},
		{"dead server", dead.URL + "/" + embeddedName, "connection refused", nil},
		{"error of the server", empty.URL + "/" + embeddedName, "404 not found", nil},
		{"a page", page.URL + "/" + embeddedName, "html page", nil},
		{"slow server", slow.URL + "/" + embeddedName, "cannot finish in time", []string{"--download-timeout", "8s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := automatic(t, t.TempDir(), append([]string{"-m", tt.source}, tt.args...)...)
			generated(t, r, measured(t, r, embeddedName), tt.why)
			before, _, _ := strings.Cut(r.stderr.String(), "engine ready")
			n := strings.Count(before, " WRN ") - strings.Count(before, " WRN the machine is busy ")
			if n != 1 {
				t.Errorf("%d warnings of the model before the tests, want one:\n%s", n, before)
			}
		})
	}
}

// Of a suite's models one is here, one here and broken, one's server is dead and
// one's is too slow: all are measured, each with its reason.
func TestAutoSuite(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	here := write("here.gguf", tinyModel(t))
	broken := write(synth.Tiny, tinyModel(t)[:5000])
	suite := write("suite.yaml", fmt.Appendf(nil, `
models:
  - %s
  - %s
  - source: %s/%s
  - %s/none.gguf
prompt: [8]
generation: []
repetitions: 1
`, here, broken, dead.URL, embeddedName, dead.URL))
	r := &run{t: t, results: t.TempDir()}
	r.Cmd = exec.CommandContext(t.Context(), "benchmark-llm", "--suite", suite, "--weights", "auto", "-t", "1",
		"--models-dir", t.TempDir(), "--results-dir", r.results)
	r.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
	r.Stdout, r.Stderr = &r.stdout, &r.stderr
	r.start()
	if code := r.exitCode(); code != exitOK {
		t.Fatalf("exit code %d: %s", code, r.stderr.String())
	}
	records, err := report.ReadRecords(strings.NewReader(r.stdout.String()))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, rec := range records {
		why := ""
		for _, w := range rec.Ext.Warnings {
			if w.Code == result.WarnSyntheticWeights {
				why = w.Message
			}
		}
		got[filepath.Base(rec.ModelFilename)] = string(rec.Ext.Weights) + " " + why
	}
	for name, want := range map[string]string{
		"here.gguf": "file ", synth.Tiny: "ends at byte", embeddedName: "connection refused",
	} {
		if text, ok := got[name]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s: %q, want %q", name, text, want)
		}
	}
	if len(got) != 3 { // of the fourth not even the header can be fetched
		t.Errorf("records %v", got)
	}
	for _, want := range []string{"none.gguf", "there is no header for synthetic weights either", "connection refused"} {
		if !strings.Contains(r.file("report.md"), want) {
			t.Errorf("the report does not have %q:\n%s", want, r.file("report.md"))
		}
	}
}

// A full disk, for the model and for its header: only the header is kept, in the
// user's cache.
func TestAutoWithoutDisk(t *testing.T) {
	files := map[string]zeros{"other.gguf": headerOf(t)}
	url, _, _ := serve(t, files)
	models, why := t.TempDir(), "not enough disk space"
	if err := syscall.Mount("none", models, "tmpfs", 0, "size=4k"); err != nil {
		t.Logf("only root may mount (%v): the directory cannot be written instead", err)
		models, why = "/proc", ""
	} else {
		defer func() {
			if err := syscall.Unmount(models, 0); err != nil {
				t.Error(err)
			}
		}()
		if err := os.WriteFile(filepath.Join(models, "full"), make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := automatic(t, models, "-m", url+"other.gguf")
	generated(t, r, measured(t, r, "other.gguf"), why)
}

// The server had the header, or it is here from an earlier run; then it is gone.
func TestAutoKeepsTheHeader(t *testing.T) {
	whole := headerOf(t)
	var gone atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if gone.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(whole.size, 10))
		_, _ = w.Write(whole.header)
		gone.Store(true)
	}))
	t.Cleanup(server.Close)
	models := t.TempDir()
	for range 2 {
		r := automatic(t, models, "-m", server.URL+"/other.gguf")
		generated(t, r, measured(t, r, "other.gguf"), "404")
	}
}

// A run that is interrupted goes on with the weights that it had, and says so
// again.
func TestAutoResumes(t *testing.T) {
	empty := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(empty.Close)
	r := automatic(t, t.TempDir(), "-m", empty.URL+"/"+embeddedName, "-r", "25")
	r.untilEvent("repetition_done", 2)
	r.kill(r.Process.Pid, syscall.SIGINT)
	if code := r.exitCode(); code == exitOK {
		t.Fatalf("it had ended: %s", r.stdout.String())
	}
	dirs, err := filepath.Glob(filepath.Join(r.results, "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("runs %v, %v", dirs, err)
	}
	before := len(r.events())
	again := &run{t: t, results: r.results}
	again.Cmd = exec.CommandContext(t.Context(), "benchmark-llm", "--resume", dirs[0])
	again.Stdout, again.Stderr = &again.stdout, &again.stderr
	again.start()
	rec := measured(t, again, embeddedName)
	if rec.Ext.Weights != result.SyntheticWeights || rec.LoadMode != "none" || len(rec.SamplesNs) != 25 {
		t.Errorf("weights %s, load mode %s, %d samples", rec.Ext.Weights, rec.LoadMode, len(rec.SamplesNs))
	}
	if !slices.ContainsFunc(rec.Ext.Warnings, func(w result.Warning) bool { return w.Code == result.WarnSyntheticWeights }) {
		t.Errorf("warnings %+v", rec.Ext.Warnings)
	}
	if more := again.events()[before:]; strings.Contains(more, "wait_started") || !strings.Contains(more, `"done":[`) {
		t.Errorf("it did not go on where it was:\n%s", more)
	}
}
