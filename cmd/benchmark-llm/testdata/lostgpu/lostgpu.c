// A back-end that ends its process unless no device is visible to CUDA, as ggml's CUDA back-end does if it cannot open a
// device. GGML_BACKEND_PATH makes ggml open it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *ggml_backend_init(void) {
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	if (visible != NULL && strcmp(visible, "-1") == 0) return NULL;
	fputs("CUDA error: all CUDA-capable devices are busy or unavailable\n", stderr);
	abort();
}
