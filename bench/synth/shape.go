// Package synth makes models with synthetic weights. Such a model has the same
// tensors, types and sizes as a published file, but it is streamed from memory and
// needs no file. The speed of inference depends on the shape and not on the values.
// A synthetic model therefore has the speed of the published one, without its
// download.
//
// A shape is a data file in shapes/, named after the published file. To add a
// model, add a file.
package synth

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

//go:embed shapes/*.yaml
var shapeFiles embed.FS

// Shape describes a published model: everything that decides its speed and its
// size, but no weights and no words.
type Shape struct {
	Name   string `yaml:"-"` // name of the published file: "SmolLM-135M.Q4_K_M.gguf"
	Source struct {
		Repository string `yaml:"repository"`
		Revision   string `yaml:"revision"`
	} `yaml:"source"`
	ModelSize    uint64         `yaml:"model_size"`     // size of all tensors in bytes, as libllama counts it
	Params       uint64         `yaml:"model_n_params"` // number of parameters
	Architecture string         `yaml:"architecture"`   // llama.cpp's name: "llama"
	Quantization Quantization   `yaml:"quantization"`   // decides the tensors' types
	VocabSize    uint32         `yaml:"vocab_size"`     // number of tokens
	Keys         map[string]any `yaml:"keys"`           // int or float64 by key, without the architecture's prefix
	Tensors      []Tensor       `yaml:"tensors"`        // tensors outside the layers
	LayerTensors []Tensor       `yaml:"layer_tensors"`  // tensors of every layer, without the prefix blk.N.
}

// Tensor is a tensor of a shape.
type Tensor struct {
	Name string     `yaml:"name"`
	Dims []uint64   `yaml:"dims"` // elements, the row length first
	Type *gguf.Type `yaml:"type"` // nil: the quantization decides
}

// Names lists the file names of the published models that have a shape, smallest
// model first. It omits Tiny.
func Names() []string {
	shapes := slices.DeleteFunc(allShapes(), func(s *Shape) bool { return s.Name == Tiny })
	slices.SortFunc(shapes, func(a, b *Shape) int { return cmp.Compare(a.ModelSize, b.ModelSize) })
	names := make([]string, len(shapes))
	for i, s := range shapes {
		names[i] = s.Name
	}
	return names
}

// Tiny is the name of a shape of two layers, for tests and first tries. No published
// model has it.
const Tiny = "tiny.Q4_K_M.gguf"

// Lookup finds the shape of a published file, or Tiny, by its exact name without
// a folder.
func Lookup(name string) (*Shape, error) {
	for _, s := range allShapes() {
		if s.Name == name {
			return s, nil
		}
	}
	var near string
	for _, n := range Names() {
		if commonPrefix(n, name) > max(2, commonPrefix(near, name)) {
			near = n
		}
	}
	if near != "" {
		return nil, fmt.Errorf("unknown model %q; did you mean %q", name, near)
	}
	return nil, fmt.Errorf("unknown model %q; the default models are %s", name, strings.Join(Names(), ", "))
}

// commonPrefix is the length of the prefix that two names share, in bytes, ignoring
// case.
func commonPrefix(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// allShapes parses the embedded shapes. It panics on an error, which this package's
// tests exclude.
func allShapes() []*Shape {
	entries, err := shapeFiles.ReadDir("shapes")
	if err != nil {
		panic(err)
	}
	shapes := make([]*Shape, len(entries))
	for i, e := range entries {
		text, err := shapeFiles.ReadFile(path.Join("shapes", e.Name()))
		if err != nil {
			panic(err)
		}
		if shapes[i], err = ParseShape(strings.TrimSuffix(e.Name(), ".yaml")+".gguf", text); err != nil {
			panic(err)
		}
	}
	return shapes
}

// ParseShape reads a shape from YAML. name is the name of the published file.
func ParseShape(name string, text []byte) (*Shape, error) {
	s := &Shape{Name: name}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("shape of %s: %w", name, err)
	}
	return s, nil
}

// Layers is the number of layers.
func (s *Shape) Layers() int { return s.count("block_count") }

// count is the value of a key that holds a whole number, 0 if it is missing.
func (s *Shape) count(key string) int {
	n, _ := s.Keys[key].(int)
	return n
}

// File is the header of the model. It fails if the tensors do not add up to the
// published size and number of parameters.
func (s *Shape) File() (*gguf.File, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("shape of %s: %w", s.Name, err)
	}
	kv, err := s.keyValues()
	if err != nil {
		return nil, fmt.Errorf("shape of %s: %w", s.Name, err)
	}
	f, err := gguf.New(kv, s.tensors())
	if err != nil {
		return nil, fmt.Errorf("shape of %s: %w", s.Name, err)
	}
	if f.TensorBytes() != s.ModelSize || f.Params() != s.Params {
		return nil, fmt.Errorf("shape of %s: its tensors have %d bytes and %d parameters, but the published model has %d and %d",
			s.Name, f.TensorBytes(), f.Params(), s.ModelSize, s.Params)
	}
	return f, nil
}

// maxTensors is far above every known model.
const maxTensors = 1 << 16

// check refuses shapes whose header would need unbounded time or memory.
func (s *Shape) check() error {
	if s.Architecture == "" {
		return errors.New("the architecture is missing")
	}
	if n, each := s.Layers(), len(s.LayerTensors); n > 0 && each > 0 && n > (maxTensors-min(len(s.Tensors), maxTensors))/each {
		return fmt.Errorf("%d layers of %d tensors are more than the limit of %d", n, each, maxTensors)
	}
	return nil
}

func (s *Shape) keyValues() ([]gguf.KeyValue, error) {
	kv := []gguf.KeyValue{
		{Key: "general.architecture", Value: s.Architecture},
		{Key: "general.name", Value: strings.TrimSuffix(s.Name, ".gguf") + mark},
		{Key: "general.file_type", Value: fileTypes[s.Quantization]},
		{Key: "general.quantization_version", Value: uint32(2)}, // GGML_QNT_VERSION
		// A benchmark needs no words. This tokenizer has only a number of tokens.
		{Key: "tokenizer.ggml.model", Value: "none"},
		{Key: s.Architecture + ".vocab_size", Value: s.VocabSize},
	}
	for _, key := range slices.Sorted(maps.Keys(s.Keys)) {
		switch v := s.Keys[key].(type) {
		case int:
			if v < 0 || v > math.MaxUint32 {
				return nil, fmt.Errorf("key %q is %d, outside 0 to 2³²-1", key, v)
			}
			kv = append(kv, gguf.KeyValue{Key: s.Architecture + "." + key, Value: uint32(v)})
		case float64:
			kv = append(kv, gguf.KeyValue{Key: s.Architecture + "." + key, Value: float32(v)})
		default:
			return nil, fmt.Errorf("key %q is neither a whole number nor a fraction", key)
		}
	}
	return kv, nil
}

func (s *Shape) tensors() []gguf.Tensor {
	var tensors []gguf.Tensor
	add := func(prefix string, layer int, t Tensor) {
		typ := s.Quantization.typeOf(s, t, layer)
		if t.Type != nil {
			typ = *t.Type
		}
		tensors = append(tensors, gguf.Tensor{Name: prefix + t.Name, Dims: slices.Clone(t.Dims), Type: typ})
	}
	for _, t := range s.Tensors {
		add("", 0, t)
	}
	for layer := range s.Layers() {
		for _, t := range s.LayerTensors {
			add(fmt.Sprintf("blk.%d.", layer), layer, t)
		}
	}
	return tensors
}
