// Command benchmark-llm measures LLM inference speed through llama.cpp, in
// process, and prints what llama-bench prints.
//
// The package holds flags, the terminal and exit codes, with one file per command.
// The rules of the terminal:
//
//   - stdout carries results and nothing else: JSON lines, or on a terminal the
//     result table; -o decides explicitly.
//   - stderr carries everything else: one line per step, or on a terminal the
//     step under way. Colors appear only on a terminal without NO_COLOR.
//   - an error is one line and a hint; --log-level debug shows what led to it.
package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sparecores/benchmark-llm/bench/commandline"
	_ "github.com/sparecores/benchmark-llm/llama/limits" // checked before main
)

// version is the version of this program; the linker sets it.
var version = "dev"

// started is when the process began. The time limit of a run counts from here.
var started = time.Now()

func main() {
	// A write to a closed stdout or beyond a file size limit returns an error
	// instead of ending the process.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ)
	os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit code.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	if err := commandline.Prepare(root, args); err != nil {
		return finish(stderr, err)
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	_, err := root.ExecuteC()
	return finish(stderr, err)
}
