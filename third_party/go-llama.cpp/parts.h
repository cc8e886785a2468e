// Where the time of the module's calls goes, for measurements. C and C++ include this file.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Sums over all contexts since the process started. Times are in nanoseconds of the monotonic clock.
struct gollama_parts {
	int64_t tokenize_ns; // text to tokens
	int64_t eval_ns;     // the library's decoding, including synchronisation
	int64_t sample_ns;   // logits to a token: penalties, grammar, sampler chain
	int64_t piece_ns;    // tokens to text, which the module does three times for each token
	int64_t callback_ns; // from the text of a sampled token to the module's next call: the token callback, into Go and back
	int64_t samples;     // tokens sampled
};

// gollama_parts_read may be called at any time from any thread. A running call is counted when it ends.
void gollama_parts_read(struct gollama_parts *parts);

#ifdef __cplusplus
}
#endif
