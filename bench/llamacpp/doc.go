// Package llamacpp is the bench.Engine and the synth.Quantizer over package
// llama: the one place where the suite's words meet the library's.
//
// Built without cgo it has the same names, and everything that needs the
// library returns ErrNoLibrary.
//
// Build tags: by default every back-end module that is installed is opened.
// With cuda, New fails unless the CUDA back-end and a device of it are there, or
// the caller accepts the CPU. With cpu, only the best CPU variant is opened and
// no GPU code is touched.
package llamacpp

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/llama"
)

// Errors of New.
var (
	ErrNoLibrary = errors.New("built without libllama")
	ErrNoCUDA    = errors.New("no CUDA device can be used")
	ErrNoDevice  = errors.New("no device")
	ErrDevices   = errors.New("settings do not go with the devices")
)

// Device is a device that the library can compute on.
type Device = llama.Device

// Options are how to start the engine.
type Options struct {
	Log      slog.Handler // of the library; nil: discarded
	LogLevel slog.Level   //
	AllowCPU bool         // in a cuda build: go on without a CUDA device
	RPC      []string     // of Devices: servers, HOST:PORT each, whose devices to list; a job of New names its own
	// AnyThread leaves the engine's goroutine unlocked, to show what the lock is
	// worth. It is never right for a measurement.
	AnyThread bool
}

// Facts of the build, set by the linker (-X) from the pin or from what was
// found instead of it.
var (
	libraryFacts = "" // "libllama0=1:0.7.0+dfsg-2,libggml0=0.27.0-1,source=pin"
	buildCommit  = "unknown"
	buildNumber  = "0"
)

// Library is what the program was built with: package → version, and "source".
// It is empty when the build did not say.
func Library() map[string]string {
	facts := make(map[string]string)
	for f := range strings.SplitSeq(libraryFacts, ",") {
		if name, version, ok := strings.Cut(f, "="); ok {
			facts[name] = version
		}
	}
	return facts
}

// Build is the commit and number of the build, as llama-bench of the same
// packages prints them.
func Build() (commit string, number int) {
	n, err := strconv.Atoi(buildNumber)
	if err != nil {
		n = 0
	}
	return buildCommit, n
}
