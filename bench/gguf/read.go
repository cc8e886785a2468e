package gguf

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// The kinds of refusals, for errors.Is.
var (
	ErrEmpty       = errors.New("empty file")
	ErrNotGGUF     = errors.New("not a gguf file")
	ErrTruncated   = errors.New("truncated gguf file")
	ErrCorrupt     = errors.New("corrupt gguf file")
	ErrUnsupported = errors.New("unsupported gguf file") // or beyond the limits
)

// Limits bound the time and the memory of reading a header. Both are at most
// proportional to HeaderBytes.
type Limits struct {
	HeaderBytes int64  // size of the whole header
	Keys        uint64 // number of keys
	Tensors     uint64 // number of tensors
	StringBytes uint64 // size of a key or name; a longer value is not kept and becomes Skipped
	KeptArray   uint64 // elements of an array; a longer one is not kept and becomes Skipped
}

// DefaultLimits are far above every known model. The largest headers, with
// vocabularies of 262144 tokens, are below 20 MB. The largest models have about
// 2000 tensors. Chat templates are below 64 KB.
var DefaultLimits = Limits{
	HeaderBytes: 128 << 20,
	Keys:        1 << 14,
	Tensors:     1 << 16,
	StringBytes: 1 << 20,
	KeptArray:   1 << 10,
}

// ReadFile reads the header of the named file, within DefaultLimits.
func ReadFile(name string) (*File, error) {
	r, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, refuse(ErrNotGGUF, "%s is a directory", name)
	}
	f, err := Read(r, info.Size(), DefaultLimits)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// Read reads a header from the start of r. It may read beyond the header's end.
//
// size is the size of the whole file in bytes. r may hold only the first part of
// the file; if it ends within the header, the error is ErrTruncated.
func Read(r io.Reader, size int64, limits Limits) (*File, error) {
	if size == 0 {
		return nil, refuse(ErrEmpty, "the file is empty")
	}
	d := &decoder{r: bufio.NewReaderSize(r, 64<<10), size: size, limits: limits}
	f := d.file()
	if d.err != nil {
		return nil, d.err
	}
	return f, nil
}

// decoder reads the parts of a header. After the first error its methods do
// nothing and return zero values.
type decoder struct {
	r      *bufio.Reader
	pos    int64 // bytes read
	size   int64 // bytes in the file
	limits Limits
	at     func() string // names the part being read, for errors
	words  vocabulary    // words of the array being read; nil: it is not the tokenizer's
	err    error

	tooLong uint64 // length of a string of a value that was skipped just now; 0: none was
}

func (d *decoder) fail(kind error, format string, args ...any) {
	if d.err == nil {
		d.err = refuse(kind, format, args...)
	}
}

func (d *decoder) file() *File {
	d.at = func() string { return "the preamble" }
	d.magic()
	f := &File{Version: d.version()}
	tensors := d.count("tensors", d.limits.Tensors)
	keys := d.count("keys", d.limits.Keys)

	seen := make(map[string]uint64)
	for i := uint64(0); i < keys && d.err == nil; i++ {
		d.at = func() string { return fmt.Sprintf("key %d", i) }
		key := d.name()
		d.at = func() string { return fmt.Sprintf("key %d %q", i, key) }
		if j, ok := seen[key]; ok {
			d.fail(ErrCorrupt, "key %d %q was already key %d", i, key, j)
		}
		if key == "" {
			d.fail(ErrCorrupt, "key %d has no name", i)
		}
		seen[key] = i
		if d.words = nil; key == wordsKey {
			d.words = make(vocabulary)
		}
		f.KV = append(f.KV, KeyValue{key, d.value()})
	}
	if d.err == nil {
		d.err = f.setAlignment()
	}

	names := make(map[string]int)
	var end uint64
	for i := 0; i < int(tensors) && d.err == nil; i++ {
		d.at = func() string { return fmt.Sprintf("tensor %d", i) }
		t := Tensor{Name: d.name()}
		d.at = func() string { return fmt.Sprintf("tensor %d %q", i, t.Name) }
		dims := d.uint32()
		if dims > maxDims {
			d.fail(ErrCorrupt, "tensor %d %q has %d dimensions, not 1 to %d", i, t.Name, dims, maxDims)
		}
		for j := uint32(0); j < dims && d.err == nil; j++ {
			t.Dims = append(t.Dims, d.uint64())
		}
		t.Type = Type(d.uint32())
		t.Offset = d.uint64()
		f.Tensors = append(f.Tensors, t)
		if d.err == nil {
			end, d.err = f.checkTensor(i, names, end)
		}
		names[t.Name] = i
	}
	if d.err != nil {
		return nil
	}
	f.DataOffset = int64(pad(uint64(d.pos), f.Alignment))
	for i, t := range f.Tensors {
		if end := f.DataOffset + int64(t.Offset+t.Bytes()); end > d.size {
			d.fail(ErrTruncated, "tensor %d %q ends at byte %d of a %d byte file", i, t.Name, end, d.size)
		}
	}
	if d.err == nil && f.Shards() == 1 { // Merge checks the shards of a split model
		d.err = f.checkHparams()
	}
	return f
}

