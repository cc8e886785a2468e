package gguf

import (
	"cmp"
	"hash/maphash"
	"slices"
)

// What libllama 0.7.0 has room for (src/llama-hparams.h).
const (
	maxLayers  = 512  // LLAMA_MAX_LAYERS
	maxExperts = 1024 // LLAMA_MAX_EXPERTS
)

// checkHparams refuses what ends libllama's process, or its memory, whatever the
// architecture: load_hparams of src/llama-model.cpp asserts it of every model
// before its tensors are looked at. What the library refuses by itself, as it does
// keys that are missing or go with other shapes of tensors, is left to it, because
// only it knows what an architecture needs. f is a whole model: shards are merged
// before.
func (f *File) checkHparams() error {
	arch := f.Architecture()
	if arch == "" || arch == "clip" { // load_hparams returns before it reads any
		return nil
	}
	arch += "."
	return cmp.Or(f.checkLayers(arch), f.checkExperts(arch), f.checkRope(arch), f.checkWidths(arch), f.checkWords())
}

// checkLayers: GGML_ASSERT(n_layer_all > 0 && n_layer_all <= LLAMA_MAX_LAYERS) and
// GGML_ASSERT(n_layer_nextn <= n_layer_all); a model of which no other layer is left
// ends it when a context is made.
func (f *File) checkLayers(arch string) error {
	layers, ok := f.Uint(arch + "block_count")
	if !ok {
		return nil
	}
	if layers == 0 || layers > maxLayers {
		return refuse(ErrUnsupported, "%sblock_count is %d, not 1 to %d", arch, layers, maxLayers)
	}
	switch ahead, _ := f.Uint(arch + "nextn_predict_layers"); {
	case ahead > layers:
		return refuse(ErrCorrupt, "%snextn_predict_layers is %d, more than the %d of block_count", arch, ahead, layers)
	case ahead == layers:
		return refuse(ErrUnsupported, "%snextn_predict_layers is %d, as block_count: there is no other layer to run", arch, ahead)
	}
	return nil
}

// checkExperts: seven assertions that follow LLM_KV_EXPERT_GROUP_USED_COUNT. A
// number that is absent is 0 there, too.
func (f *File) checkExperts(arch string) error {
	experts, _ := f.Uint(arch + "expert_count")
	used := f.numbers(arch + "expert_used_count").largest()
	groups, _ := f.Uint(arch + "expert_group_count")
	groupsUsed, _ := f.Uint(arch + "expert_group_used_count")
	if experts <= 1 && (arch == "hunyuan-dense." || arch == "hunyuan_vl.") {
		experts, used = 0, 0 // LLM_ARCH_HUNYUAN_DENSE, LLM_ARCH_HUNYUAN_VL
	}
	switch {
	case experts > maxExperts:
		return refuse(ErrUnsupported, "%sexpert_count is %d, more than the limit of %d", arch, experts, maxExperts)
	case used > experts:
		return refuse(ErrCorrupt, "%sexpert_used_count is %d, of %d experts", arch, used, experts)
	case experts > 0 && used == 0:
		return refuse(ErrCorrupt, "%sexpert_used_count is 0, of %d experts", arch, experts)
	case groups > 0 && groups >= experts:
		return refuse(ErrCorrupt, "%sexpert_group_count is %d, of %d experts", arch, groups, experts)
	case groups > 1 && experts%groups != 0:
		return refuse(ErrCorrupt, "%sexpert_group_count is %d, which does not divide %d experts", arch, groups, experts)
	case groups > 1 && (groupsUsed == 0 || groupsUsed >= groups):
		return refuse(ErrCorrupt, "%sexpert_group_used_count is %d, of %d groups", arch, groupsUsed, groups)
	}
	return nil
}

// checkRope: GGML_ASSERT(rope_scaling_type_train != LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED).
func (f *File) checkRope(arch string) error {
	v, _ := f.Get(arch + "rope.scaling.type")
	if s, ok := v.(string); ok && !slices.Contains([]string{"none", "linear", "yarn", "longrope"}, s) {
		return refuse(ErrUnsupported, "%srope.scaling.type is %.40q, not one of none, linear, yarn, longrope", arch, s)
	}
	return nil
}

// checkWidths: a number that no tensor has room for. Where a model has no words,
// llama_vocab::impl::load makes room for vocab_size of them before their
// embeddings are looked for: 2³² are more than 100 GB. The others are widths of
// what goes through a layer, or numbers of heads of at least one element each, so
// a weight of the layer has a dimension that is not less; the library compares
// shapes, but not before products of 32 bits were computed from them.
func (f *File) checkWidths(arch string) error {
	var widest uint64
	for _, t := range f.Tensors {
		widest = max(widest, slices.Max(t.Dims))
	}
	if widest == 0 { // not a model, or its weights are elsewhere
		return nil
	}
	keys := []string{"embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count"}
	if _, words := f.Get(wordsKey); !words {
		keys = append(keys, "vocab_size")
	}
	for _, key := range keys {
		if n := f.numbers(arch + key).largest(); n > widest {
			return refuse(ErrCorrupt, "%s%s is %d, and no tensor has a dimension above %d", arch, key, n, widest)
		}
	}
	if n, ok := f.Uint(arch + "embedding_length"); ok && n == 0 {
		return refuse(ErrCorrupt, "%sembedding_length is 0", arch)
	}
	return nil
}

// checkWords: GGML_ASSERT(id_to_token.size() == token_to_id.size()) of
// llama_vocab::impl::load, which returns before where there is no tokenizer.
func (f *File) checkWords() error {
	switch model, _ := f.Get("tokenizer.ggml.model"); model {
	case nil, "none", "no_vocab":
		return nil
	}
	var twice string
	switch v, _ := f.Get(wordsKey); words := v.(type) {
	case Skipped:
		twice = words.Twice
	case []string:
		known := make(vocabulary)
		for _, word := range words {
			if known.add([]byte(word)) {
				twice = word
				break
			}
		}
	}
	if twice != "" {
		return refuse(ErrCorrupt, "the word %.40q is twice in %s", twice, wordsKey)
	}
	return nil
}

// vocabulary holds words by hashes whose seed nobody knows beforehand: of a million
// different ones two are alike with a probability of 3e-8.
type vocabulary map[uint64]struct{}

var wordSeed = maphash.MakeSeed()

// maxWords are those that a vocabulary keeps, so that its memory is bounded; the
// largest known has 262144.
const maxWords = 1 << 20

// add tells whether the word was there before. The library gives empty words names
// of their own.
func (v vocabulary) add(word []byte) bool {
	if len(word) == 0 || len(v) == maxWords {
		return false
	}
	hash := maphash.Bytes(wordSeed, word)
	if _, ok := v[hash]; ok {
		return true
	}
	v[hash] = struct{}{}
	return false
}
