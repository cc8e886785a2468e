// The names of llama.cpp of 2023 that go-llama.cpp's binding.cpp uses, on today's libllama. See README.md.
//
// The library's own header has some of these names with other meanings. It is included inside the namespace libllama.
// This file uses the inline namespace october2023. Its names need no prefix, and its linker symbols differ from those
// inside libllama.
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

// The number of devices that the library takes, as llama_max_devices returns it.
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

// A stopwatch adds its lifetime to a part.
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

// A context: a few hundred bytes that stay until the process ends. llama_free frees the library's context behind it, and
// later calls fail. So a second Free, or a call after Free, touches no freed memory.
struct llama_context {
	libllama::llama_context     *real  = nullptr;
	const libllama::llama_vocab *vocab = nullptr;

	int  n_ctx      = 0;     // as requested; the library rounds it up
	int  n_batch    = 0;     // largest number of tokens in one decode
	bool embeddings = false; // embeddings are computed

	bool failed     = false; // this operation failed; tokenize clears it when the next one begins
	bool bad_token  = false; // the text of a token that does not exist was requested
	bool evaluated  = false; // this operation has evaluated something
	bool session    = false; // a session was loaded and nothing was evaluated since

	uint32_t    seed = 0;
	sampler_ptr penalties, chain;          // of this prediction; made when it first samples
	std::vector<llama_token> ends;         // the tokens that end a text
	std::vector<int8_t>      outputs;      // which tokens have output: only the last
	int64_t piece_end = 0;                 // when the text of a sampled token was ready; 0 once it is counted
	bool    sampled   = false;             // a token was sampled, and its text was not requested yet
};

// fail prints the reason on stderr and makes the current operation fail. It returns false.
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

