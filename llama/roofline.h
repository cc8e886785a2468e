// The C side of Roofline: products of weights and the plain read of memory, timed on
// one device.
#ifndef BENCHMARK_LLM_ROOFLINE_H
#define BENCHMARK_LLM_ROOFLINE_H

#include "bridge.h"

#if __has_include(<llama.h>)

// Results of bl_roofline_vector, _matrix and _read that are no time.
#define BL_ROOFLINE_ABORTED (-1)
#define BL_ROOFLINE_FAILED  (-2)
#define BL_ROOFLINE_MEMORY  (-3)

struct bl_roofline;
struct bl_weights;

// A stream of a device with its threads. NULL if the device cannot be opened.
struct bl_roofline *bl_roofline_new(ggml_backend_dev_t dev, int32_t threads, ggml_threadpool_t pool,
                                    const int32_t *cpus, int32_t n_cpus, bool no_repack);
void                bl_roofline_free(struct bl_roofline *r);
void                bl_roofline_abort(struct bl_roofline *r, bool abort);

// n matrices of rows x cols values in the memory where the loader of llama.cpp would
// put them. Their content is data, of size bytes: a whole number of rows, which are
// repeated. NULL if the memory is not there or the device does not multiply the type;
// *supported tells which.
struct bl_weights *bl_weights_new(struct bl_roofline *r, enum ggml_type type, int64_t cols, int64_t rows, int32_t n,
                                  const void *data, size_t size, bool *supported);
void               bl_weights_free(struct bl_weights *w);
const char        *bl_weights_buffer(const struct bl_weights *w);

// The time in nanoseconds of the product of each of the first n matrices with a matrix
// of columns columns, or one of the codes above.
int64_t bl_weights_multiply(struct bl_weights *w, int32_t n, int32_t columns);

// The time in nanoseconds in which the threads read bytes of the memory of weights once
// and add them up, or one of the codes above. Only for memory of the host.
int64_t bl_weights_read(struct bl_weights *w);

#endif // __has_include
#endif
