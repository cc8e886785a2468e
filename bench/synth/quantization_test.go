package synth

import (
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

func TestQ4KM(t *testing.T) {
	dense := func(layers, heads, kvHeads int, tensors ...string) *Shape {
		s := &Shape{Architecture: "llama", Keys: map[string]any{
			"block_count": layers, "attention.head_count": heads, "attention.head_count_kv": kvHeads}}
		for _, name := range tensors {
			s.Tensors = append(s.Tensors, Tensor{Name: name})
		}
		return s
	}
	small, untied, big := dense(32, 32, 8), dense(32, 32, 32, "output.weight"), dense(80, 64, 8)
	tests := []struct {
		shape *Shape
		name  string
		layer int
		dims  []uint64
		want  gguf.Type
	}{
		{small, "attn_norm.weight", 0, []uint64{4096}, gguf.F32},
		{small, "attn_q.bias", 0, []uint64{4096}, gguf.F32},
		{small, "attn_q.weight", 0, []uint64{4096, 4096}, gguf.Q4_K},
		{small, "attn_q.weight", 0, []uint64{576, 576}, gguf.Q5_0},
		{small, "attn_v.weight", 3, []uint64{4096, 1024}, gguf.Q6_K},     // first eighth
		{small, "attn_v.weight", 4, []uint64{4096, 1024}, gguf.Q4_K},     //
		{small, "attn_v.weight", 6, []uint64{4096, 1024}, gguf.Q6_K},     // third of the rest
		{small, "attn_v.weight", 28, []uint64{4096, 1024}, gguf.Q6_K},    // last eighth
		{small, "attn_v.weight", 28, []uint64{576, 192}, gguf.Q8_0},      //
		{big, "attn_v.weight", 10, []uint64{8192, 1024}, gguf.Q5_K},      //
		{big, "attn_v.weight", 0, []uint64{8192, 1024}, gguf.Q6_K},       //
		{big, "attn_v.weight", 10, []uint64{8192 + 32, 8}, gguf.Q5_1},    //
		{small, "ffn_down.weight", 27, []uint64{11008, 4096}, gguf.Q6_K}, // 27 = 4 + 23, 23 % 3 = 2
		{small, "ffn_down.weight", 26, []uint64{11008, 4096}, gguf.Q4_K},
		{small, "attn_qkv.weight", 0, []uint64{5120, 7680}, gguf.Q5_K},
		{small, "token_embd.weight", 0, []uint64{4096, 32000}, gguf.Q6_K},
		{untied, "token_embd.weight", 0, []uint64{4096, 32000}, gguf.Q4_K},
		{untied, "output.weight", 0, []uint64{4096, 32000}, gguf.Q6_K},
	}
	for _, tt := range tests {
		if got := Q4KM.typeOf(tt.shape, Tensor{Name: tt.name, Dims: tt.dims}, tt.layer); got != tt.want {
			t.Errorf("%s of %d in layer %d of %d is %v, want %v", tt.name, tt.dims, tt.layer, tt.shape.Layers(), got, tt.want)
		}
	}
}

func TestParseShapeRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"unknown field":        {"colour: red", "colour"},
		"unknown quantization": {"quantization: Q1_X", `unknown quantization "Q1_X" (known: Q4_K_M, F16)`},
		"unknown type":         {"tensors: [{name: w, dims: [1], type: q9}]", `unknown type "q9"`},
		"no yaml":              {"\t", "shape of x.gguf"},
	} {
		if s, err := ParseShape("x.gguf", []byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q", name, s, err, tt.want)
		}
	}
}

func TestFileRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Shape)
		want   string
	}{
		"size":            {func(s *Shape) { s.ModelSize++ }, "the published model has 103668481 and 134515008"},
		"params":          {func(s *Shape) { s.Params-- }, "the published model has 103668480 and 134515007"},
		"key":             {func(s *Shape) { s.Keys["x"] = "text" }, `key "x" is neither`},
		"number":          {func(s *Shape) { s.Keys["x"] = 1 << 33 }, `key "x" is 8589934592, outside 0 to 2³²-1`},
		"layers":          {func(s *Shape) { s.Keys["block_count"] = 1 << 31 }, "2147483648 layers of 9 tensors are more than the limit of 65536"},
		"negative layers": {func(s *Shape) { s.Keys["block_count"] = -1 }, `key "block_count" is -1, outside 0 to 2³²-1`},
		"architecture":    {func(s *Shape) { s.Architecture = "" }, "the architecture is missing"},
		"tensor":          {func(s *Shape) { s.Tensors[0].Dims[0] = 0 }, `"token_embd.weight" has dimension 0 of 0 elements`},
	} {
		s, err := Lookup("SmolLM-135M.Q4_K_M.gguf")
		if err != nil {
			t.Fatal(err)
		}
		tt.change(s)
		if _, err := New(s, 1, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// The number of blocks of a tile is a prime above the number of blocks of any row, so
// the two have no common divisor.
func TestTilesOutlastRows(t *testing.T) {
	for _, s := range allShapes() {
		for _, tensor := range s.tensors() {
			blocks := tileBlocks(tensor.Type)
			if row := int(tensor.Dims[0] / tensor.Type.BlockSize()); row >= blocks {
				t.Errorf("%s: %s has rows of %d blocks, its tile has %d", s.Name, tensor.Name, row, blocks)
			}
		}
	}
	for n, want := range map[int]int{2: 2, 8: 11, 2730: 2731, 98304: 98317} {
		if got := primeFrom(n); got != want {
			t.Errorf("first prime from %d is %d, want %d", n, got, want)
		}
	}
}
