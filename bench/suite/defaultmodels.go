// Package suite defines what a run measures: the models, the tests, the speeds
// that are expected, and the time budgets that follow from these. It holds data
// and pure functions; nothing here starts anything.
package suite

import (
	"slices"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// Model is a published GGUF file, pinned by revision.
type Model struct {
	File       string // its name; readers of results tell models apart by it
	Repository string // on the hub: user/repository
	Revision   string // commit of the repository
	SizeBytes  uint64 // of the tensors, as llama-bench's model_size
	Params     uint64 // number of parameters, as llama-bench's model_n_params
}

// models are the default models, ordered by size: if a small one is too slow,
// larger ones are not run. Sizes and parameters are those that llama-bench prints
// for the real files. The shape of each is in bench/synth/shapes.
var models = []Model{
	{"SmolLM-135M.Q4_K_M.gguf", "QuantFactory/SmolLM-135M-GGUF", "b35f229108e4c5a4deeccccf9bf75cd46006fa7b", 103_668_480, 134_515_008},
	{"qwen1_5-0_5b-chat-q4_k_m.gguf", "Qwen/Qwen1.5-0.5B-Chat-GGUF", "cfab082d2fef4a8736ef384dc764c2fb6887f387", 401_210_368, 619_570_176},
	{"gemma-2b.Q4_K_M.gguf", "mlabonne/gemma-2b-GGUF", "8dd617a80664da2853999b6b1206595f1c33daa2", 1_489_055_744, 2_506_172_416},
	{"llama-7b.Q4_K_M.gguf", "TheBloke/LLaMA-7b-GGUF", "0a1200190c8c1baafaa0b496c599ba68ad3d4056", 4_080_263_168, 6_738_415_616},
	{"phi-4-q4.gguf", "microsoft/phi-4-gguf", "b1e764cfdbdd0a3ed824d6a8424129eb0a2232ff", 9_049_559_040, 14_659_507_200},
	{"Llama-3.3-70B-Instruct-Q4_K_M.gguf", "unsloth/Llama-3.3-70B-Instruct-GGUF", "7bcd751e48e909680bd2168359dcf7fb53b12da8", 42_512_531_712, 70_553_706_560},
}

// Source is the file on the hub, at the pinned revision.
func (m Model) Source() source.Source {
	s := source.Source{Repository: m.Repository, Revision: m.Revision, File: m.File}
	s.Given = s.String()
	return s
}

// Models are the default models, smallest first.
func Models() []Model { return slices.Clone(models) }

// LookupModel finds a default model by its file name.
func LookupModel(file string) (m Model, ok bool) {
	for _, m := range models {
		if m.File == file {
			return m, true
		}
	}
	return Model{}, false
}
