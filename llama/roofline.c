#include "roofline.h"

#include <ggml-alloc.h>
#include <ggml.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct bl_roofline {
	ggml_backend_dev_t dev;
	ggml_backend_t     backend;
	bool               cpu;
	bool               no_repack;
	int32_t            threads;
	const int32_t     *cpus; // owned; NULL: any
	int32_t            n_cpus;
	atomic_bool        abort;
};

struct bl_weights {
	struct bl_roofline    *r;
	struct ggml_context   *ctx; // of the matrices
	ggml_backend_buffer_t  buffer;
	struct ggml_tensor   **matrices;
	int32_t                n;

	// The graph of the last product.
	struct ggml_context *graph_ctx; // NULL: none
	struct ggml_cgraph  *graph;
	ggml_gallocr_t       alloc;
	int32_t              graph_n, graph_columns;
};

static bool aborted(void *data) { return atomic_load_explicit(&((struct bl_roofline *)data)->abort, memory_order_relaxed); }

static void *proc(ggml_backend_dev_t dev, const char *name) {
	return ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), name);
}

struct bl_roofline *bl_roofline_new(ggml_backend_dev_t dev, int32_t threads, ggml_threadpool_t pool,
                                    const int32_t *cpus, int32_t n_cpus, bool no_repack) {
	ggml_backend_t backend = ggml_backend_dev_init(dev, NULL);
	if (backend == NULL) return NULL;
	struct bl_roofline *r = calloc(1, sizeof *r);
	int32_t *own = n_cpus > 0 ? malloc(n_cpus * sizeof *own) : NULL;
	if (r == NULL || (n_cpus > 0 && own == NULL)) {
		free(r);
		free(own);
		ggml_backend_free(backend);
		return NULL;
	}
	if (own != NULL) memcpy(own, cpus, n_cpus * sizeof *own);
	*r = (struct bl_roofline){
		.dev = dev, .backend = backend, .cpu = ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU,
		.no_repack = no_repack, .threads = threads, .cpus = own, .n_cpus = n_cpus,
	};
	ggml_backend_set_n_threads_t set_threads = (ggml_backend_set_n_threads_t)proc(dev, "ggml_backend_set_n_threads");
	if (set_threads != NULL) set_threads(backend, threads);
	ggml_backend_set_abort_callback_t set_abort = (ggml_backend_set_abort_callback_t)proc(dev, "ggml_backend_set_abort_callback");
	if (set_abort != NULL) set_abort(backend, aborted, r);
	void (*set_pool)(ggml_backend_t, ggml_threadpool_t) =
		(void (*)(ggml_backend_t, ggml_threadpool_t))proc(dev, "ggml_backend_cpu_set_threadpool");
	if (r->cpu && set_pool != NULL && pool != NULL) set_pool(backend, pool);
	return r;
}

void bl_roofline_free(struct bl_roofline *r) {
	ggml_backend_free(r->backend);
	free((void *)r->cpus);
	free(r);
}

void bl_roofline_abort(struct bl_roofline *r, bool abort) { atomic_store(&r->abort, abort); }

// ---- threads

// What all parts wait for.
struct start {
	pthread_mutex_t lock;
	pthread_cond_t  changed;
	enum { WAIT, GO, QUIT } state;
};

// The work of one thread.
struct part {
	struct bl_roofline *r;
	struct start       *start;
	void (*work)(struct part *);
	int64_t began_ns, ended_ns;
	// To read: size bytes at from. To copy: size bytes of from to copies places that are
	// in to, beginning at first and leaving out step - 1 each time.
	const uint8_t       *from;
	size_t               size;
	struct ggml_tensor **to;
	int32_t              first, step, n;
	uint64_t             sum;
};

