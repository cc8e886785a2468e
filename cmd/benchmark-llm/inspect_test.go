package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// zeros is a file that begins with a header and goes on with nothing.
type zeros struct {
	header []byte
	size   int64
}

func (z zeros) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(z.header)) {
		copy(p, z.header[off:])
	}
	return len(p), nil
}

// shardsOf are headers of a model in count files of a gigabyte, by name.
func shardsOf(t *testing.T, count int) map[string]zeros {
	t.Helper()
	files := make(map[string]zeros)
	for i := range count {
		kv := []gguf.KeyValue{
			{Key: "split.no", Value: uint16(i)}, {Key: "split.count", Value: uint16(count)}, {Key: "split.tensors.count", Value: int32(count)},
		}
		if i == 0 {
			kv = append(kv, []gguf.KeyValue{
				{Key: "general.architecture", Value: "llama"}, {Key: "llama.block_count", Value: uint32(2)}, {Key: "general.name", Value: "Big"}, {Key: "tokenizer.ggml.model", Value: "none"},
				{Key: "llama.embedding_length", Value: uint32(4096)}, {Key: "llama.attention.head_count", Value: uint32(32)},
				{Key: "tokenizer.ggml.tokens", Value: make([]string, 32000)},
			}...)
		}
		f, err := gguf.New(kv, []gguf.Tensor{{Name: fmt.Sprintf("w%d.weight", i), Dims: []uint64{4096, 1 << 18}, Type: gguf.Q8_0}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := f.Header()
		if err != nil {
			t.Fatal(err)
		}
		files[fmt.Sprintf("big-%05d-of-%05d.gguf", i+1, count)] = zeros{b, f.Size()}
	}
	return files
}

// serve serves files below /models/ and counts what it sends.
func serve(t *testing.T, files map[string]zeros) (url string, sent, asked *atomic.Int64) {
	t.Helper()
	sent, asked = new(atomic.Int64), new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		f, ok := files[path.Base(r.URL.Path)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(counting{w, sent}, r, "", time.Time{}, io.NewSectionReader(f, 0, f.size))
	}))
	t.Cleanup(server.Close)
	return server.URL + "/models/", sent, asked
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// runModels runs a command of models in this process.
func runModels(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newModelsCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err = cmd.Execute()
	return out.String(), err
}

func TestInspectURLInShards(t *testing.T) {
	files := shardsOf(t, 3)
	url, sent, _ := serve(t, files)
	out, err := runModels(t, "inspect", url+"big-00001-of-00003.gguf", "-o", "json", "-p", "512", "-n", "0,128")
	if err != nil {
		t.Fatal(err)
	}
	var got acquire.Inspection
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	got.Available, got.Devices, got.DevicesFree = nil, nil, nil
	const elements = 3 << 30
	want := acquire.Inspection{
		Model: "big-00001-of-00003.gguf", Name: "Big", Architecture: "llama", Params: elements, TensorBytes: elements / 32 * 34,
		Files: 3, HeaderBytes: got.HeaderBytes, Layers: 2, Embedding: 4096, Vocabulary: 32000,
		Token: gguf.Work{WeightBytes: elements / 32 * 34, CacheBytes: 2 * 4096 * 2 * 2, Operations: 2 * elements, AttentionOps: 2 * 4096 * 2 * 2},
		Types: []acquire.TypeSum{{Type: gguf.Q8_0, Tensors: 3, Elements: elements, Bytes: elements / 32 * 34}},
	}
	for _, f := range files {
		want.FileBytes += f.size
	}
	for _, n := range []uint64{256, 512} {
		want.Memory = append(want.Memory, gguf.Memory{Tokens: n, Cache: n * 2 * 4096 * 2 * 2})
	}
	ignored := cmp.FilterPath(func(p cmp.Path) bool { return slices.Contains([]string{".Compute", ".Weights"}, p.Last().String()) }, cmp.Ignore())
	if diff := cmp.Diff(want, got, ignored); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What connections buffer beside the headers, not the three gigabytes.
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("the server sent %d bytes", n)
	}
}

