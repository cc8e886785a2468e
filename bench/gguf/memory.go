package gguf

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// Memory is the memory that a model needs to run tests of one length, in bytes.
// Weights and Cache are exact for models of plain attention whose output is
// repacked or offloaded. For others they are upper bounds: Weights includes
// TiedBytes, and Cache assumes that sliding windows keep the whole context.
// Compute is an estimate.
type Memory struct {
	Tokens  uint64 `json:"tokens"`        // length of the context
	Weights uint64 `json:"weights_bytes"` // all tensors, and TiedBytes
	Cache   uint64 `json:"cache_bytes"`   // keys and values of the attention
	Compute uint64 `json:"compute_bytes"` // intermediate results of the graph
}

// Total is the sum of the parts in bytes.
func (m Memory) Total() uint64 { return add(add(m.Weights, m.Cache), m.Compute) }

// contextPad: libllama rounds the length of a context up to a multiple of it.
const contextPad = 256

// Memory estimates the memory for a context of the given number of tokens,
// computed in passes of at most ubatch tokens. k and v are the types of the cached
// keys and values.
func (f *File) Memory(tokens, ubatch int, k, v Type) Memory {
	n := pad(uint64(max(tokens, 1)), contextPad)
	pass := min(uint64(max(tokens, 1)), uint64(max(ubatch, 1)))
	m := Memory{Tokens: n, Weights: add(f.TensorBytes(), f.TiedBytes())}

	a := f.attention()
	for layer := range a.layers {
		heads := a.headsKV.at(layer)
		m.Cache = add(m.Cache, typeBytes(k, mul(n, mul(heads, a.key))))
		m.Cache = add(m.Cache, typeBytes(v, mul(n, mul(heads, a.value))))
	}
	// The widest node holds the logits or the feed-forward network. Beside it live
	// embeddings with their neighbours, and the attention's mask.
	widest := max(f.Vocabulary(), mul(3, a.feedForward.largest()))
	m.Compute = add(mul(4*pass, add(widest, mul(11, a.embedding)/2)), mul(2*pass, n))
	return m
}

// TiedBytes is the size of the token embedding if the model has no output weight,
// else 0. libllama then uses the embedding as the output. It needs a second copy
// for that, unless it runs on a CPU that does not repack the type
// (llama_model_loader::create_tensor, TENSOR_DUPLICATED). If only this copy does not
// fit into memory, package acquire turns repacking off.
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
	head := a.embedding / max(heads.largest(), 1)
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