static void *run_part(void *data) {
	struct part *p = data;
	if (p->r->n_cpus > 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		for (int32_t i = 0; i < p->r->n_cpus; i++) CPU_SET(p->r->cpus[i], &set);
		pthread_setaffinity_np(pthread_self(), sizeof set, &set);
	}
	pthread_mutex_lock(&p->start->lock);
	while (p->start->state == WAIT) pthread_cond_wait(&p->start->changed, &p->start->lock);
	const bool go = p->start->state == GO;
	pthread_mutex_unlock(&p->start->lock);
	if (!go) return NULL;
	p->began_ns = bl_monotonic_ns();
	p->work(p);
	p->ended_ns = bl_monotonic_ns();
	return NULL;
}

// Runs the parts, each on a thread of its own, and returns the time from the first
// beginning to the last end in nanoseconds, or a code.
static int64_t in_parts(struct part *parts, int32_t n) {
	struct start start = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .state = WAIT};
	pthread_t threads[GGML_MAX_N_THREADS];
	int32_t started = 0;
	for (; started < n; started++) {
		parts[started].start = &start;
		if (pthread_create(&threads[started], NULL, run_part, &parts[started]) != 0) break;
	}
	pthread_mutex_lock(&start.lock);
	start.state = started == n ? GO : QUIT;
	pthread_cond_broadcast(&start.changed);
	pthread_mutex_unlock(&start.lock);
	for (int32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
	if (started < n) return BL_ROOFLINE_FAILED;
	int64_t began = parts[0].began_ns, ended = parts[0].ended_ns;
	for (int32_t i = 1; i < n; i++) {
		if (parts[i].began_ns < began) began = parts[i].began_ns;
		if (parts[i].ended_ns > ended) ended = parts[i].ended_ns;
	}
	return ended - began;
}

static void copy_part(struct part *p) {
	for (int32_t i = p->first; i < p->n && !aborted(p->r); i += p->step) memcpy(p->to[i]->data, p->from, p->size);
}

// Four sums of cache lines: more loads are under way than memory can answer.
typedef uint64_t line __attribute__((vector_size(64), aligned(64), may_alias));

// With loads of 16 bytes a core of Sapphire Rapids reads memory half as fast as with
// loads of 64. The compiler makes a function for each of these, and the first call
// chooses one.
#if defined(__x86_64__) && defined(__GLIBC__)
#define WIDEST_LOADS __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define WIDEST_LOADS
#endif

WIDEST_LOADS static void read_part(struct part *p) {
	enum { STEP = 1 << 22 }; // bytes between two looks at the abort flag
	line a = {0}, b = {0}, c = {0}, d = {0};
	for (size_t at = 0; at < p->size && !aborted(p->r); at += STEP) {
		const line *from = (const line *)(p->from + at);
		const size_t bytes = p->size - at < STEP ? p->size - at : STEP;
		for (size_t i = 0; i + 4 <= bytes / sizeof(line); i += 4) {
			a += from[i];
			b += from[i + 1];
			c += from[i + 2];
			d += from[i + 3];
		}
	}
	a += b + c + d;
	for (int i = 0; i < 8; i++) p->sum += a[i]; // kept, so that the compiler does not leave the loop out
}

// ---- weights

static bool multiplies(struct bl_roofline *r, ggml_backend_buffer_type_t buft, enum ggml_type type, int64_t cols, int64_t rows) {
	struct ggml_init_params params = {.mem_size = 4 * ggml_tensor_overhead(), .no_alloc = true};
	struct ggml_context *ctx = ggml_init(params);
	if (ctx == NULL) return false;
	struct ggml_tensor *w = ggml_new_tensor_2d(ctx, type, cols, rows);
	struct ggml_tensor *product = ggml_mul_mat(ctx, w, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, cols, 512));
	w->buffer = ggml_backend_buft_alloc_buffer(buft, 0);
	const bool does = w->buffer != NULL && ggml_backend_dev_supports_op(r->dev, product);
	if (w->buffer != NULL) ggml_backend_buffer_free(w->buffer);
	ggml_free(ctx);
	return does;
}

