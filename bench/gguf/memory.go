package gguf

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// Memory is the memory that a model needs to run tests of one length, in bytes.
//
// For the default models all parts are what libllama 0.7.0 reports on a CPU. The
// same holds for other models of plain attention. For the rest, Cache is an upper
// bound, because it assumes that sliding windows keep the whole context, and Compute
// is an estimate.
type Memory struct {
	Tokens  uint64 `json:"tokens"`        // length of the context
	Weights uint64 `json:"weights_bytes"` // all tensors, with a second copy of some; see Repack
	Cache   uint64 `json:"cache_bytes"`   // keys and values of the attention
	Compute uint64 `json:"compute_bytes"` // intermediate results of the graph, and the logits of a token
}

// Total is the sum of the parts in bytes.
func (m Memory) Total() uint64 { return add(add(m.Weights, m.Cache), m.Compute) }

// Context is what decides the memory of a model besides its header.
type Context struct {
	Tokens   int  // that the context holds
	UBatch   int  // the most tokens of one pass
	K, V     Type // of the cached keys and values
	FlashOff bool // no flash attention
	Repack   Repack
}

// Repack says how the CPU back-end lays out weights. Its memory depends on this in
// two ways. Tiles for AMX are larger than the blocks that they replace. And if a
// model has no output weight, libllama uses the token embedding in its place: it
// makes a second copy if the layout of the output differs from that of the embedding,
// which is never repacked (llama_model_loader::create_tensor, TENSOR_DUPLICATED).
type Repack int

// The layouts of ggml 0.27.
const (
	RepackUnknown Repack = iota // at most a second copy of the embedding
	RepackNone                  // as in the file (--no-repack)
	RepackAVX2                  // for x86-64 without AMX (ggml-cpu/repack.cpp)
	RepackAMX                   // for AMX (ggml-cpu/amx/mmq.cpp)
)

// bytes is the size of a tensor in bytes that is a factor of matrix products. repacked
// tells whether it differs from that of the file.
func (r Repack) bytes(t Tensor) (bytes uint64, repacked bool) {
	bytes = t.Bytes()
	if len(t.Dims) != 2 {
		return bytes, false
	}
	rows := t.Dims[1]
	if r == RepackAMX && rows%32 == 0 {
		perBlock := uint64(0)
		switch t.Type {
		case Q4_0, Q4_1, Q6_K:
		case Q4_K, Q5_K, Q8_0:
			perBlock = 4
		case IQ4_XS:
			perBlock = 2
		default:
			return bytes, false
		}
		return add(bytes, mul(perBlock, t.Elements()/t.Type.BlockSize())), true
	}
	if r != RepackNone && rows%8 == 0 {
		switch t.Type {
		case Q4_0, Q4_K, IQ4_NL:
			return bytes, true
		}
	}
	return bytes, false
}

// weights is the size of all weights in bytes.
func (f *File) weights(r Repack) uint64 {
	if r == RepackUnknown {
		return add(f.TensorBytes(), f.TiedBytes())
	}
	var sum uint64
	tied := f.TiedBytes() > 0
	for _, t := range f.Tensors {
		bytes, repacked := r.bytes(t)
		switch {
		case t.Name != "token_embd.weight":
			sum = add(sum, bytes)
		case tied && repacked:
			sum = add(sum, add(t.Bytes(), bytes))
		default:
			sum = add(sum, t.Bytes())
		}
	}
	return sum
}

// contextPad: libllama rounds the length of a context up to a multiple of it.
const contextPad = 256

// padded is the length of the context that the library makes, in tokens.
func (c Context) padded() uint64 { return pad(uint64(max(c.Tokens, 1)), contextPad) }

// pass is the number of tokens of the longest pass.
func (c Context) pass() uint64 { return uint64(min(max(c.Tokens, 1), max(c.UBatch, 1))) }

// Memory predicts the memory for a context.
func (f *File) Memory(c Context) Memory {
	n := c.padded()
	m := Memory{Tokens: n, Weights: f.weights(c.Repack)}
	a := f.attention()
	for layer := range a.layers {
		heads := a.headsKV.at(layer)
		m.Cache = add(m.Cache, typeBytes(c.K, mul(n, mul(heads, a.key))))
		m.Cache = add(m.Cache, typeBytes(c.V, mul(n, mul(heads, a.value))))
	}
	m.Compute = add(f.graph(c).size(), mul(4, f.Vocabulary()))
	return m
}

