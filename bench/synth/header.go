package synth

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// ErrHeader says that a header is valid but no synthetic model can be made from it.
var ErrHeader = errors.New("synthetic weights cannot be made")

// Outline makes the header of a synthetic model from the header of a file, which
// is merged if the model is split. It has the same tensors and keys, but no words:
// its tokenizer has only a number of tokens, as in the shapes. That changes
// neither libllama's description of the model nor its speed. name is the name of
// the model in errors. Outline fails if f lacks a long array of the architecture,
// which libllama may need.
func Outline(name string, f *gguf.File) (*gguf.File, error) {
	refuse := func(format string, args ...any) (*gguf.File, error) {
		return nil, fmt.Errorf("%w for %s: "+format, append([]any{ErrHeader, name}, args...)...)
	}
	arch := f.Architecture()
	switch {
	case f.Shards() > 1:
		return refuse("it is one of %d files, all of which are needed", f.Shards())
	case arch == "":
		return refuse("it names no architecture")
	case len(f.Tensors) == 0:
		return refuse("it has no tensors")
	}
	kv := []gguf.KeyValue{{Key: "tokenizer.ggml.model", Value: "none"}}
	vocabKey := arch + ".vocab_size"
	vocab := f.Vocabulary()
	if vocab > 0 {
		if vocab > math.MaxInt32 {
			return refuse("it has %d tokens, more than 2³¹-1", vocab)
		}
		// libllama allocates memory for each token before it looks at the tensors.
		if i := slices.IndexFunc(f.Tensors, func(t gguf.Tensor) bool { return t.Name == "token_embd.weight" && len(t.Dims) > 1 }); i >= 0 && vocab > f.Tensors[i].Dims[1] {
			return refuse("it has %d tokens, but embeddings for %d", vocab, f.Tensors[i].Dims[1])
		}
		kv = append(kv, gguf.KeyValue{Key: vocabKey, Value: uint32(vocab)})
	}
	for _, k := range f.KV {
		_, skipped := k.Value.(gguf.Skipped)
		switch {
		case k.Key == vocabKey, isWords(k):
		case skipped && strings.HasPrefix(k.Key, arch+"."):
			return refuse("key %q holds %d values, too many to keep", k.Key, k.Value.(gguf.Skipped).Len)
		case skipped: // not of the architecture: libllama does not need it
		case k.Key == "general.name":
			kv = append(kv, gguf.KeyValue{Key: k.Key, Value: marked(k.Value)})
		default:
			kv = append(kv, k)
		}
	}
	tensors := make([]gguf.Tensor, len(f.Tensors))
	copy(tensors, f.Tensors)
	outline, err := gguf.New(kv, tensors)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return outline, nil
}

// mark is the end of a synthetic model's name.
const mark = " (synthetic weights)"

// marked is a model's name with mark at its end.
func marked(name any) any {
	if s, ok := name.(string); ok {
		return strings.TrimSuffix(s, mark) + mark
	}
	return name
}

// isWords reports whether a key belongs to the tokenizer and not to the shape of a
// model. Numbers may belong to the shape, such as the count of token types.
func isWords(k gguf.KeyValue) bool {
	if strings.HasPrefix(k.Key, "tokenizer.chat_template") {
		return true
	}
	if !strings.HasPrefix(k.Key, "tokenizer.") {
		return false
	}
	switch k.Value.(type) {
	case uint8, uint16, uint32, uint64, int8, int16, int32, int64:
		return false
	}
	return true
}

// WriteHeaderFile writes an outline to a file, from which a worker makes the model.
// It replaces the file atomically.
func WriteHeaderFile(path string, outline *gguf.File) error {
	header, err := outline.Header()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".header-*")
	if err != nil {
		return err
	}
	_, err = f.Write(header)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// ReadHeaderFile reads a file of WriteHeaderFile, or any other header without data.
func ReadHeaderFile(path string) (*gguf.File, error) {
	limit := gguf.DefaultLimits.HeaderBytes
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: has %d bytes, more than the limit of a header, %d", path, info.Size(), limit)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := gguf.Read(bytes.NewReader(b), math.MaxInt64, gguf.DefaultLimits)
	if err != nil {
		return nil, result.AtPath(path, err)
	}
	return f, nil
}