// The choice of llama.cpp's loader (make_cpu_buft_list and select_weight_buft in its
// sources): the first extra type of the CPU that multiplies these weights, else the
// device's own. NULL if it does not multiply them.
static ggml_backend_buffer_type_t buffer_type(struct bl_roofline *r, enum ggml_type type, int64_t cols, int64_t rows) {
	if (r->cpu && !r->no_repack) {
		ggml_backend_dev_get_extra_bufts_t get = (ggml_backend_dev_get_extra_bufts_t)proc(r->dev, "ggml_backend_dev_get_extra_bufts");
		for (ggml_backend_buffer_type_t *b = get == NULL ? NULL : get(r->dev); b != NULL && *b != NULL; b++) {
			if (multiplies(r, *b, type, cols, rows)) return *b;
		}
	}
	ggml_backend_buffer_type_t own = ggml_backend_dev_buffer_type(r->dev);
	return multiplies(r, own, type, cols, rows) ? own : NULL;
}

// Gives all matrices the content of data. Returns false if memory is missing.
static bool fill(struct bl_weights *w, const uint8_t *data, size_t size) {
	struct ggml_tensor *first = w->matrices[0];
	const size_t bytes = ggml_nbytes(first);
	uint8_t *matrix = malloc(bytes);
	if (matrix == NULL) return false;
	for (size_t at = 0; at < bytes; at += size) memcpy(matrix + at, data, bytes - at < size ? bytes - at : size);
	ggml_backend_tensor_set(first, matrix, 0, bytes); // which repacks it
	bool ok = true;
	if (w->r->cpu) {
		struct part parts[GGML_MAX_N_THREADS];
		const size_t stored = ggml_backend_buffer_get_alloc_size(w->buffer, first);
		for (int32_t i = 0; i < w->r->threads; i++) {
			parts[i] = (struct part){
				.r = w->r, .work = copy_part, .from = first->data, .size = stored,
				.to = w->matrices, .first = 1 + i, .step = w->r->threads, .n = w->n,
			};
		}
		ok = in_parts(parts, w->r->threads) >= 0;
	} else {
		for (int32_t i = 1; i < w->n && !aborted(w->r); i++) ggml_backend_tensor_set(w->matrices[i], matrix, 0, bytes);
	}
	free(matrix);
	return ok;
}

