// Package gguf reads and writes the headers of GGUF files, llama.cpp's format of
// models. A header has key-value pairs that describe the model, then the names,
// shapes, types and offsets of its tensors. The tensors' data follow the header;
// this package never reads them.
//
// The reader is safe for untrusted files. It needs bounded time and memory, and
// refuses every file that ggml 0.27.0 would refuse or crash on. Each error says
// what is wrong and where. It is a reader of our own, because the available Go packages
// panicked or allocated without bound on fuzzed headers, and the library's reader can
// end the process.
//
// The format is defined by ggml's docs/gguf.md, and in details by ggml's reader,
// gguf.cpp.
package gguf

import (
	"fmt"
	"math"
	"math/bits"
)

// The versions of the format that can be read. Only version 3 may be big-endian,
// which is refused.
const (
	MinVersion = 2
	MaxVersion = 3
)

const (
	magic            = "GGUF"
	alignmentKey     = "general.alignment"
	wordsKey         = "tokenizer.ggml.tokens"
	defaultAlignment = 32      // bytes, GGUF_DEFAULT_ALIGNMENT
	maxAlignment     = 1 << 20 // bytes, far above any in use; it bounds the padding
	maxDims          = 4       // GGML_MAX_DIMS
	maxTensorName    = 63      // bytes, GGML_MAX_NAME without its terminator
)

// File is the header of a GGUF file.
type File struct {
	Version    uint32     // version of the format
	KV         []KeyValue // in the order of the file; keys are unique
	Tensors    []Tensor   // in the order of the file; names are unique, only padding separates the data
	Alignment  uint64     // bytes, a power of two; each tensor's data start at a multiple of it
	DataOffset int64      // bytes from the start of the file to the tensors' data
}

// KeyValue describes one property of a model. Value holds one of bool, int8 to
// int64, uint8 to uint64, float32, float64, string, a slice of one of these, or
// Skipped.
type KeyValue struct {
	Key   string
	Value any
}

// Skipped stands for a value that was too long to keep: an array such as a
// vocabulary, or a string such as a tokenizer's JSON.
type Skipped struct {
	Len   uint64 // elements, or bytes of a string
	Twice string // a duplicate among the tokenizer's words; empty: none found, at most maxWords are compared
}

// Tensor is a tensor's entry in the header.
type Tensor struct {
	Name   string
	Dims   []uint64 // elements, 1 to 4 of them, the row length (ggml's ne0) first, each at least 1
	Type   Type
	Offset uint64 // bytes from File.DataOffset
}