// A model. The module calls `delete` on it. That frees the library's model and keeps the object, as llama_free does.
struct llama_model {
	struct content {
		libllama::llama_model *real;
		llama_context         *context;  // made when the model was loaded
		llama_context          guidance; // for negative prompts; made when first used
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

// open_context makes a context for a model.
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

// Parameters of a context for a negative prompt. The model keeps the real ones.
struct llama_context_params {};

inline llama_context *llama_new_context_with_model(llama_model *model, llama_context_params) {
	llama_context *guidance = &model->is->guidance;
	if (guidance->real == nullptr) open_context(guidance, model->is->real, model->is->params);
	return guidance; // if it could not be made, evaluation fails
}

inline void llama_backend_free() { libllama::llama_backend_free(); }

inline int llama_n_ctx(const llama_context *ctx) { return ctx->n_ctx; }
inline int llama_n_vocab(const llama_context *ctx) { return ctx->vocab ? libllama::llama_vocab_n_tokens(ctx->vocab) : 0; }

// ---------------------------------------------------------------------------------------------------------------------
// Tokens

// The module asks for the type to learn whether a text begins with BOS. Today the vocabulary says this itself, whatever
// its type is.
enum llama_vocab_type { LLAMA_VOCAB_TYPE_SPM = 0, LLAMA_VOCAB_TYPE_BPE = 1 };

inline llama_vocab_type llama_vocab_type(const llama_context *ctx) {
	return ctx->vocab && libllama::llama_vocab_get_add_bos(ctx->vocab) ? LLAMA_VOCAB_TYPE_SPM : LLAMA_VOCAB_TYPE_BPE;
}

// The token that ends a text. If there is none, it is less than LLAMA_TOKEN_NULL, which is no token.
inline llama_token llama_token_eos(const llama_context *ctx) {
	if (ctx->vocab == nullptr) return LLAMA_TOKEN_NULL - 1;
	const llama_token id = libllama::llama_vocab_eos(ctx->vocab);
	if (id != LLAMA_TOKEN_NULL) return id;
	return ctx->ends.empty() ? LLAMA_TOKEN_NULL - 1 : ctx->ends[0];
}

// The token of an empty prompt. If the vocabulary has no BOS, or if its BOS also ends a text, another token is used.
// Otherwise the prediction would end at once.
inline llama_token llama_token_bos(const llama_context *ctx) {
	if (ctx->vocab == nullptr) return LLAMA_TOKEN_NULL;
	const llama_token id = libllama::llama_vocab_bos(ctx->vocab);
	if (id != LLAMA_TOKEN_NULL && !libllama::llama_vocab_is_eog(ctx->vocab, id)) return id;
	return std::max(libllama::llama_vocab_nl(ctx->vocab), 0);
}

inline bool has_tokenizer(llama_context *ctx) {
	return libllama::llama_vocab_type(ctx->vocab) != libllama::LLAMA_VOCAB_TYPE_NONE || fail(ctx, "the model has no tokenizer");
}

// The text of a token; empty for a control token.
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
	std::string piece(15, 0); // no allocation: most pieces fit into the object
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

// is_utf8 reports whether a text is valid UTF-8. The library silently takes other bytes for U+FFFD.
inline bool is_utf8(const unsigned char *s, size_t n) {
	while (n > 0) {
		const size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
		if (length == 0 || length > n) return false;
		for (size_t i = 1; i < length; i++) {
			if ((s[i] & 0xc0) != 0x80) return false;
		}
		if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) {
			return false; // an overlong form, a surrogate, or beyond the last code point
		}
		s += length;
		n -= length;
	}
	return true;
}

// tokenize begins an operation of the module. The name of a special token in a text is plain text.
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

// Evaluates tokens after the first n_past tokens of the context and forgets the tokens after those. Returns 0, or 1 if it
// fails. As in 2023, it returns when the logits are there.
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
		// A prediction warms up with one token before it looks at the session. That would erase the session.
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
		if (ctx->embeddings) { // otherwise the library would compute embeddings and logits of all tokens
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
	// In 2023 a session file had the logits of the last token, with which a prediction continues. Today's files have not.
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

// In 2023 all states of a context had the same size, and the module reads as many bytes as a state has now. So a state
// here is this header, the library's state, and zeros up to the size of a full state.
struct state_header {
	char     magic[8];
	uint64_t context; // fingerprint of model and context
	uint64_t length;  // of the library's state, in bytes
	uint64_t sum;     // its FNV-1a hash
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

// The context whose state this thread reads. load_state asks for its size before it opens the file.
inline thread_local const llama_context *state_of = nullptr;

inline size_t llama_get_state_size(const llama_context *ctx) {
	state_of = ctx;
	if (ctx->real == nullptr) return sizeof(state_header);
	const libllama::llama_model *model = libllama::llama_get_model(ctx->real);
	const uint64_t head  = libllama::llama_model_n_embd(model) / std::max(libllama::llama_model_n_head(model), 1);
	const uint64_t row   = libllama::llama_model_n_head_kv(model) * (meta(model, ".attention.key_length", head) + meta(model, ".attention.value_length", head));
	const uint64_t cells = libllama::llama_n_ctx(ctx->real);
	return sizeof(state_header) + cells * (row * libllama::llama_model_n_layer(model) * sizeof(float) + 64) // f32 is the largest type
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
	memset(to, 0, size); // zeros are no valid state: reading them back fails
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

// is_state reports whether bytes are a state of the context in state_of.
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

// The module opens and reads state files without checking for errors. The compiler chooses these two functions by their
// argument types, which only load_state and save_state have. A file that cannot be opened reads as empty, and reading
// fails if a file is no state of the context.
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

// Declared in parts.h.
extern "C" __attribute__((used)) inline void gollama_parts_read(struct gollama_parts *to) {
	to->tokenize_ns = parts.tokenize_ns;
	to->eval_ns     = parts.eval_ns;
	to->sample_ns   = parts.sample_ns;
	to->piece_ns    = parts.piece_ns;
	to->callback_ns = parts.callback_ns;
	to->samples     = parts.samples;
}
