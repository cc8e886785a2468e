//go:build gollama

package main

// #cgo CFLAGS: -I${SRCDIR}/../../third_party/go-llama.cpp
// #include "parts.h"
import "C"

import "time"

// parts are times and counts that the headers in third_party/go-llama.cpp keep:
// sums since the process started.
type parts struct {
	Tokenize, Eval, Sample, Piece, Callback time.Duration
	Samples                                 int64 // tokens sampled
}

// readParts may be called from any goroutine, and in a token callback.
func readParts() parts {
	var p C.struct_gollama_parts
	C.gollama_parts_read(&p)
	return parts{
		Tokenize: time.Duration(p.tokenize_ns),
		Eval:     time.Duration(p.eval_ns),
		Sample:   time.Duration(p.sample_ns),
		Piece:    time.Duration(p.piece_ns),
		Callback: time.Duration(p.callback_ns),
		Samples:  int64(p.samples),
	}
}

// since is the difference to an earlier reading.
func (p parts) since(before parts) parts {
	return parts{
		Tokenize: p.Tokenize - before.Tokenize,
		Eval:     p.Eval - before.Eval,
		Sample:   p.Sample - before.Sample,
		Piece:    p.Piece - before.Piece,
		Callback: p.Callback - before.Callback,
		Samples:  p.Samples - before.Samples,
	}
}
