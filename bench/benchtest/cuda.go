//go:build linux && amd64

package benchtest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata/cuda.c
var fakeCUDA []byte

// cudaBackends are where ggml's own CUDA back-end may be, from a package two
// folders below the module: apart, or among the other back-ends.
var cudaBackends = []string{
	"../../third_party/llama.cpp/root/amd64/usr/lib/x86_64-linux-gnu/ggml/cuda-test/libggml-cuda.so",
	"../../third_party/llama.cpp/root/amd64/usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cuda.so",
	"/usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cuda.so",
}

// FakeCUDA is the environment in which a program finds ggml's own CUDA back-end,
// and under it a CUDA that computes nothing: testdata/cuda.c says by which further
// variables it is set. No GPU and none of NVIDIA's libraries are needed.
func FakeCUDA(t testing.TB) (env []string) {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "cuda.c")
	if err := os.WriteFile(source, fakeCUDA, 0o600); err != nil {
		t.Fatal(err)
	}
	nothing := filepath.Join(dir, "nothing.c")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// All of it is in the first; the others are there for those who ask for them.
	var libraries []string
	for _, l := range []struct{ name, source string }{{"libcudart.so.12", source}, {"libcublas.so.12", nothing}, {"libcuda.so.1", nothing}} {
		path := filepath.Join(dir, l.name)
		if out, err := exec.Command("gcc", "-O2", "-shared", "-fPIC", "-Wl,-soname,"+l.name, "-o", path, l.source).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s(sudo apt-get install gcc)", err, out)
		}
		libraries = append(libraries, path)
	}
	for _, path := range cudaBackends {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		backend, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		env = []string{"LD_PRELOAD=" + strings.Join(libraries, " ")}
		if filepath.Base(filepath.Dir(backend)) == "cuda-test" {
			env = append(env, "GGML_BACKEND_PATH="+backend)
		}
		return env
	}
	t.Fatal("ggml's CUDA back-end is not there: scripts/get-llama --cuda-test")
	return nil
}
