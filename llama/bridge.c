#include "bridge.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Functions that Go exports.
extern void    goLog(int level, char *text);
extern int     goProgress(uintptr_t handle, float progress);
extern int64_t goStreamRead(uintptr_t stream, char *buf, int64_t size);
extern int     goStreamSeek(uintptr_t stream, int64_t *offset, int whence);

int64_t bl_monotonic_ns(void) {
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void bl_noop(void) {}

// ---- context and abort

static bool abort_callback(void *data) {
	return atomic_load_explicit(&((struct bl_context *)data)->abort, memory_order_relaxed);
}

struct bl_context *bl_context_new(struct llama_model *model, struct llama_context_params params, bool any_thread) {
	struct bl_context *c = calloc(1, sizeof *c);
	if (c == NULL) return NULL;
	atomic_init(&c->abort, false);
	c->owner      = pthread_self();
	c->any_thread = any_thread;
	params.abort_callback      = abort_callback;
	params.abort_callback_data = c;
	c->ctx = llama_init_from_model(model, params);
	if (c->ctx == NULL) {
		free(c);
		return NULL;
	}
	return c;
}

void bl_context_free(struct bl_context *c) {
	llama_free(c->ctx);
	free(c);
}

void bl_abort_set(struct bl_context *c, bool abort) { atomic_store(&c->abort, abort); }

int32_t bl_tokens_done(struct bl_context *c) { return atomic_load_explicit(&c->done, memory_order_relaxed); }

// Other threads read this number during a repetition. It is a plain store: no lock
// may disturb the repetition.
static void tokens_done(struct bl_context *c, int32_t n) { atomic_store_explicit(&c->done, n, memory_order_relaxed); }

int32_t bl_check_thread(const struct bl_context *c) {
	return c->any_thread || pthread_equal(c->owner, pthread_self()) ? 0 : BL_WRONG_THREAD;
}

// ---- decode

int32_t bl_decode(struct bl_context *c, llama_token *tokens, int32_t n) {
	if (bl_check_thread(c) != 0) return BL_WRONG_THREAD;
	return llama_decode(c->ctx, llama_batch_get_one(tokens, n));
}

int32_t bl_repetition(struct bl_context *c,
                      llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                      llama_token *gen, int32_t n_gen) {
	if (bl_check_thread(c) != 0) return BL_WRONG_THREAD;
	struct llama_context *ctx = c->ctx;
	int32_t rc = 0;
	tokens_done(c, 0);

	const int64_t start = bl_monotonic_ns();
	for (int32_t i = 0; i < n_prompt && rc == 0; i += n_batch) {
		const int32_t n = n_prompt - i < n_batch ? n_prompt - i : n_batch;
		rc = abort_callback(c) ? 2 : llama_decode(ctx, llama_batch_get_one(prompt + i, n));
		tokens_done(c, i + n);
	}
	if (n_prompt > 0) llama_synchronize(ctx);
	for (int32_t i = 0; i < n_gen && rc == 0; i++) {
		rc = abort_callback(c) ? 2 : llama_decode(ctx, llama_batch_get_one(gen + i, 1));
		llama_synchronize(ctx);
		tokens_done(c, n_prompt + i + 1);
	}
	c->elapsed_ns = bl_monotonic_ns() - start;
	return rc;
}

int32_t bl_prime(struct bl_context *c,
                 llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                 llama_token *gen, int32_t n_gen, int64_t for_ns) {
	if (bl_check_thread(c) != 0) return BL_WRONG_THREAD;
	struct llama_context *ctx = c->ctx;
	int32_t rc = 0;

	const int64_t end = bl_monotonic_ns() + for_ns;
	for (int32_t i = 0; i < n_prompt && rc == 0; i += n_batch) {
		const int32_t n = n_prompt - i < n_batch ? n_prompt - i : n_batch;
		rc = abort_callback(c) ? 2 : llama_decode(ctx, llama_batch_get_one(prompt + i, n));
	}
	if (n_prompt > 0) llama_synchronize(ctx);
	for (int32_t i = 0; i < n_gen && rc == 0 && (i == 0 || bl_monotonic_ns() < end); i++) {
		rc = abort_callback(c) ? 2 : llama_decode(ctx, llama_batch_get_one(gen + i, 1));
		llama_synchronize(ctx);
	}
	return rc;
}

int32_t bl_primed_repetition(struct bl_context *c,
                             llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                             llama_token *gen, int32_t n_gen, int64_t for_ns) {
	c->elapsed_ns = 0;
	tokens_done(c, 0);
	const int32_t rc = bl_prime(c, prompt, n_prompt, n_batch, gen, n_gen, for_ns);
	if (rc != 0) return rc;
	llama_memory_clear(llama_get_memory(c->ctx), false);
	return bl_repetition(c, prompt, n_prompt, n_batch, gen, n_gen);
}

bool bl_sampler_picks(struct llama_sampler *chain) {
	const int32_t n = llama_sampler_chain_n(chain);
	if (n < 1) return false;
	const char *name = llama_sampler_name(llama_sampler_chain_get(chain, n - 1));
	return strcmp(name, "greedy") == 0 || strcmp(name, "dist") == 0;
}

int32_t bl_generate(struct bl_context *c, const struct llama_vocab *vocab, struct llama_sampler *sampler,
                    llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                    llama_token *out, int64_t *out_ns, int32_t n_out) {
	if (bl_check_thread(c) != 0) return BL_WRONG_THREAD;
	struct llama_context *ctx = c->ctx;
	int32_t rc = 0;
	char piece[16 * 1024]; // longer than any known token
	c->bytes = 0;
	tokens_done(c, 0);

	const int64_t start = bl_monotonic_ns();
	for (int32_t i = 0; i < n_prompt && rc == 0; i += n_batch) {
		const int32_t n = n_prompt - i < n_batch ? n_prompt - i : n_batch;
		rc = abort_callback(c) ? 2 : llama_decode(ctx, llama_batch_get_one(prompt + i, n));
		tokens_done(c, i + n);
	}
	// The sampler asserts that there are logits. Getting them waits for the
	// computation, as sampling does.
	if (rc == 0 && llama_get_logits_ith(ctx, -1) == NULL) rc = -1;
	for (int32_t i = 0; i < n_out && rc == 0; i++) {
		if (abort_callback(c)) {
			rc = 2;
			break;
		}
		out[i] = llama_sampler_sample(sampler, ctx, -1);
		const int32_t n = llama_token_to_piece(vocab, out[i], piece, sizeof piece, 0, false);
		if (n < 0) {
			rc = BL_LONG_PIECE;
			break;
		}
		c->bytes += n;
		out_ns[i] = bl_monotonic_ns() - start;
		tokens_done(c, n_prompt + i + 1);
		if (i + 1 < n_out) rc = llama_decode(ctx, llama_batch_get_one(out + i, 1));
	}
	llama_synchronize(ctx); // after an abort a device may still compute
	c->elapsed_ns = rc == 0 && n_out > 0 ? out_ns[n_out - 1] : bl_monotonic_ns() - start;
	return rc;
}

int32_t bl_repetition_inside(struct bl_context *c,
                             llama_token *prompt, int32_t n_prompt, int32_t n_batch,
                             llama_token *gen, int32_t n_gen) {
	if (bl_check_thread(c) != 0) return BL_WRONG_THREAD;
	struct llama_context *ctx = c->ctx;
	int32_t rc = 0;
	int64_t inside = 0, t;

	const int64_t start = bl_monotonic_ns();
	for (int32_t i = 0; i < n_prompt && rc == 0; i += n_batch) {
		const int32_t n = n_prompt - i < n_batch ? n_prompt - i : n_batch;
		const struct llama_batch batch = llama_batch_get_one(prompt + i, n);
		t = bl_monotonic_ns();
		rc = llama_decode(ctx, batch);
		inside += bl_monotonic_ns() - t;
	}
	if (n_prompt > 0) {
		t = bl_monotonic_ns();
		llama_synchronize(ctx);
		inside += bl_monotonic_ns() - t;
	}
	for (int32_t i = 0; i < n_gen && rc == 0; i++) {
		const struct llama_batch batch = llama_batch_get_one(gen + i, 1);
		t = bl_monotonic_ns();
		rc = llama_decode(ctx, batch);
		llama_synchronize(ctx);
		inside += bl_monotonic_ns() - t;
	}
	c->elapsed_ns = bl_monotonic_ns() - start;
	c->inside_ns  = inside;
	return rc;
}

// ---- loading

static bool progress_callback(float progress, void *data) { return goProgress((uintptr_t)data, progress) != 0; }

struct llama_model *bl_model_load_path(const char *path, struct llama_model_params params, uintptr_t handle) {
	params.progress_callback           = progress_callback;
	params.progress_callback_user_data = (void *)handle;
	return llama_model_load_from_file(path, params);
}

static ssize_t stream_read(void *cookie, char *buf, size_t size) {
	return goStreamRead((uintptr_t)cookie, buf, (int64_t)size);
}

static int stream_seek(void *cookie, off64_t *offset, int whence) {
	int64_t o  = *offset;
	int     rc = goStreamSeek((uintptr_t)cookie, &o, whence);
	*offset    = o;
	return rc;
}

// Size of the buffer between a stream and the library. It fits into a core's cache.
enum { stream_buffer_bytes = 64 * 1024 };

struct llama_model *bl_model_load_stream(uintptr_t stream, struct llama_model_params params, uintptr_t handle) {
	const cookie_io_functions_t io = {.read = stream_read, .seek = stream_seek};
	FILE *f = fopencookie((void *)stream, "rb", io);
	if (f == NULL) return NULL;
	// glibc passes every read of a cookie's stream through a buffer. Its own has
	// 8 KiB, and setvbuf ignores a size that comes without a buffer.
	char *buffer = malloc(stream_buffer_bytes);
	if (buffer != NULL) setvbuf(f, buffer, _IOFBF, stream_buffer_bytes);
	params.progress_callback           = progress_callback;
	params.progress_callback_user_data = (void *)handle;
	struct llama_model *m = llama_model_load_from_file_ptr(f, params);
	fclose(f); // the library does not close it
	free(buffer);
	return m;
}

// ---- log

static atomic_int  log_level = GGML_LOG_LEVEL_INFO;
static atomic_bool log_all   = false;

static void log_callback(enum ggml_log_level level, const char *text, void *data) {
	static _Thread_local enum ggml_log_level last = GGML_LOG_LEVEL_NONE;
	// A continuation has the level of its line.
	if (level == GGML_LOG_LEVEL_CONT) level = last;
	last = level;
	if ((int)level < atomic_load_explicit(&log_level, memory_order_relaxed) &&
	    !atomic_load_explicit(&log_all, memory_order_relaxed)) return;
	goLog((int)level, (char *)text);
}

void bl_log_init(void) { llama_log_set(log_callback, NULL); }
void bl_log_level(enum ggml_log_level level) { atomic_store(&log_level, (int)level); }
void bl_log_all(bool all) { atomic_store(&log_all, all); }

// ---- back-ends

static bool object_path(const void *symbol, char *buf, size_t size) {
	Dl_info info;
	if (symbol == NULL || dladdr(symbol, &info) == 0 || info.dli_fname == NULL) return false;
	return snprintf(buf, size, "%s", info.dli_fname) < (int)size;
}

bool bl_library_dir(char *buf, size_t size) {
	// dlsym gives the library's address. &llama_backend_init may be an entry of the
	// program's own linkage table.
	if (!object_path(dlsym(RTLD_DEFAULT, "llama_backend_init"), buf, size)) return false;
	char *slash = strrchr(buf, '/');
	if (slash == NULL) return false;
	*slash = 0;
	return true;
}

static void *cpu_proc(const char *name) {
	ggml_backend_dev_t dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
	if (dev == NULL) return NULL;
	return ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), name);
}