// magic checks the first four bytes. Its error says what the file may be instead.
func (d *decoder) magic() {
	head, err := d.r.Peek(256)
	if err != nil && err != io.EOF {
		d.err = fmt.Errorf("gguf: read the magic: %w", err)
		return
	}
	if bytes.HasPrefix(head, []byte(magic)) {
		d.skip(uint64(len(magic)))
		return
	}
	if bytes.HasPrefix([]byte(magic), head) {
		d.fail(ErrTruncated, "the file ends after %d bytes, within the magic", len(head))
		return
	}
	d.fail(ErrNotGGUF, "not a gguf file: it starts with %q%s", head[:min(len(head), len(magic))], looksLike(head))
}

// looksLike recognizes content that is often found in place of a model.
func looksLike(head []byte) string {
	text := bytes.ToLower(bytes.TrimSpace(head))
	for _, known := range []struct {
		prefix string
		name   string
	}{
		{"version https://git-lfs", "a git-lfs pointer; fetch the file itself"},
		{"<!doctype html", "an html page, perhaps a login or error page"},
		{"<html", "an html page, perhaps a login or error page"},
		{"{", "json, perhaps a server's error message"},
		{"pk\x03\x04", "a zip archive, perhaps from pytorch"},
		{"lmgg", "a ggml file, older than gguf"},
		{"fmgg", "a ggml file, older than gguf"},
		{"tjgg", "a ggml file, older than gguf"},
	} {
		if bytes.HasPrefix(text, []byte(known.prefix)) {
			return ", it looks like " + known.name
		}
	}
	if len(head) > 8 && head[8] == '{' {
		return ", it looks like safetensors"
	}
	return ""
}

func (d *decoder) version() uint32 {
	v := d.uint32()
	switch {
	case d.err != nil:
	case v&0xffff == 0 && v != 0:
		d.fail(ErrBigEndian, "the file is %v", ErrBigEndian)
	case v < MinVersion || v > MaxVersion:
		d.fail(ErrUnsupported, "version %d is not supported, only %d to %d", v, MinVersion, MaxVersion)
	}
	return v
}

// count reads a number of things, which noun names.
func (d *decoder) count(noun string, limit uint64) uint64 {
	n := d.uint64()
	if n > limit {
		d.fail(ErrUnsupported, "%d %s are more than the limit of %d", n, noun, limit)
		return 0
	}
	return n
}

// valueType is the type of a value, numbered as enum gguf_type.
type valueType uint32

