package fetch_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// A model whose weights were not written is told from one that is complete, although its
// header is good.
func TestFindGaps(t *testing.T) {
	const large, count = 256 << 10, 8 // bytes of a tensor, and their number
	model := func(no, of int) *gguf.File {
		kv := []gguf.KeyValue{{Key: "general.architecture", Value: "llama"}}
		if of > 1 {
			kv = append(kv, gguf.KeyValue{Key: "split.no", Value: uint16(no)}, gguf.KeyValue{Key: "split.count", Value: uint16(of)})
		}
		tensors := []gguf.Tensor{{Name: fmt.Sprintf("bias%d", no), Dims: []uint64{1024}}} // zero, as it may be
		for i := range count {
			tensors = append(tensors, gguf.Tensor{Name: fmt.Sprintf("w%d.%d", no, i), Dims: []uint64{64, large / 4 / 64}})
		}
		f, err := gguf.New(kv, tensors)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	random := rand.New(rand.NewPCG(1, 2))
	// write writes a file whose tensors from zeros on are zeros, and from holes on are
	// holes.
	write := func(t *testing.T, f *gguf.File, name string, zeros, holes int) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		content, err := f.Header()
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, make([]byte, 4096)...) // the bias
		for i := range min(count, holes) {
			data := make([]byte, large)
			for k := 0; k < large && i < zeros; k++ {
				data[k] = byte(random.Uint32())
			}
			content = append(content, data...)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, f.Size()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name         string
		zeros, holes int // the first tensor that is
		tensors      int // that may be sampled
		sampled      int
		zero         int
		incomplete   bool
	}{
		{"complete", count, count, 64, count, 0, false},
		{"zeros", 0, count, 64, count, count, true},
		{"half zeros", count / 2, count, 64, count, count / 2, true},
		{"half zeros, few samples", count / 2, count, 2, 2, 1, true},
		{"holes", 0, 0, 64, count, count, true},
		{"the last one is a hole", count, count - 1, 64, count, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := model(0, 1)
			g, err := fetch.FindGaps([]string{write(t, f, "m.gguf", tt.zeros, tt.holes)}, f, tt.tensors)
			if err != nil {
				t.Fatal(err)
			}
			if g.Sampled != tt.sampled || g.Zero != tt.zero || (g.String() != "") != tt.incomplete || g.DataBytes != f.TensorBytes() {
				t.Errorf("%+v: %q", g, g)
			}
			if lost := uint64(count-tt.holes) * large; g.HoleBytes > lost+4096 || tt.holes == count && g.HoleBytes > 0 {
				t.Errorf("%d bytes of holes, %d were not written", g.HoleBytes, lost)
			}
		})
	}
	t.Run("two files", func(t *testing.T) {
		first, second := model(0, 2), model(1, 2)
		merged, err := gguf.Merge([]*gguf.File{first, second})
		if err != nil {
			t.Fatal(err)
		}
		g, err := fetch.FindGaps([]string{write(t, first, "m-00001-of-00002.gguf", count, count), write(t, second, "m-00002-of-00002.gguf", 0, count)}, merged, 64)
		if err != nil || g.Sampled != 2*count || g.Zero != count {
			t.Errorf("%+v, %v", g, err)
		}
	})
	for gaps, want := range map[fetch.Gaps]string{
		{DataBytes: 100 << 20, HoleBytes: 1 << 20, Sampled: 3}:           "", // rows of unused tokens
		{DataBytes: 100 << 20, HoleBytes: 60 << 20, Sampled: 3, Zero: 2}: "60 MiB of 100 MiB of weights are holes in the file, which read as zeros",
		{DataBytes: 100 << 20, Sampled: 30, Zero: 2}:                     "2 of 30 sampled tensors have only zeros",
	} {
		if diff := cmp.Diff(want, gaps.String()); diff != "" {
			t.Error(diff)
		}
	}
}

// Samples leave the rest of a file out of the page cache.
func TestFindGapsReadsLittle(t *testing.T) {
	f, err := gguf.New(nil, []gguf.Tensor{{Name: "w", Dims: []uint64{1024, 8192}}})
	if err != nil {
		t.Fatal(err)
	}
	header, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	content := append(header, bytes.Repeat([]byte{1}, int(f.Size())-len(header))...)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	dropCache(t, path)
	before := cachedPages(t, path) // all of them on a file system in memory
	if _, err := fetch.FindGaps([]string{path}, f, 64); err != nil {
		t.Fatal(err)
	}
	if n := cachedPages(t, path) - before; n > 16 {
		t.Errorf("%d pages of %d were read", n, f.Size()/4096)
	}
}

// dropCache writes a file to the disk and removes it from the page cache.
func dropCache(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// cachedPages is the number of pages of a file in the page cache.
func cachedPages(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(mapped); err != nil {
			t.Error(err)
		}
	}()
	pages := make([]byte, (len(mapped)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}
