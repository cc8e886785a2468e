//go:build cgo

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/report"
)

// hub is a hub with repositories of one small model. It answers a request for u/private
// only with the token s3cret.
func hub(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tiny.gguf")
	if out, err := exec.Command("benchmark-llm", "models", "synth", "tiny.Q4_K_M.gguf", "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mux := http.NewServeMux()
	list := func(repository string, files ...string) {
		mux.HandleFunc("/api/models/"+repository+"/tree/main", func(w http.ResponseWriter, r *http.Request) {
			if repository == "u/private" && r.Header.Get("Authorization") != "Bearer s3cret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			var items []string
			for _, f := range files {
				items = append(items, fmt.Sprintf(`{"type":"file","path":%q,"size":1}`, f))
			}
			fmt.Fprintf(w, "[%s]", strings.Join(items, ","))
		})
		for _, f := range files {
			mux.HandleFunc("/"+repository+"/resolve/main/"+f, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
		}
	}
	list("u/r", "tiny-F16.gguf", "tiny-Q4_K_M.gguf", "sub/tiny-Q8_0.gguf")
	list("u/private", "tiny-Q4_K_M.gguf")
	list("u/none", "README.md", "model.safetensors")
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// onHub runs the program with a hub and an empty cache of it.
func onHub(t *testing.T, address string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("benchmark-llm", args...)
	cmd.Env = append(os.Environ(), "HF_ENDPOINT="+address, "HF_HOME="+dir, "HF_HUB_CACHE="+dir, "HF_TOKEN=", "XDG_CACHE_HOME="+dir)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	_ = cmd.Run()
	return out.String(), log.String(), cmd.ProcessState.ExitCode()
}

// -hf alone chooses a file of the repository, as in llama-bench.
func TestRepositoryRuns(t *testing.T) {
	t.Parallel()
	address, dir := hub(t), t.TempDir()
	for args, want := range map[string]string{
		"-hf u/r":                   "tiny-Q4_K_M.gguf",
		"-hf u/r:q8_0":              "tiny-Q8_0.gguf",
		"-m hf:u/r:F16":             "tiny-F16.gguf",
		"-hf u/private -hft s3cret": "tiny-Q4_K_M.gguf",
		"-hf u/r,u/r:F16":           "tiny-Q4_K_M.gguf tiny-F16.gguf",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := onHub(t, address, append(strings.Fields(args), "-p", "4", "-n", "0", "-r", "1", "-t", "1", "-o", "jsonl", "--timeout", "0s", "--results-dir", "none", "--models-dir", filepath.Join(dir, want))...)
			if code != exitOK || strings.Contains(stderr, "s3cret") {
				t.Fatalf("exit code %d\n%s", code, stderr)
			}
			records, err := report.ReadRecords(strings.NewReader(stdout))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range records {
				got = append(got, filepath.Base(r.ModelFilename))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("measured %s", got)
			}
		})
	}
}

// A repository of which no file can be chosen is one line and a hint.
func TestRepositoryRefused(t *testing.T) {
	t.Parallel()
	address := hub(t)
	for args, want := range map[string]string{
		"plan -hf u/none":                    "3 benchmark-llm: hf:u/none: the repository has no GGUF file of a model\nhint: choose a repository of GGUF files; the names of many end in -GGUF\n",
		"plan -hf u/r:Q9_9":                  "3 benchmark-llm: hf:u/r has no Q9_9, but F16, Q4_K_M, Q8_0\nhint: give one of them: -hf u/r:F16\n",
		"run -hf u/missing":                  "3 benchmark-llm: HUB/api/models/u/missing/tree/main: 404 not found: no such repository or revision\nhint: check the repository and the revision\n",
		"run -hf u/private":                  "3 benchmark-llm: HUB/api/models/u/private/tree/main: 401 unauthorized: the repository is private, gated or does not exist; set HF_TOKEN if you have access\nhint: set HF_TOKEN to a token that may read the file\n",
		"run -hf u/r --offline":              "3 benchmark-llm: hf:u/r: HF_HUB_OFFLINE is set, and the hub's cache has no file of the repository\nhint: unset HF_HUB_OFFLINE, or give the path of a file\n",
		"run -hf u":                          "3 benchmark-llm: bad model source: hf:u: expected hf:user/repository/file[@revision]\nhint: " + sourcesHint + "\n",
		"run -hf u/r:Q4!":                    "3 benchmark-llm: bad model source: hf:u/r:Q4!: \"Q4!\" is no quantisation\nhint: " + sourcesHint + "\n",
		"run -hf u/r,u/none -hff a.gguf":     "2 benchmark-llm: there is no -hf, -hfr, --hf-repo; in llama-bench it names a repository on Hugging Face\nhint: give as many files with --hf-file as repositories, or none\n",
		"models inspect hf:u/none":           "3 benchmark-llm: hf:u/none: the repository has no GGUF file of a model\nhint: choose a repository of GGUF files; the names of many end in -GGUF\n",
		"estimate hf:u/none":                 "3 benchmark-llm: hf:u/none: the repository has no GGUF file of a model\nhint: choose a repository of GGUF files; the names of many end in -GGUF\n",
		"models synth hf:u/none -o /dev/nul": "3 benchmark-llm: hf:u/none: the repository has no GGUF file of a model\nhint: choose a repository of GGUF files; the names of many end in -GGUF\n",
	} {
		stdout, stderr, code := onHub(t, address, append(strings.Fields(args), "--log-level", "warn")...)
		if got := fmt.Sprint(code, " ", strings.ReplaceAll(stderr, address, "HUB")); got != want || stdout != "" {
			t.Errorf("%s:\n%swant\n%s", args, got, want)
		}
	}
}
