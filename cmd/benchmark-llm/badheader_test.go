//go:build cgo

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// raw is a header as nobody should write it.
type raw struct{ bytes.Buffer }

// put appends numbers as they are, and strings with their length before them.
func (r *raw) put(values ...any) *raw {
	for _, v := range values {
		if s, ok := v.(string); ok {
			r.put(uint64(len(s)))
			r.WriteString(s)
			continue
		}
		if err := binary.Write(r, binary.LittleEndian, v); err != nil {
			panic(err) // a value of no fixed size: a mistake in this file
		}
	}
	return r
}

// counted begins a header that says how much it has. Its architecture is the
// first of its keys.
func counted(tensors, moreKeys uint64) *raw {
	r := &raw{}
	r.WriteString("GGUF")
	return r.put(uint32(3), tensors, moreKeys+1, "general.architecture", uint32(8), "llama")
}

// tensors is a header with these tensors: name, row length, rows, type, offset.
func tensors(all ...[5]any) *raw {
	r := counted(uint64(len(all)), 0)
	for _, t := range all {
		r.put(t[0], uint32(2), t[1], t[2], t[3], t[4])
	}
	return r
}

// model is a header of a model with a layer of 32 wide, and more keys of its
// architecture: name, value.
func model(keys ...any) *raw {
	all := append([]any{
		"context_length", uint32(64), "embedding_length", uint32(32), "attention.head_count", uint32(1),
		"attention.layer_norm_rms_epsilon", float32(1e-5),
	}, keys...)
	seen := make(map[any]int) // the last one counts
	for i := 0; i < len(all); i += 2 {
		seen[all[i]] = i
	}
	r := counted(2, uint64(len(seen))+1)
	for i := 0; i < len(all); i += 2 {
		if seen[all[i]] != i {
			continue
		}
		kind := kvUint32
		switch all[i+1].(type) {
		case string:
			kind = kvString
		case float32:
			kind = kvFloat32
		}
		r.put("llama."+all[i].(string), kind, all[i+1])
	}
	r.put("tokenizer.ggml.model", kvString, "none")
	r.put("token_embd.weight", uint32(2), uint64(32), uint64(64), uint32(gguf.F32), uint64(0))
	return r.put("output_norm.weight", uint32(1), uint64(32), uint32(gguf.F32), uint64(32*64*4))
}

// Types of values in a header.
const (
	kvUint32  = uint32(4)
	kvFloat32 = uint32(6)
	kvString  = uint32(8)
	kvArray   = uint32(9)
	kvUint64  = uint32(10)
)

