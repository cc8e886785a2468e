// A back-end that ends its process, as ggml's for CUDA does where a device that is there cannot be opened, unless none is
// visible to CUDA. ggml opens it by GGML_BACKEND_PATH.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *ggml_backend_init(void) {
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	if (visible != NULL && strcmp(visible, "-1") == 0) return NULL;
	fputs("CUDA error: all CUDA-capable devices are busy or unavailable\n", stderr);
	abort();
}
