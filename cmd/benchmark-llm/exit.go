package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/rundir"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// Exit codes. Whatever happens, the code is 0 when a record was printed,
// because readers drop a run with any other.
const (
	exitOK      = 0 // at least one record was printed, or the command did what it says
	exitNothing = 1 // nothing was measured
	exitUsage   = 2 // a flag, a value or a command is wrong
	exitModel   = 3 // the model is missing, broken or not supported
	exitLibrary = 4 // libllama, a back-end or a required GPU is missing
	exitOutput  = 5 // results could not be written

	exitIncomplete = 6 // --strict: a test has no record

	exitSignal = 128 // plus the signal's number: ended by it before anything was printed
)

const exitCodes = `Exit codes:
  0    a record was printed (also if the run was stopped early), or the command
       succeeded
  1    nothing was measured
  2    wrong usage
  3    the model is missing, broken or not supported
  4    libllama, a needed back-end or a required GPU is missing
  5    results could not be written
  6    with --strict: a test has no record
  130  interrupted before anything was printed (143: terminated, 129: terminal
       closed); with --strict also after records were printed`

// failure is an error for the user: its line, a hint, and the exit code.
type failure struct {
	code int
	err  error
	hint string // a command or an action, without a full stop; may be empty
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail makes a failure. Commands use it for what only they can know; errors of
// the rooms below are turned into failures by the table in this file.
func fail(code int, err error, hint string) error { return &failure{code, err, hint} }

// usage is a mistake on the command line.
func usage(hint, format string, args ...any) error {
	return fail(exitUsage, fmt.Errorf(format, args...), hint)
}

// errStdout is a failure to write what a command prints.
var errStdout = errors.New("stdout")

// printed is the error of printing; nil when err is.
func printed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errStdout, err)
}

const (
	sourcesHint     = "-m takes https URLs of GGUF files, hf:user/repository/file[@revision], and paths"
	otherModelsDir  = "choose another place with --models-dir"
	otherResultsDir = "free disk space, or choose another place with --results-dir"
	devicesHint     = "benchmark-llm devices lists the devices"
)

// A rule says what an error means for the user.
type rule struct {
	is   func(error) bool
	code int
	hint func(error) string
}

// is matches errors that wrap one of targets.
func is(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
}

// says matches errors of a worker too, which arrive as text.
func says(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) || strings.Contains(err.Error(), target.Error()) }
}

