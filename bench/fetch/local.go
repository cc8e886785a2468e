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

// File is a model file that is there and whose header is sound.
type File struct {
	Path   string
	Bytes  int64      // of the file
	Header *gguf.File //

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
// or the first of dirs that has it, and reads its header. The header is
// untrusted: it is read here, in bounded time and memory, before the library
// sees it. Errors wrap ErrNotFound, ErrNotRegular, those of package gguf, and
// those of the file system.
func Local(model string, dirs ...string) (File, error) {
	places := []string{model}
	if filepath.Base(model) == model {
		for _, d := range dirs {
			places = append(places, filepath.Join(d, model))
		}
	}
	for _, path := range places {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return File{}, err
		}
		if !info.Mode().IsRegular() && !info.IsDir() { // opening a pipe waits for its writer
			return File{}, fmt.Errorf("%s: %w", path, ErrNotRegular)
		}
		header, err := gguf.ReadFile(path)
		if err != nil {
			return File{}, err
		}
		return File{Path: path, Bytes: info.Size(), Header: header}, nil
	}
	return File{}, fmt.Errorf("%w: %s", ErrNotFound, model)
}
