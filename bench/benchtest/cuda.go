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

// cudaBackends are the places where ggml's CUDA back-end may be, relative to a
// package two folders below the module: beside the other back-ends, or among them.
var cudaBackends = []string{
	"../../third_party/llama.cpp/root/amd64/usr/lib/x86_64-linux-gnu/ggml/cuda-test/libggml-cuda.so",
	"../../third_party/llama.cpp/root/amd64/usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cuda.so",
	"/usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cuda.so",
}

// FakeCUDA returns an environment in which a program finds ggml's CUDA back-end on
// top of a CUDA that computes nothing. testdata/cuda.c lists further variables that
// configure it. It needs no GPU and no libraries of NVIDIA.
//
// ggml decides on the host which kernels a model needs, what it allocates where, and
// when it sees an abort. Tests with FakeCUDA therefore show ggml's real decisions, but
// no result or speed of a GPU.
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
	// The first library has all functions. The back-end also links with the others.
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
	t.Fatal("ggml's CUDA back-end is missing (install it with scripts/get-llama --cuda-test)")
	return nil
}
