package llama

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Errors that a mistake in the calling program causes.
var (
	ErrClosed      = errors.New("used after Close")
	ErrNoLogits    = errors.New("nothing was decoded: call Decode first")
	ErrInUse       = errors.New("closed while a context is open")
	ErrNotOpened   = errors.New("no back-end is open: call llama.LoadBackends first")
	ErrWrongThread = errors.New("called on another OS thread than the one that made the context: make all calls in one llama.Thread's Do")
)

// Errors of a decode: one for each return code of llama_decode and
// llama_process, which the comments give.
var (
	ErrNoKVSlot     = errors.New("the context is full: make it longer with ContextParams.Context, or call ClearMemory") // 1
	ErrAborted      = errors.New("aborted")                                                                             // 2
	ErrInvalidBatch = errors.New("invalid batch of tokens")                                                             // -1
	ErrAllocCompute = errors.New("memory for the computation could not be allocated")                                   // -2
	ErrCompute      = errors.New("computation failed")                                                                  // -3
	ErrDecode       = errors.New("decode failed with a code that libllama 0.7.0 does not document")                     // any other
)

// Errors of the tokenizer. In most of these cases the library itself would end
// the process.
var (
	ErrNoTokenizer  = errors.New("the model has no tokenizer")
	ErrInvalidUTF8  = errors.New("not valid UTF-8")
	ErrInvalidToken = errors.New("not a token of the vocabulary")
	ErrLongPiece    = errors.New("a token of more than 16 KiB of text")
)

// Errors of loading a model and of creating a context.
var (
	ErrCancelled               = errors.New("loading was cancelled")
	ErrUnsupportedArchitecture = errors.New("the library does not know this architecture")
	ErrOutOfMemory             = errors.New("memory could not be allocated")
	ErrDeviceLost              = errors.New("a device was lost")
	ErrInvalidModel            = errors.New("the library refused the model")
	ErrInvalidContext          = errors.New("the library refused the context")
	ErrNoBackend               = errors.New("no back-end of the library could be loaded")
	ErrNotAutoregressive       = errors.New("the model does not generate token by token")
)

// Codes of bridge.h.
const (
	codeWrongThread = 100 // BL_WRONG_THREAD
	codeLongPiece   = 101 // BL_LONG_PIECE
)

// decodeError turns a return code of llama_decode into its error; nil for 0.
func decodeError(code int) error {
	switch code {
	case 0:
		return nil
	case 1:
		return ErrNoKVSlot
	case 2:
		return ErrAborted
	case -1:
		return ErrInvalidBatch
	case -2:
		return ErrAllocCompute
	case -3:
		return ErrCompute
	case codeWrongThread:
		return ErrWrongThread
	case codeLongPiece:
		return ErrLongPiece
	default:
		return fmt.Errorf("%w: %d", ErrDecode, code)
	}
}

// LoadError says that the library did not load a model, create a context or
// allocate memory. It includes what the library logged in that call. errors.Is
// finds the class.
type LoadError struct {
	Source string   // what failed: a path, a stream's name, a context's or a memory's size; empty: the caller names it
	Class  error    // ErrUnsupportedArchitecture, ErrOutOfMemory, ErrDeviceLost, ErrInvalidModel, ErrInvalidContext
	Log    []string // the errors that the library logged, oldest first, at most 16
}

// failedBuffer matches the library's line about memory that it did not get.
var failedBuffer = regexp.MustCompile(`failed to allocate (\S+) buffer of size`)

// Buffer is the type of the buffer that could not be allocated, as in
// [Buffer.Type]. It is empty if the log does not tell.
func (e *LoadError) Buffer() string {
	for _, line := range e.Log {
		if m := failedBuffer.FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	return ""
}

// Error gives the source, the class and the cause.
func (e *LoadError) Error() string {
	text := e.Class.Error()
	if e.Source != "" {
		text = e.Source + ": " + text
	}
	if line := e.Cause(); line != "" {
		text += ": " + line
	}
	return text
}

// Unwrap returns the class.
func (e *LoadError) Unwrap() error { return e.Class }

// Cause is the first error that the library logged, without its "function: "
// prefixes. Later lines only say that the library gave up.
func (e *LoadError) Cause() string {
	if len(e.Log) == 0 {
		return ""
	}
	line := strings.TrimSpace(e.Log[0])
	for {
		prefix, rest, found := strings.Cut(line, ": ")
		if !found || prefix != "error loading model" && strings.ContainsAny(prefix, " '\"") {
			return line
		}
		line = rest
	}
}

// newLoadError makes the error of a model or context that the library refused.
// Its class is refused, unless the log tells a more specific one. The library has
// no error codes, so the wording of its log decides. TestLoadErrors fails when
// that wording changes.
func newLoadError(source string, refused error, log []string) *LoadError {
	e := &LoadError{Source: source, Class: refused, Log: log}
	for _, line := range log {
		switch {
		case strings.Contains(line, "unknown model architecture"):
			e.Class = ErrUnsupportedArchitecture
			return e
		case strings.Contains(line, "device lost"), strings.Contains(line, "ErrorDeviceLost"): // of Vulkan
			e.Class = ErrDeviceLost
			return e
		case strings.Contains(line, "failed to allocate"), strings.Contains(line, "unable to allocate"),
			strings.Contains(line, "alloc_tensor_range"), strings.Contains(line, "out of memory"),
			strings.Contains(line, "cannot allocate"), strings.Contains(line, "bad_alloc"):
			e.Class = ErrOutOfMemory
			return e
		}
	}
	return e
}
