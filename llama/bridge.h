// The C side of package llama: whole sequences that must not leave C while
// they are timed, and the static callbacks that the library keeps.
#ifndef BENCHMARK_LLM_BRIDGE_H
#define BENCHMARK_LLM_BRIDGE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE // fopencookie, dladdr
#endif

#include <llama.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// Codes of our own beside llama_decode's, out of its range.
#define BL_WRONG_THREAD 100
#define BL_LONG_PIECE   101

// A llama_context with the abort flag that its callback reads. It lives in C
// memory, at one address for as long as the context, because the library keeps
// a pointer to it.
struct bl_context {
	struct llama_context *ctx;
	atomic_bool           abort;
	pthread_t             owner;
	bool                  any_thread;
	int64_t               elapsed_ns; // of the last repetition
	int64_t               inside_ns;  // of it, inside the library; bl_repetition_inside only
	int64_t               bytes;      // of text that the last bl_generate made
	atomic_int            done;       // tokens of the repetition under way, for other threads to see
};

struct bl_context *bl_context_new(struct llama_model *model, struct llama_context_params params, bool any_thread);
void               bl_context_free(struct bl_context *c);
void               bl_abort_set(struct bl_context *c, bool abort);
bool               bl_abort_get(struct bl_context *c);
int32_t            bl_tokens_done(struct bl_context *c);
int32_t            bl_check_thread(const struct bl_context *c);

// One decode of up to n_batch tokens: llama_decode on llama_batch_get_one.
int32_t bl_decode(struct bl_context *c, llama_token *tokens, int32_t n);

// One whole repetition: the prompt in chunks of at most n_batch tokens and one
// llama_synchronize, then n_gen single tokens with a llama_synchronize after
// each, as llama-bench 0.7.0 does. CLOCK_MONOTONIC is read before the first and
// after the last library call: elapsed_ns of the context. Returns llama_decode's code, or BL_WRONG_THREAD.
int32_t bl_repetition(struct bl_context *c,
                      llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                      llama_token *gen, int32_t n_gen);

// An untimed pass that brings the CPUs to the state in which a repetition finds
// them that follows another: the whole prompt, then tokens of gen until for_ns
// have passed, at least one. Nothing is cleared. Returns as bl_repetition.
int32_t bl_prime(struct bl_context *c,
                 llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                 llama_token *gen, int32_t n_gen, int64_t for_ns);

// bl_prime, an empty cache, and bl_repetition, without leaving C.
int32_t bl_primed_repetition(struct bl_context *c,
                             llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                             llama_token *gen, int32_t n_gen, int64_t for_ns);

// One whole repetition from end to end: the prompt as in bl_repetition, then n_out
// times: sample a token from the last logits, turn it into its piece of text, note
// the time, and decode it unless it was the last. out[i] and out_ns[i] are the
// token and when its text was there, in CLOCK_MONOTONIC's nanoseconds since the
// start; elapsed_ns is the last of them. Tokens that end a generation do not end
// it here. Returns llama_decode's code, -1 where there are no logits,
// BL_WRONG_THREAD, or BL_LONG_PIECE.
int32_t bl_generate(struct bl_context *c, const struct llama_vocab *vocab, struct llama_sampler *sampler,
                    llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                    llama_token *out, int64_t *out_ns, int32_t n_out);

// Whether a chain picks a token: its last sampler does. The library asserts it.
bool bl_sampler_picks(struct llama_sampler *chain);

// bl_repetition's calls with a clock read around each: how much of a repetition is
// spent inside the library. For the overhead benchmark only.
int32_t bl_repetition_inside(struct bl_context *c,
                             llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                             llama_token *gen, int32_t n_gen);

int64_t bl_monotonic_ns(void);
void    bl_noop(void);

// Loading. handle is a runtime/cgo.Handle of the Go side's load.
struct llama_model *bl_model_load_path(const char *path, struct llama_model_params params, uintptr_t handle);
struct llama_model *bl_model_load_stream(uintptr_t stream, struct llama_model_params params, uintptr_t handle);

// Log lines at or above level go to Go, or all of them.
void bl_log_init(void);
void bl_log_level(enum ggml_log_level level);
void bl_log_all(bool all);

// The directory of the shared object that holds the library, and the file of
// the CPU back-end module in use; false when unknown.
bool bl_library_dir(char *buf, size_t size);
bool bl_cpu_module(char *buf, size_t size);

// Loads only the best CPU back-end module out of the n files named; no other
// module is opened. Returns false when none runs on this CPU.
bool bl_load_best_cpu(const char **paths, size_t n);

// ggml_threadpool_new and _free live in the CPU back-end module.
ggml_threadpool_t bl_threadpool_new(struct ggml_threadpool_params *params);
void              bl_threadpool_free(ggml_threadpool_t pool);

#endif
