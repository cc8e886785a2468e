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

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Header is a model's header, wherever it was read.
type Header struct {
	Name      string     // of the model's file, without folder
	File      *gguf.File // merged, if the model is in several files
	Files     int
	FileBytes int64 // of all files; as it would be, for a default model

	shape bool // of a default model, so it has no vocabulary
}

// Outline is the header that synthetic weights are made from. The error is an
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

// ReadHeader reads the header of a default model's shape, of a file of this
// machine, or of one on a server. Of a model in several files it reads and merges
// all headers. The error is an *Error, or the cause of ctx.
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
		return Header{}, unknownModel(src.Given) // it can only have meant a default model
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

// notFetched is the error of a model that did not arrive. If ctx has ended, its
// cause is the reason.
func notFetched(ctx context.Context, model string, err error) error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return &Error{NotFetched, model, err}
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Finder finds models. It may be used by one goroutine at a time.
type Finder struct {
	Client  *fetch.Client
	Dirs    Dirs
	Weights Weights
	Keep    bool // keep the headers of synthetic weights, for the worker
}

// Located is where the weights of a model come from.
type Located struct {
	Weights result.Weights
	Fetch   bool       // the file is to be fetched
	File    fetch.File // on this machine; the zero File otherwise
	Header  *gguf.File // nil: not known before the file is here

	HeaderPath string // where the worker finds the header of synthetic weights; empty for a default model
	Because    error  // why synthetic weights replace the file; nil: they do not
}

// Locate finds the weights of a model. It asks a server only for a header that
// synthetic weights need. The error is an *Error, or the cause of ctx.
func (f *Finder) Locate(ctx context.Context, e suite.Entry) (Located, error) {
	switch {
	case f.Weights == Synthetic:
		return f.synthetic(ctx, e)
	case !e.Source.Local():
		return Located{Weights: result.FileWeights, Fetch: true}, nil
	}
	file, err := fetch.Local(e.Source.Path, f.Dirs.Look...)
	switch {
	case err == nil:
		return Located{Weights: result.FileWeights, File: file, Header: file.Header}, nil
	case f.Weights == Auto:
		why := &Error{NoFile, e.Source.Path, err}
		l, err := f.Fallback(ctx, e, why)
		if err != nil {
			slog.Debug("no header to fall back on", "model", e.Name, "reason", err)
			return Located{}, why
		}
		return l, nil
	default:
		return Located{}, &Error{NoFile, e.Source.Path, err}
	}
}

// Fallback are synthetic weights in place of a file that cannot be had, because of
// why. The error says why there is no header to make them from.
func (f *Finder) Fallback(ctx context.Context, e suite.Entry, why error) (Located, error) {
	asking, cancel := context.WithTimeout(ctx, f.Weights.askWithin())
	defer cancel()
	l, err := f.synthetic(asking, e)
	l.Because = why
	return l, err
}

// synthetic are synthetic weights: of a default model's shape, or of any header.
func (f *Finder) synthetic(ctx context.Context, e suite.Entry) (Located, error) {
	l := Located{Weights: result.SyntheticWeights}
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

// pinned matches a revision whose files cannot change: a commit.
var pinned = regexp.MustCompile(`^[0-9a-f]{40}$`)

// KeepOutline writes the header that synthetic weights of a model are made from
// to the first of dirs that takes it, and returns its path for bench.Model. A
// header that an earlier run kept is used if the file cannot have changed since,
// or if the server cannot be asked. The error is an *Error, or the cause of ctx.
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
			slog.Warn("using the header that an earlier run kept", "model", src, "reason", err)
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