bool bl_cpu_module(char *buf, size_t size) { return object_path(cpu_proc("ggml_threadpool_new"), buf, size); }

bool bl_is_open(const char *path) {
	void *so = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	if (so != NULL) dlclose(so);
	return so != NULL;
}

bool bl_load_best_cpu(const char **paths, size_t n) {
	// ggml's own rule: the module with the highest ggml_backend_score.
	int best = 0;
	size_t best_i = n;
	for (size_t i = 0; i < n; i++) {
		void *so = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
		if (so == NULL) continue;
		int (*score)(void) = (int (*)(void))dlsym(so, "ggml_backend_score");
		const int s = score == NULL ? 0 : score();
		if (s > best) {
			best   = s;
			best_i = i;
		}
		dlclose(so);
	}
	return best_i < n && ggml_backend_load(paths[best_i]) != NULL;
}

ggml_threadpool_t bl_threadpool_new(struct ggml_threadpool_params *params) {
	ggml_threadpool_t (*new)(struct ggml_threadpool_params *) =
		(ggml_threadpool_t (*)(struct ggml_threadpool_params *))cpu_proc("ggml_threadpool_new");
	return new == NULL ? NULL : new(params);
}

void bl_threadpool_free(ggml_threadpool_t pool) {
	void (*free_)(ggml_threadpool_t) = (void (*)(ggml_threadpool_t))cpu_proc("ggml_threadpool_free");
	if (free_ != NULL) free_(pool);
}
