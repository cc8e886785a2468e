// The C side of package llama: sequences that must not leave C while they are
// timed, and the static callbacks whose addresses the library keeps.
#ifndef BENCHMARK_LLM_BRIDGE_H
#define BENCHMARK_LLM_BRIDGE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE // fopencookie, dladdr
#endif

// Without the headers a build ends with this line alone: nothing that follows is
// read.
#if !__has_include(<llama.h>)
#error libllama was not found: run eval "$(make env)" in the checkout of benchmark-llm, then build again
#else

#include <llama.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// Codes of this file, outside the range of llama_decode's.
#define BL_WRONG_THREAD 100
#define BL_LONG_PIECE   101

// A llama_context and the abort flag that its callback reads. It stays at one
// address in C memory while the context is open, because the library keeps a
// pointer to it.
struct bl_context {
	struct llama_context *ctx;
	atomic_bool           abort;
	pthread_t             owner;
	bool                  any_thread;
	int64_t               elapsed_ns; // time of the last repetition
	int64_t               inside_ns;  // the part of elapsed_ns inside the library; bl_repetition_inside only
	int64_t               bytes;      // length of the text of the last bl_generate
	atomic_int            done;       // tokens done of the running repetition; read by other threads
};

struct bl_context *bl_context_new(struct llama_model *model, struct llama_context_params params, bool any_thread);
void               bl_context_free(struct bl_context *c);
void               bl_abort_set(struct bl_context *c, bool abort);
int32_t            bl_tokens_done(struct bl_context *c);
int32_t            bl_check_thread(const struct bl_context *c);

// One decode of up to n_batch tokens: llama_decode on llama_batch_get_one.
// llama-bench 0.7.0 calls llama_process instead. llama_decode is the stable
// interface and takes equally long.
int32_t bl_decode(struct bl_context *c, llama_token *tokens, int32_t n);

// One whole repetition as llama-bench 0.7.0 does it: the prompt in chunks of at
// most n_batch tokens and one llama_synchronize, then n_gen single tokens with a
// llama_synchronize after each. It is one C call so that neither Go's scheduler
// nor its collector can run between two tokens. CLOCK_MONOTONIC is read before the
// first and after the last library call; the difference is elapsed_ns of the
// context. Returns llama_decode's code, or BL_WRONG_THREAD.
int32_t bl_repetition(struct bl_context *c,
                      llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                      llama_token *gen, int32_t n_gen);

// An untimed pass: the whole prompt, then tokens of gen, at least one, until for_ns
// have passed. Afterwards the CPUs are in the state in which a repetition finds
// them that follows another one directly. Nothing is cleared. Returns what
// bl_repetition returns.
int32_t bl_prime(struct bl_context *c,
                 llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                 llama_token *gen, int32_t n_gen, int64_t for_ns);

// bl_prime, llama_memory_clear and bl_repetition, without leaving C.
int32_t bl_primed_repetition(struct bl_context *c,
                             llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                             llama_token *gen, int32_t n_gen, int64_t for_ns);

// One whole repetition from end to end: the prompt as in bl_repetition, then n_out
// times: sample a token from the last logits, turn it into text, note the time,
// and decode the token unless it was the last. out[i] is the token, and out_ns[i]
// the time when its text was there, in nanoseconds of CLOCK_MONOTONIC since the
// start. elapsed_ns is the last of these times. Tokens that end a text do not end
// the repetition. Returns llama_decode's code, -1 if there are no logits,
// BL_WRONG_THREAD, or BL_LONG_PIECE.
int32_t bl_generate(struct bl_context *c, const struct llama_vocab *vocab, struct llama_sampler *sampler,
                    llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                    llama_token *out, int64_t *out_ns, int32_t n_out);

// Whether the last sampler of a chain picks a token. If it does not, sampling ends
// the process with an assertion.
bool bl_sampler_picks(struct llama_sampler *chain);

// bl_repetition with a clock read before and after each library call: inside_ns is
// the time inside the library. Only for benchmarks of the binding itself.
int32_t bl_repetition_inside(struct bl_context *c,
                             llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                             llama_token *gen, int32_t n_gen);

int64_t bl_monotonic_ns(void);
void    bl_noop(void);

// Loading. handle is a runtime/cgo.Handle of a Go *load, stream one of a Go *stream.
struct llama_model *bl_model_load_path(const char *path, struct llama_model_params params, uintptr_t handle);
struct llama_model *bl_model_load_stream(uintptr_t stream, struct llama_model_params params, uintptr_t handle);

// Which log lines go to Go: those at level or above, or all.
void bl_log_init(void);
void bl_log_level(enum ggml_log_level level);
void bl_log_all(bool all);

// The directory of the library's shared object, and the path of the CPU back-end
// module in use. Return false if it is unknown.
bool bl_library_dir(char *buf, size_t size);
bool bl_cpu_module(char *buf, size_t size);

// Whether the shared object at a path is open.
bool bl_is_open(const char *path);

// Loads the best CPU back-end module out of n files, and no other module. Returns
// false if none runs on this CPU.
bool bl_load_best_cpu(const char **paths, size_t n);

// ggml_threadpool_new and _free, which are in the CPU back-end module.
ggml_threadpool_t bl_threadpool_new(struct ggml_threadpool_params *params);
void              bl_threadpool_free(ggml_threadpool_t pool);

#endif // __has_include
#endif
