package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// TestPlanRemote plans models that only a server knows: their headers are read,
// and what the server refuses is said in its row.
func TestPlanRemote(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	shape, err := synth.Lookup("SmolLM-135M.Q4_K_M.gguf")
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
		switch r.URL.Path {
		case "/small.gguf": // a body that ends after the header: nothing behind it may be asked for
			w.Header().Set("Content-Length", strconv.FormatInt(file.Size(), 10))
			_, _ = w.Write(header)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	output := func(args ...string) string {
		cmd := newPlanCommand(&globalOptions{logLevel: "error", logFormat: "text"})
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{
			"--model-urls", server.URL + "/gone.gguf?token=secret", "--model-urls", server.URL + "/small.gguf",
			"--models-dir", t.TempDir(), "-p", "512", "-n", "0",
		}, args...))
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}

	var p acquire.Plan
	if err := json.Unmarshal([]byte(output("-o", "json")), &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Models) != 2 {
		t.Fatalf("%+v", p)
	}
	gone, small := p.Models[0], p.Models[1]
	if gone.SizeBytes != 0 || gone.Disk != acquire.Unknown || gone.InMemory != acquire.Unknown || gone.Memory != nil || len(gone.Notes) != 1 ||
		!strings.HasPrefix(gone.Notes[0], "size unknown: ") || !strings.Contains(gone.Notes[0], "404") {
		t.Errorf("%+v", gone)
	}
	if small.SizeBytes != file.TensorBytes() || small.DownloadBytes != file.Size() || small.Disk == acquire.Unknown || small.About ||
		small.InMemory != acquire.Fits || small.Source != server.URL+"/small.gguf" {
		t.Errorf("%+v", small)
	}
	if p.UnknownSizes != 1 || p.DownloadBytes != file.Size() || p.UpperBoundSeconds == nil || *p.UpperBoundSeconds > 300 {
		t.Errorf("%+v", p)
	}

	text := output()
	for _, want := range []string{"\ngone.gguf: size unknown: ", ", without downloads and without 1 model of unknown size;", ": unknown\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("a secret in\n%s", text)
	}
}

// A model in several files is planned as one, of which those that are here need
// not be fetched.
func TestPlanShards(t *testing.T) {
	files := shardsOf(t, 3)
	url, _, _ := serve(t, files)
	models := t.TempDir()
	here := filepath.Join(models, "big-00002-of-00003.gguf")
	second := files[filepath.Base(here)]
	if err := os.WriteFile(here, second.header, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(here, second.size); err != nil { // it takes no room
		t.Fatal(err)
	}
	cmd := newPlanCommand(&globalOptions{logLevel: "error", logFormat: "text"})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"-m", url + "big-00001-of-00003.gguf", "--models-dir", models, "-p", "512", "-n", "0", "-o", "json"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	var p acquire.Plan
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	const tensors = 3 << 30 / 32 * 34
	missing := files["big-00001-of-00003.gguf"].size + files["big-00003-of-00003.gguf"].size
	if m := p.Models[0]; m.SizeBytes != tensors || m.DownloadBytes != missing || p.DownloadBytes != missing || len(m.Notes) > 0 || m.Disk == acquire.Unknown || m.Path != "" {
		t.Errorf("%+v", m)
	}
}
