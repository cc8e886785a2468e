//go:build cgo

package llama

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/cgo"
	"sync/atomic"
	"unsafe"

	"github.com/dustin/go-humanize/english"
)

// Model is a loaded model (struct llama_model). The Go value owns it. Close frees
// it, after all its contexts are closed. Use it on one Thread.
type Model struct {
	c          *C.struct_llama_model
	facts      ModelFacts
	allocation Allocation
	changes    []Change
	contexts   atomic.Int32
}

// ModelFacts is what the library says about a model.
type ModelFacts struct {
	Description   string // llama_model_desc: "llama 7B Q4_K - Medium"
	FileType      string // llama_ftype_name: "Q4_K - Medium"
	SizeBytes     uint64 // llama_model_size: bytes of all tensors
	Params        uint64 // llama_model_n_params
	ContextTokens int    // llama_model_n_ctx_train: context length in training, in tokens
	Embedding     int    // llama_model_n_embd
	Layers        int    // llama_model_n_layer
	Heads         int    // llama_model_n_head
	HeadsKV       int    // llama_model_n_head_kv
	Vocab         int    // llama_vocab_n_tokens
	BOS           Token  // llama_vocab_bos; -1: none
	AddBOS        bool   // llama_vocab_get_add_bos: a prompt begins with BOS
	Tokenizer     bool   // llama_vocab_type is not "none": the tokens have text
	HasEncoder    bool   // llama_model_has_encoder
	HasDecoder    bool   // llama_model_has_decoder
	Recurrent     bool   // llama_model_is_recurrent
}

// Progress receives the share of the model that is loaded, from 0 to 1, on the
// loading thread. If it returns false the load ends with ErrCancelled. It must not
// panic.
type Progress func(share float32) bool

// load is the state of one load. C's callbacks find it by a handle.
type load struct {
	progress  Progress
	allocated func(Allocation) error // set to nil when called
	refused   error                  // what allocated returned
	cancelled bool
}

// LoadModel loads a GGUF file (llama_model_load_from_file). The error is a
// *LoadError, a *fs.PathError if the file cannot be opened, ErrCancelled,
// ErrNotOpened, or names a mistake in p. progress may be nil.
func LoadModel(path string, p ModelParams, progress Progress) (*Model, error) {
	m, err := loadModel(path, p, progress, func(cp C.struct_llama_model_params, h cgo.Handle) *C.struct_llama_model {
		c := C.CString(path)
		defer C.free(unsafe.Pointer(c))
		return C.bl_model_load_path(c, cp, C.uintptr_t(h))
	})
	if errors.Is(err, ErrInvalidModel) {
		f, openErr := os.Open(path)
		if openErr != nil {
			return nil, fmt.Errorf("load model: %w", openErr)
		}
		f.Close() //nolint:errcheck // nothing was written
	}
	return m, err
}

// Stream is a GGUF that need not be a file. ReadAt is called on the loading thread.
type Stream interface {
	io.ReaderAt
	Size() int64 // bytes
}

// LoadModelStream loads a GGUF from a stream (llama_model_load_from_file_ptr on a
// FILE made by fopencookie). The library treats it as it treats a file; it also
// repacks weights. A stream cannot be mapped, so p.LoadMode must be LoadNone. The
// stream is not used after the call.
func LoadModelStream(name string, s Stream, p ModelParams, progress Progress) (*Model, error) {
	if p.LoadMode != LoadNone {
		return nil, fmt.Errorf("%s: a stream needs load mode none, not %v", name, p.LoadMode)
	}
	st := &stream{from: s, size: s.Size()}
	h := cgo.NewHandle(st)
	defer h.Delete()
	m, err := loadModel(name, p, progress, func(cp C.struct_llama_model_params, l cgo.Handle) *C.struct_llama_model {
		return C.bl_model_load_stream(C.uintptr_t(h), cp, C.uintptr_t(l))
	})
	if err != nil && st.err != nil && !errors.Is(err, ErrCancelled) {
		return nil, fmt.Errorf("%s: read at byte %d: %w", name, st.at, st.err)
	}
	return m, err
}

func loadModel(source string, p ModelParams, progress Progress,
	call func(C.struct_llama_model_params, cgo.Handle) *C.struct_llama_model,
) (*Model, error) {
	entering()
	initLog()
	if err := opened(); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	cp, free, err := p.c()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	defer free()
	l := &load{progress: progress, allocated: p.Allocated}
	h := cgo.NewHandle(l)
	defer h.Delete()

	takeRecent()
	var a Allocation
	stop := readAllocation(&a)
	c := call(cp, h)
	changes := stop()
	if c == nil {
		switch {
		case l.refused != nil:
			return nil, l.refused
		case l.cancelled:
			return nil, fmt.Errorf("%s: %w", source, ErrCancelled)
		}
		return nil, newLoadError(source, ErrInvalidModel, takeRecent())
	}
	return &Model{c: c, facts: factsOf(c), allocation: a, changes: changes}, nil
}

