package main

import (
	"io"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// output consumes the outcomes of a run and prints records to stdout.
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

// Outcome prints a record, if there is one.
func (o *output) Outcome(r *result.Outcome) error {
	if o.err = printed(o.writer.Write(*r)); o.err != nil {
		return o.err
	}
	if r.Status == result.OK {
		o.printed++
		if o.format == "jsonl" {
			o.lines.Add(1)
		}
	}
	return nil
}

// close prints what comes after the last record.
func (o *output) close() error {
	if o.err = printed(o.writer.Close()); o.err != nil {
		o.printed = 0 // formats other than lines are written at the end
	}
	return o.err
}

// exitNow is the exit code of a run that a signal ends at once. Printed lines are
// complete records; other formats are incomplete. Any goroutine may call it.
func (o *output) exitNow(s syscall.Signal) int {
	if o.lines.Load() > 0 {
		return exitOK
	}
	return exitSignal + int(s)
}
