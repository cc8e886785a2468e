package gguf

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// Memory is what a model needs to run tests of one length, in bytes. Weights
// and Cache are exact for models of plain attention whose output is repacked or
// offloaded, else upper bounds: Weights counts TiedBytes, Cache the whole context
// of sliding windows. Compute is an estimate.
type Memory struct {
	Tokens  uint64 `json:"tokens"`        // of the context
	Weights uint64 `json:"weights_bytes"` // of all tensors, and TiedBytes
	Cache   uint64 `json:"cache_bytes"`   // of keys and values
	Compute uint64 `json:"compute_bytes"` // of what passes through the graph
}

// Total is the sum of the parts in bytes.
func (m Memory) Total() uint64 { return add(add(m.Weights, m.Cache), m.Compute) }

// contextPad is what libllama rounds the length of a context up to.
const contextPad = 256

// Memory estimates what the model needs for a context of tokens, computed in
// passes of at most ubatch tokens, with keys and values of the types k and v.
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
	// At the widest node live the logits or the feed-forward network, beside the
	// embeddings and what is next to them, and the attention's mask.
	widest := max(f.Vocabulary(), mul(3, a.feedForward.largest()))
	m.Compute = add(mul(4*pass, add(widest, mul(11, a.embedding)/2)), mul(2*pass, n))
	return m
}

// TiedBytes is the size of the token embedding of a model that has no output of
// its own, 0 for others. libllama takes it for the output, too, of the buffer
// that suits a multiplication (llama_model_loader::create_tensor, TENSOR_DUPLICATED):
// the same one on a CPU that does not repack its type, else a second one.
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

// Fits is an error that says what is needed and what there is, nil when
// availableBytes are enough. Call it before anything is allocated.
func (m Memory) Fits(availableBytes uint64) error {
	if m.Total() <= availableBytes {
		return nil
	}
	return &MemoryError{Need: m, AvailableBytes: availableBytes}
}

// MemoryError is a model that needs more memory than there is.
type MemoryError struct {
	Need           Memory
	AvailableBytes uint64
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("needs %s of memory (weights %s, KV cache of %d tokens %s, compute buffers %s), there are %s",
		humanize.IBytes(e.Need.Total()), humanize.IBytes(e.Need.Weights), e.Need.Tokens,
		humanize.IBytes(e.Need.Cache), humanize.IBytes(e.Need.Compute), humanize.IBytes(e.AvailableBytes))
}

// attention is what decides the size of a model's cache.
type attention struct {
	layers      int
	embedding   uint64 // elements
	feedForward perLayer
	headsKV     perLayer
	key, value  uint64 // elements of one head
}

// perLayer is one number for all layers, or one for each.
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

// numbers is the value of a key that holds a whole number or several.
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
	case []int32: // read as unsigned by the library, too
		for _, n := range s {
			p = append(p, uint64(uint32(n)))
		}
	case []uint64:
		p = s
	}
	return p
}

// typeBytes is the size of n elements, a whole number of blocks.
func typeBytes(t Type, n uint64) uint64 {
	if !t.Valid() {
		return 0
	}
	return mul((n+t.BlockSize()-1)/t.BlockSize(), t.BlockBytes())
}

// mul and add stop at the largest number: headers that lie may hold any.
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
