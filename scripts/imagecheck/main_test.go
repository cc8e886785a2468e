package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForbidden(t *testing.T) {
	for path, want := range map[string]string{
		"usr/lib/x86_64-linux-gnu/libcuda.so.1":                   "driver",
		"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01":     "driver",
		"usr/lib/x86_64-linux-gnu/libcudart.so.12":                "",
		"usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cuda.so": "",
		"usr/bin/gcc":                         "compiler",
		"usr/bin/x86_64-linux-gnu-gcc-16":     "compiler",
		"usr/bin/ld":                          "compiler",
		"usr/lib/go-1.27/bin/go":              "compiler",
		"usr/include/llama.h":                 "compiler",
		"usr/include/clang/21/include":        "", // a link of libclang-common, which ROCm's libamd-comgr needs
		"usr/bin/gpgv":                        "",
		"usr/local/bin/benchmark-llm":         "",
		"var/cache/apt/pkgcache.bin":          "cache",
		"var/cache/apt/archives/lock":         "",
		"var/lib/apt/lists/x_Packages":        "cache",
		"root/.cache/go-build/trim.txt":       "cache",
		"tmp/driver.deb":                      "cache",
		"usr/share/doc/libcublas12/copyright": "",
		"usr/share/doc/libgomp1":              "", // a link to another package's licence
		"usr/share/doc/gcc/README":            "documentation",
		"usr/share/man/man1/ls.1.gz":          "documentation",

		"usr/share/man/man1/benchmark-llm-run.1.gz": "",
		"usr/share/locale/locale.alias":             "",
	} {
		if got := forbidden(path); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// Every layer is checked, even if a later layer hides its files.
func TestCheckLayers(t *testing.T) {
	clean := []string{"usr/bin/dpkg", "usr/share/doc/dpkg/copyright"}
	for name, test := range map[string]struct {
		layers [][]string
		want   string // part of the error; empty: no error
	}{
		"clean":       {layers: [][]string{clean, {"usr/local/bin/benchmark-llm"}}},
		"none":        {want: "no layer"},
		"driver":      {layers: [][]string{clean, {"usr/lib/libcuda.so.1"}, {"usr/lib/.wh.libcuda.so.1"}}, want: "layer 2 has usr/lib/libcuda.so.1: part of NVIDIA's driver"},
		"only hidden": {layers: [][]string{clean, {"usr/lib/.wh.libcuda.so.1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := checkLayers(&out, writeLayout(t, test.layers), "cpu")
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			case test.want == "" && !strings.Contains(out.String(), "made by step"):
				t.Errorf("no history in\n%s", &out)
			}
		})
	}
}

// writeLayout makes an OCI layout whose layers have empty files.
func writeLayout(t *testing.T, layers [][]string) string {
	t.Helper()
	dir := t.TempDir()
	put := func(content []byte) descriptor {
		sum := sha256.Sum256(content)
		d := descriptor{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(content))}
		write(t, blob(dir, d), content)
		return d
	}
	type history struct {
		CreatedBy  string `json:"created_by"`
		EmptyLayer bool   `json:"empty_layer,omitempty"`
	}
	var descriptors []descriptor
	steps := []history{{"ENTRYPOINT", true}}
	for _, files := range layers {
		var b bytes.Buffer
		zipped := gzip.NewWriter(&b)
		packed := tar.NewWriter(zipped)
		for _, f := range files {
			if err := packed.WriteHeader(&tar.Header{Name: f, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []io.Closer{packed, zipped} {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		descriptors = append(descriptors, put(b.Bytes()))
		steps = append(steps, history{CreatedBy: "made by step"})
	}
	config := put(encode(t, map[string]any{"history": steps}))
	manifest := put(encode(t, map[string]any{"config": config, "layers": descriptors}))
	write(t, filepath.Join(dir, "index.json"), encode(t, map[string]any{"manifests": []descriptor{manifest}}))
	return dir
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

const record = `{"model_filename":"m.gguf","n_prompt":16,"n_gen":0,"n_threads":2,"avg_ts":12.5,"samples_ns":[1,2],"samples_ts":[1,2],"ext":{"schema":1,"cpu_variant":"zen4"}}` + "\n"

func TestRecords(t *testing.T) {
	for name, test := range map[string]struct {
		stdout string
		want   string
	}{
		"good":        {stdout: record + record},
		"empty":       {want: "no record"},
		"blank line":  {stdout: record + "\n", want: "2 lines and 1 records"},
		"cut":         {stdout: strings.TrimSuffix(record, "\n"), want: "0 lines and 1 records"},
		"log":         {stdout: "hello\n" + record, want: "line 1"},
		"no measures": {stdout: strings.Replace(record, "12.5", "0", 1), want: "no measurement"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "stdout")
			write(t, path, []byte(test.stdout))
			_, err := recordsOf(path)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// Only measured values may differ.
func TestSame(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write(t, path("a"), []byte(record))
	write(t, path("faster"), []byte(strings.Replace(record, "12.5", "25", 1)))
	write(t, path("variant"), []byte(strings.Replace(record, "zen4", "haswell", 1)))
	write(t, path("threads"), []byte(strings.Replace(record, `"n_threads":2`, `"n_threads":1`, 1)))
	write(t, path("more"), []byte(record+record))
	got := map[string]bool{}
	for _, other := range []string{"a", "faster", "variant", "threads", "more"} {
		got[other] = same(path("a"), path(other)) == nil
	}
	if diff := cmp.Diff(map[string]bool{"a": true, "faster": true, "variant": false, "threads": false, "more": false}, got); diff != "" {
		t.Error(diff)
	}
}
