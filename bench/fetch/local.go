// Package fetch finds model files and checks them before anything uses them.
package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// File is a model that is there and whose header is sound.
type File struct {
	Path   string     // of its file, or of the first of several
	Paths  []string   // of all of them, in order
	Bytes  int64      // of all of them
	Header *gguf.File // merged, if there are several

	SHA256     string // 64 hexadecimal digits, where Fetch verified it
	Downloaded int64  // bytes that Fetch took from the network
	Retries    int    // requests of Fetch after the first
}

// Errors of Local.
var (
	ErrNotFound   = errors.New("no such model file")                   // in none of the places looked at
	ErrNotRegular = errors.New("a device, pipe or socket, not a file") // and no directory
)

// Local finds a model by its path or, for a bare name, in the working directory
// or the first of dirs that has it, and reads its header; of a model in several
// files, found by its first, those of all. Headers are untrusted: they are read
// here, in bounded time and memory, before the library sees them. Errors wrap ErrNotFound, ErrNotRegular, those of package gguf, and
// those of the file system.
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

// readHeader reads the header of one file, whose size it returns, too.
func readHeader(path string) (*gguf.File, int64, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, path)
	case err != nil:
		return nil, 0, err
	case !info.Mode().IsRegular() && !info.IsDir(): // opening a pipe waits for its writer
		return nil, 0, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	header, err := gguf.ReadFile(path)
	return header, info.Size(), err
}
