package gguf

import (
	"cmp"
	"math"
	"slices"
)

// This file predicts the size of the compute buffer. The library finds it by placing
// all nodes of the largest graph (llama_context::graph_reserve, ggml-alloc.c). So the
// prediction does the same with an outline of the graph. Nodes that need no memory of
// their own are left out: views of the cache, and biases, which are added in place.
// TestMemoryPredicted compares the result with libllama 0.7.0.

// node is a tensor of the graph.
type node struct {
	bytes   uint64
	of      *node   // the node that this one is a view of; nil: it has memory of its own
	inPlace bool    // it takes the memory of a source that nothing else needs (ggml_op_can_inplace)
	src     []*node // what it is computed from, without weights and cache

	// Of the allocator.
	users, views int // nodes that still need it; views of it that are still needed
	placed       bool
	offset       uint64
}

// graph lists nodes in the order of computation.
type graph struct {
	inputs []*node // they are placed first
	nodes  []*node
}

func (g *graph) add(n *node) *node {
	g.nodes = append(g.nodes, n)
	return n
}

func (g *graph) input(bytes uint64) *node {
	n := &node{bytes: bytes}
	g.inputs = append(g.inputs, n)
	return n
}

// op is a node with memory of its own.
func (g *graph) op(bytes uint64, src ...*node) *node { return g.add(&node{bytes: bytes, src: src}) }

// over is a node of the size of its sources that takes the memory of one, if it can.
func (g *graph) over(src ...*node) *node {
	return g.add(&node{bytes: src[0].bytes, inPlace: true, src: src})
}

// view is a part of src, or all of it in another shape.
func (g *graph) view(bytes uint64, src *node) *node {
	of := src
	if src.of != nil {
		of = src.of
	}
	return g.add(&node{bytes: bytes, of: of, src: []*node{src}})
}

// store is a write to the cache.
func (g *graph) store(src ...*node) { g.add(&node{src: src}) }

// norm is a normalisation and the product with its weights.
func (g *graph) norm(x *node) *node { return g.over(g.over(x)) }

// maxNode is the largest size of a node in bytes for which sums cannot overflow.
const maxNode = 1 << 46

// size is the size of the buffer in bytes, MaxInt64 if a node is absurdly large.
func (g *graph) size() uint64 {
	for _, n := range slices.Concat(g.inputs, g.nodes) {
		if n.bytes > maxNode {
			return math.MaxInt64
		}
		if n.of != nil {
			n.of.views++
		}
		for _, s := range n.src {
			s.users++
		}
	}
	a := allocator{free: []block{{0, math.MaxInt64}}}
	for _, n := range g.inputs {
		a.place(n)
	}
	for _, n := range g.nodes {
		a.place(n)
		for _, s := range n.src {
			s.users--
			if s.users > 0 || s.views > 0 {
				continue
			}
			if s.of == nil {
				a.release(s)
			} else if s.of.views--; s.of.views == 0 && s.of.users == 0 {
				a.release(s.of)
			}
		}
	}
	return a.size
}

// allocator places nodes as ggml_gallocr_allocate_node and ggml_dyn_tallocr_alloc do.
type allocator struct {
	free []block // by offset; the last one has no end
	size uint64  // of all memory that was in use at any time, in bytes
}

type block struct{ offset, bytes uint64 }

// nodeAlign is the alignment of nodes in bytes (TENSOR_ALIGNMENT of ggml's CPU back-end).
const nodeAlign = 32

func (a *allocator) place(n *node) {
	if n.of != nil || n.bytes == 0 {
		return
	}
	n.placed = true
	if n.inPlace {
		for _, s := range n.src {
			if s.placed && s.bytes == n.bytes && s.users == 1 && s.views == 0 {
				s.placed, n.offset = false, s.offset
				return
			}
		}
	}
	n.offset = a.take(pad(n.bytes, nodeAlign))
}

// take finds the smallest free block that is large enough; of equal ones, the last.
func (a *allocator) take(bytes uint64) (offset uint64) {
	best := len(a.free) - 1
	for i, b := range a.free {
		if b.bytes >= bytes && b.bytes <= a.free[best].bytes {
			best = i
		}
	}
	b := &a.free[best]
	offset = b.offset
	b.offset, b.bytes = b.offset+bytes, b.bytes-bytes
	if b.bytes == 0 {
		a.free = slices.Delete(a.free, best, best+1)
	}
	a.size = max(a.size, offset+bytes)
	return offset
}

// release frees a node and joins its memory with free neighbours.
func (a *allocator) release(n *node) {
	if !n.placed {
		return
	}
	n.placed = false
	i, _ := slices.BinarySearchFunc(a.free, n.offset, func(b block, offset uint64) int { return cmp.Compare(b.offset, offset) })
	a.free = slices.Insert(a.free, i, block{n.offset, pad(n.bytes, nodeAlign)})
	for _, j := range []int{i, i - 1} {
		if j >= 0 && j+1 < len(a.free) && a.free[j].offset+a.free[j].bytes == a.free[j+1].offset {
			a.free[j].bytes += a.free[j+1].bytes
			a.free = slices.Delete(a.free, j+1, j+2)
		}
	}
}