// Elements is the number of elements, exact for tensors that Read or New accepted.
func (t Tensor) Elements() uint64 {
	n := uint64(1)
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

// Bytes is the size of the tensor's data without padding, like ggml_nbytes. It is
// exact for tensors that Read or New accepted.
func (t Tensor) Bytes() uint64 {
	return t.Elements() / t.Type.BlockSize() * t.Type.BlockBytes()
}

// New makes the header of a file of version 3. It computes the tensors' offsets,
// with the alignment of the key general.alignment if present. It keeps both
// slices and overwrites the offsets.
func New(kv []KeyValue, tensors []Tensor) (*File, error) {
	f := &File{Version: MaxVersion, KV: kv, Tensors: tensors}
	if err := f.setAlignment(); err != nil {
		return nil, err
	}
	names := make(map[string]int, len(tensors))
	var end uint64
	for i, t := range tensors {
		f.Tensors[i].Offset = end
		var err error
		if end, err = f.checkTensor(i, names, end); err != nil {
			return nil, err
		}
		names[t.Name] = i
	}
	header, err := f.Header()
	if err != nil {
		return nil, err
	}
	f.DataOffset = int64(len(header))
	return f, nil
}

// Get returns the value of a key.
func (f *File) Get(key string) (value any, ok bool) {
	for _, kv := range f.KV {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return nil, false
}

// Uint returns the value of a key that holds a non-negative integer of any width.
func (f *File) Uint(key string) (value uint64, ok bool) {
	v, _ := f.Get(key)
	switch n := v.(type) {
	case uint8:
		return uint64(n), true
	case uint16:
		return uint64(n), true
	case uint32:
		return uint64(n), true
	case uint64:
		return n, true
	case int8:
		return uint64(n), n >= 0
	case int16:
		return uint64(n), n >= 0
	case int32:
		return uint64(n), n >= 0
	case int64:
		return uint64(n), n >= 0
	}
	return 0, false
}

// Architecture is the value of general.architecture, such as "llama". It is empty
// if the key is missing.
func (f *File) Architecture() string {
	v, _ := f.Get("general.architecture")
	s, _ := v.(string)
	return s
}

// Vocabulary is the number of tokens, counted as libllama does: the words of the
// tokenizer, else the key vocab_size, else the rows of the token embedding. It is
// 0 if the file has none of these.
func (f *File) Vocabulary() uint64 {
	switch v, _ := f.Get(wordsKey); words := v.(type) {
	case Skipped:
		return words.Len
	case []string:
		return uint64(len(words))
	}
	if n, ok := f.Uint(f.Architecture() + ".vocab_size"); ok {
		return n
	}
	for _, t := range f.Tensors {
		if t.Name == "token_embd.weight" && len(t.Dims) > 1 {
			return t.Dims[1]
		}
	}
	return 0
}

// Shards is the number of files of the model, 1 if it is not split. Params and
// TensorBytes count the tensors of this file only.
func (f *File) Shards() uint64 {
	if n, ok := f.Uint("split.count"); ok && n > 1 {
		return n
	}
	return 1
}

// Params is the number of parameters, like llama_model_n_params.
func (f *File) Params() uint64 {
	var n uint64
	for _, t := range f.Tensors {
		n += t.Elements()
	}
	return n
}

// TensorBytes is the size of all tensors without padding, like llama_model_size.
func (f *File) TensorBytes() uint64 {
	var n uint64
	for _, t := range f.Tensors {
		n += t.Bytes()
	}
	return n
}

// Size is the size of the whole file in bytes. It includes the padding that ggml
// writes after the last tensor.
func (f *File) Size() int64 {
	if len(f.Tensors) == 0 {
		return f.DataOffset
	}
	last := f.Tensors[len(f.Tensors)-1]
	return f.DataOffset + int64(pad(last.Offset+last.Bytes(), f.Alignment))
}

// setAlignment sets Alignment from the keys.
func (f *File) setAlignment() error {
	f.Alignment = defaultAlignment
	v, ok := f.Get(alignmentKey)
	if !ok {
		return nil
	}
	n, ok := v.(uint32)
	if !ok {
		return refuse(ErrCorrupt, "key %q must be a uint32, is a %T", alignmentKey, v)
	}
	if bits.OnesCount32(n) != 1 {
		return refuse(ErrCorrupt, "alignment %d is not a power of two", n)
	}
	if n > maxAlignment {
		return refuse(ErrUnsupported, "alignment %d is more than the limit of %d bytes", n, maxAlignment)
	}
	f.Alignment = uint64(n)
	return nil
}

// checkTensor checks the i-th tensor. names holds the tensors before it; their
// padded data end at offset start. end is the end of this tensor's padded data.
func (f *File) checkTensor(i int, names map[string]int, start uint64) (end uint64, err error) {
	t := f.Tensors[i]
	corrupt := func(format string, args ...any) (uint64, error) {
		return 0, refuse(ErrCorrupt, "tensor %d %q "+format, append([]any{i, t.Name}, args...)...)
	}
	if len(t.Name) > maxTensorName {
		return 0, refuse(ErrCorrupt, "tensor %d has a name of %d bytes, more than the limit of %d", i, len(t.Name), maxTensorName)
	}
	if j, ok := names[t.Name]; ok {
		return corrupt("has the name of tensor %d", j)
	}
	if len(t.Dims) < 1 || len(t.Dims) > maxDims {
		return corrupt("has %d dimensions, not 1 to %d", len(t.Dims), maxDims)
	}
	if !t.Type.Valid() {
		return 0, refuse(ErrUnknownType, "tensor %d %q is of unknown %v", i, t.Name, t.Type)
	}
	elements := uint64(1)
	for j, d := range t.Dims {
		if d == 0 {
			return corrupt("has dimension %d of 0 elements", j)
		}
		hi, lo := bits.Mul64(elements, d)
		if hi != 0 || lo > math.MaxInt64 {
			return corrupt("has dimensions %d, more elements than can be counted", t.Dims)
		}
		elements = lo
	}
	if t.Dims[0]%t.Type.BlockSize() != 0 {
		return corrupt("has rows of %d elements, not a multiple of the %d in a block of %v", t.Dims[0], t.Type.BlockSize(), t.Type)
	}
	hi, bytes := bits.Mul64(elements/t.Type.BlockSize(), t.Type.BlockBytes())
	if hi != 0 || bytes > math.MaxInt64/2 {
		return corrupt("has dimensions %d, more bytes than can be counted", t.Dims)
	}
	// ggml requires data in order and without gaps. That also excludes overlapping
	// and unaligned tensors.
	if t.Offset != start {
		return corrupt("starts at byte %d of the data, expected %d", t.Offset, start)
	}
	end = pad(start+bytes, f.Alignment)
	if end > math.MaxInt64/2 {
		return corrupt("ends at byte %d of the data, beyond the largest file", end)
	}
	return end, nil
}

// pad rounds n up to a multiple of alignment, a power of two.
func pad(n, alignment uint64) uint64 {
	return (n + alignment - 1) &^ (alignment - 1)
}

// refusal is the error about a header that cannot be used. kind is one of the
// errors that Read documents, such as ErrCorrupt.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return "gguf: " + r.text }
func (r *refusal) Unwrap() error { return r.kind }

// refuse makes a refusal.
func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}
