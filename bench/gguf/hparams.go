package gguf

import (
	"cmp"
	"hash/maphash"
	"slices"
)

// Limits of libllama 0.7.0 (src/llama-hparams.h).
const (
	maxLayers  = 512  // LLAMA_MAX_LAYERS
	maxExperts = 1024 // LLAMA_MAX_EXPERTS
)

// checkHparams refuses headers that make libllama abort or exhaust its memory, for
// any architecture: load_hparams in src/llama-model.cpp has assertions that it
// checks before the tensors. Other errors, such as missing keys or keys that do
// not match the tensors, are left to libllama, which knows what an architecture
// needs. f must be a whole model; shards are merged first.
func (f *File) checkHparams() error {
	arch := f.Architecture()
	if arch == "" || arch == "clip" { // load_hparams reads nothing for these
		return nil
	}
	arch += "."
	return cmp.Or(f.checkLayers(arch), f.checkExperts(arch), f.checkRope(arch), f.checkWidths(arch), f.checkWords())
}

// checkLayers checks GGML_ASSERT(n_layer_all > 0 && n_layer_all <= LLAMA_MAX_LAYERS)
// and GGML_ASSERT(n_layer_nextn <= n_layer_all). If the two are equal, libllama
// aborts when a context is made.
func (f *File) checkLayers(arch string) error {
	layers, ok := f.Uint(arch + "block_count")
	if !ok {
		return nil
	}
	if layers == 0 || layers > maxLayers {
		return refuse(ErrUnsupported, "%sblock_count is %d, not 1 to %d", arch, layers, maxLayers)
	}
	switch predicting, _ := f.Uint(arch + "nextn_predict_layers"); {
	case predicting > layers:
		return refuse(ErrCorrupt, "%snextn_predict_layers is %d, more than the %d of block_count", arch, predicting, layers)
	case predicting == layers:
		return refuse(ErrUnsupported, "%snextn_predict_layers equals block_count, %d: no layer is left to run", arch, predicting)
	}
	return nil
}

// checkExperts checks the seven assertions that follow
// LLM_KV_EXPERT_GROUP_USED_COUNT. As in libllama, a missing number is 0.
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

// checkRope checks GGML_ASSERT(rope_scaling_type_train !=
// LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED).
func (f *File) checkRope(arch string) error {
	v, _ := f.Get(arch + "rope.scaling.type")
	if s, ok := v.(string); ok && !slices.Contains([]string{"none", "linear", "yarn", "longrope"}, s) {
		return refuse(ErrUnsupported, "%srope.scaling.type is %.40q, not one of none, linear, yarn, longrope", arch, s)
	}
	return nil
}

// checkWidths refuses numbers that exceed every dimension of the model's tensors.
// For a model without words, llama_vocab::impl::load allocates vocab_size entries
// before it looks at the embedding: 2³² of them need more than 100 GB. The other
// keys are widths or numbers of heads, so some weight has a dimension that is at
// least as large. libllama compares shapes, too, but only after it computed
// products of 32 bits from them.
func (f *File) checkWidths(arch string) error {
	var widest uint64
	for _, t := range f.Tensors {
		widest = max(widest, slices.Max(t.Dims))
	}
	if widest == 0 { // not a model, or a model whose weights are in other files
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

// checkWords checks GGML_ASSERT(id_to_token.size() == token_to_id.size()) of
// llama_vocab::impl::load, which does not apply to models without a tokenizer.
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

// vocabulary is a set of words. It keeps hashes with a random seed. Two of a million
// different words have the same hash with a probability of 3e-8.
type vocabulary map[uint64]struct{}

var wordSeed = maphash.MakeSeed()

// maxWords is the most words that a vocabulary keeps, to bound its memory. The
// largest known vocabulary has 262144.
const maxWords = 1 << 20

// add adds a word and reports whether the set had it before. It ignores empty
// words, which libllama renames.
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
