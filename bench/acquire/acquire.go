// Package acquire turns a wanted model into a ready one: a file of this machine,
// a file that is fetched, or synthetic weights of the model's shape, which need
// no file. Runs, plans and inspections share it.
package acquire

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Weights says where weights come from, as --weights does.
type Weights string

// The choices of --weights. With Auto, synthetic weights are the fallback of a
// model whose file cannot be had; its records say so.
const (
	File      = Weights(result.FileWeights)
	Synthetic = Weights(result.SyntheticWeights)
	Auto      = Weights("auto")
)

// AllWeights are the choices, the default first.
func AllWeights() []string { return []string{string(File), string(Synthetic), string(Auto)} }

// Dirs are the directories of models.
type Dirs struct {
	Look    []string // where model files may lie, in this order
	Put     string   // where fetched files go
	Headers []string // where headers of synthetic weights are kept: the first that takes one
}

// DirsOf are the directories for --models-dir. Without one, files may lie in
// /models or in the user's cache, and go to the first of the two that can be
// written.
func DirsOf(modelsDir string) Dirs {
	look := []string{"/models"}
	cache, err := os.UserCacheDir()
	if err == nil {
		cache = filepath.Join(cache, "benchmark-llm", "models")
		look = append(look, cache)
	}
	if modelsDir != "" {
		look = []string{modelsDir}
	}
	d := Dirs{Look: look, Put: look[len(look)-1]} // made when it is needed
	if i := slices.IndexFunc(look, func(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }); i >= 0 {
		d.Put = look[i]
	}
	d.Headers = []string{d.Put}
	if err == nil && cache != d.Put {
		d.Headers = append(d.Headers, cache)
	}
	return d
}

// Kind is why a model cannot be had.
type Kind int

// The kinds of Error.
const (
	NoFile       Kind = iota // the file is not on this machine, or cannot be used
	NotFetched               // the file did not arrive
	NoDirectory              // the models directory cannot be used
	UnknownModel             // no default model has that name
	NoShape                  // synthetic weights cannot be made from the header
	NoSource                 // an interrupted run does not say where the file came from
)

// Error is a model that cannot be had. Its text is that of Err.
type Error struct {
	Kind  Kind
	Model string // as it was given
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// askWithin bounds the questions to servers before the first test. It is shorter
// where a model without an answer is measured all the same.
func (w Weights) askWithin() time.Duration {
	if w == Auto {
		return 10 * time.Second
	}
	return 30 * time.Second
}
