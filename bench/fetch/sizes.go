package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// Size is what is known of a model's files before they are fetched.
type Size struct {
	Bytes   int64 // of all its files; 0 if unknown
	Missing int64 // bytes still to be fetched
	Files   int   // number of files that Missing belongs to
	Err     error // why the size is unknown, as of Fetch
}

// Sizes asks for the sizes of models, all at once. A file in dir that has a sound
// header costs no question. Nothing is downloaded. The result has a Size for
// every source. The error is the cause of ctx.
func (c *Client) Sizes(ctx context.Context, sources []source.Source, dir string) ([]Size, error) {
	sizes := make([]Size, len(sources))
	var asked sync.WaitGroup
	for i, src := range sources {
		asked.Go(func() { sizes[i] = c.size(ctx, src, dir) })
	}
	asked.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return sizes, nil
}

// size asks for the size of one model.
func (c *Client) size(ctx context.Context, src source.Source, dir string) Size {
	if src.Local() {
		file, err := Local(src.Path)
		return Size{Bytes: file.Bytes, Err: err}
	}
	if file, ok := c.Cached(src); ok {
		return Size{Bytes: file.Bytes}
	}
	if gguf.IsShard(src.Name()) {
		s, err := c.Survey(ctx, src, dir)
		missing, files := s.Missing()
		return Size{Bytes: s.Bytes(), Missing: missing, Files: files, Err: err}
	}
	path := src.Place(dir)
	if _, bytes, err := readHeader(path); err == nil && !ofAnotherSource(path, src) {
		return Size{Bytes: bytes}
	}
	remote, err := c.Probe(ctx, src)
	if err != nil {
		return Size{Err: err}
	}
	return Size{Bytes: remote.Bytes, Missing: remote.Bytes - partBytes(path, src, remote), Files: 1}
}

// Here finds the file of a source that was fetched into dir, or put there, or that
// is in the hub's cache. Errors are those of Local; a file that was fetched from
// another source is ErrNotFound.
func (c *Client) Here(src source.Source, dir string) (File, error) {
	if file, ok := c.Cached(src); ok {
		return file, nil
	}
	path := src.Place(dir)
	if ofAnotherSource(path, src) {
		return File{}, &cleaned{path + " exists, but it was fetched from another source", ErrNotFound}
	}
	return Local(path)
}

// ofAnotherSource reports whether a file has a record of another source.
func ofAnotherSource(path string, src source.Source) bool {
	known, err := readRecord(recordPath(path))
	return err == nil && known.Source != src.String()
}

// Room is how many bytes downloads may take of the file system of dir: what is
// free without DefaultReserveBytes. The directory need not exist yet. Errors are
// those of the file system.
func (c *Client) Room(dir string) (int64, error) {
	for dir := filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		free, err := c.freeBytes(dir)
		if err == nil {
			return max(0, free-DefaultReserveBytes), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, err
		}
	}
}

// freeBytes is how many bytes an unprivileged user may still write in a directory.
func (c *Client) freeBytes(dir string) (int64, error) {
	if c.FreeBytes != nil {
		return c.FreeBytes(dir)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// partBytes is how many bytes of a file an earlier download left.
func partBytes(path string, src source.Source, remote Remote) int64 {
	state, err := readRecord(path + source.PartSuffix + ".json")
	if err != nil || state.Source != src.String() || state.Bytes != remote.Bytes || state.Validator != remote.validator {
		return 0
	}
	info, err := os.Stat(path + source.PartSuffix)
	if err != nil || info.Size() > remote.Bytes {
		return 0
	}
	return info.Size()
}
