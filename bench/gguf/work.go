package gguf

import (
	"math"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Work is what one repetition of a test asks of a machine. It follows from the header
// alone. Bytes are those of the file's types: what a back-end adds when it repacks
// weights is left out.
//
// Work counts the weights and the cache, because they are nearly all that is read, and
// the products with them, because they are nearly all that is computed. A product of two
// numbers and its sum are two operations. A recurrent state is not counted.
type Work struct {
	WeightBytes  uint64 `json:"weight_bytes"`         // read, once in each pass
	CacheBytes   uint64 `json:"cache_bytes"`          // keys and values read, once in each pass
	Operations   uint64 `json:"operations"`           // of products with weights
	AttentionOps uint64 `json:"attention_operations"` // of products with keys and values
}

// Bytes is the sum of all bytes read.
func (w Work) Bytes() uint64 { return add(w.WeightBytes, w.CacheBytes) }

// Ops is the sum of all operations.
func (w Work) Ops() uint64 { return add(w.Operations, w.AttentionOps) }

func (w *Work) plus(o Work) {
	w.WeightBytes, w.CacheBytes = add(w.WeightBytes, o.WeightBytes), add(w.CacheBytes, o.CacheBytes)
	w.Operations, w.AttentionOps = add(w.Operations, o.Operations), add(w.AttentionOps, o.AttentionOps)
}

// Work returns the work of one repetition of a test. c has the types of the cache and
// the tokens of a pass; its Tokens are not used. The prompt is processed in passes of
// c.UBatch tokens, then each token is generated in a pass of its own. The cells that
// hold the test's depth are read but not written.
func (f *File) Work(t result.Test, c Context) Work { return f.workOf(t, c, nil) }

// WorkByType divides the weights' part of Work by the types of the weights. The parts of
// a mixture of experts may lack a few bytes, because shares are rounded.
func (f *File) WorkByType(t result.Test, c Context) map[Type]Work {
	all := map[Type]Work{}
	for _, tensor := range f.Tensors {
		if _, done := all[tensor.Type]; !done {
			w := f.workOf(t, c, func(o Tensor) bool { return o.Type == tensor.Type })
			all[tensor.Type] = Work{WeightBytes: w.WeightBytes, Operations: w.Operations}
		}
	}
	return all
}

// workOf is Work with only some of the tensors; nil: all.
func (f *File) workOf(t result.Test, c Context, only func(Tensor) bool) Work {
	m := f.machine(c, only)
	var sum Work
	cells := uint64(max(t.Depth, 0))
	pass := uint64(max(c.UBatch, 1))
	for left := uint64(max(t.Prompt, 0)); left > 0; {
		n := min(left, pass)
		left -= n
		// Only the last token of a prompt has logits.
		sum.plus(m.pass(n, cells, left == 0))
		cells += n
	}
	for range max(t.Gen, 0) {
		sum.plus(m.pass(1, cells, true))
		cells++
	}
	return sum
}

// machine holds what the work of a pass is computed from.
type machine struct {
	layers    []layerWork
	experts   float64 // 0: none
	used      float64 // experts of a token
	bytes     uint64  // of weights that every token needs, in bytes
	ops       uint64  // of a token
	expert    uint64  // bytes of all experts
	expertOps uint64  // operations of a token in its experts
	output    uint64  // bytes of the product that makes the logits
	outOps    uint64  // operations of it
}

// layerWork is the attention of a layer.
type layerWork struct {
	window    uint64 // tokens that a token attends to, at most; 0: all
	cellBytes uint64 // keys and values of one token
	ops       uint64 // of one token that attends to one other
}

// pass is the work of a pass of n tokens, before which the cache holds cells.
func (m *machine) pass(n, cells uint64, logits bool) Work {
	w := Work{WeightBytes: m.bytes, Operations: mul(n, add(m.ops, m.expertOps))}
	if m.experts > 0 {
		// Each token chooses its experts. If they choose alike often, this share of all
		// experts is chosen by at least one of n tokens.
		share := 1 - math.Pow(1-m.used/m.experts, float64(n))
		w.WeightBytes = add(w.WeightBytes, uint64(share*float64(m.expert)))
	}
	if logits {
		w.WeightBytes, w.Operations = add(w.WeightBytes, m.output), add(w.Operations, m.outOps)
	}
	for _, l := range m.layers {
		w.CacheBytes = add(w.CacheBytes, mul(l.reads(n, cells), l.cellBytes))
		w.AttentionOps = add(w.AttentionOps, mul(l.attended(n, cells), l.ops))
	}
	return w
}

// reads is the number of cells that a pass reads.
func (l layerWork) reads(n, cells uint64) uint64 {
	if l.window > 0 {
		return min(cells+n, l.window+n-1)
	}
	return cells + n
}

// attended is the number of pairs of a token of the pass and a cell that it sees: its own
// and those before it.
func (l layerWork) attended(n, cells uint64) uint64 {
	all := n*cells + n*(n+1)/2
	if l.window == 0 || cells+n <= l.window {
		return all
	}
	if cells >= l.window {
		return n * l.window
	}
	within := l.window - cells // tokens of the pass that see everything before them
	return within*cells + within*(within+1)/2 + (n-within)*l.window
}

// lookedUp are the weights of which a token needs one row, whatever their size.
var lookedUp = []string{"token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight"}

func (f *File) machine(c Context, only func(Tensor) bool) *machine {
	a := f.attention()
	m := &machine{}
	experts, _ := f.Uint(f.Architecture() + ".expert_count")
	m.experts, m.used = float64(experts), float64(f.numbers(f.Architecture()+".expert_used_count").largest())
	predicting, _ := f.Uint(f.Architecture() + ".nextn_predict_layers")
	run := max(a.layers-int(min(predicting, maxLayers)), 0) // the others only predict further tokens
	tied := f.TiedBytes() > 0
	for _, t := range f.Tensors {
		layer, in := layerOf(t.Name)
		bytes, ops := t.Bytes(), uint64(0)
		if len(t.Dims) > 1 {
			ops = mul(2, t.Elements())
		}
		switch {
		case only != nil && !only(t), in && layer >= run:
		case t.Name == "output.weight", tied && t.Name == "token_embd.weight":
			m.output, m.outOps = add(m.output, bytes), add(m.outOps, ops)
		case slices.Contains(lookedUp, t.Name):
		case strings.Contains(t.Name, "_exps.") && experts > 0:
			m.expert = add(m.expert, bytes)
			m.expertOps = add(m.expertOps, uint64(float64(ops)*m.used/m.experts))
		default:
			m.bytes, m.ops = add(m.bytes, bytes), add(m.ops, ops)
		}
	}
	value := a.value
	if rank, ok := f.Uint(f.Architecture() + ".attention.kv_lora_rank"); ok {
		value = rank // the values are a part of the compressed keys
	}
	for layer := range run {
		headsKV := a.headsKV.at(layer)
		if headsKV == 0 { // recurrent, or no attention
			continue
		}
		m.layers = append(m.layers, layerWork{
			window:    f.Window(layer),
			cellBytes: add(typeBytes(c.K, mul(headsKV, a.key)), typeBytes(c.V, mul(headsKV, a.value))),
			ops:       mul(2*a.heads, add(a.key, value)),
		})
	}
	return m
}

// layerOf is the number of the layer that a tensor belongs to.
func layerOf(name string) (layer int, ok bool) {
	rest, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return 0, false
	}
	number, _, ok := strings.Cut(rest, ".")
	if !ok || number == "" || len(number) > 4 {
		return 0, false
	}
	for _, digit := range number {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		layer = 10*layer + int(digit-'0')
	}
	return layer, true
}

