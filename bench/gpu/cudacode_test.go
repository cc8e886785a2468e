package gpu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// code is an entry of a fat binary.
type code struct {
	kind uint16
	arch uint32
	isa  Capability
	size int
}

// fatbin is a container as nvcc writes it.
func fatbin(entries ...code) []byte {
	var body []byte
	for _, e := range entries {
		h := make([]byte, 64+e.size)
		binary.LittleEndian.PutUint16(h, e.kind)
		binary.LittleEndian.PutUint32(h[4:], 64)
		binary.LittleEndian.PutUint64(h[8:], uint64(e.size))
		binary.LittleEndian.PutUint16(h[24:], uint16(e.isa.Minor))
		binary.LittleEndian.PutUint16(h[26:], uint16(e.isa.Major))
		binary.LittleEndian.PutUint32(h[28:], e.arch)
		body = append(body, h...)
	}
	h := make([]byte, fatbinHeader, fatbinHeader+len(body))
	binary.LittleEndian.PutUint32(h, fatbinMagic)
	binary.LittleEndian.PutUint16(h[4:], 1)
	binary.LittleEndian.PutUint16(h[6:], fatbinHeader)
	binary.LittleEndian.PutUint64(h[8:], uint64(len(body)))
	return append(h, body...)
}

func TestFatbin(t *testing.T) {
	one := fatbin(code{fatbinPTX, 75, Capability{8, 3}, 8}, code{fatbinMachine, 86, Capability{}, 16}, code{99, 10, Capability{}, 0})
	two := fatbin(code{fatbinPTX, 100, Capability{8, 4}, 24}, code{fatbinMachine, 86, Capability{}, 0})
	whole := append(append(bytes.Clone(one), make([]byte, 16)...), two...)
	got, err := readFatbin(bytes.NewReader(whole), int64(len(whole)))
	want := CUDACode{Machine: []Capability{{8, 6}}, PTX: []Capability{{7, 5}, {10, 0}}, ISA: Capability{8, 4}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for name, broken := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-1], "text": bytes.Repeat([]byte("text"), 20), "zeros": make([]byte, 64), "no entries": fatbin(),
	} {
		if c, err := readFatbin(bytes.NewReader(broken), int64(len(broken))); !errors.Is(err, errFatbin) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if _, err := readCUDACode(os.Args[0]); !errors.Is(err, errFatbin) {
		t.Errorf("a program without code for GPUs: %v", err)
	}
}

func FuzzReadFatbin(f *testing.F) {
	f.Add(fatbin(code{fatbinPTX, 75, Capability{8, 4}, 8}, code{fatbinMachine, 86, Capability{}, 16}))
	f.Add([]byte{0x50, 0xED, 0x55, 0xBA})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readFatbin(bytes.NewReader(b), int64(len(b)))
		if err == nil && len(c.Machine)+len(c.PTX) == 0 {
			t.Error("neither code nor an error")
		}
	})
}

func TestCUDACode(t *testing.T) {
	packaged := CUDACode{ // Debian's libggml-cuda.so
		Machine: []Capability{{8, 6}, {8, 9}},
		PTX:     []Capability{{5, 0}, {6, 1}, {7, 0}, {7, 5}, {8, 0}, {9, 0}},
		ISA:     Capability{8, 4},
	}
	for _, tt := range []struct {
		gpu              Capability
		native, compiles bool
	}{
		{Capability{8, 6}, true, true}, {Capability{8, 7}, true, true}, {Capability{8, 9}, true, true},
		{Capability{7, 5}, false, true}, {Capability{8, 0}, false, true}, {Capability{9, 0}, false, true},
		{Capability{10, 0}, false, true}, {Capability{3, 5}, false, false},
	} {
		if packaged.Native(tt.gpu) != tt.native || packaged.Compiles(tt.gpu) != tt.compiles {
			t.Errorf("%v: native %v, compiles %v", tt.gpu, packaged.Native(tt.gpu), packaged.Compiles(tt.gpu))
		}
	}
	for isa, want := range map[Capability]Capability{{7, 8}: {11, 8}, {8, 4}: {12, 4}, {8, 5}: {12, 5}, {8, 7}: {12, 8}, {9, 0}: {13, 0}, {6, 5}: {}, {0, 0}: {}} {
		if got, _ := (CUDACode{ISA: isa}).Driver(); got != want {
			t.Errorf("PTX %v needs CUDA %v, want %v", isa, got, want)
		}
	}
	for text, want := range map[string]bool{"8.9": true, "12.10": true, "": false, "8": false, "x.y": false, "-1.0": false} {
		if c, ok := parseCapability(text); ok != want {
			t.Errorf("%q: %v, %v", text, c, ok)
		}
	}
}
