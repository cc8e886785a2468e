//go:build cgo && linux && !cpu

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench"
)

// fakeNVML puts a library that answers as NVIDIA's where the run's processes
// find it, with settings for it.
func fakeNVML(t *testing.T, r *faulty, settings ...string) {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command("gcc", "-shared", "-fPIC", "-o", filepath.Join(dir, "libnvidia-ml.so.1"), "../../bench/host/testdata/nvml/nvml.c")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s(sudo apt-get install gcc)", err, out)
	}
	r.Env = append(append(r.Env, "LD_LIBRARY_PATH="+dir), settings...)
}

// A GPU that is there and not used is told loudly: before the run, with every
// record, in the report and at the end.
func TestGPUNotUsed(t *testing.T) {
	t.Parallel()
	const noBackend = "the CUDA back-end (libggml-cuda.so) is not installed"
	for _, tt := range []struct{ name, setting, reason string }{
		{"the CUDA back-end is absent", "NVML_DEVICES=2", noBackend},
		{"the driver's library is broken", "NVML_CODE=18", "the driver's library does not work: libnvidia-ml.so.1 cannot be started: Driver/library version mismatch; " + noBackend},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, "-p", "8", "-n", "0", "-r", "1")
			fakeNVML(t, &r, tt.setting)
			r.start()
			r.over(exitOK)
			line := r.stdout.String()
			for _, want := range []string{`"backends":"CPU"`, `"gpu_info":""`, `"code":"` + bench.GPUNotUsed + `"`, tt.reason} {
				if !strings.Contains(line, want) {
					t.Errorf("the record has no %s: %s", want, line)
				}
			}
			if n := strings.Count(r.stderr.String(), tt.reason); n < 2 {
				t.Errorf("%d times on stderr, want one at the start and one at the end:\n%s", n, r.stderr.String())
			}
			report, err := filepath.Glob(filepath.Join(r.results, "*", "report.md"))
			if err != nil || len(report) != 1 {
				t.Fatalf("reports: %v, %v", report, err)
			}
			if text, err := os.ReadFile(report[0]); err != nil || !strings.Contains(string(text), tt.reason) {
				t.Errorf("not in the report (%v):\n%s", err, text)
			}

			required := newFaulty(t, "--require-gpu", "-p", "8", "-n", "0")
			required.Env = append(r.Env, tt.setting)
			required.start()
			required.over(exitLibrary)
			if log := required.stderr.String(); !strings.HasPrefix(log, "benchmark-llm: no GPU is used: "+tt.reason) {
				t.Errorf("stderr:\n%s", log)
			}
			if dirs, err := os.ReadDir(required.results); err != nil || len(dirs) > 0 {
				t.Errorf("a run was begun: %v, %v", dirs, err)
			}
		})
	}
}

// A required GPU is one that the engine lists, here that of another process, and
// that holds the model.
func TestRequireGPU(t *testing.T) {
	t.Parallel()
	endpoint, _ := rpcServer(t)
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string // on stderr
	}{
		{"it is there", []string{"--rpc", endpoint}, exitOK, ""},
		{"none is", nil, exitLibrary, "benchmark-llm: no GPU is used: the library lists none\n"},
		{"none is wanted", []string{"--n-gpu-layers", "0"}, exitUsage, "benchmark-llm: --require-gpu: "},
	} {
		t.Run(tt.name, func(t *testing.T) { // one after another: a server has one client at a time
			r := newFaulty(t, append([]string{"--require-gpu", "-p", "8", "-n", "0", "-r", "1"}, tt.args...)...)
			r.start()
			r.over(tt.code)
			if log := r.stderr.String(); !strings.HasPrefix(log, tt.want) {
				t.Errorf("stderr:\n%s", log)
			}
			if tt.code == exitOK && !strings.Contains(r.stdout.String(), `"gpu":{"devices":[{"name":"RPC0","model":"`+endpoint+`","layers":31,`) {
				t.Errorf("the record does not name the device:\n%s", r.stdout.String())
			}
		})
	}
}
