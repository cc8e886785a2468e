package gguf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Files that are valid, and that libllama 0.7.0 cannot measure. All of them wrap
// ErrUnsupported. Their texts are part of every reason that is built from them, so a
// reader of a reason can tell them apart.
const (
	ErrBigEndian      = unsupported("big-endian")
	ErrUnknownType    = unsupported("a type of tensors that the library does not have")
	ErrNotFirst       = unsupported("not the first file of a split model")
	ErrAdapter        = unsupported("an adapter, not a model")
	ErrControlVector  = unsupported("a control vector, not a model")
	ErrImatrix        = unsupported("an importance matrix, not a model")
	ErrProjector      = unsupported("a projector of images or sound, not a language model")
	ErrNoArchitecture = unsupported("no model: it names no architecture")
	ErrVocabularyOnly = unsupported("a vocabulary without weights")
	ErrNoTokenizer    = unsupported("no complete model: it has no key tokenizer.ggml.model")
	ErrEncoderDecoder = unsupported("an encoder-decoder model: its decoder needs what its encoder computed, and the tests have no such step")
)

// Tests that libllama 0.7.0 cannot run with a model that it can load. All of them wrap
// ErrUnsupported.
const (
	ErrEncoder   = unsupported("the model is an encoder, which generates no text")
	ErrDiffusion = unsupported("the model generates text by diffusion, not token by token")
	ErrUBatch    = unsupported("every token of the prompt attends to all others, so the prompt must fit one micro-batch")
	ErrPositions = unsupported("the model learned its positions, and has no more of them")
)

// unsupported is an error that matches ErrUnsupported and has a text of its own.
type unsupported string

func (u unsupported) Error() string { return string(u) }
func (u unsupported) Unwrap() error { return ErrUnsupported }

// CheckModel refuses a file that is no model, and a model of which no test can be run,
// whatever its weights are. f must be a whole model.
func (f *File) CheckModel() error {
	kind, _ := f.Get("general.type")
	arch := f.Architecture()
	var is error
	switch {
	case kind == "adapter":
		is = ErrAdapter
	case kind == "imatrix":
		is = ErrImatrix
	case kind == "mmproj", arch == "clip":
		is = ErrProjector
	case arch == "controlvector":
		is = ErrControlVector
	case arch == "":
		is = ErrNoArchitecture
	case len(f.Tensors) == 0:
		is = ErrVocabularyOnly
	case f.has("enc.") && f.has("dec."):
		is = ErrEncoderDecoder
	default:
		return nil
	}
	return fmt.Errorf("the file is %w", is)
}

// CheckFile refuses a model of which no test can be run with the weights of its file.
func (f *File) CheckFile() error {
	if err := f.CheckModel(); err != nil {
		return err
	}
	if _, ok := f.Get("tokenizer.ggml.model"); !ok {
		return fmt.Errorf("the file is %w", ErrNoTokenizer)
	}
	return nil
}

// has reports whether the name of a tensor begins with prefix.
func (f *File) has(prefix string) bool {
	return slices.ContainsFunc(f.Tensors, func(t Tensor) bool { return strings.HasPrefix(t.Name, prefix) })
}

// Architectures of libllama 0.7.0 whose attention is not causal, whatever their keys
// say. llama_model::create_memory gives most of them no KV cache.
var (
	encoders = []string{
		"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
		"gemma-embedding", "t5encoder", "wavtokenizer-dec",
	}
	diffusers = []string{"dream", "llada", "llada-moe", "rnd1"}
)

// positions is the tensor of learned positions. It has one row for each.
const positions = "position_embd.weight"

// CheckTest refuses a test that libllama cannot run with the model, although it can
// run others. Without the check, most such tests would end the process by an assertion.
// batch and ubatch are the settings n_batch and n_ubatch, in tokens.
func (f *File) CheckTest(t result.Test, batch, ubatch int) error {
	arch := f.Architecture()
	causal, known := f.Get(arch + ".attention.causal")
	diffuser, encoder := slices.Contains(diffusers, arch), slices.Contains(encoders, arch) || known && causal == false
	switch most := min(batch, ubatch); {
	case diffuser && (t.Gen > 0 || t.Depth > 0):
		return ErrDiffusion
	case encoder && (t.Gen > 0 || t.Depth > 0):
		return ErrEncoder
	case (encoder || diffuser) && t.Prompt > most:
		return TooLong(t.Prompt, most)
	}
	i := slices.IndexFunc(f.Tensors, func(t Tensor) bool { return t.Name == positions && len(t.Dims) > 1 })
	if i < 0 {
		return nil
	}
	if n := f.Tensors[i].Dims[1]; uint64(t.Context()) > n {
		return fmt.Errorf("%w: %d tokens exceed its %d", ErrPositions, t.Context(), n)
	}
	return nil
}

// TooLong is the ErrUBatch of a prompt of n tokens, if a micro-batch has at most most.
func TooLong(n, most int) error {
	return fmt.Errorf("%w: %d tokens exceed the %d of -b and -ub", ErrUBatch, n, most)
}

// Mappable reports whether libllama can map the file into memory. It ends the process
// if a buffer in a mapped file does not start at a multiple of mapAlignment. The files
// of a split model are merged, so their offsets are not known: then only their
// alignment counts.
func (f *File) Mappable(files int) bool {
	if f.Alignment%mapAlignment == 0 {
		return true
	}
	misaligned := func(t Tensor) bool { return (uint64(f.DataOffset)+t.Offset)%mapAlignment != 0 }
	return files == 1 && !slices.ContainsFunc(f.Tensors, misaligned)
}

// mapAlignment is TENSOR_ALIGNMENT of ggml's ggml-impl.h, in bytes.
const mapAlignment = 32
