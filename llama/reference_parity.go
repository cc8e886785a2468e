//go:build cgo && parity

package llama

/*
#include "bridge.h"
#include "reference.h"
#include <stdlib.h>

// The time of the slowest node of the graph. The scheduler's callback asks for
// every node, so the scheduler computes the nodes one at a time.
struct node_times { int64_t start_ns, longest_ns; };

static bool node_time(struct ggml_tensor *t, bool ask, void *data) {
	struct node_times *n = data;
	if (ask) {
		n->start_ns = reference_now_ns();
		return true; // compute up to this node, then call again
	}
	const int64_t took = reference_now_ns() - n->start_ns;
	if (took > n->longest_ns) n->longest_ns = took;
	return true;
}

static int64_t longest_node_ns(struct llama_model *model, int32_t threads, llama_token *tokens, int32_t n) {
	struct node_times times = {0, 0};
	struct llama_context_params p = llama_context_default_params();
	p.n_ctx = n;
	p.n_batch = n;
	p.n_threads = p.n_threads_batch = threads;
	p.cb_eval = node_time;
	p.cb_eval_user_data = &times;
	struct llama_context *ctx = llama_init_from_model(model, p);
	if (ctx == NULL) return -1;
	int32_t rc = 0;
	for (int pass = 0; pass < 2 && rc == 0; pass++) { // the first one warms up
		times.longest_ns = 0;
		llama_memory_clear(llama_get_memory(ctx), false);
		rc = llama_decode(ctx, llama_batch_get_one(tokens, n));
		llama_synchronize(ctx);
	}
	llama_free(ctx);
	return rc == 0 ? times.longest_ns : -1;
}
*/
import "C"

import (
	"errors"
	"time"
)

// ReferenceRepetition is Repetition as llama-bench 0.7.0 does it, in plain C.
func (t Timed) ReferenceRepetition(prompt, gen []Token, batch int) (time.Duration, error) {
	p, err := t.c.owned()
	if err != nil {
		return 0, err
	}
	if err := t.c.checkRepetition(prompt, gen, &batch); err != nil {
		return 0, err
	}
	var ns C.int64_t
	rc := C.reference_repetition(p.ctx, tokens(prompt), C.int32_t(len(prompt)), C.int32_t(batch), tokens(gen), C.int32_t(len(gen)), &ns)
	return time.Duration(ns), decodeError(int(rc))
}

// LongestNode is the time that the slowest node of the graph takes in one pass
// over the tokens: an abort waits no longer than that.
func (m *Model) LongestNode(t []Token, threads int) (time.Duration, error) {
	p, err := m.ptr()
	if err != nil {
		return 0, err
	}
	ns := C.longest_node_ns(p, C.int32_t(threads), tokens(t), C.int32_t(len(t)))
	if ns < 0 {
		return 0, errors.New("time the graph's nodes: the pass failed")
	}
	return time.Duration(ns), nil
}
