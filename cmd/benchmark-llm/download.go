package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// download gets a model from the network into the models directory, and resumes
// what an earlier run began. A signal ends it; what has arrived stays.
func (o *runOptions) download(src fetch.Source) (fetch.File, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer catchSignals(cancel, nil)()

	dir := o.downloadDir()
	client := fetch.Client{Token: os.Getenv("HF_TOKEN"), UserAgent: "benchmark-llm/" + version, Log: slog.Default()}
	remote, err := client.Probe(ctx, src)
	if err != nil {
		return fetch.File{}, downloadFailure(ctx, err)
	}
	slog.Info("fetching", "model", src, "size", humanize.IBytes(uint64(remote.Bytes)), "directory", dir)
	file, err := client.Fetch(ctx, src, dir, fetch.Options{SHA256: remote.SHA256, Progress: tellTenths()})
	if err != nil {
		return fetch.File{}, downloadFailure(ctx, err)
	}
	return file, nil
}

// tellTenths logs a download's progress a tenth at a time, and at least once a
// minute.
func tellTenths() func(fetch.Progress) {
	var tenth int64
	last := time.Now()
	return func(p fetch.Progress) {
		if p.Total <= 0 || p.Done*10/p.Total <= tenth && time.Since(last) < time.Minute {
			return
		}
		tenth, last = p.Done*10/p.Total, time.Now()
		slog.Info("fetching", "done", humanize.IBytes(uint64(p.Done)), "of", humanize.IBytes(uint64(p.Total)),
			"rate", humanize.IBytes(uint64(p.BytesPerSecond))+"/s", "retries", p.Retries)
	}
}

// downloadDir is where models are put: --models-dir, else the first of the
// usual places that can be written.
func (o *runOptions) downloadDir() string {
	if o.modelsDir != "" {
		return o.modelsDir
	}
	dirs := modelsDirs()
	for _, d := range dirs {
		if unix.Access(d, unix.W_OK) == nil {
			return d
		}
	}
	return dirs[len(dirs)-1] // made when it is needed
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
	case errors.Is(err, gguf.ErrNotGGUF), errors.Is(err, fetch.ErrSource):
		return fail(exitModel, err, "-m takes https URLs of GGUF files, hf:user/repository/file[@revision], and paths")
	default:
		return fail(exitModel, err, "the same command resumes the download; --weights synthetic needs no file")
	}
}