// windowPeriods are the architectures of libllama 0.7.0 that give most layers a sliding
// window: of every so many layers, the last one sees all tokens (set_swa_pattern in
// src/models). A key may have another period.
var windowPeriods = map[string]int{
	"afmoe": 4, "cohere2": 4, "exaone-moe": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4, "olmo2": 4, "plamo3": 8,
	"smallthinker": 4,
}

// windowless are architectures that have the key of a window, which libllama 0.7.0
// ignores.
var windowless = []string{"phi3", "llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "starcoder2"}

// WindowPeriod returns after how many layers the pattern of sliding windows repeats: 1
// if all layers are alike. ok is false if the pattern is not known.
func (f *File) WindowPeriod() (period int, ok bool) {
	arch := f.Architecture()
	if window, _ := f.Uint(arch + ".attention.sliding_window"); window == 0 && arch != "llama4" || slices.Contains(windowless, arch) {
		return 1, true
	}
	if n, ok := f.Uint(arch + ".attention.sliding_window_pattern"); ok && n > 0 && n <= maxLayers {
		return int(n), true
	}
	if windows := f.windows(); windows != nil {
		return patternOf(windows), true
	}
	period, ok = windowPeriods[arch]
	return max(period, 1), ok
}

// windows are the layers with a sliding window, if the header has one value for each.
func (f *File) windows() []bool {
	switch v, _ := f.Get(f.Architecture() + ".attention.sliding_window_pattern"); v := v.(type) {
	case []bool:
		return v
	default:
		var is []bool
		for _, n := range f.numbers(f.Architecture() + ".attention.sliding_window_pattern") {
			is = append(is, n != 0)
		}
		if len(is) > 1 {
			return is
		}
		return nil
	}
}

// patternOf is the shortest period of a sequence.
func patternOf[E comparable](values []E) int {
	for period := 1; period < len(values); period++ {
		if slices.Equal(values[period:], values[:len(values)-period]) {
			return period
		}
	}
	return max(len(values), 1)
}

// Window is the number of tokens that a token of a layer attends to, itself included. It
// is 0 if that is all of them, or if the pattern of windows is not known.
func (f *File) Window(layer int) uint64 {
	window, _ := f.Uint(f.Architecture() + ".attention.sliding_window")
	if f.Architecture() == "llama4" {
		window = 8192 // a chunk, in libllama 0.7.0
	}
	period, ok := f.WindowPeriod()
	if window == 0 || !ok {
		return 0
	}
	if windows := f.windows(); windows != nil {
		if layer < len(windows) && windows[layer] {
			return window
		}
		return 0
	}
	if period > 1 && layer%period < period-1 {
		return window
	}
	return 0
}
