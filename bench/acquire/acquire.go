// Package acquire turns a wanted model into a ready one: a file on this machine, a
// file that is fetched, or synthetic weights with the model's shape, which need no
// file. Runs, plans and inspections share it.
//
// With Auto, the parent decides about the fallback only when a model's turn comes,
// because its file may arrive until then. The event LoadStarted carries the weights
// and the warning, so records, reports and resumed runs know about the fallback. A
// model that has used synthetic weights keeps them. The header of a model that is not a
// default one is read before the run, while its server answers.
package acquire

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Weights is the value of --weights: where weights come from.
type Weights string

// The values of --weights. With Auto, synthetic weights are the fallback of a model
// whose file cannot be fetched. Its records say so.
const (
	File      = Weights(result.FileWeights)
	Synthetic = Weights(result.SyntheticWeights)
	Auto      = Weights("auto")
)

// AllWeights returns the values of --weights, the default first.
func AllWeights() []string { return []string{string(File), string(Synthetic), string(Auto)} }

// Dirs are the directories of models.
type Dirs struct {
	Search   []string // in which model files may be, in this order
	Download string   // for fetched files
	Headers  []string // for headers of synthetic weights; the first that can be written is used

	temporary bool // Download is for temporary files, because no other can be written
}

// systemModels is the directory of models for all users. Tests replace it.
var systemModels = "/models"

// DirsOf returns the directories for a value of --models-dir. If it is empty, files may
// be in /models or in the user's cache. They are fetched to the first of the two that
// can be written, else to a directory of the user's own for temporary files.
func DirsOf(modelsDir string) Dirs {
	search := []string{systemModels}
	cache, err := os.UserCacheDir()
	if err == nil {
		cache = filepath.Join(cache, "benchmark-llm", "models")
		search = append(search, cache)
	}
	if modelsDir != "" {
		search = []string{modelsDir}
	}
	d := Dirs{Search: search, Download: search[len(search)-1]} // created when it is needed
	if i := slices.IndexFunc(search, func(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }); i >= 0 {
		d.Download = search[i]
	} else if modelsDir == "" && (err != nil || !creatable(cache)) {
		if own, err := host.OwnTempDir(); err == nil {
			d.Download, d.temporary = filepath.Join(own, "models"), true
			d.Search = append(d.Search, d.Download)
		}
	}
	d.Headers = []string{d.Download}
	if err == nil && cache != d.Download {
		d.Headers = append(d.Headers, cache)
	}
	return d
}

// creatable tells whether a directory can probably be created: the nearest that exists
// can be written.
func creatable(dir string) bool {
	for {
		switch err := unix.Access(dir, unix.W_OK); {
		case err == nil:
			info, err := os.Stat(dir)
			return err == nil && info.IsDir()
		case !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir):
			return false
		}
		dir = filepath.Dir(dir)
	}
}

// Kind says why a model is not available.
type Kind int

// The kinds of Error.
const (
	NoFile       Kind = iota // the file is not on this machine or cannot be used
	NotFetched               // the file did not arrive
	NotChosen                // the repository has no such file, or its list of files did not arrive
	NoDirectory              // the models directory cannot be used
	UnknownModel             // no default model has that name
	NoShape                  // synthetic weights cannot be made from the header
	NoTensor                 // the header has no tensor that a setting names
	NoSource                 // an interrupted run does not say where the file came from
	OtherFile                // earlier tests of an interrupted run were measured with another file
)

// Error is the error of a model that is not available. Its text is that of Err.
type Error struct {
	Kind  Kind
	Model string // as it was given; empty: all models
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// requestTimeout limits the requests to servers before the first test. It is shorter
// with Auto, because a model whose server does not answer can still be measured.
func (w Weights) requestTimeout() time.Duration {
	if w == Auto {
		return 10 * time.Second
	}
	return 30 * time.Second
}
