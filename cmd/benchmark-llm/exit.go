package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
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
  0    a record was printed, or the command did what it says; also when the run
       was stopped early
  1    nothing was measured
  2    wrong usage
  3    the model is missing, broken or not supported
  4    libllama, a needed back-end or a required GPU is missing
  5    results could not be written
  6    with --strict: a test has no record
  130  interrupted before anything was printed
  143  terminated before anything was printed; 129: the terminal was closed;
       with --strict also after records were printed`

// failure is an error for the user: its line, a hint, and the exit code.
type failure struct {
	code int
	err  error
	hint string // what to do about it; may be empty
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail makes a failure. The hint is a whole command or a clause, without a full
// stop.
func fail(code int, err error, hint string) error { return &failure{code, err, hint} }

// usage is a mistake on the command line.
func usage(hint, format string, args ...any) error {
	return fail(exitUsage, fmt.Errorf(format, args...), hint)
}

// outputFailure is a failure to write what a command prints; nil when err is.
func outputFailure(err error) error {
	if err == nil {
		return nil
	}
	return fail(exitOutput, fmt.Errorf("stdout: %w", err), "stdout must be open and have room")
}

// finish tells of err, if any, as one line and a hint, or in a log of JSON as
// one record, and returns the exit code.
func finish(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	f := &failure{code: exitUsage, err: err, hint: "benchmark-llm --help"} // cobra's own errors are all of usage
	errors.As(err, &f)
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

// because shows the errors that err wraps, but those that only repeat the text
// above them.
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
