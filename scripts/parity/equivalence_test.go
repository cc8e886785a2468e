//go:build cgo && parity

package main

import (
	"os"
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// The size of a stock depends on the available memory, of which the machine keeps
// three quarters.
func TestNewStock(t *testing.T) {
	const mib = 1 << 20
	gib := func(n uint64) *uint64 { n <<= 30; return &n }
	for _, tt := range []struct {
		size      int
		available *uint64
		want      int // loads
	}{
		{37 * mib, gib(22), 64},
		{103 * mib, gib(22), 54},
		{400 * mib, gib(22), 0}, // 14 loads would be too few
		{4000 * mib, gib(22), 0},
		{37 * mib, gib(1), 0},
		{37 * mib, nil, 0},
	} {
		s, err := newStock(tt.size, tt.available)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if s != nil {
			got = len(s.memory) / tt.size
		}
		if got != tt.want {
			t.Errorf("room for %d loads of %d MiB, want %d", got, tt.size/mib, tt.want)
		}
		s.close()
	}
}

// Each load finds other free pages, and take leaves none free.
func TestStock(t *testing.T) {
	const size = 1 << 20
	available := uint64(4 << 30)
	s, err := newStock(size, &available)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	page := os.Getpagesize()
	free := func() (n int) { // number of pages not in memory
		there := make([]byte, len(s.memory)/page)
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&s.memory[0])), uintptr(len(s.memory)), uintptr(unsafe.Pointer(&there[0])))
		if errno != 0 {
			t.Fatal(errno)
		}
		for _, b := range there {
			if b&1 == 0 {
				n++
			}
		}
		return n
	}
	var before []int
	for round := range 2 {
		if err := s.take(); err != nil {
			t.Fatal(err)
		}
		if n := free(); n != 0 {
			t.Fatalf("round %d: %d are free after all were taken", round, n)
		}
		for load := 1; load <= 3; load++ {
			if err := s.free(); err != nil {
				t.Fatal(err)
			}
			if n := free(); n != load*freeForLoad*size/page {
				t.Errorf("round %d: %d pages are free for load %d, want %d", round, n, load, load*freeForLoad*size/page)
			}
		}
		now := slices.Clone(s.order[:s.freed])
		if slices.Equal(now, before) {
			t.Errorf("round %d frees the same pages as the one before", round)
		}
		before = now
	}
}

// The slices of a test have all its tokens: the prompt in one slice, the generation in
// several.
func TestSlicesOf(t *testing.T) {
	for _, tt := range []struct {
		test   result.Test
		prompt []int // lengths of the slices' prompts
		gen    []int
	}{
		{result.Test{Prompt: 512}, []int{512}, []int{0}},
		{result.Test{Gen: 9}, []int{0, 0, 0}, []int{4, 4, 1}},
		{result.Test{Prompt: 16, Gen: 4}, []int{16, 0}, []int{0, 4}},
	} {
		var prompt, gen []int
		var generated []int32
		for _, s := range slicesOf(tt.test) {
			prompt, gen = append(prompt, len(s.prompt)), append(gen, len(s.gen))
			generated = append(generated, s.gen...)
		}
		if !slices.Equal(prompt, tt.prompt) || !slices.Equal(gen, tt.gen) {
			t.Errorf("%s: prompts of %d and generations of %d tokens, want %d and %d", tt.test, prompt, gen, tt.prompt, tt.gen)
		}
		if diff := cmp.Diff(tokens(tt.test.Gen), append([]int32{}, generated...)); diff != "" {
			t.Errorf("%s generates other tokens: %s", tt.test, diff)
		}
	}
}
