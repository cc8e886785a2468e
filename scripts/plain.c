// A C program that loads a model and runs tests as llama-bench does. It shows what
// the same calls cost without Go. It prints its peak resident memory in KiB.
#include "reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void quiet(enum ggml_log_level level, const char *text, void *data) {
	(void)level, (void)text, (void)data;
}

int main(int argc, char **argv) {
	if (argc != 4) {
		fprintf(stderr, "usage: plain MODEL BACKENDS THREADS\n");
		return 2;
	}
	llama_log_set(quiet, NULL);
	ggml_backend_load_all_from_path(argv[2]); // first: llama_backend_init opens others if none is open
	llama_backend_init();
	struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
	if (model == NULL) return 1;
	const int lengths[][2] = {{128, 0}, {0, 16}};
	for (size_t t = 0; t < 2; t++) {
		struct llama_context_params p = llama_context_default_params();
		p.n_ctx = lengths[t][0] + lengths[t][1];
		p.n_threads = p.n_threads_batch = atoi(argv[3]);
		p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
		p.swa_full = false;
		struct llama_context *ctx = llama_init_from_model(model, p);
		if (ctx == NULL) return 1;
		llama_token tokens[128];
		for (int i = 0; i < 128; i++) tokens[i] = i * 37;
		for (int rep = 0; rep < 3; rep++) {
			int64_t ns;
			llama_memory_clear(llama_get_memory(ctx), false);
			if (reference_repetition(ctx, tokens, lengths[t][0], 2048, tokens, lengths[t][1], &ns) != 0) return 1;
		}
		llama_free(ctx);
	}
	llama_model_free(model);
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	printf("%ld\n", usage.ru_maxrss);
	return 0;
}
