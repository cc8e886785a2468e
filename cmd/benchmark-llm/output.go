package main

import (
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// output consumes the outcomes of a run and prints records to stdout. If stdout
// fails, the run continues, because its directory has the records too.
type output struct {
	format  string
	writer  report.Writer
	printed int // records
	lines   atomic.Int64
	err     error
}

// newOutput returns the output in a format; empty is the format for such a stdout.
func newOutput(format string, stdout io.Writer) (*output, error) {
	o := new(output)
	return o, o.use(format, stdout)
}

// use sets the format, before the first outcome.
func (o *output) use(format string, stdout io.Writer) error {
	if format == "" {
		format = "jsonl"
		if isTerminal(stdout) {
			format = "table"
		}
	}
	w, err := report.New(format, stdout, report.Options{Color: color(stdout), Width: width(stdout)})
	if err != nil {
		return usage("use one of "+strings.Join(report.Formats(), ", "), "%w", err)
	}
	o.format, o.writer = format, w
	return nil
}

// Event does nothing: stdout gets outcomes.
func (*output) Event(bench.Stamped) error { return nil }

// Outcome prints a record, if there is one. A failure ends no run: err keeps it for the
// end, and it is logged once.
func (o *output) Outcome(r *result.Outcome) error {
	if o.err == nil {
		o.print(r)
	}
	return nil
}

func (o *output) print(r *result.Outcome) {
	if o.err = o.writer.Write(*r); o.err != nil {
		slog.Warn("cannot write to stdout; the run continues", "error", o.err)
		return
	}
	if r.Status == result.OK {
		o.printed++
		if o.format == "jsonl" {
			o.lines.Add(1)
		}
	}
}

func (o *output) close() {
	if o.err != nil {
		return
	}
	if o.err = o.writer.Close(); o.err != nil {
		o.printed = 0 // formats other than lines are written at the end
	}
}

// exitNow is the exit code of a run that a signal ends at once. Printed lines are
// complete records; other formats are incomplete. Any goroutine may call it.
func (o *output) exitNow(s syscall.Signal) int {
	if o.lines.Load() > 0 {
		return exitOK
	}
	return exitSignal + int(s)
}
