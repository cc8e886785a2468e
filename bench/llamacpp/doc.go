// Package llamacpp implements bench.Engine and synth.Quantizer with package llama.
// It translates settings, facts and errors between package bench and the library.
//
// Built without cgo, the package has the same names, and all that needs the
// library returns ErrNoLibrary.
//
// By default every installed back-end module is opened. With build tag cuda, New
// fails if the CUDA back-end or a CUDA device is missing, unless the caller accepts
// the CPU. With build tag cpu, only the best CPU variant is opened, and no code for
// GPUs runs.
package llamacpp

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/llama"
)

// Errors of New.
var (
	ErrNoLibrary = errors.New("built without libllama")
	ErrNoCUDA    = errors.New("no CUDA device can be used")
	ErrNoDevice  = errors.New("no device")
	ErrDevices   = errors.New("settings do not match the devices")
)

// Code returns the code of an error of New or Limits; empty: it has none.
func Code(err error) bench.Code {
	for _, c := range []struct {
		err  error
		code bench.Code
	}{
		{ErrNoLibrary, bench.NoLibrary},
		{ErrNoCUDA, bench.NoCUDA},
		{ErrNoDevice, bench.DeviceMissing},
		{ErrDevices, bench.DevicesMismatch},
		{ErrRPC, bench.RPCServerFailed},
		{ErrNoRPC, bench.NoRPC},
	} {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return ""
}

// Device is a device that the library can compute on.
type Device = llama.Device

// Options say how to start the engine.
type Options struct {
	Log      slog.Handler // receives the library's log; nil: it is discarded
	LogLevel slog.Level   // lowest level that Log receives
	AllowCPU bool         // with build tag cuda: go on without a CUDA device
	RPC      []string     // for Devices: RPC servers, HOST:PORT each; New takes them from its job
	// AnyThread makes calls on the caller's OS thread, to measure what the thread
	// rule of package llama is worth. Measurements must not set it.
	AnyThread bool
	// OneProcessor limits Go to one processor from the first test on, until the process ends.
	// It is for a process that only measures. While a pass computes in C, Go's monitor
	// thread watches the processor of the goroutine that called it. It wakes about fifty
	// times in the first 10 ms, in order to give that processor away, and each time takes a
	// CPU from a thread of the engine. If there is no other processor, it gives the only one
	// away at once, and then sleeps.
	OneProcessor bool
}

// Facts of the build, set by the linker (-X) from the library that scripts/llama-env
// found.
var (
	libraryFacts = "" // "libllama0=1:0.7.0+dfsg-2,libggml0=0.27.0-1,source=pin"
	buildCommit  = "unknown"
	buildNumber  = "0"
)

// Library says which library packages the program was built with: package →
// version, and "source" → where they are from. It is empty if the build did not
// set it.
func Library() map[string]string {
	facts := make(map[string]string)
	for f := range strings.SplitSeq(libraryFacts, ",") {
		if name, version, ok := strings.Cut(f, "="); ok {
			facts[name] = version
		}
	}
	return facts
}

// Build is the commit and the build number that llama-bench of the same packages
// prints.
func Build() (commit string, number int) {
	n, err := strconv.Atoi(buildNumber)
	if err != nil {
		n = 0
	}
	return buildCommit, n
}
