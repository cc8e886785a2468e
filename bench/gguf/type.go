package gguf

import (
	"fmt"
	"strconv"
)

// Type is the type of a tensor's elements. The numbers are those of enum ggml_type.
type Type uint32

// The types of ggml 0.27.0. The missing numbers are types that ggml removed.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q8_1    Type = 9
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	Q8_K    Type = 15
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	I8      Type = 24
	I16     Type = 25
	I32     Type = 26
	I64     Type = 27
	F64     Type = 28
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
	Q2_0    Type = 42
)

// layout describes a type's representation: elements are stored in blocks.
type layout struct {
	name       string // ggml_type_name
	blockSize  uint64 // elements per block, ggml_blck_size
	blockBytes uint64 // bytes per block, ggml_type_size
}

// layouts are the answers of ggml 0.27.0 for each type. A zero layout marks a
// removed type.
var layouts = [...]layout{
	F32:     {"f32", 1, 4},
	F16:     {"f16", 1, 2},
	Q4_0:    {"q4_0", 32, 18},
	Q4_1:    {"q4_1", 32, 20},
	Q5_0:    {"q5_0", 32, 22},
	Q5_1:    {"q5_1", 32, 24},
	Q8_0:    {"q8_0", 32, 34},
	Q8_1:    {"q8_1", 32, 36},
	Q2_K:    {"q2_K", 256, 84},
	Q3_K:    {"q3_K", 256, 110},
	Q4_K:    {"q4_K", 256, 144},
	Q5_K:    {"q5_K", 256, 176},
	Q6_K:    {"q6_K", 256, 210},
	Q8_K:    {"q8_K", 256, 292},
	IQ2_XXS: {"iq2_xxs", 256, 66},
	IQ2_XS:  {"iq2_xs", 256, 74},
	IQ3_XXS: {"iq3_xxs", 256, 98},
	IQ1_S:   {"iq1_s", 256, 50},
	IQ4_NL:  {"iq4_nl", 32, 18},
	IQ3_S:   {"iq3_s", 256, 110},
	IQ2_S:   {"iq2_s", 256, 82},
	IQ4_XS:  {"iq4_xs", 256, 136},
	I8:      {"i8", 1, 1},
	I16:     {"i16", 1, 2},
	I32:     {"i32", 1, 4},
	I64:     {"i64", 1, 8},
	F64:     {"f64", 1, 8},
	IQ1_M:   {"iq1_m", 256, 56},
	BF16:    {"bf16", 1, 2},
	TQ1_0:   {"tq1_0", 256, 54},
	TQ2_0:   {"tq2_0", 256, 66},
	MXFP4:   {"mxfp4", 32, 17},
	NVFP4:   {"nvfp4", 64, 36},
	Q1_0:    {"q1_0", 128, 18},
	Q2_0:    {"q2_0", 64, 18},
}

func (t Type) layout() layout {
	if int(t) >= len(layouts) {
		return layout{}
	}
	return layouts[t]
}

// Valid reports whether ggml 0.27.0 has this type.
func (t Type) Valid() bool { return t.layout().blockSize != 0 }

// BlockSize is the number of elements in a block, 0 for an invalid type.
func (t Type) BlockSize() uint64 { return t.layout().blockSize }

// BlockBytes is the size of a block in bytes, 0 for an invalid type.
func (t Type) BlockBytes() uint64 { return t.layout().blockBytes }

// String is ggml's name of the type, such as "q4_K".
func (t Type) String() string {
	if !t.Valid() {
		return "type " + strconv.FormatUint(uint64(t), 10)
	}
	return t.layout().name
}

// ParseType is the inverse of String.
func ParseType(name string) (Type, error) {
	for i, l := range layouts {
		if l.name == name && name != "" {
			return Type(i), nil
		}
	}
	return 0, fmt.Errorf("gguf: unknown type %q", name)
}

// MarshalText writes the name, which keeps data files readable.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the name.
func (t *Type) UnmarshalText(text []byte) error {
	v, err := ParseType(string(text))
	if err == nil {
		*t = v
	}
	return err
}