func TestInspectRefuses(t *testing.T) {
	files := shardsOf(t, 3)
	delete(files, "big-00003-of-00003.gguf")
	files["alone.gguf"] = files["big-00001-of-00003.gguf"]
	cyclic := shardsOf(t, 2)
	files["cyc-00001-of-00002.gguf"] = cyclic["big-00001-of-00002.gguf"]
	files["cyc-00002-of-00002.gguf"] = cyclic["big-00001-of-00002.gguf"]
	files["page.gguf"] = zeros{[]byte("<!DOCTYPE html>"), 1000}
	files["billion.gguf"] = zeros{append([]byte("GGUF\x03\x00\x00\x00"), 0, 0xca, 0x9a, 0x3b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 1 << 40}
	url, _, _ := serve(t, files)
	for _, tt := range []struct{ model, want string }{
		{url + "big-00001-of-00003.gguf", "one of 3 files: "},
		{url + "big-00002-of-00003.gguf", "is not the first of its 3 files"},
		{url + "alone.gguf", "does not end in -00001-of-00003.gguf"},
		{url + "cyc-00001-of-00002.gguf", "file 2 of 2 says that it is file 1"},
		{url + "page.gguf", "html page"},
		{url + "billion.gguf", "1000000000 tensors are more than the limit"},
		{url + "none.gguf", "404 not found"},
		{filepath.Join(t.TempDir(), "none.gguf"), "no such model file"},
		{"smollm.gguf", `did you mean "SmolLM-135M.Q4_K_M.gguf"`},
		{"ftp://h/x.gguf", "unknown scheme"},
	} {
		out, err := runModels(t, "inspect", tt.model)
		f, ok := lookup(err)
		if !ok || f.code != exitModel || !strings.Contains(err.Error(), tt.want) || f.hint == "" || out != "" {
			t.Errorf("%s: %v; want %q", tt.model, err, tt.want)
		}
	}
	if _, err := runModels(t, "inspect", "SmolLM-135M.Q4_K_M.gguf", "-o", "xml"); err == nil {
		t.Error("a form that there is not")
	}
}

func TestInspectDefaultModels(t *testing.T) {
	for _, name := range synth.Names() {
		out, err := runModels(t, "inspect", name, "-p", "4096")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{"model         " + name + "\n", "architecture  ", "type  tensors", "q4_K", "\n   4096  ", "fits here"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", name, want, out)
			}
		}
	}
}

// The outline of a model on a server is kept, and serves when the server cannot
// be asked.
func TestKeepOutline(t *testing.T) {
	files := shardsOf(t, 2)
	url, _, asked := serve(t, files)
	dir := filepath.Join(t.TempDir(), "headers")
	model, err := source.Parse(url + "big-00001-of-00002.gguf")
	if err != nil {
		t.Fatal(err)
	}
	kept, outline, err := acquire.KeepOutline(t.Context(), newClient(false), model, dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := synth.ReadHeaderFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(outline, got); diff != "" {
		t.Errorf("outline (-returned +kept):\n%s", diff)
	}
	if n, _ := got.Uint("llama.vocab_size"); n != 32000 || len(got.Tensors) != 2 || got.Shards() != 1 {
		t.Errorf("kept %d tokens, %d tensors, %d shards", n, len(got.Tensors), got.Shards())
	}
	before := asked.Load()
	for name := range files {
		delete(files, name)
	}
	again, _, err := acquire.KeepOutline(t.Context(), newClient(false), model, dir)
	if err != nil || again != kept || asked.Load() == before {
		t.Errorf("kept %s, then %s, %v; %d requests", kept, again, err, asked.Load()-before)
	}
	if _, _, err := acquire.KeepOutline(t.Context(), newClient(false), model.Beside("other.gguf"), dir); err == nil {
		t.Error("kept what there is not")
	}
	stopped, cancel := context.WithCancelCause(t.Context())
	cancel(&signalError{signal: 2})
	if _, _, err := acquire.KeepOutline(stopped, newClient(false), model, dir); err == nil {
		t.Error("a signal was ignored")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left %v", entries)
	}
}
