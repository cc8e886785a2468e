// Parameters, loading and sampling on today's libllama: what go-llama.cpp takes from the "common" library of llama.cpp of
// 2023 and from its own patch of it. See README.md.
#pragma once

#include <cassert>
#include <cinttypes>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include <dlfcn.h>
#include <sys/stat.h>

#include <llama.h>
#include <grammar-parser.h>

inline namespace october2023 {

// ---------------------------------------------------------------------------------------------------------------------
// Parameters

// One set for loading and one for every call, with the defaults of 2023. llama_allocate_params does not set all of them.
// One that keeps its default is n_ctx: it limits the tokens of Eval and TokenizeString.
struct gpt_params {
	uint32_t seed           = LLAMA_DEFAULT_SEED;
	int      n_threads      = 1;
	int      n_predict      = -1; // tokens to predict; also the size of the caller's buffer for the result, see below
	int      n_ctx          = 512;
	int      n_batch        = 512;
	int      n_keep         = 0;
	int      n_draft        = 16;
	int      n_gpu_layers   = 0;
	int      main_gpu       = 0;
	float    tensor_split[LLAMA_MAX_DEVICES] = {0};
	float    rope_freq_base  = 10000.0f;
	float    rope_freq_scale = 1.0f;

	std::map<llama_token, float> logit_bias;
	int   top_k             = 40; // 0 or less: all
	float top_p             = 0.95f;
	float tfs_z             = 1.00f;
	float typical_p         = 1.00f;
	float temp              = 0.80f; // 0 or less: the likeliest token
	float repeat_penalty    = 1.10f;
	int   repeat_last_n     = 64; // 0: none; negative: the whole context
	float frequency_penalty = 0.00f;
	float presence_penalty  = 0.00f;
	int   mirostat          = 0;
	float mirostat_tau      = 5.00f;
	float mirostat_eta      = 0.10f;
	bool  penalize_nl       = true;
	bool  ignore_eos        = false;

	std::string cfg_negative_prompt;
	float       cfg_scale = 1.0f;

	std::string prompt;
	std::string path_prompt_cache;
	std::string grammar;
	std::vector<std::string> antiprompt;

	bool memory_f16       = true;
	bool interactive      = false;
	bool prompt_cache_all = false;
	bool prompt_cache_ro  = false;
	bool use_mmap         = true;
	bool use_mlock        = false;

	mutable bool failed = false; // sampling failed. The module ignores that, so the end of the prediction checks it
};

// A loaded model. It is also a context, because the module passes its address to load_state and save_state as one.
struct llama_binding_state : llama_context {
	llama_context *ctx = this;
	llama_model   *model = nullptr;
};

inline llama_context_params llama_context_params_from_gpt_params(const gpt_params &) { return {}; }

// ---------------------------------------------------------------------------------------------------------------------
// Loading

// Opens ggml's back-ends once, from the directory beside the library, or from ggml's own search path.
inline void open_backends() {
	static const bool once = [] {
		Dl_info library;
		std::string dir;
		if (dladdr(dlsym(RTLD_DEFAULT, "llama_backend_init"), &library) != 0) {
			dir = library.dli_fname;
			dir.replace(dir.rfind('/') + 1, std::string::npos, "ggml/backends0");
		}
		struct stat s;
		if (stat(dir.c_str(), &s) == 0) {
			ggml_backend_load_all_from_path(dir.c_str());
		} else {
			ggml_backend_load_all();
		}
		return true;
	}();
	(void) once;
	libllama::llama_backend_init();
}

// Reads numbers such as "1,2/3" into at most LLAMA_MAX_DEVICES places. Returns false if the text is invalid.
inline bool read_split(const char *text, float *split) {
	for (size_t i = 0; *text != 0; i++) {
		char *end;
		const float value = strtof(text, &end);
		if (end == text || i >= LLAMA_MAX_DEVICES || !(value >= 0)) return false;
		split[i] = value;
		text = end + strspn(end, ",/");
		if (text == end && *end != 0) return false;
	}
	return true;
}

// Loads a model and makes its context. If that fails, it prints the reason on stderr and returns null. mul_mat_q and
// perplexity have no effect: today's library decides them. Each prediction has its own seed.
inline void *load_binding_model(const char *fname, int n_ctx, int /*n_seed*/, bool memory_f16, bool mlock, bool embeddings, bool mmap,
		bool low_vram, int n_gpu_layers, int n_batch, const char *maingpu, const char *tensorsplit, bool numa, float rope_freq_base,
		float rope_freq_scale, bool /*mul_mat_q*/, const char *lora, const char *lora_base, bool /*perplexity*/) {
	auto model_params = libllama::llama_model_default_params();
	auto params       = libllama::llama_context_default_params();
	float split[LLAMA_MAX_DEVICES] = {0};

	char *end = nullptr;
	model_params.main_gpu = strtol(maingpu, &end, 10);
	if (*end != 0) return fail(nullptr, "main GPU \"%s\" is not a number", maingpu), nullptr;
	if (!read_split(tensorsplit, split)) return fail(nullptr, "tensor split \"%s\" is not a list of up to %d numbers", tensorsplit, LLAMA_MAX_DEVICES), nullptr;
	if (tensorsplit[0] != 0) model_params.tensor_split = split;
	if (n_ctx < 0) return fail(nullptr, "a context of %d tokens cannot be", n_ctx), nullptr;
	if (n_batch < 1) return fail(nullptr, "a batch of %d tokens cannot be", n_batch), nullptr;
	if (lora_base[0] != 0) return fail(nullptr, "a base model for a LoRA adapter: llama.cpp has none any more"), nullptr;

	model_params.n_gpu_layers = n_gpu_layers;
	model_params.load_mode    = mmap && mlock ? libllama::LLAMA_LOAD_MODE_MMAP_MLOCK : mmap ? libllama::LLAMA_LOAD_MODE_MMAP
		: mlock ? libllama::LLAMA_LOAD_MODE_MLOCK : libllama::LLAMA_LOAD_MODE_NONE;
	params.n_ctx           = n_ctx;
	params.n_batch         = n_batch;
	params.n_ubatch        = std::min<uint32_t>(params.n_ubatch, n_batch);
	params.type_k          = memory_f16 ? GGML_TYPE_F16 : GGML_TYPE_F32;
	params.type_v          = params.type_k;
	params.offload_kqv     = !low_vram;
	params.embeddings      = embeddings;
	params.pooling_type    = libllama::LLAMA_POOLING_TYPE_NONE; // embeddings are the last token's, as in 2023
	params.no_perf         = false;
	// The module always sets these two, by default to the values of 2023. Those stand for the model's own.
	params.rope_freq_base  = rope_freq_base == 10000.0f ? 0 : rope_freq_base;
	params.rope_freq_scale = rope_freq_scale == 1.0f ? 0 : rope_freq_scale;

	try {
		open_backends();
		if (numa) libllama::llama_numa_init(GGML_NUMA_STRATEGY_DISTRIBUTE);
		libllama::llama_model *real = libllama::llama_model_load_from_file(fname, model_params);
		if (real == nullptr) return fail(nullptr, "cannot load %s", fname), nullptr;

		auto *state = new llama_binding_state;
		state->model = new llama_model(new llama_model::content{real, state, {}, params});
		state->model->is->params.embeddings = false;
		bool ok = open_context(state, real, params);
		if (ok && lora[0] != 0) {
			float scale   = 1;
			auto *adapter = libllama::llama_adapter_lora_init(real, lora);
			ok = adapter != nullptr && libllama::llama_set_adapters_lora(state->real, &adapter, 1, &scale) == 0;
			if (!ok) fail(nullptr, "%s is no LoRA adapter for this model, in the format that llama.cpp has today", lora);
		}
		if (ok) return state;
		llama_free(state);
		delete state->model;
	} catch (const std::exception &e) {
		fail(nullptr, "cannot load %s: %s", fname, e.what());
	}
	return nullptr;
}

// ---------------------------------------------------------------------------------------------------------------------
// Sampling

// Begins sampling for a prediction.
inline void llama_set_rng_seed(llama_context *ctx, uint32_t seed) {
	ctx->seed = seed;
	ctx->chain.reset();
	ctx->penalties.reset();
}

// Makes the samplers of a prediction in the order of 2023.
inline bool make_samplers(llama_context *ctx, const gpt_params &p, const std::vector<llama_token> &last_tokens) {
	if (p.tfs_z < 1) return fail(ctx, "tail-free sampling: llama.cpp has none any more");
	if (!(p.repeat_penalty > 0)) return fail(ctx, "a repetition penalty of %g cannot be", p.repeat_penalty);
	if (!std::isfinite(p.frequency_penalty) || !std::isfinite(p.presence_penalty)) return fail(ctx, "a penalty is not finite");

	const int n_vocab = llama_n_vocab(ctx);
	const int last_n  = std::min<int>(p.repeat_last_n < 0 ? ctx->n_ctx : p.repeat_last_n, last_tokens.size());
	ctx->penalties.reset(libllama::llama_sampler_init_penalties(n_vocab, last_n, p.repeat_penalty, p.frequency_penalty, p.presence_penalty));
	for (auto id = last_tokens.end() - last_n; id != last_tokens.end(); ++id) libllama::llama_sampler_accept(ctx->penalties.get(), *id);

	ctx->chain.reset(libllama::llama_sampler_chain_init(libllama::llama_sampler_chain_default_params()));
	const auto add = [ctx](libllama::llama_sampler *s) { libllama::llama_sampler_chain_add(ctx->chain.get(), s); };
	if (p.temp <= 0) {
		add(libllama::llama_sampler_init_greedy());
	} else if (p.mirostat == 1 || p.mirostat == 2) {
		add(libllama::llama_sampler_init_temp(p.temp));
		add(p.mirostat == 1 ? libllama::llama_sampler_init_mirostat(n_vocab, ctx->seed, p.mirostat_tau, p.mirostat_eta, 100)
							: libllama::llama_sampler_init_mirostat_v2(ctx->seed, p.mirostat_tau, p.mirostat_eta));
	} else {
		add(libllama::llama_sampler_init_top_k(p.top_k));
		add(libllama::llama_sampler_init_typical(p.typical_p, 1));
		add(libllama::llama_sampler_init_top_p(p.top_p, 1));
		add(libllama::llama_sampler_init_temp(p.temp));
		add(libllama::llama_sampler_init_dist(ctx->seed));
	}
	return true;
}

inline void log_softmax(float *logits, int n) {
	const float largest = *std::max_element(logits, logits + n);
	double sum = 0;
	for (int i = 0; i < n; i++) sum += std::exp(logits[i] - largest);
	for (int i = 0; i < n; i++) logits[i] -= largest + std::log(sum);
}

// Moves the logits away from those of the guidance context, by the factor scale.
inline bool guide(llama_context *guidance, std::vector<llama_token_data> &candidates, float scale) {
	const float *away = guidance->real ? libllama::llama_get_logits_ith(guidance->real, -1) : nullptr;
	if (away == nullptr) return fail(guidance, "the negative prompt has no logits");
	const int n = candidates.size();
	std::vector<float> from(away, away + n), to(n);
	for (int i = 0; i < n; i++) to[i] = candidates[i].logit;
	log_softmax(from.data(), n);
	log_softmax(to.data(), n);
	for (int i = 0; i < n; i++) candidates[i].logit = scale * (to[i] - from[i]) + from[i];
	return true;
}

// Samples a token after the last evaluation. last_tokens ends with the tokens of the text so far. candidates is scratch
// memory.
inline bool sample(llama_context *ctx, llama_context *guidance, llama_grammar *grammar, const gpt_params &p,
		const std::vector<llama_token> &last_tokens, std::vector<llama_token_data> &candidates, llama_token *id) {
	if (ctx->failed || !is_open(ctx)) return false;
	const float *logits = libllama::llama_get_logits_ith(ctx->real, -1);
	if (logits == nullptr) return fail(ctx, "there are no logits to sample from");
	const int n_vocab = llama_n_vocab(ctx);
	candidates.resize(n_vocab);
	for (llama_token i = 0; i < n_vocab; i++) candidates[i] = {i, logits[i], 0.0f};

	for (const auto &bias : p.logit_bias) {
		if (bias.first < 0 || bias.first >= n_vocab) return fail(ctx, "a bias for token %d, which is not there", bias.first);
		candidates[bias.first].logit += bias.second;
	}
	if (p.ignore_eos) {
		for (llama_token end : ctx->ends) candidates[end].logit = -INFINITY;
	}
	if (guidance != nullptr && !guide(guidance, candidates, p.cfg_scale)) return false;

	llama_token_data_array array = {candidates.data(), candidates.size(), -1, false};
	if (ctx->chain == nullptr) {
		if (!make_samplers(ctx, p, last_tokens)) return false;
	} else {
		libllama::llama_sampler_accept(ctx->penalties.get(), last_tokens.back());
	}
	const llama_token newline       = libllama::llama_vocab_nl(ctx->vocab);
	const bool        spare_newline = !p.penalize_nl && newline >= 0;
	const float       newline_logit = spare_newline ? candidates[newline].logit : 0;
	libllama::llama_sampler_apply(ctx->penalties.get(), &array);
	if (spare_newline) candidates[newline].logit = newline_logit;

	if (grammar != nullptr && !llama_sample_grammar(ctx, &array, grammar)) return false;
	libllama::llama_sampler_apply(ctx->chain.get(), &array);
	if (array.selected < 0 || (size_t) array.selected >= array.size) return fail(ctx, "no token was sampled");
	*id = array.data[array.selected].id;
	libllama::llama_sampler_accept(ctx->chain.get(), *id);
	if (grammar != nullptr) llama_grammar_accept_token(ctx, grammar, *id);
	return true;
}

// Samples a token. If that fails, it sets params->failed and returns the token that ends the text. A model may have
// several tokens that end a text, but the module knows only one.
inline llama_token llama_sample_token_binding(llama_context *ctx, llama_context *guidance, llama_grammar *grammar, const gpt_params *params,
		const std::vector<llama_token> &last_tokens, std::vector<llama_token_data> &candidates, int /*idx*/ = 0) {
	const stopwatch watch(parts.sample_ns);
	llama_token id = LLAMA_TOKEN_NULL;
	try {
		params->failed = !sample(ctx, guidance, grammar, *params, last_tokens, candidates, &id);
	} catch (const std::exception &e) {
		params->failed = !fail(ctx, "sampling: %s", e.what());
	}
	if (params->failed || libllama::llama_vocab_is_eog(ctx->vocab, id)) return llama_token_eos(ctx);
	parts.samples.fetch_add(1, std::memory_order_relaxed);
	ctx->sampled = true;
	return id;
}

inline void llama_sample_softmax(llama_context *, llama_token_data_array *) {} // only after a refusal, see below

// ---------------------------------------------------------------------------------------------------------------------
// The caller's buffers
//
// The module's Go side passes buffers of PredictOptions.Tokens bytes, floats or tokens without their size, and its C++
// side writes beyond their ends. The size is in the parameters. These macros take it from there, because the parameters
// are in scope wherever binding.cpp uses one of these names.

inline std::vector<llama_token> tokens_of(llama_context *ctx, const std::string &text, bool add_bos) {
	std::vector<llama_token> tokens;
	tokenize(ctx, text.data(), text.size(), add_bos, tokens);
	return tokens; // none if it failed; then evaluation fails
}

// Returns the number of tokens, or a negative number if there is no room for them or if it failed.
inline int tokens_into(llama_context *ctx, const char *text, size_t length, int *to, int n_max, bool add_bos, const gpt_params *p) {
	std::vector<llama_token> tokens;
	if (!tokenize(ctx, text, length, add_bos, tokens)) return -1;
	if (text == p->prompt.data()) n_max = std::min(n_max, p->n_predict); // TokenizeString; Eval has its own buffer
	const int n = tokens.size();
	if (n > n_max) return -n;
	std::copy(tokens.begin(), tokens.end(), to);
	return n;
}

#define GOLLAMA_TOKENIZE(a, b, c, d, e, f, name, ...) name
#define GOLLAMA_TOKENS_INTO(...) tokens_into(__VA_ARGS__, params_p)
#define llama_tokenize(...) GOLLAMA_TOKENIZE(__VA_ARGS__, GOLLAMA_TOKENS_INTO, x, x, tokens_of, x)(__VA_ARGS__)

// The length of the embeddings; negative if there are none or no room for them.
inline int embedding_length(llama_context *ctx, const gpt_params &p) {
	if (ctx->failed || !is_open(ctx)) return -1;
	if (!ctx->evaluated || !ctx->embeddings || llama_get_embeddings(ctx) == nullptr) return fail(ctx, "there are no embeddings"), -1;
	const int n = libllama::llama_model_n_embd_out(libllama::llama_get_model(ctx->real));
	if (p.n_predict > 0 && n > p.n_predict) return fail(ctx, "embeddings have %d numbers, room is for %d: SetTokens(%d)", n, p.n_predict, n), -1;
	return n;
}

#define llama_n_embd(ctx) ({ const int length = embedding_length(ctx, params); if (length < 0) return 1; length; })

// Copies as much of a text as fits into the caller's buffer. It is no error if the text is cut: callers set Tokens to the
// number of tokens to predict. Returns false if sampling failed.
inline bool deliver(char *to, const std::string &text, const gpt_params *p) {
	if (p->failed) return false;
	size_t n = text.size();
	if (p->n_predict >= 0 && n + 1 > (size_t) p->n_predict) {
		fail(nullptr, "the text has %zu bytes and is cut: there is room for Tokens, which is %d; the token callback has all of it", n, p->n_predict);
		n = std::max(p->n_predict - 1, 0);
		while (n > 0 && (text[n] & 0xc0) == 0x80) n--; // not inside a character
	}
	memcpy(to, text.data(), n);
	to[n] = 0;
	return true;
}

#define strcpy(to, from) do { if (!deliver(to, from, params_p)) return 1; } while (0)

// Speculative sampling is refused. After its callback has said stop, the module's loop does not end and leaves its vector.
// Reading the clock is the first thing that the module does after reading the prompt, so it is refused there.
inline bool refuse_speculation() { return !fail(nullptr, "speculative sampling is not supported"); }

#define ggml_time_us() ({ if (refuse_speculation()) return 1; int64_t(0); })

// The module asserts that a tensor split has no more numbers than devices. It reads no more than there are places for.
#undef GGML_ASSERT
#define GGML_ASSERT(condition) ((void) (condition))

// The log macros of 2023.
#define LOG(...) ((void) 0)
#define LOG_TEE(...) fprintf(stderr, __VA_ARGS__)

} // namespace october2023
