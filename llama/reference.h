// The timed sequence of llama-bench 0.7.0 in plain C: llama_batch_ext and
// llama_process with explicit positions. scripts/parity compares the binding with
// it (build tag parity). The program does not contain it.
#ifndef BENCHMARK_LLM_REFERENCE_H
#define BENCHMARK_LLM_REFERENCE_H

#include <llama.h>
#include <stdint.h>
#include <time.h>

static inline int64_t reference_now_ns(void) {
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

// One decode: a batch of n tokens from position pos on, with logits for the last.
// Returns the code of llama_process, or -1 if the batch cannot be made.
static inline int32_t reference_process(struct llama_context *ctx, const llama_token *tokens, int32_t n, llama_pos pos) {
	struct llama_batch_ext *batch = llama_batch_ext_init(ctx);
	int32_t rc = batch == NULL ? -1 : 0;
	for (int32_t i = 0; i < n && rc == 0; i++) {
		const int32_t   index = llama_batch_ext_add_token(batch, 0, tokens[i]);
		const llama_pos at    = pos + i;
		if (index < 0 || !llama_batch_ext_set_pos(batch, index, &at) ||
		    !llama_batch_ext_set_output_logits(batch, index, i == n - 1)) {
			rc = -1;
		}
	}
	if (rc == 0) rc = llama_process(ctx, LLAMA_PROCESS_TYPE_DECODE, batch);
	llama_batch_ext_free(batch);
	return rc;
}

// One repetition. elapsed_ns is its time on the monotonic clock. Returns 0, or
// the code of the first decode that failed.
static inline int32_t reference_repetition(struct llama_context *ctx,
                                           const llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                                           const llama_token *gen, int32_t n_gen,
                                           int64_t *elapsed_ns) {
	int32_t rc = 0;
	const int64_t start = reference_now_ns();
	llama_pos pos = llama_memory_seq_pos_max(llama_get_memory(ctx), 0) + 1;
	for (int32_t i = 0; i < n_prompt && rc == 0; i += n_batch) {
		const int32_t n = n_prompt - i < n_batch ? n_prompt - i : n_batch;
		rc = reference_process(ctx, prompt + i, n, pos);
		pos += n;
	}
	if (n_prompt > 0) llama_synchronize(ctx);
	for (int32_t i = 0; i < n_gen && rc == 0; i++) {
		rc = reference_process(ctx, gen + i, 1, pos++);
		llama_synchronize(ctx);
	}
	*elapsed_ns = reference_now_ns() - start;
	return rc;
}

#endif
