//go:build cgo && parity

package main

import "testing"

// Chance has blocks to choose from where memory has room for them, and the machine
// keeps three quarters of it.
func TestNewBlocks(t *testing.T) {
	const mib = 1 << 20
	gib := func(n uint64) *uint64 { n <<= 30; return &n }
	for _, tt := range []struct {
		size      int
		available *uint64
		want      int
	}{
		{37 * mib, gib(22), 64},
		{103 * mib, gib(22), 54},
		{400 * mib, gib(22), 0}, // 14 would be too few
		{4000 * mib, gib(22), 0},
		{37 * mib, gib(1), 0},
		{37 * mib, nil, 0},
	} {
		b := newBlocks(tt.size, tt.available)
		if len(b.taken) != tt.want {
			t.Errorf("%d blocks of %d MiB, want %d", len(b.taken), tt.size/mib, tt.want)
		}
	}
}

// Each load finds others free, and taking again leaves none.
func TestBlocks(t *testing.T) {
	available := uint64(4 << 30)
	b := newBlocks(1<<20, &available)
	free := func() (n int) {
		for _, m := range b.taken {
			if m == nil {
				n++
			}
		}
		return n
	}
	for round := range 2 {
		if err := b.take(); err != nil {
			t.Fatal(err)
		}
		if n := free(); n != 0 {
			t.Fatalf("round %d: %d are free after all were taken", round, n)
		}
		for load := 1; load <= 3; load++ {
			if err := b.free(); err != nil {
				t.Fatal(err)
			}
			if n := free(); n != load*freeForLoad {
				t.Errorf("round %d: %d are free for load %d, want %d", round, n, load, load*freeForLoad)
			}
		}
	}
}