// Headers that lie are refused with the reason, by every way to them, in bounded
// time and memory, and before the library sees them.
func TestBadHeaders(t *testing.T) {
	const f32, mebibyte = uint32(gguf.F32), int64(1) << 20
	one := func(name string, row, rows uint64, typ uint32, offset uint64) *raw {
		return tensors([5]any{name, row, rows, typ, offset})
	}
	near := uint64(1)<<63 - 1
	for _, tt := range []struct {
		name   string
		header *raw
		size   int64 // of the file, what follows the header being nothing; 0: 1 MiB
		want   string
	}{
		{"tensor beyond the file", one("w", 1024, 1024, f32, 0), mebibyte, `tensor 0 "w" ends at byte 4194432 of a 1048576 byte file`},
		{"last tensor beyond the file", tensors([5]any{"v", uint64(8), uint64(1), f32, uint64(0)}, [5]any{"w", uint64(1024), uint64(1024), f32, uint64(32)}), mebibyte,
			`tensor 1 "w" ends at byte`},
		{"overlapping offsets", tensors([5]any{"v", uint64(64), uint64(1), f32, uint64(0)}, [5]any{"w", uint64(64), uint64(1), f32, uint64(128)}), 0,
			`tensor 1 "w" starts at byte 128 of the data, expected 256`},
		{"the same offset", tensors([5]any{"v", uint64(64), uint64(1), f32, uint64(0)}, [5]any{"w", uint64(64), uint64(1), f32, uint64(0)}), 0,
			`tensor 1 "w" starts at byte 0 of the data, expected 256`},
		{"offset near 2⁶³", one("w", 8, 1, f32, near), 0, `starts at byte 9223372036854775807 of the data, expected 0`},
		{"offset that is not aligned", one("w", 8, 1, f32, 7), 0, `starts at byte 7 of the data, expected 0`},
		{"elements beyond counting", one("w", 1<<40, 1<<40, f32, 0), 0, "more elements than can be counted"},
		{"bytes beyond counting", one("w", 1<<61, 1, f32, 0), 0, "more bytes than can be counted"},
		{"a dimension near 2⁶³", one("w", near, 1, f32, 0), 0, "more bytes than can be counted"},
		{"a dimension of nothing", one("w", 0, 8, f32, 0), 0, `has dimension 0 of 0 elements`},
		{"a billion dimensions", counted(1, 0).put("w", uint32(1e9)), 0, "has 1000000000 dimensions, not 1 to 4"},
		{"no dimensions", counted(1, 0).put("w", uint32(0), f32, uint64(0)), 0, "has 0 dimensions, not 1 to 4"},
		{"half a block", one("w", 100, 1, uint32(gguf.Q4_K), 0), 0, "not a multiple of the 256 in a block of q4_K"},
		{"a billion tensors", counted(1e9, 0), 1 << 40, "1000000000 tensors are more than the limit of 65536"},
		{"tensors near 2⁶³", counted(near, 0), 0, "tensors are more than the limit of 65536"},
		{"more tensors than there are", counted(60000, 0), 1 << 40, `tensor 0 "" has 0 dimensions`},
		{"keys near 2⁶³", counted(0, near-1), 0, "keys are more than the limit of 16384"},
		{"a removed type", one("w", 32, 1, 4, 0), 0, `tensor 0 "w" is of unknown type 4`},
		{"a type of the future", one("w", 32, 1, 200, 0), 0, `tensor 0 "w" is of unknown type 200`},
		{"alignment 0", counted(0, 1).put("general.alignment", kvUint32, uint32(0)), 0, "alignment 0 is not a power of two"},
		{"alignment 48", counted(0, 1).put("general.alignment", kvUint32, uint32(48)), 0, "alignment 48 is not a power of two"},
		{"alignment 2³¹", counted(0, 1).put("general.alignment", kvUint32, uint32(1<<31)), 0, "alignment 2147483648 is more than the limit"},
		{"alignment of 64 bits", counted(0, 1).put("general.alignment", kvUint64, uint64(32)), 0, `"general.alignment" must be a uint32`},
		{"key near 2⁶³", counted(0, 1).put(near), 0, "key 1 has a name of 9223372036854775807 bytes"},
		{"string near 2⁶³", counted(0, 1).put("k", kvString, near), 0, `key 1 "k" ends at byte 9223372036854775897 of a 1048576 byte file`},
		{"tensor name near 2⁶³", counted(1, 0).put(near), 0, "tensor 0 has a name of 9223372036854775807 bytes"},
		{"array near 2⁶³", counted(0, 1).put("k", kvArray, kvUint32, near), 0, `"k" is an array of 9223372036854775807 elements`},
		{"array of 2⁶¹, whose bytes wrap", counted(0, 1).put("k", kvArray, kvUint64, uint64(1)<<61), 0, `"k" is an array of 2305843009213693952 elements`},
		{"strings near 2⁶³", counted(0, 1).put("k", kvArray, kvString, near), 0, `"k" is an array of 9223372036854775807 elements`},
		{"a vocabulary without end", counted(0, 1).put("k", kvArray, kvString, uint64(1)<<36), 1 << 40, "the limit of a header is 134217728"},
		{"arrays of arrays", counted(0, 1).put("k", kvArray, kvArray, near), 0, `"k" is an array of arrays`},
		{"key twice", counted(0, 2).put("k", kvUint32, uint32(1), "k", kvUint32, uint32(1)), 0, `key 2 "k" was already key 1`},
		{"architecture twice", counted(0, 1).put("general.architecture", kvString, "gemma"), 0, `key 1 "general.architecture" was already key 0`},
		{"tensor twice", tensors([5]any{"w", uint64(8), uint64(1), f32, uint64(0)}, [5]any{"w", uint64(8), uint64(1), f32, uint64(32)}), 0, `tensor 1 "w" has the name of tensor 0`},
		{"no layers", model("block_count", uint32(0)), 0, "llama.block_count is 0, not 1 to 512"},
		{"513 layers", model("block_count", uint32(513)), 0, "llama.block_count is 513, not 1 to 512"},
		{"2³¹ layers", model("block_count", uint32(1<<31)), 0, "llama.block_count is 2147483648, not 1 to 512"},
		{"2³²-1 layers", model("block_count", uint32(1<<32-1)), 0, "llama.block_count is 4294967295, not 1 to 512"},
		{"layers to predict", model("block_count", uint32(1), "nextn_predict_layers", uint32(2)), 0, "nextn_predict_layers is 2, more than the 1 of block_count"},
		{"all layers to predict", model("block_count", uint32(1), "nextn_predict_layers", uint32(1)), 0, "nextn_predict_layers equals block_count, 1"},
		{"1025 experts", model("block_count", uint32(1), "expert_count", uint32(1025)), 0, "llama.expert_count is 1025, more than the limit of 1024"},
		{"2³²-1 experts", model("block_count", uint32(1), "expert_count", uint32(1<<32-1)), 0, "llama.expert_count is 4294967295, more than the limit of 1024"},
		{"experts that are not used", model("block_count", uint32(1), "expert_count", uint32(8)), 0, "llama.expert_used_count is 0, of 8 experts"},
		{"2³¹ experts used", model("block_count", uint32(1), "expert_count", uint32(8), "expert_used_count", uint32(1<<31)), 0, "llama.expert_used_count is 2147483648, of 8 experts"},
		{"experts used of none", model("block_count", uint32(1), "expert_used_count", uint32(2)), 0, "llama.expert_used_count is 2, of 0 experts"},
		{"groups of no experts", model("block_count", uint32(1), "expert_group_count", uint32(1)), 0, "llama.expert_group_count is 1, of 0 experts"},
		{"2³¹ heads", model("block_count", uint32(1), "attention.head_count", uint32(1<<31)), 0, "llama.attention.head_count is 2147483648, and no tensor has a dimension above 64"},
		{"2³²-1 heads of the cache", model("block_count", uint32(1), "attention.head_count_kv", uint32(1<<32-1)), 0, "llama.attention.head_count_kv is 4294967295, and no tensor"},
		{"no embeddings", model("block_count", uint32(1), "embedding_length", uint32(0)), 0, "llama.embedding_length is 0"},
		{"2³¹ embeddings", model("block_count", uint32(1), "embedding_length", uint32(1<<31)), 0, "llama.embedding_length is 2147483648, and no tensor"},
		{"2³²-1 tokens", model("block_count", uint32(1), "vocab_size", uint32(1<<32-1)), 0, "llama.vocab_size is 4294967295, and no tensor"},
		{"keys 2³¹ long", model("block_count", uint32(1), "attention.key_length", uint32(1<<31)), 0, "llama.attention.key_length is 2147483648, and no tensor"},
		{"2³²-1 rotated", model("block_count", uint32(1), "rope.dimension_count", uint32(1<<32-1)), 0, "llama.rope.dimension_count is 4294967295, and no tensor"},
		{"positions scaled by nobody knows what", model("block_count", uint32(1), "rope.scaling.type", "su"), 0, `llama.rope.scaling.type is "su", not one of`},
		{"a word twice", counted(0, 2).put("tokenizer.ggml.model", kvString, "gpt2", "tokenizer.ggml.tokens", kvArray, kvString, uint64(3), "a", "b", "a"), 0, `the word "a" is twice in tokenizer.ggml.tokens`},
		{"shards without end", counted(0, 1).put("split.count", kvUint32, uint32(1<<31)), 0, "split.count is 2147483648, more than the limit of 9999"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "bad.gguf")
			if err := os.WriteFile(path, tt.header.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			size := tt.size
			if size == 0 {
				size = mebibyte
			}
			if err := os.Truncate(path, size); err != nil { // sparse
				t.Fatal(err)
			}
			server := httptest.NewServer(http.FileServer(http.Dir(dir)))
			defer server.Close()
			for _, args := range [][]string{
				{"models", "inspect", path},
				{"models", "inspect", server.URL + "/bad.gguf"},
				{"run", "--weights", "file", "-m", path, "--results-dir", dir},
				{"run", "--weights", "synthetic", "-m", server.URL + "/bad.gguf", "--models-dir", dir, "--results-dir", dir},
			} {
				code, stderr, peak := limited(t, args...)
				if code != exitModel || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 2 || !strings.Contains(stderr, "\nhint: ") {
					t.Errorf("%v: exit code %d, want %q: %s", args[:2], code, tt.want, stderr)
				}
				if peak > 256<<20 {
					t.Errorf("%v: took %d MiB of memory", args[:2], peak>>20)
				}
			}
		})
	}
}

