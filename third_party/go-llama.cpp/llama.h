// The names of llama.cpp of 2023 that go-llama.cpp's binding.cpp uses, on today's libllama. See README.md.
//
// The library's own header has some of these names with other meanings. It is read into the namespace libllama; what
// stands here is in october2023, whose names need no prefix, and whose linker symbols are not those that libllama uses
// inside.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <ggml.h>
#include <ggml-cpu.h>
#include <ggml-backend.h>
#include <ggml-opt.h>
#include <gguf.h>

namespace libllama {
#include_next <llama.h>
} // namespace libllama

#include "parts.h"

// As many as the library takes, llama_max_devices.
#define LLAMA_MAX_DEVICES 16

inline namespace october2023 {

using libllama::llama_token;
using libllama::llama_token_data;
using libllama::llama_token_data_array;

// ---------------------------------------------------------------------------------------------------------------------
// Times

inline struct part_sums {
	std::atomic<int64_t> tokenize_ns, eval_ns, sample_ns, piece_ns, callback_ns, samples;
} parts;

inline int64_t now_ns() {
	return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A stopwatch adds the time of its life to a part.
struct stopwatch {
	std::atomic<int64_t> &sum;
	int64_t start = now_ns();
	explicit stopwatch(std::atomic<int64_t> &sum) : sum(sum) {}
	~stopwatch() { sum.fetch_add(now_ns() - start, std::memory_order_relaxed); }
};

// ---------------------------------------------------------------------------------------------------------------------
// Models and contexts

struct sampler_free {
	void operator()(libllama::llama_sampler *s) const { libllama::llama_sampler_free(s); }
};
using sampler_ptr = std::unique_ptr<libllama::llama_sampler, sampler_free>;

// A context. It is there until the process ends, a few hundred bytes; what it stands for is gone after llama_free, and
// then every call fails. So a Free too many, or a call after it, does not touch memory of others.
struct llama_context {
	libllama::llama_context     *real  = nullptr;
	const libllama::llama_vocab *vocab = nullptr;

	int  n_ctx      = 0;     // as asked for: the library's own is rounded up
	int  n_batch    = 0;     // tokens in one decode at most
	bool embeddings = false; // they are computed

	bool failed     = false; // this operation has an error; set back where the next begins, at its first tokens
	bool bad_token  = false; // a token that does not exist was to become text
	bool evaluated  = false; // this operation has evaluated something
	bool session    = false; // a session was loaded and nothing was evaluated since

	uint32_t    seed = 0;
	sampler_ptr penalties, chain;          // of this prediction, made when it samples first
	std::vector<llama_token> ends;         // the tokens that end a text
	std::vector<int8_t>      outputs;      // the last token's alone
	int64_t piece_end = 0;                 // when the text of a sampled token was ready; 0 when that is told
	bool    sampled   = false;             // a token was sampled whose text nobody asked for yet
};

// fail says on stderr why, and makes the operation under way fail. It returns false.
__attribute__((format(printf, 2, 3))) inline bool fail(llama_context *ctx, const char *format, ...) {
	va_list args;
	va_start(args, format);
	fprintf(stderr, "go-llama.cpp: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	if (ctx != nullptr) ctx->failed = true;
	return false;
}

inline bool is_open(llama_context *ctx) { return ctx->real != nullptr || fail(ctx, "the model was freed"); }

inline void llama_free(llama_context *ctx) {
	libllama::llama_free(ctx->real); // takes null
	ctx->real  = nullptr;
	ctx->vocab = nullptr;
	ctx->penalties.reset();
	ctx->chain.reset();
}

// A model. The module ends it with `delete`, which frees what it stands for and leaves the object, as llama_free does.
struct llama_model {
	struct content {
		libllama::llama_model *real;
		llama_context         *context;  // that it was loaded with
		llama_context          guidance; // for negative prompts, made when the first is used
		libllama::llama_context_params params;
	} *const is;

	explicit llama_model(content *is) : is(is) {}
	~llama_model() {
		llama_free(&is->guidance);
		libllama::llama_model_free(is->real); // takes null
		is->real = nullptr;
	}
	static void operator delete(void *) {}
};

// open makes a context of a model.
inline bool open_context(llama_context *ctx, libllama::llama_model *model, const libllama::llama_context_params &params) {
	ctx->real = libllama::llama_init_from_model(model, params);
	if (ctx->real == nullptr) return fail(ctx, "cannot make a context of %u tokens", params.n_ctx);
	ctx->vocab      = libllama::llama_model_get_vocab(model);
	ctx->n_ctx      = params.n_ctx > 0 ? (int) params.n_ctx : (int) libllama::llama_n_ctx(ctx->real);
	ctx->n_batch    = (int) libllama::llama_n_batch(ctx->real);
	ctx->embeddings = params.embeddings;
	ctx->outputs.assign(ctx->n_batch, 0);
	for (llama_token id = 0; id < libllama::llama_vocab_n_tokens(ctx->vocab); id++) {
		if (libllama::llama_vocab_is_eog(ctx->vocab, id)) ctx->ends.push_back(id);
	}
	return true;
}

// Parameters of a context for a negative prompt: the model knows them.
struct llama_context_params {};

inline llama_context *llama_new_context_with_model(llama_model *model, llama_context_params) {
	llama_context *guidance = &model->is->guidance;
	if (guidance->real == nullptr) open_context(guidance, model->is->real, model->is->params);
	return guidance; // if it could not be made, evaluating it fails
}

inline void llama_backend_free() { libllama::llama_backend_free(); }

inline int llama_n_ctx(const llama_context *ctx) { return ctx->n_ctx; }
inline int llama_n_vocab(const llama_context *ctx) { return ctx->vocab ? libllama::llama_vocab_n_tokens(ctx->vocab) : 0; }

// ---------------------------------------------------------------------------------------------------------------------
// Tokens

// The module asks for the type to know whether a text begins with a token of its own. Today the vocabulary says so, of
// whatever type it is.
enum llama_vocab_type { LLAMA_VOCAB_TYPE_SPM = 0, LLAMA_VOCAB_TYPE_BPE = 1 };

inline llama_vocab_type llama_vocab_type(const llama_context *ctx) {
	return ctx->vocab && libllama::llama_vocab_get_add_bos(ctx->vocab) ? LLAMA_VOCAB_TYPE_SPM : LLAMA_VOCAB_TYPE_BPE;
}

// Less than LLAMA_TOKEN_NULL, and so no token at all, where nothing ends a text.
inline llama_token llama_token_eos(const llama_context *ctx) {
	if (ctx->vocab == nullptr) return LLAMA_TOKEN_NULL - 1;
	const llama_token id = libllama::llama_vocab_eos(ctx->vocab);
	if (id != LLAMA_TOKEN_NULL) return id;
	return ctx->ends.empty() ? LLAMA_TOKEN_NULL - 1 : ctx->ends[0];
}

// The token that an empty prompt is made of. Where a vocabulary has none that begins a text, or one that also ends it, it
// is another, else the prediction would end where it begins.
inline llama_token llama_token_bos(const llama_context *ctx) {
	if (ctx->vocab == nullptr) return LLAMA_TOKEN_NULL;
	const llama_token id = libllama::llama_vocab_bos(ctx->vocab);
	if (id != LLAMA_TOKEN_NULL && !libllama::llama_vocab_is_eog(ctx->vocab, id)) return id;
	return std::max(libllama::llama_vocab_nl(ctx->vocab), 0);
}

inline bool has_tokenizer(llama_context *ctx) {
	return libllama::llama_vocab_type(ctx->vocab) != libllama::LLAMA_VOCAB_TYPE_NONE || fail(ctx, "the model has no tokenizer");
}

// The text of a token; empty for one that only has a meaning.
inline std::string llama_token_to_piece(llama_context *ctx, llama_token id) {
	const stopwatch watch(parts.piece_ns);
	if (ctx->piece_end != 0) {
		parts.callback_ns.fetch_add(watch.start - ctx->piece_end, std::memory_order_relaxed);
		ctx->piece_end = 0;
	}
	if (!is_open(ctx) || !has_tokenizer(ctx)) return "";
	if (id < 0 || id >= llama_n_vocab(ctx)) {
		ctx->bad_token = true;
		fail(ctx, "there is no token %d: the vocabulary has %d", id, llama_n_vocab(ctx));
		return "";
	}
	std::string piece(15, 0); // what fits into the object itself, as most do
	int n = libllama::llama_token_to_piece(ctx->vocab, id, &piece[0], piece.size(), 0, false);
	if (n < 0) {
		piece.resize(-n);
		n = libllama::llama_token_to_piece(ctx->vocab, id, &piece[0], piece.size(), 0, false);
	}
	piece.resize(std::max(n, 0));
	if (ctx->sampled) {
		ctx->sampled   = false;
		ctx->piece_end = now_ns();
	}
	return piece;
}

// is_utf8 tells whether a text is: today's library takes other bytes for U+FFFD and says nothing.
inline bool is_utf8(const unsigned char *s, size_t n) {
	while (n > 0) {
		const size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
		if (length == 0 || length > n) return false;
		for (size_t i = 1; i < length; i++) {
			if ((s[i] & 0xc0) != 0x80) return false;
		}
		if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) {
			return false; // longer than need be, a surrogate, or beyond the last code point
		}
		s += length;
		n -= length;
	}
	return true;
}

// tokenize begins an operation of the module. Names of special tokens in a text are text.
inline bool tokenize(llama_context *ctx, const char *text, size_t length, bool add_bos, std::vector<llama_token> &tokens) {
	const stopwatch watch(parts.tokenize_ns);
	const bool bad_token = ctx->bad_token;
	ctx->failed = ctx->bad_token = ctx->evaluated = ctx->sampled = false;
	ctx->piece_end = 0;
	tokens.clear();
	if (bad_token) return fail(ctx, "no text was made of the tokens");
	if (!is_open(ctx) || !has_tokenizer(ctx)) return false;
	if (length > INT32_MAX) return fail(ctx, "the text has more than 2 GiB");
	if (!is_utf8((const unsigned char *) text, length)) return fail(ctx, "the text is not valid UTF-8");
	try {
		const int bos = add_bos && libllama::llama_vocab_get_add_bos(ctx->vocab) && libllama::llama_vocab_bos(ctx->vocab) != LLAMA_TOKEN_NULL;
		tokens.resize(length + 2);
		int n = libllama::llama_tokenize(ctx->vocab, text, length, tokens.data() + bos, tokens.size() - bos, false, false);
		if (n < 0 && n != INT32_MIN) {
			tokens.resize(bos - n);
			n = libllama::llama_tokenize(ctx->vocab, text, length, tokens.data() + bos, tokens.size() - bos, false, false);
		}
		if (n < 0) return fail(ctx, "the text cannot be tokenized");
		if (bos) tokens[0] = libllama::llama_vocab_bos(ctx->vocab);
		tokens.resize(bos + n);
		return true;
	} catch (const std::exception &e) {
		tokens.clear();
		return fail(ctx, "the text cannot be tokenized: %s", e.what());
	}
}

// ---------------------------------------------------------------------------------------------------------------------
// Evaluation

// Evaluates tokens after the first n_past of those that were evaluated before; what came after these is forgotten.
// Returns 0, or 1 when that failed. It returns when the logits are there, as in 2023.
inline int llama_eval(llama_context *ctx, const llama_token *tokens, int n_tokens, int n_past, int n_threads) {
	const stopwatch watch(parts.eval_ns);
	if (ctx->failed || !is_open(ctx)) return 1;
	if (n_tokens < 1 || n_past < 0) return !fail(ctx, "nothing to evaluate");
	if (n_threads < 1) return !fail(ctx, "%d threads cannot evaluate", n_threads);
	if (n_tokens > ctx->n_ctx - n_past) {
		return !fail(ctx, "%d tokens after %d do not fit the context of %d", n_tokens, n_past, ctx->n_ctx);
	}
	for (int i = 0; i < n_tokens; i++) {
		if (tokens[i] < 0 || tokens[i] >= llama_n_vocab(ctx)) return !fail(ctx, "there is no token %d", tokens[i]);
	}
	if (ctx->session) {
		// A prediction warms up with one token before it looks at the session: that would leave nothing of it.
		ctx->session = false;
		if (n_tokens == 1 && n_past == 0 && tokens[0] == llama_token_bos(ctx)) return 0;
	}
	libllama::llama_memory_t memory = libllama::llama_get_memory(ctx->real);
	const int held = libllama::llama_memory_seq_pos_max(memory, 0) + 1;
	if (n_past == 0) {
		libllama::llama_memory_clear(memory, false);
	} else if (held < n_past || (held > n_past && !libllama::llama_memory_seq_rm(memory, 0, n_past, -1))) {
		return !fail(ctx, "the context cannot go back to its first %d tokens of %d", n_past, held);
	}
	if (libllama::llama_n_threads(ctx->real) != n_threads || libllama::llama_n_threads_batch(ctx->real) != n_threads) {
		libllama::llama_set_n_threads(ctx->real, n_threads, n_threads);
	}
	for (int i = 0; i < n_tokens; i += ctx->n_batch) {
		const int n = std::min(n_tokens - i, ctx->n_batch);
		libllama::llama_batch batch = libllama::llama_batch_get_one(const_cast<llama_token *>(tokens + i), n);
		if (ctx->embeddings) { // else the library would give those of all tokens, and their logits
			ctx->outputs[n - 1] = 1;
			batch.logits = ctx->outputs.data();
		}
		const int status = libllama::llama_decode(ctx->real, batch);
		ctx->outputs[n - 1] = 0;
		if (status != 0) return !fail(ctx, "the library cannot evaluate %d tokens after %d: code %d", n, n_past + i, status);
	}
	libllama::llama_synchronize(ctx->real);
	ctx->evaluated = true;
	return 0;
}

inline float *llama_get_logits(llama_context *ctx) { return libllama::llama_get_logits_ith(ctx->real, -1); }
inline float *llama_get_embeddings(llama_context *ctx) { return libllama::llama_get_embeddings_ith(ctx->real, -1); }

inline void llama_reset_timings(llama_context *ctx) { if (ctx->real) libllama::llama_perf_context_reset(ctx->real); }
inline void llama_print_timings(llama_context *ctx) { if (ctx->real) libllama::llama_perf_context_print(ctx->real); }

// ---------------------------------------------------------------------------------------------------------------------
// Sessions and states

inline bool llama_load_session_file(llama_context *ctx, const char *path, llama_token *tokens, size_t capacity, size_t *n) {
	ctx->failed = false;
	if (!is_open(ctx)) return false;
	*n = 0;
	libllama::llama_memory_t memory = libllama::llama_get_memory(ctx->real);
	if (!libllama::llama_state_load_file(ctx->real, path, tokens, capacity, n) || (size_t) libllama::llama_memory_seq_pos_max(memory, 0) + 1 != *n) {
		return fail(ctx, "%s is no session of this model", path);
	}
	if (*n == 0) return true;
	// A session had the logits of its last token, from which a prediction goes on; today's files have not.
	if (!libllama::llama_memory_seq_rm(memory, 0, *n - 1, -1) ||
			libllama::llama_decode(ctx->real, libllama::llama_batch_get_one(tokens + *n - 1, 1)) != 0) {
		return fail(ctx, "the session %s cannot be continued", path);
	}
	ctx->session = true;
	return true;
}

inline bool llama_save_session_file(llama_context *ctx, const char *path, const llama_token *tokens, size_t n) {
	if (!is_open(ctx)) return false;
	if (!libllama::llama_state_save_file(ctx->real, path, tokens, n)) return fail(ctx, "cannot write the session %s", path);
	return true;
}

// In 2023 all states of a context had one size, and the module still reads as many bytes as one has now. So a state is
// what the library makes of it, after this, and zeros to the size of a full one.
struct state_header {
	char     magic[8];
	uint64_t context; // fingerprint of model and context
	uint64_t length;  // of what follows
	uint64_t sum;     // of what follows
};
constexpr char state_magic[8] = {'g', 'o', 'l', 'l', 'a', 'm', 'a', '1'};

inline uint64_t fnv(const void *data, size_t n, uint64_t sum = 14695981039346656037u) {
	for (size_t i = 0; i < n; i++) sum = (sum ^ ((const unsigned char *) data)[i]) * 1099511628211u;
	return sum;
}

inline uint64_t meta(const libllama::llama_model *model, const char *suffix, uint64_t otherwise) {
	char arch[128], value[128];
	if (libllama::llama_model_meta_val_str(model, "general.architecture", arch, sizeof arch) < 0) return otherwise;
	const std::string key = std::string(arch) + suffix;
	if (libllama::llama_model_meta_val_str(model, key.c_str(), value, sizeof value) < 0) return otherwise;
	return strtoull(value, nullptr, 10);
}

// The context whose state this thread reads: load_state asks for its size before it opens the file.
inline thread_local const llama_context *state_of = nullptr;

inline size_t llama_get_state_size(const llama_context *ctx) {
	state_of = ctx;
	if (ctx->real == nullptr) return sizeof(state_header);
	const libllama::llama_model *model = libllama::llama_get_model(ctx->real);
	const uint64_t head  = libllama::llama_model_n_embd(model) / std::max(libllama::llama_model_n_head(model), 1);
	const uint64_t row   = libllama::llama_model_n_head_kv(model) * (meta(model, ".attention.key_length", head) + meta(model, ".attention.value_length", head));
	const uint64_t cells = libllama::llama_n_ctx(ctx->real);
	return sizeof(state_header) + cells * (row * libllama::llama_model_n_layer(model) * sizeof(float) + 64) // f32 is the largest
		+ (libllama::llama_vocab_n_tokens(ctx->vocab) + libllama::llama_model_n_embd(model)) * sizeof(float) + (1 << 20);
}

inline uint64_t fingerprint(const llama_context *ctx) {
	const libllama::llama_model *model = libllama::llama_get_model(ctx->real);
	const uint64_t facts[] = {libllama::llama_model_n_params(model), libllama::llama_model_size(model), (uint64_t) ctx->n_ctx,
		(uint64_t) libllama::llama_vocab_n_tokens(ctx->vocab), ctx->embeddings};
	return fnv(facts, sizeof facts);
}

inline void llama_copy_state_data(llama_context *ctx, uint8_t *to) {
	const size_t size = llama_get_state_size(ctx);
	memset(to, 0, size); // no state: reading it back fails
	if (!is_open(ctx)) return;
	state_header h{};
	h.length = libllama::llama_state_get_size(ctx->real);
	if (h.length > size - sizeof h) {
		fail(ctx, "a state of this kind of model cannot be saved");
		return;
	}
	h.length = libllama::llama_state_get_data(ctx->real, to + sizeof h, h.length);
	h.sum     = fnv(to + sizeof h, h.length);
	h.context = fingerprint(ctx);
	memcpy(h.magic, state_magic, sizeof h.magic);
	memcpy(to, &h, sizeof h);
}

// is_state tells whether bytes are a state of the context that this thread asked for.
inline bool is_state(const uint8_t *from, size_t size) {
	state_header h;
	if (size < sizeof h || state_of == nullptr || state_of->real == nullptr) return false;
	memcpy(&h, from, sizeof h);
	return memcmp(h.magic, state_magic, sizeof h.magic) == 0 && h.context == fingerprint(state_of) &&
		h.length <= size - sizeof h && h.sum == fnv(from + sizeof h, h.length);
}

inline void llama_set_state_data(llama_context *ctx, const uint8_t *from) {
	state_header h;
	memcpy(&h, from, sizeof h);
	libllama::llama_state_set_data(ctx->real, from + sizeof h, h.length);
}

// The module opens and reads state files without looking whether they are there. These two are taken for their argument
// types, which are those of load_state and save_state and of no other call: a file that cannot be opened is empty,
// and one that is no state of the context cannot be read.
inline FILE *fopen(char *path, char *mode) {
	FILE *f = ::fopen((const char *) path, (const char *) mode);
	if (f != nullptr) return f;
	perror(path);
	return ::fopen("/dev/null", (const char *) mode);
}

inline size_t fread(uint8_t *to, int size, size_t n, FILE *f) {
	const size_t got = ::fread((void *) to, (size_t) size, n, f);
	return got == n && is_state(to, n) ? got : 0;
}

} // namespace october2023

// gollama_parts_read is in parts.h.
extern "C" __attribute__((used)) inline void gollama_parts_read(struct gollama_parts *to) {
	to->tokenize_ns = parts.tokenize_ns;
	to->eval_ns     = parts.eval_ns;
	to->sample_ns   = parts.sample_ns;
	to->piece_ns    = parts.piece_ns;
	to->callback_ns = parts.callback_ns;
	to->samples     = parts.samples;
}
