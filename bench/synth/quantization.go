package synth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Quantization is the name of a rule of llama.cpp. The rule decides the type of
// each tensor of a model.
type Quantization string

const (
	// Q4KM is the mixture "Q4_K - Medium".
	Q4KM Quantization = "Q4_K_M"
	// F16 is not quantised.
	F16 Quantization = "F16"
)

// fileTypes are the numbers of the rules in enum llama_ftype.
var fileTypes = map[Quantization]uint32{
	Q4KM: 15, // LLAMA_FTYPE_MOSTLY_Q4_K_M
	F16:  1,  // LLAMA_FTYPE_MOSTLY_F16
}

// UnmarshalText refuses unknown names.
func (q *Quantization) UnmarshalText(text []byte) error {
	*q = Quantization(text)
	if _, ok := fileTypes[*q]; !ok {
		return fmt.Errorf("unknown quantization %q (known: %s, %s)", text, Q4KM, F16)
	}
	return nil
}

// typeOf is the type that llama.cpp gave a tensor of the published files
// (llama-quant.cpp, llama_tensor_get_type, for dense models except falcon). Most
// are q4_K. The output is q6_K, and so are attn_v and ffn_down in the layers that
// moreBits selects. Norms, biases, other vectors and routers stay f32. Fused query,
// key and value are q5_K in the published files; newer versions of llama.cpp treat
// them like attn_v.
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

// moreBits selects the first and the last eighth of the layers, and every third
// layer in between (use_more_bits in llama-quant.cpp).
func moreBits(layer, layers int) bool {
	return layer < layers/8 || layer >= 7*layers/8 || (layer-layers/8)%3 == 2
}

// fallback replaces a type with blocks of 256 elements if the length of a row is
// not a multiple of 256 (tensor_type_fallback in llama-quant.cpp).
func fallback(t gguf.Type, rowLength uint64) gguf.Type {
	if rowLength%t.BlockSize() == 0 {
		return t
	}
	return map[gguf.Type]gguf.Type{gguf.Q4_K: gguf.Q5_0, gguf.Q5_K: gguf.Q5_1, gguf.Q6_K: gguf.Q8_0}[t]
}

// tied reports whether the token embedding is also the output.
func (s *Shape) tied() bool {
	return !slices.ContainsFunc(s.Tensors, func(t Tensor) bool { return t.Name == "output.weight" })
}

// is70B reports whether llama.cpp regards the model as LLM_TYPE_70B. In these models
// eight heads share their values, so more bits for the values cost little.
func (s *Shape) is70B() bool {
	return s.Architecture == "llama" && s.Layers() == 80 && s.count("attention.head_count") != s.count("attention.head_count_kv")
}
