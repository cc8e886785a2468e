package gguf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// example is a small header with values of all types.
func example(t testing.TB) *gguf.File {
	t.Helper()
	f, err := gguf.New([]gguf.KeyValue{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.alignment", Value: uint32(64)},
		{Key: "u8", Value: uint8(200)}, {Key: "i8", Value: int8(-8)},
		{Key: "u16", Value: uint16(60000)}, {Key: "i16", Value: int16(-16)},
		{Key: "u32", Value: uint32(4e9)}, {Key: "i32", Value: int32(-32)},
		{Key: "u64", Value: uint64(1 << 63)}, {Key: "i64", Value: int64(-64)},
		{Key: "f32", Value: float32(0.5)}, {Key: "f64", Value: 0.25},
		{Key: "yes", Value: true}, {Key: "no", Value: false},
		{Key: "arr.u8", Value: []uint8{1, 2}}, {Key: "arr.i8", Value: []int8{-1}},
		{Key: "arr.u16", Value: []uint16{3}}, {Key: "arr.i16", Value: []int16{-3}},
		{Key: "arr.u32", Value: []uint32{5}}, {Key: "arr.i32", Value: []int32{-5}},
		{Key: "arr.u64", Value: []uint64{7}}, {Key: "arr.i64", Value: []int64{-7}},
		{Key: "arr.f32", Value: []float32{1.5}}, {Key: "arr.f64", Value: []float64{2.5}},
		{Key: "arr.bool", Value: []bool{true, false}}, {Key: "arr.str", Value: []string{"a", "", "ccc"}},
		{Key: "arr.none", Value: []string{}},
	}, []gguf.Tensor{
		{Name: "token_embd.weight", Dims: []uint64{256, 10}, Type: gguf.Q4_K},
		{Name: "output_norm.weight", Dims: []uint64{7}, Type: gguf.F32},
		{Name: "experts.weight", Dims: []uint64{32, 2, 3, 1}, Type: gguf.Q8_0},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func header(t testing.TB, f *gguf.File) []byte {
	t.Helper()
	b, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	want := example(t)
	b := header(t, want)
	if int64(len(b)) != want.DataOffset {
		t.Errorf("header has %d bytes, data offset is %d", len(b), want.DataOffset)
	}
	for name, r := range map[string]io.Reader{
		"at once":      bytes.NewReader(b),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(b)),
	} {
		got, err := gguf.Read(r, want.Size(), gguf.DefaultLimits)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// ggml 0.27.0's gguf_write_to_file wrote these bytes of a header.
func TestHeaderBytes(t *testing.T) {
	f, err := gguf.New(
		[]gguf.KeyValue{{Key: "a", Value: "xy"}, {Key: "b", Value: []uint16{1, 2}}},
		[]gguf.Tensor{{Name: "w", Dims: []uint64{32, 2}, Type: gguf.Q8_0}})
	if err != nil {
		t.Fatal(err)
	}
	want := []byte("GGUF\x03\x00\x00\x00" +
		"\x01\x00\x00\x00\x00\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x00\x00\x00\x00\x00\x00\x00a\x08\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00xy" +
		"\x01\x00\x00\x00\x00\x00\x00\x00b\x09\x00\x00\x00\x02\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02\x00" +
		"\x01\x00\x00\x00\x00\x00\x00\x00w" + "\x02\x00\x00\x00" + "\x20\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x08\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00")
	want = append(want, make([]byte, 128-len(want))...)
	if diff := cmp.Diff(want, header(t, f)); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if f.DataOffset != 128 || f.Size() != 128+96 { // 68 bytes of data, padded to a multiple of 32
		t.Errorf("data at %d, size %d", f.DataOffset, f.Size())
	}
}

func TestFacts(t *testing.T) {
	f := example(t)
	if got := f.Architecture(); got != "llama" {
		t.Errorf("architecture %q", got)
	}
	if got, want := f.Params(), uint64(2560+7+192); got != want {
		t.Errorf("%d parameters, want %d", got, want)
	}
	if got, want := f.TensorBytes(), uint64(10*144+28+6*34); got != want {
		t.Errorf("%d tensor bytes, want %d", got, want)
	}
	if want := uint64(10*144 + 32); f.Alignment != 64 || f.Tensors[1].Offset != want {
		t.Errorf("the second tensor is at %d, aligned to %d; want %d, 64", f.Tensors[1].Offset, f.Alignment, want)
	}
	for _, split := range []struct {
		count any
		want  uint64
	}{{nil, 1}, {uint16(0), 1}, {int32(-1), 1}, {uint16(3), 3}} {
		f := gguf.File{KV: []gguf.KeyValue{{Key: "split.count", Value: split.count}}}
		if got := f.Shards(); got != split.want {
			t.Errorf("split.count %v: %d shards, want %d", split.count, got, split.want)
		}
	}
	f.KV = append(f.KV, gguf.KeyValue{Key: "0", Value: int8(0)}, gguf.KeyValue{Key: "+8", Value: int8(8)},
		gguf.KeyValue{Key: "+16", Value: int16(16)}, gguf.KeyValue{Key: "+32", Value: int32(32)}, gguf.KeyValue{Key: "+64", Value: int64(64)})
	for key, want := range map[string]uint64{
		"u8": 200, "u16": 60000, "u32": 4e9, "u64": 1 << 63, "0": 0, "+8": 8, "+16": 16, "+32": 32, "+64": 64,
	} {
		if got, ok := f.Uint(key); !ok || got != want {
			t.Errorf("%s is %d, %v", key, got, ok)
		}
	}
	for _, key := range []string{"i8", "i16", "i32", "i64", "f32", "general.architecture", "missing"} {
		if got, ok := f.Uint(key); ok {
			t.Errorf("%s is %d, but not a non-negative integer", key, got)
		}
	}
	if (&gguf.File{}).Architecture() != "" {
		t.Error("architecture of nothing")
	}
}

func TestVocabulary(t *testing.T) {
	words := func(v any) gguf.KeyValue { return gguf.KeyValue{Key: "tokenizer.ggml.tokens", Value: v} }
	arch := gguf.KeyValue{Key: "general.architecture", Value: "llama"}
	size := gguf.KeyValue{Key: "llama.vocab_size", Value: uint32(7)}
	rows := func(name string, dims ...uint64) []gguf.Tensor { return []gguf.Tensor{{Name: name, Dims: dims}} }
	for name, tt := range map[string]struct {
		kv      []gguf.KeyValue
		tensors []gguf.Tensor
		want    uint64
	}{
		"words":           {[]gguf.KeyValue{arch, size, words([]string{"a", "b"})}, rows("token_embd.weight", 64, 5), 2},
		"skipped words":   {[]gguf.KeyValue{arch, size, words(gguf.Skipped{Len: 9000})}, rows("token_embd.weight", 64, 5), 9000},
		"the key":         {[]gguf.KeyValue{arch, size}, rows("token_embd.weight", 64, 5), 7},
		"rows":            {[]gguf.KeyValue{arch}, rows("token_embd.weight", 64, 5), 5},
		"a single row":    {[]gguf.KeyValue{arch}, rows("token_embd.weight", 64), 0},
		"another tensor":  {[]gguf.KeyValue{arch}, rows("output.weight", 64, 5), 0},
		"nothing says it": {nil, nil, 0},
	} {
		f := gguf.File{KV: tt.kv, Tensors: tt.tensors}
		if got := f.Vocabulary(); got != tt.want {
			t.Errorf("%s: %d tokens, want %d", name, got, tt.want)
		}
	}
}

func TestLongArraysAreSkipped(t *testing.T) {
	f, err := gguf.New([]gguf.KeyValue{
		{Key: "tokens", Value: strings.Split(strings.Repeat("word ", 5000), " ")},
		{Key: "scores", Value: make([]float32, 5000)},
		{Key: "after", Value: "here"},
		{Key: "kept", Value: make([]uint8, 1024)},
		{Key: "last", Value: make([]uint8, 1025)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := gguf.Read(bytes.NewReader(header(t, f)), f.Size(), gguf.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	want := []gguf.KeyValue{
		{Key: "tokens", Value: gguf.Skipped{Len: 5001}},
		{Key: "scores", Value: gguf.Skipped{Len: 5000}},
		{Key: "after", Value: "here"},
		{Key: "kept", Value: make([]uint8, 1024)},
		{Key: "last", Value: gguf.Skipped{Len: 1025}},
	}
	if diff := cmp.Diff(want, got.KV); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if _, err := got.Header(); !errors.Is(err, gguf.ErrUnsupported) {
		t.Errorf("writing a skipped array gives %v", err)
	}
	if _, err := gguf.Read(bytes.NewReader(header(t, f)[:f.DataOffset-100]), f.Size(), gguf.DefaultLimits); !errors.Is(err, gguf.ErrTruncated) {
		t.Errorf("a skipped array that is cut gives %v", err)
	}
}

// Reading an array of very many strings stops at the end of the input.
func TestEndlessArray(t *testing.T) {
	in := start(3, 0, 1).put("k", uint32(9), uint32(8), uint64(1<<50), "the only one")
	if _, err := gguf.Read(in, math.MaxInt64, gguf.DefaultLimits); !errors.Is(err, gguf.ErrTruncated) {
		t.Error(err)
	}
}

// raw builds headers, also those that New would refuse.
type raw struct{ bytes.Buffer }

func start(version uint32, tensors, keys uint64) *raw {
	r := &raw{}
	r.WriteString("GGUF")
	return r.put(version, tensors, keys)
}

func (r *raw) put(values ...any) *raw {
	for _, v := range values {
		if s, ok := v.(string); ok {
			r.put(uint64(len(s)))
			r.WriteString(s)
			continue
		}
		if err := binary.Write(r, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return r
}

// tensor is a header with one tensor.
func tensor(name string, dims []uint64, typ uint32, offset uint64) *raw {
	return start(3, 1, 0).put(name, uint32(len(dims)), dims, typ, offset)
}

func TestRefusals(t *testing.T) {
	huge := uint64(math.MaxUint64)
	tests := []struct {
		name string
		in   *raw
		kind error
		text string
	}{
		{"empty", &raw{}, gguf.ErrEmpty, "gguf: the file is empty"},
		{"not gguf", (&raw{}).put(uint64(0x0102030405060708)), gguf.ErrNotGGUF, `gguf: not a gguf file: it starts with "\b\a\x06\x05"`},
		{"half a magic", &raw{*bytes.NewBufferString("GG")}, gguf.ErrTruncated, "gguf: the file ends after 2 bytes, within the magic"},
		{"not safetensors", (&raw{}).put(uint64(1), uint8('x')), gguf.ErrNotGGUF, `gguf: not a gguf file: it starts with "\x01\x00\x00\x00"`},
		{"version 1", start(1, 0, 0), gguf.ErrUnsupported, "gguf: version 1 is not supported, only 2 to 3"},
		{"version 0", start(0, 0, 0), gguf.ErrUnsupported, "gguf: version 0 is not supported, only 2 to 3"},
		{"version 4", start(4, 0, 0), gguf.ErrUnsupported, "gguf: version 4 is not supported, only 2 to 3"},
		{"big endian", start(3<<24, 0, 0), gguf.ErrBigEndian, "gguf: the file is big-endian"},
		{"many keys", start(3, 0, huge), gguf.ErrUnsupported, "gguf: 18446744073709551615 keys are more than the limit of 16384"},
		{"many tensors", start(3, huge, 0), gguf.ErrUnsupported, "gguf: 18446744073709551615 tensors are more than the limit of 65536"},
		{"no counts", (&raw{}).put(uint32(0x46554747), uint32(3)), gguf.ErrTruncated, "gguf: the preamble ends at byte 16 of a 8 byte file"},
		{"no keys", start(3, 0, 1), gguf.ErrTruncated, "gguf: key 0 ends at byte 32 of a 24 byte file"},
		{"empty key", start(3, 0, 1).put("", uint32(0), uint8(1)), gguf.ErrCorrupt, "gguf: key 0 has no name"},
		{"key twice", start(3, 0, 2).put("k", uint32(0), uint8(1), "k", uint32(0), uint8(1)), gguf.ErrCorrupt, `gguf: key 1 "k" was already key 0`},
		{"long key", start(3, 0, 1).put(huge), gguf.ErrUnsupported, "gguf: key 0 has a name of 18446744073709551615 bytes, more than the limit of 1048576, at byte 32"},
		{"unknown value", start(3, 0, 1).put("k", uint32(13)), gguf.ErrCorrupt, `gguf: key 0 "k" has a value of unknown type 13`},
		{"value cut", start(3, 0, 1).put("k", uint32(10), uint32(1)), gguf.ErrTruncated, `gguf: key 0 "k" ends at byte 45 of a 41 byte file`},
		{"unknown element", start(3, 0, 1).put("k", uint32(9), uint32(77), uint64(0)), gguf.ErrCorrupt, `gguf: key 0 "k" is an array of unknown type 77`},
		{"nested array", start(3, 0, 1).put("k", uint32(9), uint32(9), uint64(0)), gguf.ErrUnsupported, `gguf: key 0 "k" is an array of arrays`},
		{"array beyond file", start(3, 0, 1).put("k", uint32(9), uint32(5), uint64(4)), gguf.ErrTruncated, `gguf: key 0 "k" is an array of 4 elements in a 49 byte file`},
		{"array longer than the file", start(3, 0, 1).put("k", uint32(9), uint32(5), uint64(4), uint64(0)), gguf.ErrTruncated, `gguf: key 0 "k" is an array of 4 elements in a 57 byte file`},
		{"array too long to count", start(3, 0, 1).put("k", uint32(9), uint32(10), huge), gguf.ErrTruncated, `gguf: key 0 "k" is an array of 18446744073709551615 elements in a 49 byte file`},
		{"alignment of wrong type", start(3, 0, 1).put("general.alignment", uint32(10), uint64(32)), gguf.ErrCorrupt, `gguf: key "general.alignment" must be a uint32, is a uint64`},
		{"alignment 0", start(3, 0, 1).put("general.alignment", uint32(4), uint32(0)), gguf.ErrCorrupt, "gguf: alignment 0 is not a power of two"},
		{"alignment 48", start(3, 0, 1).put("general.alignment", uint32(4), uint32(48)), gguf.ErrCorrupt, "gguf: alignment 48 is not a power of two"},
		{"alignment 2³¹", start(3, 0, 1).put("general.alignment", uint32(4), uint32(1<<31)), gguf.ErrUnsupported, "gguf: alignment 2147483648 is more than the limit of 1048576 bytes"},
		{"tensor's name cut", start(3, 1, 0).put(uint32(1)), gguf.ErrTruncated, "gguf: tensor 0 ends at byte 32 of a 28 byte file"},
		{"tensor cut", start(3, 1, 0).put("w", uint32(1)), gguf.ErrTruncated, `gguf: tensor 0 "w" ends at byte 45 of a 37 byte file`},
		{"tensor name too long", tensor(strings.Repeat("w", 64), []uint64{1}, 0, 0), gguf.ErrCorrupt, "gguf: tensor 0 has a name of 64 bytes, more than the limit of 63"},
		{"no dimensions", tensor("w", nil, 0, 0), gguf.ErrCorrupt, `gguf: tensor 0 "w" has 0 dimensions, not 1 to 4`},
		{"many dimensions", start(3, 1, 0).put("w", uint32(1e9), make([]uint64, 6)), gguf.ErrCorrupt, `gguf: tensor 0 "w" has 1000000000 dimensions, not 1 to 4`},
		{"dimension 0", tensor("w", []uint64{1, 0}, 0, 0), gguf.ErrCorrupt, `gguf: tensor 0 "w" has dimension 1 of 0 elements`},
		{"elements overflow", tensor("w", []uint64{1 << 32, 1 << 32}, 0, 0), gguf.ErrCorrupt, `gguf: tensor 0 "w" has dimensions [4294967296 4294967296], more elements than can be counted`},
		{"elements beyond counting", tensor("w", []uint64{1 << 63}, uint32(gguf.Q1_0), 0), gguf.ErrCorrupt, `gguf: tensor 0 "w" has dimensions [9223372036854775808], more elements than can be counted`},
		{"bytes beyond counting", tensor("w", []uint64{1 << 62}, uint32(gguf.I16), 0), gguf.ErrCorrupt, `gguf: tensor 0 "w" has dimensions [4611686018427387904], more bytes than can be counted`},
		{"bytes overflow", tensor("w", []uint64{1 << 62}, 28, 0), gguf.ErrCorrupt, `gguf: tensor 0 "w" has dimensions [4611686018427387904], more bytes than can be counted`},
		{"removed type", tensor("w", []uint64{32}, 4, 0), gguf.ErrUnsupported, `gguf: tensor 0 "w" is of unknown type 4`},
		{"future type", tensor("w", []uint64{32}, 1<<31, 0), gguf.ErrUnsupported, `gguf: tensor 0 "w" is of unknown type 2147483648`},
		{"part of a block", tensor("w", []uint64{255, 256}, uint32(gguf.Q4_K), 0), gguf.ErrCorrupt, `gguf: tensor 0 "w" has rows of 255 elements, not a multiple of the 256 in a block of q4_K`},
		{"offset", tensor("w", []uint64{1}, 0, 32), gguf.ErrCorrupt, `gguf: tensor 0 "w" starts at byte 32 of the data, expected 0`},
		{"overlap", start(3, 2, 0).put("v", uint32(1), uint64(9), uint32(0), uint64(0), "w", uint32(1), uint64(1), uint32(0), uint64(32)), gguf.ErrCorrupt, `gguf: tensor 1 "w" starts at byte 32 of the data, expected 64`},
		{"tensor twice", start(3, 2, 0).put("w", uint32(1), uint64(8), uint32(0), uint64(0), "w", uint32(1), uint64(8), uint32(0), uint64(32)), gguf.ErrCorrupt, `gguf: tensor 1 "w" has the name of tensor 0`},
		{"data beyond file", tensor("blk.3.ffn_up.weight", []uint64{8}, 0, 0), gguf.ErrTruncated, `gguf: tensor 0 "blk.3.ffn_up.weight" ends at byte 128 of a 75 byte file`},
		{"data beyond counting", start(3, 2, 0).put("v", uint32(1), uint64(1<<62-1), uint32(24), uint64(0), "w", uint32(1), uint64(1<<61), uint32(24), uint64(1<<62)), gguf.ErrCorrupt, `gguf: tensor 0 "v" ends at byte 4611686018427387904 of the data, beyond the largest file`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := gguf.Read(&tt.in.Buffer, int64(tt.in.Len()), gguf.DefaultLimits)
			if f != nil || !errors.Is(err, tt.kind) {
				t.Fatalf("got %v, %v; want kind %v", f, err, tt.kind)
			}
			if err.Error() != tt.text {
				t.Errorf("got  %s\nwant %s", err, tt.text)
			}
		})
	}
}

func TestNotAModelButWhat(t *testing.T) {
	tests := map[string]string{
		"<!DOCTYPE html><html>":                          "an html page",
		"\n <HTML><body>":                                "an html page",
		"version https://git-lfs example/spec/v1\noid":   "a git-lfs pointer",
		`{"error":"Repository not found"}`:               "json",
		"PK\x03\x04\x00\x00":                             "a zip archive",
		"lmgg\x00":                                       "a ggml file",
		"tjgg\x03":                                       "a ggml file",
		"\x10\x00\x00\x00\x00\x00\x00\x00{\"weight\":{}": "safetensors",
	}
	for in, want := range tests {
		_, err := gguf.Read(strings.NewReader(in), int64(len(in)), gguf.DefaultLimits)
		if !errors.Is(err, gguf.ErrNotGGUF) || !strings.Contains(err.Error(), "it looks like "+want) {
			t.Errorf("%q gives %v", in, err)
		}
	}
}

// The error says that a file is truncated, wherever it is cut.
func TestTruncation(t *testing.T) {
	f := example(t)
	b := header(t, f)
	for n := 1; n < len(b)+int(f.TensorBytes()); n++ {
		for part, size := range map[string]int64{"file": int64(n), "input": f.Size()} {
			if part == "input" && n >= len(b)-63 { // only padding is missing
				continue
			}
			_, err := gguf.Read(bytes.NewReader(b[:min(n, len(b))]), size, gguf.DefaultLimits)
			if !errors.Is(err, gguf.ErrTruncated) {
				t.Fatalf("%s cut at byte %d of %d: %v", part, n, len(b), err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	f := example(t)
	b := header(t, f)
	end := int64(bytes.LastIndexByte(b, byte(f.Tensors[2].Offset>>8)) + 7) // end of the last offset
	for name, change := range map[string]func(l *gguf.Limits, less uint64){
		"keys":    func(l *gguf.Limits, less uint64) { l.Keys = uint64(len(f.KV)) - less },
		"tensors": func(l *gguf.Limits, less uint64) { l.Tensors = uint64(len(f.Tensors)) - less },
		"strings": func(l *gguf.Limits, less uint64) { l.StringBytes = uint64(len("general.architecture")) - less },
		"header":  func(l *gguf.Limits, less uint64) { l.HeaderBytes = end - int64(less) },
	} {
		l := gguf.DefaultLimits
		change(&l, 0)
		if _, err := gguf.Read(bytes.NewReader(b), f.Size(), l); err != nil {
			t.Errorf("at the limit of %s: %v", name, err)
		}
		change(&l, 1)
		if _, err := gguf.Read(bytes.NewReader(b), f.Size(), l); !errors.Is(err, gguf.ErrUnsupported) || !strings.Contains(err.Error(), "limit") {
			t.Errorf("beyond the limit of %s: %v", name, err)
		}
	}
}

// A value that is too long to keep costs itself alone, whatever comes after it.
func TestLongValuesAreSkipped(t *testing.T) {
	long := strings.Repeat("x", 3<<20) // a tokenizer's JSON
	in := start(3, 0, 3).put("tokenizer.huggingface.json", uint32(8), long).
		put("texts", uint32(9), uint32(8), uint64(2), "short", long).put("after", uint32(4), uint32(7))
	f, err := gguf.Read(bytes.NewReader(in.Bytes()), int64(in.Len()), gguf.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	want := []gguf.KeyValue{
		{Key: "tokenizer.huggingface.json", Value: gguf.Skipped{Len: uint64(len(long))}},
		{Key: "texts", Value: gguf.Skipped{Len: 2}}, {Key: "after", Value: uint32(7)},
	}
	if diff := cmp.Diff(want, f.KV); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadErrorIsPassedOn(t *testing.T) {
	broken := errors.New("disk on fire")
	f := example(t)
	b := header(t, f)
	for _, n := range []int{0, 10, 300} {
		_, err := gguf.Read(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken)), f.Size(), gguf.DefaultLimits)
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	f := example(t)
	good := filepath.Join(dir, "good.gguf")
	if err := os.WriteFile(good, append(header(t, f), make([]byte, f.Size()-f.DataOffset)...), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.gguf")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := gguf.ReadFile(good); err != nil || got.Params() != f.Params() {
		t.Errorf("got %v, %v", got, err)
	}
	for name, want := range map[string]error{
		dir:                             gguf.ErrNotGGUF,
		empty:                           gguf.ErrEmpty,
		filepath.Join(dir, "none.gguf"): os.ErrNotExist,
	} {
		if _, err := gguf.ReadFile(name); !errors.Is(err, want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want %v with the name", name, err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	one := []gguf.Tensor{{Name: "w", Dims: []uint64{1}}}
	for name, tt := range map[string]struct {
		kv      []gguf.KeyValue
		tensors []gguf.Tensor
	}{
		"unknown value": {[]gguf.KeyValue{{Key: "k", Value: complex(1, 2)}}, one},
		"no value":      {[]gguf.KeyValue{{Key: "k"}}, one},
		"empty key":     {[]gguf.KeyValue{{Value: true}}, one},
		"key twice":     {[]gguf.KeyValue{{Key: "k", Value: true}, {Key: "k", Value: true}}, one},
		"alignment":     {[]gguf.KeyValue{{Key: "general.alignment", Value: uint32(3)}}, one},
		"tensor":        {nil, []gguf.Tensor{{Name: "w"}}},
		"dimensions":    {nil, []gguf.Tensor{{Name: "w", Dims: []uint64{1, 1, 1, 1, 1}}}},
	} {
		if f, err := gguf.New(tt.kv, tt.tensors); err == nil {
			t.Errorf("%s: got %v", name, f)
		}
	}
}

// A value that equals its limit is accepted.
func TestAtTheLimits(t *testing.T) {
	f, err := gguf.New(
		[]gguf.KeyValue{{Key: "general.alignment", Value: uint32(1 << 20)}},
		[]gguf.Tensor{{Name: strings.Repeat("w", 63), Dims: []uint64{1, 1, 1, 1}}})
	if err != nil || f.DataOffset != 1<<20 {
		t.Errorf("%+v, %v", f, err)
	}
	for name, in := range map[string]*raw{
		"the oldest version":   start(2, 0, 0),
		"an array to the end":  start(3, 0, 1).put("k", uint32(9), uint32(5), uint64(2), uint64(0)),
		"a string to the end":  start(3, 0, 1).put("k", uint32(8), "to the end"),
		"strings, to the last": start(3, 0, 1).put("k", uint32(9), uint32(8), uint64(2), "", ""),
	} {
		if _, err := gguf.Read(in, int64(in.Len()), gguf.DefaultLimits); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Read returns what New made, for arbitrary tensors.
func TestLayout(t *testing.T) {
	var types []gguf.Type
	for i := gguf.Type(0); i < 64; i++ {
		if i.Valid() {
			types = append(types, i)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		kv := []gguf.KeyValue{{Key: "general.alignment", Value: uint32(1) << rapid.IntRange(0, 12).Draw(t, "alignment")}}
		var tensors []gguf.Tensor
		var bytesSum uint64
		for i := range rapid.IntRange(0, 20).Draw(t, "tensors") {
			typ := rapid.SampledFrom(types).Draw(t, "type")
			dims := rapid.SliceOfN(rapid.Uint64Range(1, 20), 1, 4).Draw(t, "dims")
			dims[0] *= typ.BlockSize()
			tensors = append(tensors, gguf.Tensor{Name: fmt.Sprint("t", i), Dims: dims, Type: typ})
			bytesSum += tensors[i].Bytes()
		}
		want, err := gguf.New(kv, tensors)
		if err != nil {
			t.Fatal(err)
		}
		b, err := want.Header()
		if err != nil {
			t.Fatal(err)
		}
		got, err := gguf.Read(bytes.NewReader(b), want.Size(), gguf.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if got.TensorBytes() != bytesSum || uint64(got.Size()) < uint64(got.DataOffset)+bytesSum {
			t.Fatalf("%d tensor bytes of %d in a file of %d with data at %d", got.TensorBytes(), bytesSum, got.Size(), got.DataOffset)
		}
	})
}

func TestTypes(t *testing.T) {
	n := 0
	for i := gguf.Type(0); i < 100; i++ {
		if !i.Valid() {
			if i.BlockSize() != 0 || i.BlockBytes() != 0 || i.String() != fmt.Sprint("type ", uint32(i)) {
				t.Errorf("invalid type %d is %d elements in %d bytes, %v", uint32(i), i.BlockSize(), i.BlockBytes(), i)
			}
			continue
		}
		n++
		var back gguf.Type
		if err := back.UnmarshalText([]byte(i.String())); err != nil || back != i {
			t.Errorf("%v read back is %v, %v", i, back, err)
		}
	}
	if n != 35 {
		t.Errorf("%d types, ggml 0.27.0 has 35", n)
	}
	for _, name := range []string{"", "type 4", "Q4_K", "nonsense"} {
		got := gguf.Q8_0
		if err := got.UnmarshalText([]byte(name)); err == nil || got != gguf.Q8_0 {
			t.Errorf("%q is %v", name, got)
		}
	}
	if text, err := gguf.Q4_K.MarshalText(); err != nil || string(text) != "q4_K" {
		t.Errorf("q4_K is written %q, %v", text, err)
	}
}

func FuzzRead(f *testing.F) {
	b := header(f, example(f))
	f.Add(b, int64(1<<20))
	f.Add(b, int64(math.MaxInt64))
	f.Add([]byte{}, int64(0))
	f.Add([]byte("<!DOCTYPE html>"), int64(15))
	for n := 0; n < len(b); n += 97 {
		f.Add(b[:n], int64(n))
		flipped := bytes.Clone(b)
		flipped[n] ^= 1 << (n % 8)
		f.Add(flipped, int64(4096))
	}
	f.Add(start(3, math.MaxUint64, math.MaxUint64).Bytes(), int64(24))
	f.Add(tensor("w", []uint64{1 << 62}, 41, 0).Bytes(), int64(math.MaxInt64))
	for _, k := range []string{"block_count", "expert_count", "expert_used_count", "attention.head_count_kv", "embedding_length", "vocab_size", "rope.dimension_count"} {
		for _, n := range []uint32{0, 1 << 31, math.MaxUint32} {
			absurd := hparams(f, "llama", keys{k: n})
			f.Add(header(f, absurd), absurd.Size())
		}
	}
	limits := gguf.DefaultLimits
	limits.KeptArray = 8 // arrays are both kept and skipped
	f.Fuzz(func(t *testing.T, in []byte, size int64) {
		got, err := gguf.Read(bytes.NewReader(in), size, limits)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "gguf: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
			return
		}
		if n, ok := got.Uint(got.Architecture() + ".block_count"); ok && (n == 0 || n > 512) && got.Shards() == 1 && got.Architecture() != "clip" && got.Architecture() != "" {
			t.Fatalf("%d layers of %q", n, got.Architecture())
		}
		if m := got.Memory(gguf.Context{Tokens: 512, UBatch: 512, K: gguf.F16, V: gguf.F16}); m.Total() < m.Weights {
			t.Fatalf("memory of %+v", m)
		}
		// An accepted header is consistent; its users need no checks.
		end := uint64(got.DataOffset)
		for _, tensor := range got.Tensors {
			if tensor.Offset%got.Alignment != 0 || uint64(got.DataOffset)+tensor.Offset < end {
				t.Fatalf("tensor %q at %d overlaps or is not aligned to %d", tensor.Name, tensor.Offset, got.Alignment)
			}
			end = uint64(got.DataOffset) + tensor.Offset + tensor.Bytes()
		}
		if len(got.Tensors) > 0 && end > uint64(size) {
			t.Fatalf("data end at %d of %d bytes", end, size)
		}
		once, err := got.Header()
		if errors.Is(err, gguf.ErrUnsupported) { // a skipped array
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := gguf.Read(bytes.NewReader(once), size, limits)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(header(t, again), once) {
			t.Fatalf("written, read and written again:\n%q\n%q", once, header(t, again))
		}
	})
}