// graph is the outline of the graph for one pass of a prompt, all of whose tokens have
// logits. It is that of a transformer as in llama.cpp's src/models/llama.cpp.
func (f *File) graph(c Context) *graph {
	a := f.attention()
	n, context := c.pass(), c.padded()
	float := func(elements uint64) uint64 { return mul(4*n, elements) } // bytes for all tokens
	embedding := float(a.embedding)
	has := func(name string) bool {
		return slices.ContainsFunc(f.Tensors, func(t Tensor) bool { return t.Name == name })
	}
	queryNorm, fused := has("blk.0.attn_q_norm.weight"), has("blk.0.attn_qkv.weight")

	g := &graph{}
	// Tokens come as numbers, as embeddings, or as a mixture of both; the graph has all
	// three (llm_graph_context::build_inp_embd). The mixture is never used, so its memory
	// and that of the embeddings are never freed.
	tokens, mixed := g.input(4*n), g.input(4*n)
	g.input(embedding)
	slots, mixture := g.input(8*n), g.input(embedding)
	// A quantised cache holds keys and values that are multiplied by Hadamard matrices
	// (attn_inp_k_rot, attn_inp_v_rot).
	rotated := func(t Type, head uint64) uint64 {
		if !t.Valid() || t.BlockSize() == 1 || head == 0 || head%64 != 0 {
			return 0
		}
		return 64
	}
	var keyRotation, valueRotation *node
	if side := rotated(c.K, a.key); side > 0 {
		for side < maxNode && a.key%(2*side) == 0 {
			side *= 2
		}
		keyRotation = g.input(mul(4*side, side))
	}
	positions := g.input(4 * n)
	if side := rotated(c.V, a.value); side > 0 {
		valueRotation = g.input(mul(4*side, side))
	}
	rotate := func(x, by *node) *node {
		if by == nil {
			return x
		}
		return g.view(x.bytes, g.op(x.bytes, by, g.view(x.bytes, x)))
	}
	keyCells, valueCells := g.input(8*n), g.input(8*n)
	mask := func(cells uint64) *node { return g.input(mul(2*n, cells)) }
	if c.FlashOff {
		valueCells.bytes = mul(8*n, mul(a.headsKV.at(0), a.value)) // values are stored one by one
		mask = func(cells uint64) *node { return g.input(mul(4*n, cells)) }
	}
	visible := mask(context)
	if window, _ := f.Uint(f.Architecture() + ".attention.sliding_window"); window > 0 {
		mask(min(context, pad(add(window, n), contextPad)))
	}
	outputs := g.input(4 * n)

	x := g.op(embedding, tokens)
	scattered, mixedIn := g.op(embedding, mixed), g.op(embedding, mixture)
	g.add(&node{of: mixedIn, src: []*node{scattered, slots, mixedIn}})

	layers := min(a.layers, maxLayers)
	for layer := range layers {
		norm := g.norm(x)
		headsKV := a.headsKV.at(layer)
		query, key, value := float(mul(a.heads, a.key)), float(mul(headsKV, a.key)), float(mul(headsKV, a.value))
		// part is the product with one weight, or a part of that with a fused weight.
		part := func(bytes uint64) *node { return g.view(bytes, g.op(bytes, norm)) }
		if fused {
			all := g.op(add(query, add(key, value)), norm)
			part = func(bytes uint64) *node { return g.view(bytes, all) }
		}
		// turned is a part with its rotary embedding. The node does not replace a view.
		turned := func(bytes uint64) *node {
			if queryNorm {
				return g.over(g.over(g.op(bytes, part(bytes))), positions)
			}
			return g.op(bytes, part(bytes), positions)
		}
		q := rotate(turned(query), keyRotation)
		v := rotate(part(value), valueRotation)
		k := rotate(turned(key), keyRotation)
		g.store(g.view(key, k), keyCells)
		g.store(g.view(value, v), valueCells)

		out := float(mul(a.heads, a.value))
		var attended *node
		if c.FlashOff {
			weights := g.over(g.op(mul(float(a.heads), context), g.view(query, q)), visible)
			attended = g.op(out, g.view(out, g.op(out, weights)))
		} else {
			attended = rotate(g.view(out, g.op(out, g.view(query, q), visible)), valueRotation)
		}
		attended, before := g.op(embedding, attended), x
		if layer == layers-1 {
			attended, before = g.op(embedding, attended, outputs), g.op(embedding, before, outputs)
		}
		between := g.over(attended, before)
		forward := f.feedForward(g, a, layer, float, g.norm(between))
		if f.Architecture() == "phi3" { // it adds in the other order
			x = g.over(between, forward)
		} else {
			x = g.over(forward, between)
		}
	}
	g.op(float(f.Vocabulary()), g.norm(x))
	return g
}

// feedForward adds the feed-forward network of a layer, dense or with experts.
func (f *File) feedForward(g *graph, a attention, layer int, float func(uint64) uint64, norm *node) *node {
	wide, used := float(a.feedForward.at(layer)), uint64(1)
	if n, _ := f.Uint(f.Architecture() + ".expert_used_count"); n > 0 {
		used = n
		if each := f.numbers(f.Architecture() + ".expert_feed_forward_length"); each != nil {
			wide = float(each.at(layer))
		}
		wide = mul(wide, used)
	}
	var down *node
	if f.gateApart() {
		gate := g.op(wide, norm)
		down = g.op(mul(float(a.embedding), used), g.op(wide, gate, g.op(wide, norm)))
	} else {
		down = g.op(mul(float(a.embedding), used), g.op(wide, g.op(mul(2, wide), norm)))
	}
	if used > 1 {
		down = g.op(float(a.embedding), g.over(down))
	}
	return down
}

// gateApart tells whether the feed-forward network has a weight of its own for the
// gate. If not, one weight has both.
func (f *File) gateApart() bool {
	return !slices.ContainsFunc(f.Tensors, func(t Tensor) bool { return t.Name == "blk.0.ffn_up.weight" }) ||
		slices.ContainsFunc(f.Tensors, func(t Tensor) bool { return t.Name == "blk.0.ffn_gate.weight" })
}
