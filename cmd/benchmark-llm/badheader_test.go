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

// Types of values in a header.
const (
	kvUint32 = uint32(4)
	kvString = uint32(8)
	kvArray  = uint32(9)
	kvUint64 = uint32(10)
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
		{"key near 2⁶³", counted(0, 1).put(near), 0, "key 1 has a string of 9223372036854775807 bytes"},
		{"string near 2⁶³", counted(0, 1).put("k", kvString, near), 0, `key 1 "k" has a string of 9223372036854775807 bytes`},
		{"tensor name near 2⁶³", counted(1, 0).put(near), 0, "tensor 0 has a string of 9223372036854775807 bytes"},
		{"array near 2⁶³", counted(0, 1).put("k", kvArray, kvUint32, near), 0, `"k" is an array of 9223372036854775807 elements`},
		{"array of 2⁶¹, whose bytes wrap", counted(0, 1).put("k", kvArray, kvUint64, uint64(1)<<61), 0, `"k" is an array of 2305843009213693952 elements`},
		{"strings near 2⁶³", counted(0, 1).put("k", kvArray, kvString, near), 0, `"k" is an array of 9223372036854775807 elements`},
		{"a vocabulary without end", counted(0, 1).put("k", kvArray, kvString, uint64(1)<<36), 1 << 40, "the limit of a header is 134217728"},
		{"arrays of arrays", counted(0, 1).put("k", kvArray, kvArray, near), 0, `"k" is an array of arrays`},
		{"key twice", counted(0, 2).put("k", kvUint32, uint32(1), "k", kvUint32, uint32(1)), 0, `key 2 "k" was already key 1`},
		{"architecture twice", counted(0, 1).put("general.architecture", kvString, "gemma"), 0, `key 1 "general.architecture" was already key 0`},
		{"tensor twice", tensors([5]any{"w", uint64(8), uint64(1), f32, uint64(0)}, [5]any{"w", uint64(8), uint64(1), f32, uint64(32)}), 0, `tensor 1 "w" has the name of tensor 0`},
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
