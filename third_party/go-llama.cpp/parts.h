// What the time of the module's calls was spent on, for who measures them. C and C++ read it.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Sums since the process started, of all contexts. Times are nanoseconds of the monotonic clock.
struct gollama_parts {
	int64_t tokenize_ns; // text into tokens
	int64_t eval_ns;     // the library's decoding, its synchronisation included
	int64_t sample_ns;   // logits into a token: penalties, grammar, sampler chain
	int64_t piece_ns;    // tokens into text, three times a token
	int64_t callback_ns; // from the text of a sampled token to the module's next call: the token callback, into Go and back
	int64_t samples;     // tokens sampled
};

// gollama_parts_read is safe at any time and in any thread; calls under way count when they end.
void gollama_parts_read(struct gollama_parts *parts);

#ifdef __cplusplus
}
#endif