// What the library refuses by itself is left to it, up to the limits that it has
// today: it says why, and does not end its process.
func TestHeadersLeftToTheLibrary(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header *raw
		want   string
	}{
		{"most layers", model("block_count", uint32(512), "vocab_size", uint32(64)), "tensor 'blk.0.attn_norm.weight' not found"},
		{"most experts", model("block_count", uint32(1), "vocab_size", uint32(64), "expert_count", uint32(1024), "expert_used_count", uint32(1024)), "tensor 'blk.0.attn_norm.weight' not found"},
		{"groups of experts", model("block_count", uint32(1), "vocab_size", uint32(64), "expert_count", uint32(8), "expert_used_count", uint32(2), "expert_group_count", uint32(4), "expert_group_used_count", uint32(3)), "tensor 'blk.0.attn_norm.weight' not found"},
		{"each kind of scaling", model("block_count", uint32(1), "vocab_size", uint32(64), "rope.scaling.type", "longrope"), "tensor 'blk.0.attn_norm.weight' not found"},
		{"no number of layers", model(), "key not found in model: llama.block_count"},
		{"no heads", model("block_count", uint32(1), "vocab_size", uint32(64), "attention.head_count", uint32(0)), "tensor 'blk.0.attn_norm.weight' not found"},
		{"other embeddings", model("block_count", uint32(1), "vocab_size", uint32(64), "embedding_length", uint32(16)), "tensor 'token_embd.weight' has wrong shape"},
		{"other tokens", model("block_count", uint32(1), "vocab_size", uint32(63)), "tensor 'token_embd.weight' has wrong shape"},
		{"no tokens", model("block_count", uint32(1), "vocab_size", uint32(0)), "tensor 'token_embd.weight' has wrong shape"},
		{"nothing rotated", model("block_count", uint32(1), "vocab_size", uint32(64), "rope.dimension_count", uint32(0)), "invalid n_rot: 0, expected 32"},
		{"keys of no length", model("block_count", uint32(1), "vocab_size", uint32(64), "attention.key_length", uint32(0)), "tensor 'blk.0.attn_norm.weight' not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "odd.gguf")
			if err := os.WriteFile(path, tt.header.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 1<<20); err != nil {
				t.Fatal(err)
			}
			code, stderr, _ := limited(t, "run", "--weights", "file", "-m", path, "-p", "1", "-n", "0", "--results-dir", dir, "--log-level", "error")
			if code != exitModel || !strings.Contains(stderr, "not loaded: ") || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 2 || !strings.Contains(stderr, "\nhint: ") {
				t.Errorf("exit code %d, want %q: %s", code, tt.want, stderr)
			}
		})
	}
}

// limited runs the real main, which the kernel ends when it has computed for 20
// seconds, and returns what it took of memory in bytes.
func limited(t *testing.T, args ...string) (code int, stderr string, peakBytes int64) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `ulimit -t 20; exec benchmark-llm "$@"`, "sh"}, args...)...)
	c.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if out.Len() > 0 {
		t.Errorf("%v: stdout %q", args, out.String())
	}
	return c.ProcessState.ExitCode(), errs.String(), c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
}
