//go:build cgo && linux && (amd64 || arm64) && !cpu

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// A module that GGML_BACKEND_PATH names takes the place of the one beside the library, and
// the log and every record say so.
func TestNamedBackend(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	named := filepath.Join(dir, "libggml-vulkan.so")
	ours, err := filepath.Glob("../../third_party/llama.cpp/root/" + runtime.GOARCH + "/usr/lib/*/ggml/backends0/libggml-vulkan.so")
	if err != nil || len(ours) == 0 {
		t.Fatalf("ggml's Vulkan back-end is missing (install it with scripts/get-llama): %v", err)
	}
	path, err := filepath.Abs(ours[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, named); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		path    string
		devices []string
		log     string
		problem string // part
	}{
		{"it has a module's name", named, []string{"Vulkan0"}, "INF the back-end that GGML_BACKEND_PATH names is used file=" + named, ""},
		{"it is another", "/nowhere/libggml-foo.so", []string{"Vulkan0"}, "WRN the back-end that GGML_BACKEND_PATH names is not used file=/nowhere/libggml-foo.so", "cannot open shared object file"},
		{"it is missing", dir + "/none/libggml-vulkan.so", nil, "WRN the back-end that GGML_BACKEND_PATH names is not used file=" + dir, "cannot open shared object file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			output := func(args ...string) (stdout, stderr string) {
				r := newFaulty(t)
				r.Args = append([]string{"benchmark-llm"}, args...)
				r.Env = append(append(r.Env, benchtest.Lavapipe(t, 1)...), "GGML_BACKEND_PATH="+tt.path)
				r.start()
				r.over(exitOK)
				return r.stdout.String(), r.stderr.String()
			}
			out, log := output("devices")
			var listed []string
			for line := range strings.Lines(out) {
				if name := strings.Fields(line)[0]; strings.HasPrefix(name, "Vulkan") {
					listed = append(listed, name)
				}
			}
			if diff := cmp.Diff(tt.devices, listed); diff != "" || !strings.Contains(log, tt.log) {
				t.Errorf("devices\n%s%s", diff, log)
			}
			out, log = output("run", "-m", synth.Tiny, "--weights", "synthetic", "-p", "8", "-n", "0", "-r", "1", "--results-dir", t.TempDir())
			var rec result.Record
			if err := json.Unmarshal([]byte(out), &rec); err != nil {
				t.Fatalf("%v in %q", err, out)
			}
			if n := rec.Ext.NamedBackend; n == nil || n.Path != tt.path || !strings.Contains(n.Problem, tt.problem) || (n.Problem == "") != (tt.problem == "") || !strings.Contains(log, tt.log) {
				t.Errorf("%+v\n%s", n, log)
			}
			if (rec.Backends == "Vulkan") != (tt.devices != nil) {
				t.Errorf("measured on %s", rec.Backends)
			}
		})
	}
}