struct bl_weights *bl_weights_new(struct bl_roofline *r, enum ggml_type type, int64_t cols, int64_t rows, int32_t n,
                                  const void *data, size_t size, bool *supported) {
	ggml_backend_buffer_type_t buft = buffer_type(r, type, cols, rows);
	*supported = buft != NULL;
	if (buft == NULL) return NULL;
	struct bl_weights *w = calloc(1, sizeof *w);
	if (w == NULL) return NULL;
	w->r = r;
	w->n = n;
	w->matrices = calloc(n, sizeof *w->matrices);
	struct ggml_init_params params = {.mem_size = (n + 1) * ggml_tensor_overhead(), .no_alloc = true};
	w->ctx = ggml_init(params);
	if (w->matrices != NULL && w->ctx != NULL) {
		for (int32_t i = 0; i < n; i++) w->matrices[i] = ggml_new_tensor_2d(w->ctx, type, cols, rows);
		w->buffer = ggml_backend_alloc_ctx_tensors_from_buft(w->ctx, buft);
	}
	if (w->buffer == NULL) {
		bl_weights_free(w);
		return NULL;
	}
	ggml_backend_buffer_set_usage(w->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
	if (!fill(w, data, size)) {
		bl_weights_free(w);
		return NULL;
	}
	return w;
}

static void free_graph(struct bl_weights *w) {
	if (w->alloc != NULL) ggml_gallocr_free(w->alloc);
	if (w->graph_ctx != NULL) ggml_free(w->graph_ctx);
	w->alloc = NULL;
	w->graph_ctx = NULL;
}

void bl_weights_free(struct bl_weights *w) {
	free_graph(w);
	if (w->buffer != NULL) ggml_backend_buffer_free(w->buffer);
	if (w->ctx != NULL) ggml_free(w->ctx);
	free(w->matrices);
	free(w);
}

const char *bl_weights_buffer(const struct bl_weights *w) {
	return ggml_backend_buft_name(ggml_backend_buffer_get_type(w->buffer));
}

// Makes the graph of a product, unless it is the last one. Returns 0 or a code.
static int64_t make_graph(struct bl_weights *w, int32_t n, int32_t columns) {
	if (w->graph_ctx != NULL && w->graph_n == n && w->graph_columns == columns) return 0;
	free_graph(w);
	struct ggml_init_params params = {
		.mem_size = (n + 8) * ggml_tensor_overhead() + ggml_graph_overhead_custom(n + 8, false), .no_alloc = true,
	};
	w->graph_ctx = ggml_init(params);
	if (w->graph_ctx == NULL) return BL_ROOFLINE_MEMORY;
	const int64_t cols = w->matrices[0]->ne[0];
	struct ggml_tensor *x = ggml_new_tensor_2d(w->graph_ctx, GGML_TYPE_F32, cols, columns);
	ggml_set_input(x);
	w->graph = ggml_new_graph_custom(w->graph_ctx, n + 8, false);
	for (int32_t i = 0; i < n; i++) ggml_build_forward_expand(w->graph, ggml_mul_mat(w->graph_ctx, w->matrices[i], x));
	w->alloc = ggml_gallocr_new(ggml_backend_dev_buffer_type(w->r->dev));
	const size_t bytes = ggml_nbytes(x);
	float *values = malloc(bytes);
	if (w->alloc == NULL || values == NULL || !ggml_gallocr_alloc_graph(w->alloc, w->graph)) {
		free(values);
		free_graph(w);
		return BL_ROOFLINE_MEMORY;
	}
	uint32_t random = 1;
	for (int64_t i = 0; i < cols * columns; i++) {
		random = random * 1664525 + 1013904223; // Numerical Recipes, the "quick and dirty" generator
		values[i] = (float)(random >> 8) / (float)(1 << 23) - 1;
	}
	ggml_backend_tensor_set(x, values, 0, bytes);
	free(values);
	w->graph_n = n;
	w->graph_columns = columns;
	return 0;
}

int64_t bl_weights_multiply(struct bl_weights *w, int32_t n, int32_t columns) {
	if (aborted(w->r)) return BL_ROOFLINE_ABORTED;
	const int64_t code = make_graph(w, n, columns);
	if (code != 0) return code;
	ggml_backend_synchronize(w->r->backend);
	const int64_t start = bl_monotonic_ns();
	const enum ggml_status status = ggml_backend_graph_compute_async(w->r->backend, w->graph);
	ggml_backend_synchronize(w->r->backend);
	const int64_t elapsed = bl_monotonic_ns() - start;
	if (status == GGML_STATUS_ABORTED || aborted(w->r)) return BL_ROOFLINE_ABORTED;
	return status == GGML_STATUS_SUCCESS ? elapsed : status == GGML_STATUS_ALLOC_FAILED ? BL_ROOFLINE_MEMORY : BL_ROOFLINE_FAILED;
}

int64_t bl_weights_read(struct bl_weights *w) {
	if (!ggml_backend_buffer_is_host(w->buffer) && !w->r->cpu) return BL_ROOFLINE_FAILED;
	struct part parts[GGML_MAX_N_THREADS];
	const uint8_t *base = ggml_backend_buffer_get_base(w->buffer);
	const size_t lines = ggml_backend_buffer_get_size(w->buffer) / sizeof(line), n = w->r->threads;
	for (size_t i = 0; i < n; i++) {
		const size_t from = lines * i / n, to = lines * (i + 1) / n;
		parts[i] = (struct part){.r = w->r, .work = read_part, .from = base + from * sizeof(line), .size = (to - from) * sizeof(line)};
	}
	const int64_t elapsed = in_parts(parts, n);
	return aborted(w->r) ? BL_ROOFLINE_ABORTED : elapsed;
}