// TiedBytes is the size of the token embedding if the model has no output weight,
// else 0.
func (f *File) TiedBytes() uint64 {
	var embedding uint64
	for _, t := range f.Tensors {
		switch t.Name {
		case "output.weight":
			return 0
		case "token_embd.weight":
			embedding = t.Bytes()
		}
	}
	return embedding
}

// Fits returns a *MemoryError if availableBytes are not enough. Call it before
// anything is allocated.
func (m Memory) Fits(availableBytes uint64) error {
	if m.Total() <= availableBytes {
		return nil
	}
	return &MemoryError{Need: m, AvailableBytes: availableBytes}
}

// MemoryError says that a model needs more memory than is available.
type MemoryError struct {
	Need           Memory
	AvailableBytes uint64
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("needs %s of memory (weights %s, KV cache of %d tokens %s, compute buffers %s), but only %s are available",
		humanize.IBytes(e.Need.Total()), humanize.IBytes(e.Need.Weights), e.Need.Tokens,
		humanize.IBytes(e.Need.Cache), humanize.IBytes(e.Need.Compute), humanize.IBytes(e.AvailableBytes))
}

// attention holds the sizes of a model's layers that decide its memory.
type attention struct {
	layers      int
	embedding   uint64 // elements
	feedForward perLayer
	heads       uint64 // of the queries; the largest number of all layers
	headsKV     perLayer
	key, value  uint64 // elements of one head
}

// perLayer holds one number for all layers, or one number for each.
type perLayer []uint64

func (p perLayer) at(layer int) uint64 {
	switch {
	case len(p) == 0:
		return 0
	case layer < len(p):
		return p[layer]
	}
	return p[len(p)-1]
}

func (p perLayer) largest() uint64 {
	var most uint64
	for _, n := range p {
		most = max(most, n)
	}
	return most
}

func (f *File) attention() attention {
	arch := f.Architecture() + "."
	layers, _ := f.Uint(arch + "block_count")
	a := attention{
		layers:      int(min(layers, DefaultLimits.Tensors)),
		feedForward: f.numbers(arch + "feed_forward_length"),
		headsKV:     f.numbers(arch + "attention.head_count_kv"),
	}
	a.embedding, _ = f.Uint(arch + "embedding_length")
	heads := f.numbers(arch + "attention.head_count")
	if a.headsKV == nil {
		a.headsKV = heads
	}
	a.heads = heads.largest()
	head := a.embedding / max(a.heads, 1)
	a.key, a.value = head, head
	if n, ok := f.Uint(arch + "attention.key_length"); ok {
		a.key = n
	}
	if n, ok := f.Uint(arch + "attention.value_length"); ok {
		a.value = n
	}
	// Latent attention keeps one compressed head and its rotary part.
	if rank, ok := f.Uint(arch + "attention.kv_lora_rank"); ok {
		rotary, _ := f.Uint(arch + "rope.dimension_count")
		a.key, a.value, a.headsKV = add(rank, rotary), 0, perLayer{1}
	}
	return a
}

// numbers is the value of a key that holds one whole number or an array of them.
func (f *File) numbers(key string) perLayer {
	if n, ok := f.Uint(key); ok {
		return perLayer{n}
	}
	v, _ := f.Get(key)
	var p perLayer
	switch s := v.(type) {
	case []uint32:
		for _, n := range s {
			p = append(p, uint64(n))
		}
	case []int32: // libllama reads them as unsigned, too
		for _, n := range s {
			p = append(p, uint64(uint32(n)))
		}
	case []uint64:
		p = s
	}
	return p
}

// typeBytes is the size of n elements in bytes, rounded up to whole blocks.
func typeBytes(t Type, n uint64) uint64 {
	if !t.Valid() {
		return 0
	}
	return mul((n+t.BlockSize()-1)/t.BlockSize(), t.BlockBytes())
}

// mul and add saturate at MaxInt64, because untrusted headers may hold any number.
func mul(a, b uint64) uint64 {
	if a != 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}

func add(a, b uint64) uint64 {
	if a > math.MaxInt64 || b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}
