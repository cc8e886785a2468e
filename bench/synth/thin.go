package synth

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// ErrThin says that no thin model can stand for a model.
var ErrThin = errors.New("no model with fewer layers has its kinds of layers")

// Kinds says which layers of a model differ. Layers of one kind have tensors of the same
// names and dimensions, and the same numbers in the header. Their types may differ,
// because a quantisation gives some layers more bits.
type Kinds struct {
	Layers int // that run
	Lead   int // at the beginning, which are of other kinds than the others
	Period int // after which the kinds of the other layers repeat
}

// maxPeriod is far above the period of every known model.
const maxPeriod = 16

// KindsOf finds the kinds of a model's layers. The error is an ErrThin if there is no
// pattern, or if it is not known.
func KindsOf(f *gguf.File) (Kinds, error) {
	arch := f.Architecture()
	blocks, _ := f.Uint(arch + ".block_count")
	predicting, _ := f.Uint(arch + ".nextn_predict_layers")
	if blocks == 0 || blocks > math.MaxUint16 || predicting >= blocks {
		return Kinds{}, fmt.Errorf("%w: the header has no number of layers", ErrThin)
	}
	n := int(blocks - predicting)
	window, ok := f.WindowPeriod()
	if !ok {
		return Kinds{}, fmt.Errorf("%w: which layers of the architecture %s have a sliding window is not known", ErrThin, arch)
	}
	kinds := make([]string, n)
	for _, t := range f.Tensors {
		if layer, rest, ok := ofLayer(t.Name); ok && layer < n {
			kinds[layer] += fmt.Sprint(rest, t.Dims, ";")
		}
	}
	for _, kv := range f.KV {
		v := reflect.ValueOf(kv.Value)
		if v.Kind() != reflect.Slice || v.Len() != int(blocks) || !strings.HasPrefix(kv.Key, arch+".") {
			continue
		}
		for layer := range n {
			kinds[layer] += fmt.Sprint(kv.Key, v.Index(layer), ";")
		}
	}
	for lead := range n {
		for period := window; period <= maxPeriod && lead+2*period <= n; period += window {
			if lead > 0 && window > 1 {
				break // the pattern of windows begins at the first layer
			}
			if slices.Equal(kinds[lead+period:], kinds[lead:n-period]) {
				return Kinds{n, lead, period}, nil
			}
		}
	}
	return Kinds{}, fmt.Errorf("%w: its %d layers follow no pattern that repeats", ErrThin, n)
}

// ofLayer splits the name of a layer's tensor.
func ofLayer(name string) (layer int, rest string, ok bool) {
	if n, err := fmt.Sscanf(name, "blk.%d.%s", &layer, &rest); err != nil || n != 2 || layer < 0 {
		return 0, "", false
	}
	return layer, rest, true
}

// Depths are the numbers of layers that thin models may have, without the full number,
// smallest first.
func (k Kinds) Depths() (depths []int) {
	for n := k.Lead + k.Period; n < k.Layers; n += k.Period {
		depths = append(depths, n)
	}
	return depths
}

// Thin makes the header of a model with the same layers but fewer of them, one of
// k.Depths(). It keeps the vocabulary, the embedding and the leading layers. Of the
// others it takes layers in places that are alike. Layers with more bits then have nearly
// the share that they have in f. f must have an Outline's keys: it is written.
func (k Kinds) Thin(f *gguf.File, depth int) (*gguf.File, error) {
	if !slices.Contains(k.Depths(), depth) {
		return nil, fmt.Errorf("%w: %d layers", ErrThin, depth)
	}
	taken := k.take(f, depth)
	place := make(map[int]int, depth)
	for i, layer := range taken {
		place[layer] = i
	}
	arch := f.Architecture()
	blocks, _ := f.Uint(arch + ".block_count")
	var kv []gguf.KeyValue
	for _, v := range f.KV {
		value := reflect.ValueOf(v.Value)
		switch {
		case v.Key == arch+".block_count":
			v.Value = uint32(depth)
		case v.Key == arch+".nextn_predict_layers":
			continue
		case value.Kind() == reflect.Slice && value.Len() == int(blocks) && strings.HasPrefix(v.Key, arch+"."):
			part := reflect.MakeSlice(value.Type(), 0, depth)
			for _, layer := range taken {
				part = reflect.Append(part, value.Index(layer))
			}
			v.Value = part.Interface()
		}
		kv = append(kv, v)
	}
	var tensors []gguf.Tensor
	for _, t := range f.Tensors {
		if layer, rest, ok := ofLayer(t.Name); ok {
			i, kept := place[layer]
			if !kept {
				continue
			}
			t.Name = fmt.Sprintf("blk.%d.%s", i, rest)
		}
		tensors = append(tensors, t)
	}
	return gguf.New(kv, tensors)
}

// take chooses the layers of a thin model: the leading ones, then for each period those
// of the groups whose sizes come closest to the mean of all groups.
func (k Kinds) take(f *gguf.File, depth int) (layers []int) {
	bytes := make([]float64, k.Layers)
	for _, t := range f.Tensors {
		if layer, _, ok := ofLayer(t.Name); ok && layer < k.Layers {
			bytes[layer] += float64(t.Bytes())
		}
	}
	for layer := range k.Lead {
		layers = append(layers, layer)
	}
	groups := (k.Layers - k.Lead) / k.Period
	size := make([]float64, groups)
	var mean float64
	for g := range groups {
		for i := range k.Period {
			size[g] += bytes[k.Lead+g*k.Period+i]
		}
		mean += size[g] / float64(groups)
	}
	var sum float64
	taken := make([]bool, groups)
	for n := range (depth - k.Lead) / k.Period {
		best := -1
		for g := range groups {
			far := func(g int) float64 { return math.Abs(sum + size[g] - mean*float64(n+1)) }
			if !taken[g] && (best < 0 || far(g) < far(best)) {
				best = g
			}
		}
		taken[best] = true
		sum += size[best]
	}
	for g := range groups {
		for i := range k.Period {
			if taken[g] {
				layers = append(layers, k.Lead+g*k.Period+i)
			}
		}
	}
	return layers
}

// LayerBytes is the size of all layers that run, without the leading ones, in bytes.
func (k Kinds) LayerBytes(f *gguf.File) (sum uint64) {
	for _, t := range f.Tensors {
		if layer, _, ok := ofLayer(t.Name); ok && layer >= k.Lead && layer < k.Layers {
			sum += t.Bytes()
		}
	}
	return sum
}
