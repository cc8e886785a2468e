// Package fetch finds model files, downloads them if necessary, and checks them before
// anything uses them.
//
// Downloads disturb tests as little as possible. They run on a thread of their own
// with the lowest priority, over one connection per file. Without an idle CPU they
// pause while repetitions are timed.
package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// File is a model on this machine, in one file or in several. Its header is sound.
type File struct {
	Path   string     // of the first file
	Paths  []string   // of all files, in order
	Bytes  int64      // of all files
	Header *gguf.File // of all files, merged

	SHA256     string // 64 hexadecimal digits; empty if Fetch has not verified it
	Downloaded int64  // bytes that Fetch downloaded
	Retries    int    // retries of Fetch
}

// Errors of Local.
var (
	ErrNotFound   = errors.New("no such model file")
	ErrNotRegular = errors.New("not a file but a device, pipe or socket")
)

// Local finds a model by the path of its first file and reads the headers of all
// its files. A bare name is looked up in the working directory and then in dirs.
// Headers are not trusted: they are read here, in bounded time and memory, before
// the library sees them. Errors wrap ErrNotFound, ErrNotRegular, the errors of
// package gguf and those of the file system.
func Local(model string, dirs ...string) (File, error) {
	places := []string{model}
	if filepath.Base(model) == model {
		for _, d := range dirs {
			places = append(places, filepath.Join(d, model))
		}
	}
	for _, path := range places {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		file := File{Path: path}
		var err error
		file.Header, file.Paths, err = gguf.ReadShards(path, func(name string) (*gguf.File, error) {
			header, bytes, err := readHeader(name)
			file.Bytes += bytes
			return header, err
		})
		if err != nil {
			return File{}, err
		}
		return file, nil
	}
	return File{}, fmt.Errorf("%w: %s", ErrNotFound, model)
}

// readHeader reads the header of one file and returns the file's size in bytes.
func readHeader(path string) (*gguf.File, int64, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, path)
	case err != nil:
		return nil, 0, err
	case !info.Mode().IsRegular() && !info.IsDir(): // opening a pipe would wait for its writer
		return nil, 0, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	header, err := gguf.ReadFile(path)
	return header, info.Size(), err
}
