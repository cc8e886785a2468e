package acquire

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Header is a model's header: of a default model's shape, of files on this machine, or
// of files on a server.
type Header struct {
	Name      string     // of the model's file, without folder
	File      *gguf.File // merged, if the model has several files
	Files     int
	FileBytes int64 // of all files; computed for a default model's shape

	shape bool // of a default model; it has no vocabulary
}

// Outline returns the header from which synthetic weights are made. The error is an
// *Error.
func (h Header) Outline() (*gguf.File, error) {
	if h.shape {
		return h.File, nil
	}
	o, err := synth.Outline(h.Name, h.File)
	if err != nil {
		return nil, &Error{NoShape, h.Name, err}
	}
	return o, nil
}

// ReadHeader reads the header of a default model's shape, of a file on this machine,
// or of a file on a server. If the model has several files, it reads and merges all
// headers. The error is an *Error, or the cause of ctx.
func ReadHeader(ctx context.Context, client *fetch.Client, src source.Source) (Header, error) {
	if !src.Local() {
		s, err := client.Survey(ctx, src, "")
		if err != nil {
			return Header{}, notFetched(ctx, src.String(), err)
		}
		return Header{Name: src.Name(), File: s.Header, Files: len(s.Files), FileBytes: s.Bytes()}, nil
	}
	if shape, err := synth.Lookup(src.Given); err == nil {
		file, err := shape.File()
		if err != nil {
			return Header{}, &Error{NoShape, src.Given, err}
		}
		return Header{shape.Name, file, 1, file.Size(), true}, nil
	}
	if filepath.Base(src.Given) == src.Given && isMissing(src.Path) {
		return Header{}, unknownModel(src.Given) // a name without a folder must be a default model
	}
	f, err := fetch.Local(src.Path)
	if err != nil {
		return Header{}, &Error{NoFile, src.Path, err}
	}
	return Header{Name: src.Name(), File: f.Header, Files: len(f.Paths), FileBytes: f.Bytes}, nil
}

func unknownModel(name string) error {
	_, err := synth.Lookup(filepath.Base(name))
	return &Error{UnknownModel, name, err}
}

// notFetched is the error of a model that did not arrive. If ctx was cancelled, its
// cause is the reason.
func notFetched(ctx context.Context, model string, err error) error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		err = context.Cause(ctx)
	}
	if errors.Is(err, bench.ErrTimeLimit) {
		err = fmt.Errorf("%s: %w", model, err)
	}
	return &Error{NotFetched, model, err}
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Finder finds models. It is used from one goroutine at a time.
type Finder struct {
	Client  *fetch.Client
	Dirs    Dirs
	Weights Weights
	Keep    bool // keep the headers of synthetic weights in files, for the worker
}

// located says where the weights of a model come from.
type located struct {
	Weights result.Weights
	Fetch   bool       // the file must be fetched
	File    fetch.File // on this machine; otherwise the zero File
	Header  *gguf.File // nil: not known before the file is on this machine

	HeaderPath string // of the header of synthetic weights, for the worker; empty for a default model
	Because    error  // why synthetic weights are used as a fallback; nil: they are not
}

// locate finds the weights of a model. It reads from a server only if synthetic weights
// need a header. The error is an *Error, or the cause of ctx.
func (f *Finder) locate(ctx context.Context, e suite.Entry) (located, error) {
	switch {
	case f.Weights == Synthetic:
		return f.synthetic(ctx, e)
	case !e.Source.Local():
		return located{Weights: result.FileWeights, Fetch: true}, nil
	}
	file, err := fetch.Local(e.Source.Path, f.Dirs.Search...)
	if err == nil {
		err = checkFile(file)
	}
	switch {
	case err == nil:
		return located{Weights: result.FileWeights, File: file, Header: file.Header}, nil
	case f.Weights == Auto:
		why := &Error{NoFile, e.Source.Path, err}
		l, err := f.fallback(ctx, e, why)
		if err != nil {
			slog.Debug("no header for synthetic weights", "model", e.Name, "reason", err)
			return located{}, why
		}
		return l, nil
	default:
		return located{}, &Error{NoFile, e.Source.Path, err}
	}
}

// fallback returns synthetic weights for a model whose file cannot be fetched. why is the
// reason. The error says why there is no header for them.
func (f *Finder) fallback(ctx context.Context, e suite.Entry, why error) (located, error) {
	requests, cancel := context.WithTimeout(ctx, f.Weights.requestTimeout())
	defer cancel()
	l, err := f.synthetic(requests, e)
	l.Because = why
	return l, err
}

// synthetic finds a header for synthetic weights: a default model's shape, or the
// header of the model's file.
func (f *Finder) synthetic(ctx context.Context, e suite.Entry) (located, error) {
	l, err := f.outline(ctx, e)
	if err == nil {
		if err = l.Header.CheckModel(); err != nil {
			return l, &Error{NoShape, e.Name, fmt.Errorf("%s: %w", e.Name, err)}
		}
	}
	return l, err
}

func (f *Finder) outline(ctx context.Context, e suite.Entry) (located, error) {
	l := located{Weights: result.SyntheticWeights}
	shape, err := synth.Lookup(filepath.Base(e.Name))
	if err == nil {
		if l.Header, err = shape.File(); err != nil {
			return l, &Error{NoShape, e.Name, err}
		}
		return l, nil
	}
	if e.Source.Local() && isMissing(e.Source.Path) {
		return l, unknownModel(e.Name)
	}
	if !f.Keep {
		h, err := ReadHeader(ctx, f.Client, e.Source)
		if err != nil {
			return l, err
		}
		l.Header, err = h.Outline()
		return l, err
	}
	l.HeaderPath, l.Header, err = KeepOutline(ctx, f.Client, e.Source, f.Dirs.Headers...)
	return l, err
}

// pinned matches a commit, a revision whose files cannot change.
var pinned = regexp.MustCompile(`^[0-9a-f]{40}$`)

// KeepOutline writes the header for a model's synthetic weights to the first of dirs
// that can be written, and returns its path for bench.Model. It uses a header that an
// earlier run kept if the model's file cannot have changed since, or if the server
// cannot be reached. The error is an *Error, or the cause of ctx.
func KeepOutline(ctx context.Context, client *fetch.Client, src source.Source, dirs ...string) (path string, outline *gguf.File, err error) {
	name := fmt.Sprintf("%x.gguf-header", sha256.Sum256([]byte(src.String())))
	var kept *gguf.File
	for _, dir := range dirs {
		path = filepath.Join(dir, name)
		if kept, err = synth.ReadHeaderFile(path); err == nil {
			break
		}
	}
	if kept != nil && pinned.MatchString(src.Revision) {
		return path, kept, nil
	}
	found, err := ReadHeader(ctx, client, src)
	if err != nil {
		interrupted := ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded)
		if kept != nil && !src.Local() && !interrupted {
			slog.Warn("using the header saved by an earlier run", "model", src, "reason", err)
			return path, kept, nil
		}
		return "", nil, err
	}
	if outline, err = found.Outline(); err != nil {
		return "", nil, err
	}
	for _, dir := range dirs {
		path = filepath.Join(dir, name)
		if err = os.MkdirAll(dir, 0o755); err == nil {
			err = synth.WriteHeaderFile(path, outline)
		}
		if err == nil {
			return path, outline, nil
		}
	}
	return "", nil, &Error{NoDirectory, src.String(), fmt.Errorf("keep the header: %w", err)}
}