func ofType[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func modelKind(kind acquire.Kind) func(error) bool {
	return func(err error) bool {
		var e *acquire.Error
		return errors.As(err, &e) && e.Kind == kind
	}
}

func hint(text string) func(error) string { return func(error) string { return text } }

// rules turn errors of the rooms below into exit codes and hints. The first that
// applies counts.
var rules = []rule{
	{is(errStdout), exitOutput, hint("stdout must be open and have room")},

	// The run's directory.
	{is(rundir.ErrNotRun), exitUsage, hint("a run's directory is below --results-dir and has a run.json")},
	{is(rundir.ErrRunning), exitUsage, hint("wait for its end, or interrupt it")},
	{is(rundir.ErrFinished), exitUsage, finishedHint},
	{is(rundir.ErrSchema), exitUsage, hint("continue it with the version that began it")},
	{is(rundir.ErrBroken), exitNothing, hint("only an undamaged run can be continued; start a new one")},
	{is(rundir.ErrAccess), exitOutput, hint("the directory must be writable to continue its run")},
	{is(rundir.ErrWrite, rundir.ErrCreate), exitOutput, hint(otherResultsDir)},

	// The library and its devices.
	{says(llamacpp.ErrNoLibrary), exitLibrary, hint("build it with `make build`, which gets the library")},
	{says(llamacpp.ErrRPC), exitLibrary, hint("run ggml-rpc-server of the same llama.cpp there, for this program alone")},
	{says(llamacpp.ErrDevices), exitUsage, hint(devicesHint + "; the CPU is not among those to offload to")},
	{says(llamacpp.ErrNoDevice), exitLibrary, hint(devicesHint)},
	{says(llamacpp.ErrNoRPC), exitLibrary, hint("install libggml0-backend-rpc, or leave --rpc out")},
	{says(llamacpp.ErrNoCUDA), exitLibrary, hint("`make cuda build` gets the CUDA back-end, which needs NVIDIA's driver; --allow-cpu accepts the CPU")},
	{is(gpu.ErrNotUsed), exitLibrary, gpuHint},
	{is(errDevices), exitLibrary, hint(devicesHint)},
	{is(supervise.ErrEngine), exitLibrary, hint("`make deps` gets the library and its back-ends")},
	{ofType[*engineError], exitLibrary, hint("`make deps` gets the library and its back-ends")},

	// Models.
	{is(source.ErrBad), exitModel, hint(sourcesHint)},
	{modelKind(acquire.NoFile), exitModel, noFileHint},
	{modelKind(acquire.NotFetched), exitModel, notFetchedHint},
	{modelKind(acquire.NoDirectory), exitModel, hint(otherModelsDir)},
	{modelKind(acquire.UnknownModel), exitModel, hint("benchmark-llm models lists the names")},
	{modelKind(acquire.NoShape), exitModel, hint("--weights file measures it")},
	{modelKind(acquire.NoSource), exitModel, hint("start a new run, which uses all files that were fetched")},
}

func finishedHint(err error) string {
	var e *rundir.FinishedError
	errors.As(err, &e)
	return "its report is " + e.Report
}

func gpuHint(err error) string {
	text := "leave --require-gpu out to measure the CPU"
	if ofType[*noCUDAError](err) {
		text = "`make cuda build` builds it with the CUDA back-end; " + text
	}
	return text
}

// noFileHint is for a file of this machine that is missing or not usable.
func noFileHint(err error) string {
	var e *acquire.Error
	errors.As(err, &e)
	switch {
	case errors.Is(err, fetch.ErrNotFound):
		if d, ok := suite.LookupModel(e.Model); ok {
			return fmt.Sprintf("--weights synthetic measures it without its file; -m %s fetches it", d.Source())
		}
	case errors.Is(err, gguf.ErrTruncated):
		return "the file is incomplete: fetch it again"
	case errors.Is(err, fs.ErrPermission):
		return "the file must be readable"
	}
	return "give the path of a GGUF file"
}

// notFetchedHint is for a file that did not arrive.
func notFetchedHint(err error) string {
	for _, r := range []struct {
		causes []error
		hint   string
	}{
		{[]error{fetch.ErrRefused}, "HF_TOKEN gives access to files that the hub keeps behind a licence"},
		{[]error{fetch.ErrNotFound}, "check the repository, the file and the revision"},
		{[]error{fetch.ErrNoDisk}, "free space, or choose another place with --models-dir; --weights synthetic needs no file"},
		{[]error{fs.ErrPermission, syscall.EROFS}, otherModelsDir},
		{[]error{fetch.ErrMixed}, "move the model's files elsewhere, and they are fetched again"},
		{[]error{gguf.ErrNotGGUF}, sourcesHint},
		{[]error{gguf.ErrEmpty, gguf.ErrTruncated, gguf.ErrCorrupt, gguf.ErrUnsupported}, "the file on the server is incomplete or damaged: give the address of another file"},
	} {
		if is(r.causes...)(err) {
			return r.hint
		}
	}
	return "the same command resumes the download; --weights synthetic needs no file"
}

// lookup makes a failure of an error that this file knows.
func lookup(err error) (*failure, bool) {
	if err == nil {
		return nil, false
	}
	var f *failure
	if errors.As(err, &f) {
		return f, true
	}
	var s *signalError
	if errors.As(err, &s) {
		return &failure{exitSignal + int(s.signal), err, s.hint}, true
	}
	var n *noRecordError
	if errors.As(err, &n) {
		return &failure{n.code(), err, n.hint()}, true
	}
	for _, r := range rules {
		if r.is(err) {
			return &failure{r.code, err, r.hint(err)}, true
		}
	}
	return nil, false
}

// finish shows err, if any, as one line and a hint, or in a log of JSON as one
// record, and returns the exit code.
func finish(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	f, ok := lookup(err)
	if !ok { // cobra's own errors are all of usage
		f = &failure{exitUsage, err, "benchmark-llm --help"}
	}
	if _, ok := slog.Default().Handler().(*slog.JSONHandler); ok {
		slog.Error(f.Error(), "hint", f.hint, "exit_code", f.code)
	} else {
		fmt.Fprintf(stderr, "benchmark-llm: %s\n", oneLine(f.Error()))
		if f.hint != "" {
			fmt.Fprintf(stderr, "hint: %s\n", oneLine(f.hint))
		}
	}
	because(f.err, f.Error())
	return f.code
}

// because logs the errors that err wraps, except those that repeat the text above
// them.
func because(err error, above string) {
	if text := err.Error(); text != above {
		slog.Debug("because", "error", text, "type", fmt.Sprintf("%T", err))
		above = text
	}
	switch e := err.(type) { //nolint:errorlint // this is the walk that errors.As does
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			because(inner, above)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			because(inner, above)
		}
	}
}

// noRecordError is a run that printed no record, or, with --strict, one in which
// tests have none.
type noRecordError struct {
	err        error
	status     result.Status // of the load or the test that decided; empty: of none
	loading    bool          // a model was not loaded
	e2e        bool          // an end-to-end test decided
	incomplete bool          // records were printed, and --strict wants all
	trace      string        // where every step is written
}

func (e *noRecordError) Error() string { return e.err.Error() }
func (e *noRecordError) Unwrap() error { return e.err }

func (e *noRecordError) code() int {
	switch {
	case e.incomplete:
		return exitIncomplete
	case e.loading && (e.status == result.Unsupported || e.status == result.Failed), e.e2e && e.status == result.Unsupported:
		return exitModel
	default:
		return exitNothing
	}
}

func (e *noRecordError) hint() string {
	trace := "each step is in " + e.trace
	switch {
	case e.e2e && e.status == result.Unsupported:
		return "--e2e needs a tokenizer and a context that is long enough; -p and -n need neither"
	case e.status == result.Unsupported:
		return "a newer llama.cpp may support it; " + trace
	case e.status == result.OutOfMemory:
		return "shorter lengths or a smaller model need less memory; " + trace
	case e.status == result.Timeout:
		return "--timeout or --benchmark-timeout-scale give more time; " + trace
	default:
		return trace
	}
}
