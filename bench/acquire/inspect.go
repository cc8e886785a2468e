package acquire

import (
	"cmp"
	"slices"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// An Inspection is what a model's header says, and the memory that its tests need. Sizes are in bytes, lengths in tokens.
type Inspection struct {
	Model         string        `json:"model"`
	Name          string        `json:"name,omitempty"` // the file's own for the model
	Architecture  string        `json:"architecture"`
	Params        uint64        `json:"model_n_params"`
	TensorBytes   uint64        `json:"model_size"`
	FileBytes     int64         `json:"file_bytes"`
	Files         int           `json:"files"`
	HeaderBytes   int64         `json:"header_bytes"` // of the first file, or of all if merged
	Layers        uint64        `json:"layers,omitempty"`
	Embedding     uint64        `json:"embedding_length,omitempty"`
	ContextTokens uint64        `json:"context_tokens,omitempty"` // it was trained with
	Vocabulary    uint64        `json:"vocabulary_tokens,omitempty"`
	Experts       uint64        `json:"experts,omitempty"`
	ExpertsUsed   uint64        `json:"experts_used,omitempty"` // for each token
	Unsupported   string        `json:"unsupported,omitempty"`  // why the library can run no test with it
	Token         gguf.Work     `json:"work_per_token"`         // of a generation, without tokens before it
	Types         []TypeSum     `json:"types"`
	Memory        []gguf.Memory `json:"memory"`
	Available     *uint64       `json:"memory_available_bytes,omitempty"`

	Devices     []PlannedDevice `json:"devices,omitempty"`
	DevicesFree *uint64         `json:"devices_free_bytes,omitempty"` // of all GPUs with memory of their own; absent without one
}

// A TypeSum adds up all tensors of one type.
type TypeSum struct {
	Type     gguf.Type `json:"type"`
	Tensors  int       `json:"tensors"`
	Elements uint64    `json:"elements"`
	Bytes    uint64    `json:"bytes"`
}

// Inspect describes a model by its header, and the memory that tests of the lengths
// in tokens need; a length of 0 is left out. The caller fills in the memory and the
// devices of the machine.
func Inspect(found Header, lengths []int) Inspection {
	f := found.File
	in := Inspection{
		Model: found.Name, Architecture: f.Architecture(), Params: f.Params(), TensorBytes: f.TensorBytes(),
		FileBytes: found.FileBytes, Files: found.Files, HeaderBytes: f.DataOffset, Types: []TypeSum{}, Memory: []gguf.Memory{},
	}
	v, _ := f.Get("general.name")
	in.Name, _ = v.(string)
	arch := in.Architecture + "."
	in.Layers, _ = f.Uint(arch + "block_count")
	in.Embedding, _ = f.Uint(arch + "embedding_length")
	in.ContextTokens, _ = f.Uint(arch + "context_length")
	in.Experts, _ = f.Uint(arch + "expert_count")
	in.ExpertsUsed, _ = f.Uint(arch + "expert_used_count")
	in.Vocabulary = f.Vocabulary()
	check := f.CheckFile
	if found.shape { // synthetic weights need no words
		check = f.CheckModel
	}
	if err := check(); err != nil {
		in.Unsupported = err.Error()
	}
	for _, t := range f.Tensors {
		i := slices.IndexFunc(in.Types, func(s TypeSum) bool { return s.Type == t.Type })
		if i < 0 {
			i = len(in.Types)
			in.Types = append(in.Types, TypeSum{Type: t.Type})
		}
		s := &in.Types[i]
		s.Tensors, s.Elements, s.Bytes = s.Tensors+1, s.Elements+t.Elements(), s.Bytes+t.Bytes()
	}
	slices.SortStableFunc(in.Types, func(a, b TypeSum) int { return cmp.Compare(b.Bytes, a.Bytes) })
	slices.Sort(lengths)
	c := ContextOf(bench.DefaultSettings(1))
	in.Token = f.Work(result.Test{Gen: 1}, c)
	for _, n := range slices.Compact(lengths) {
		if n > 0 {
			c.Tokens = n
			in.Memory = append(in.Memory, f.Memory(c))
		}
	}
	return in
}
