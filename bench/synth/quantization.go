package synth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Quantization is a named rule of llama.cpp that decides the type of each
// tensor of a model.
type Quantization string

const (
	// Q4KM is the mixture "Q4_K - Medium".
	Q4KM Quantization = "Q4_K_M"
	// F16 is none: what is quantised from.
	F16 Quantization = "F16"
)

// fileTypes are the numbers of the rules in enum llama_ftype.
var fileTypes = map[Quantization]uint32{
	Q4KM: 15, // LLAMA_FTYPE_MOSTLY_Q4_K_M
	F16:  1,  // LLAMA_FTYPE_MOSTLY_F16
}

// UnmarshalText refuses the names of rules that are not known.
func (q *Quantization) UnmarshalText(text []byte) error {
	*q = Quantization(text)
	if _, ok := fileTypes[*q]; !ok {
		return fmt.Errorf("unknown quantization %q, known are %s, %s", text, Q4KM, F16)
	}
	return nil
}

// typeOf decides the type of a tensor as llama.cpp did for the published files
// (llama-quant.cpp, llama_tensor_get_type, for dense models that are not
// falcon): q4_K in general; q6_K for the output, and in the layers that need
// more bits for the values of the attention and for ffn_down; norms, biases,
// other vectors and routers stay f32. Since then llama.cpp counts fused query, key and value
// among the values of the attention; the published files have q5_K there.
func (q Quantization) typeOf(s *Shape, t Tensor, layer int) gguf.Type {
	if len(t.Dims) < 2 || !strings.HasSuffix(t.Name, "weight") || t.Name == "ffn_gate_inp.weight" {
		return gguf.F32
	}
	if q == F16 {
		return gguf.F16
	}
	typ := gguf.Q4_K
	switch t.Name {
	case "output.weight":
		typ = gguf.Q6_K
	case "token_embd.weight":
		if s.tied() {
			typ = gguf.Q6_K
		}
	case "attn_qkv.weight":
		typ = gguf.Q5_K
	case "attn_v.weight":
		switch {
		case moreBits(layer, s.Layers()):
			typ = gguf.Q6_K
		case s.is70B():
			typ = gguf.Q5_K
		}
	case "ffn_down.weight":
		if moreBits(layer, s.Layers()) {
			typ = gguf.Q6_K
		}
	}
	return fallback(typ, t.Dims[0])
}

// moreBits picks the first and the last eighth of the layers, and every third
// between (use_more_bits in llama-quant.cpp).
func moreBits(layer, layers int) bool {
	return layer < layers/8 || layer >= 7*layers/8 || (layer-layers/8)%3 == 2
}

// fallback replaces a type of 256-element blocks where rows do not divide into
// them (tensor_type_fallback in llama-quant.cpp).
func fallback(t gguf.Type, rowLength uint64) gguf.Type {
	if rowLength%t.BlockSize() == 0 {
		return t
	}
	return map[gguf.Type]gguf.Type{gguf.Q4_K: gguf.Q5_0, gguf.Q5_K: gguf.Q5_1, gguf.Q6_K: gguf.Q8_0}[t]
}

// tied tells whether the token embedding serves as the output, too.
func (s *Shape) tied() bool {
	return !slices.ContainsFunc(s.Tensors, func(t Tensor) bool { return t.Name == "output.weight" })
}

// is70B tells what llama.cpp calls LLM_TYPE_70B, where eight heads share their
// values, so that more bits for these cost little.
func (s *Shape) is70B() bool {
	return s.Architecture == "llama" && s.Layers() == 80 && s.count("attention.head_count") != s.count("attention.head_count_kv")
}
