package acquire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// identify gives the model's job the identity of its files, which are on this machine.
// If they changed, completed repetitions are dropped. The error is an *Error: OtherFile
// if tests have an outcome with other files.
func (c *model) identify() error {
	var files []bench.ModelFile
	var err error
	if c.job.Model.Weights == result.SyntheticWeights {
		files, err = identifySaved(c.job.Model.Path)
	} else {
		files, err = identify(c.file)
	}
	if err != nil {
		return &Error{NoFile, c.wanted.Name, err}
	}
	if err := setFiles(&c.job, files); err != nil {
		return &Error{OtherFile, c.wanted.Name, fmt.Errorf("%s: %w", c.job.Model.Name, err)}
	}
	return nil
}

// identify describes the content of a model's files. A resumed run compares it with
// what they were.
func identify(file fetch.File) ([]bench.ModelFile, error) {
	var files []bench.ModelFile
	for _, path := range file.Paths {
		header, err := gguf.ReadFile(path)
		if err != nil {
			return nil, err
		}
		f, err := identifyHeader(path, header.DataOffset)
		if err != nil {
			return nil, err
		}
		if len(file.Paths) == 1 {
			f.SHA256 = file.SHA256
		}
		files = append(files, f)
	}
	return files, nil
}

// identifyHeader describes a file whose header has so many bytes.
func identifyHeader(path string, bytes int64) (bench.ModelFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return bench.ModelFile{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return bench.ModelFile{}, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, bytes)); err != nil {
		return bench.ModelFile{}, err
	}
	return bench.ModelFile{
		Name: filepath.Base(path), Bytes: info.Size(), ModTime: info.ModTime().UTC(), HeaderSHA256: hex.EncodeToString(sum.Sum(nil)),
	}, nil
}

// identifySaved describes the file of a header that synthetic weights are made from.
// An empty path is a default model's shape, which has no file.
func identifySaved(path string) ([]bench.ModelFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := identifyHeader(path, gguf.DefaultLimits.HeaderBytes)
	if err != nil {
		return nil, err
	}
	f.SHA256 = f.HeaderSHA256 // a file of WriteHeaderFile has no data
	return []bench.ModelFile{f}, nil
}

// setFiles gives a job the identity of the files that it will load. If they are not
// those that its completed repetitions were measured with, these are dropped. If tests
// with an outcome were measured with other files, it is an error.
func setFiles(job *bench.Job, files []bench.ModelFile) error {
	before := job.Model
	job.Model.Files = files
	change, other := job.Model.FilesChanged(before)
	switch {
	case change == "":
		return nil
	case other && len(job.Past) > 0:
		return fmt.Errorf("earlier tests of this run were measured with another file: %s", change)
	}
	slog.Warn("the model's file has changed since the run was interrupted", "model", job.Model.Name, "reason", change)
	job.Restart(change, len(job.Past) > 0)
	return nil
}