const (
	typeUint8 valueType = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

func (d *decoder) value() any {
	switch t := valueType(d.uint32()); t {
	case typeUint8:
		return d.uint8()
	case typeInt8:
		return int8(d.uint8())
	case typeUint16:
		return d.uint16()
	case typeInt16:
		return int16(d.uint16())
	case typeUint32:
		return d.uint32()
	case typeInt32:
		return int32(d.uint32())
	case typeUint64:
		return d.uint64()
	case typeInt64:
		return int64(d.uint64())
	case typeFloat32:
		return d.float32()
	case typeFloat64:
		return d.float64()
	case typeBool:
		return d.bool()
	case typeString:
		s := d.string()
		if n := d.tooLong; n > 0 {
			d.tooLong = 0
			return Skipped{Len: n}
		}
		return s
	case typeArray:
		return d.array()
	default:
		d.fail(ErrCorrupt, "%s has a value of unknown type %d", d.at(), t)
		return nil
	}
}

func (d *decoder) array() any {
	t := valueType(d.uint32())
	n := d.uint64()
	switch t {
	case typeUint8:
		return array(d, n, 1, d.uint8)
	case typeInt8:
		return array(d, n, 1, func() int8 { return int8(d.uint8()) })
	case typeUint16:
		return array(d, n, 2, d.uint16)
	case typeInt16:
		return array(d, n, 2, func() int16 { return int16(d.uint16()) })
	case typeUint32:
		return array(d, n, 4, d.uint32)
	case typeInt32:
		return array(d, n, 4, func() int32 { return int32(d.uint32()) })
	case typeUint64:
		return array(d, n, 8, d.uint64)
	case typeInt64:
		return array(d, n, 8, func() int64 { return int64(d.uint64()) })
	case typeFloat32:
		return array(d, n, 4, d.float32)
	case typeFloat64:
		return array(d, n, 8, d.float64)
	case typeBool:
		return array(d, n, 1, d.bool)
	case typeString:
		return array(d, n, 0, d.string)
	case typeArray:
		d.fail(ErrUnsupported, "%s is an array of arrays", d.at())
	default:
		d.fail(ErrCorrupt, "%s is an array of unknown type %d", d.at(), t)
	}
	return nil
}

// array reads n elements of the given size in bytes, or skips them if they are too
// many to keep. A size of 0 stands for strings.
func array[T any](d *decoder, n uint64, size uint64, element func() T) any {
	// A string has at least one byte: those of its length.
	if d.err == nil && n > uint64(d.size-d.pos)/max(size, 1) {
		d.fail(ErrTruncated, "%s is an array of %d elements in a %d byte file", d.at(), n, d.size)
	}
	if d.err != nil {
		return nil
	}
	if n > d.limits.KeptArray {
		if size > 0 {
			d.skip(n * size)
		}
		skipped := Skipped{Len: n}
		var word []byte
		for i := uint64(0); size == 0 && i < n && d.err == nil; i++ {
			length := d.uint64()
			if d.words == nil || skipped.Twice != "" || length > d.limits.StringBytes {
				d.skip(length)
				continue
			}
			word = slices.Grow(word[:0], int(length))[:length]
			d.bytes(word)
			if d.words.add(word) {
				skipped.Twice = string(word)
			}
		}
		return skipped
	}
	values := make([]T, 0, n)
	for i := uint64(0); i < n && d.err == nil; i++ {
		values = append(values, element())
	}
	if d.tooLong > 0 {
		d.tooLong = 0
		return Skipped{Len: n}
	}
	return values
}

// string reads a string of a value. One that is too long to keep is skipped, and
// tooLong is its length: models bring texts that nobody needs here, such as a
// tokenizer's JSON of several megabytes. Only the header as a whole is bounded.
func (d *decoder) string() string {
	n := d.uint64()
	if n > d.limits.StringBytes {
		d.tooLong = n
		d.skip(n)
		return ""
	}
	return d.text(n)
}

// name reads the name of a key or of a tensor.
func (d *decoder) name() string {
	n := d.uint64()
	if n > d.limits.StringBytes {
		d.fail(ErrUnsupported, "%s has a name of %d bytes, more than the limit of %d, at byte %d", d.at(), n, d.limits.StringBytes, d.pos)
		return ""
	}
	return d.text(n)
}

func (d *decoder) text(n uint64) string {
	if d.err != nil || n > uint64(d.size-d.pos) { // advance says so
		d.advance(n)
		return ""
	}
	b := make([]byte, n)
	d.bytes(b)
	return string(b)
}

func (d *decoder) uint8() uint8 {
	var b [1]byte
	d.bytes(b[:])
	return b[0]
}

func (d *decoder) uint16() uint16 {
	var b [2]byte
	d.bytes(b[:])
	return binary.LittleEndian.Uint16(b[:])
}

func (d *decoder) uint32() uint32 {
	var b [4]byte
	d.bytes(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (d *decoder) uint64() uint64 {
	var b [8]byte
	d.bytes(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (d *decoder) bool() bool       { return d.uint8() != 0 }
func (d *decoder) float32() float32 { return math.Float32frombits(d.uint32()) }
func (d *decoder) float64() float64 { return math.Float64frombits(d.uint64()) }

func (d *decoder) bytes(b []byte) {
	if d.advance(uint64(len(b))) {
		_, err := io.ReadFull(d.r, b)
		d.ended(err)
	}
	if d.err != nil {
		clear(b)
	}
}

func (d *decoder) skip(n uint64) {
	if d.advance(n) {
		_, err := d.r.Discard(int(n))
		d.ended(err)
	}
}

// advance counts n more bytes. It reports whether they may be read.
func (d *decoder) advance(n uint64) bool {
	if d.err != nil {
		return false
	}
	if n > uint64(d.size-d.pos) {
		d.fail(ErrTruncated, "%s ends at byte %d of a %d byte file", d.at(), uint64(d.pos)+n, d.size)
		return false
	}
	if n > uint64(max(0, d.limits.HeaderBytes-d.pos)) {
		d.fail(ErrUnsupported, "%s ends at byte %d, the limit of a header is %d", d.at(), uint64(d.pos)+n, d.limits.HeaderBytes)
		return false
	}
	d.pos += int64(n)
	return true
}

// ended handles the error of a read that advance allowed.
func (d *decoder) ended(err error) {
	switch {
	case err == nil || d.err != nil:
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		d.fail(ErrTruncated, "the input ends before %s does, at byte %d", d.at(), d.pos)
	default:
		d.err = fmt.Errorf("gguf: read %s: %w", d.at(), err)
	}
}