//export goProgress
func goProgress(handle C.uintptr_t, share C.float) C.int {
	l := cgo.Handle(handle).Value().(*load)
	if told := l.allocated; told != nil { // the first call comes before any weight is read
		l.allocated = nil
		if l.refused = told(allocationSoFar()); l.refused != nil {
			return 0
		}
	}
	if l.progress != nil && !l.progress(float32(share)) {
		l.cancelled = true
		return 0
	}
	return 1
}

// stream is the state of one fopencookie stream.
type stream struct {
	from io.ReaderAt
	size int64
	at   int64
	err  error // the last error of from other than io.EOF
}

//export goStreamRead
func goStreamRead(handle C.uintptr_t, buf *C.char, size C.int64_t) C.int64_t {
	s := cgo.Handle(handle).Value().(*stream)
	if s.at >= s.size {
		return 0
	}
	to := unsafe.Slice((*byte)(unsafe.Pointer(buf)), int(size))
	n, err := s.from.ReadAt(to, s.at)
	s.at += int64(n)
	if err != nil && err != io.EOF && n == 0 {
		s.err = err
		return -1
	}
	return C.int64_t(n)
}

//export goStreamSeek
func goStreamSeek(handle C.uintptr_t, offset *C.int64_t, whence C.int) C.int {
	s := cgo.Handle(handle).Value().(*stream)
	to := int64(*offset)
	switch whence {
	case io.SeekCurrent:
		to += s.at
	case io.SeekEnd:
		to += s.size
	}
	if to < 0 {
		return -1
	}
	s.at = to
	*offset = C.int64_t(to)
	return 0
}

// Close frees the model (llama_model_free). It is idempotent. While a context is
// open it does nothing and returns ErrInUse.
func (m *Model) Close() error {
	entering()
	if m.c == nil {
		return nil
	}
	if n := m.contexts.Load(); n > 0 {
		return fmt.Errorf("model %s with %s: %w", m.facts.Description, english.Plural(int(n), "open context", ""), ErrInUse)
	}
	C.llama_model_free(m.c)
	m.c = nil
	return nil
}

// ptr returns the C pointer, or ErrClosed. Every method gets the pointer here.
func (m *Model) ptr() (*C.struct_llama_model, error) {
	entering()
	if m.c == nil {
		return nil, fmt.Errorf("model %s: %w", m.facts.Description, ErrClosed)
	}
	return m.c, nil
}

// Facts is what the library says about the model. It may be called after Close.
func (m *Model) Facts() ModelFacts { return m.facts }

// Allocation says where the weights are, and how many layers each device computes.
func (m *Model) Allocation() Allocation { return m.allocation }

// Changes are the settings of ModelParams that the library did not use as it was
// asked to, at most one of each kind.
func (m *Model) Changes() []Change { return m.changes }

func factsOf(m *C.struct_llama_model) ModelFacts {
	buf := make([]byte, 256)
	n := C.llama_model_desc(m, (*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)))
	vocab := C.llama_model_get_vocab(m)
	return ModelFacts{
		Description:   string(buf[:min(int(n), len(buf)-1)]),
		FileType:      C.GoString(C.llama_ftype_name(C.llama_model_ftype(m))),
		SizeBytes:     uint64(C.llama_model_size(m)),
		Params:        uint64(C.llama_model_n_params(m)),
		ContextTokens: int(C.llama_model_n_ctx_train(m)),
		Embedding:     int(C.llama_model_n_embd(m)),
		Layers:        int(C.llama_model_n_layer(m)),
		Heads:         int(C.llama_model_n_head(m)),
		HeadsKV:       int(C.llama_model_n_head_kv(m)),
		Vocab:         int(C.llama_vocab_n_tokens(vocab)),
		BOS:           Token(C.llama_vocab_bos(vocab)),
		AddBOS:        bool(C.llama_vocab_get_add_bos(vocab)),
		Tokenizer:     C.llama_vocab_type(vocab) != C.LLAMA_VOCAB_TYPE_NONE,
		HasEncoder:    bool(C.llama_model_has_encoder(m)),
		HasDecoder:    bool(C.llama_model_has_decoder(m)),
		Recurrent:     bool(C.llama_model_is_recurrent(m)),
	}
}
