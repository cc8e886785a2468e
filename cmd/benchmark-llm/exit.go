package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// Exit codes. Whatever happens, the code is 0 when a record was printed,
// because readers drop a run with any other.
const (
	exitOK      = 0   // at least one record was printed, or the command did what it says
	exitNothing = 1   // nothing was measured
	exitUsage   = 2   // a flag, a value or a command is wrong
	exitModel   = 3   // the model is missing, broken or not supported
	exitLibrary = 4   // libllama or a back-end is missing
	exitOutput  = 5   // results could not be written
	exitINT     = 130 // interrupted (SIGINT) before anything was printed
	exitTERM    = 143 // terminated (SIGTERM) before anything was printed
)

const exitCodes = `Exit codes:
  0    a record was printed (also when the run was stopped early), or the command did what it says
  1    nothing was measured
  2    wrong usage
  3    the model is missing, broken or not supported
  4    libllama or a needed back-end is missing
  5    results could not be written
  130  interrupted before anything was printed
  143  terminated before anything was printed`

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

// finish prints err, if any, as one line and a hint, and returns the exit code.
func finish(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	f := &failure{code: exitUsage, err: err, hint: "benchmark-llm --help"} // cobra's own errors are all of usage
	errors.As(err, &f)
	fmt.Fprintf(stderr, "benchmark-llm: %s\n", oneLine(err.Error()))
	if f.hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", oneLine(f.hint))
	}
	for e := errors.Unwrap(err); e != nil; e = errors.Unwrap(e) {
		slog.Debug("because", "error", e.Error(), "type", fmt.Sprintf("%T", e))
	}
	return f.code
}

// oneLine takes line ends and control characters out of text that may come from
// a file.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
}

// isTerminal tells whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && terminalFD(f)
}
