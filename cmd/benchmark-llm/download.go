package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// newClient is what asks servers and fetches files. A brisk one gives up early
// on hosts that cannot be reached.
func newClient(brisk bool) *fetch.Client {
	return &fetch.Client{Token: os.Getenv("HF_TOKEN"), UserAgent: "benchmark-llm/" + version, Log: slog.Default(), Brisk: brisk}
}

// downloadFailure is a model that did not arrive.
func downloadFailure(ctx context.Context, err error) error {
	var s *signalError
	switch {
	case errors.As(context.Cause(ctx), &s):
		return s.failure("nothing was measured", "the same command resumes the download")
	case errors.Is(err, fetch.ErrRefused):
		return fail(exitModel, err, "HF_TOKEN gives access to what the hub keeps behind a licence")
	case errors.Is(err, fetch.ErrNotFound):
		return fail(exitModel, err, "check the repository, the file and the revision")
	case errors.Is(err, fetch.ErrNoDisk):
		return fail(exitModel, err, "free space, or choose another place with --models-dir; --weights synthetic needs no file")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fail(exitModel, err, "choose another place with --models-dir")
	case errors.Is(err, fetch.ErrMixed):
		return fail(exitModel, err, "move the model's files out of there, and they are fetched again")
	case errors.Is(err, gguf.ErrNotGGUF), errors.Is(err, fetch.ErrSource):
		return fail(exitModel, err, "-m takes https URLs of GGUF files, hf:user/repository/file[@revision], and paths")
	case errors.Is(err, gguf.ErrEmpty), errors.Is(err, gguf.ErrTruncated), errors.Is(err, gguf.ErrCorrupt), errors.Is(err, gguf.ErrUnsupported):
		return fail(exitModel, err, "what the server has is not whole or not sound: give the address of another file")
	default:
		return fail(exitModel, err, "the same command resumes the download; --weights synthetic needs no file")
	}
}
