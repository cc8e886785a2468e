package main

import (
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// output prints records to stdout. It consumes the outcomes of a run. If stdout
// fails, the run continues: the records are in the run's directory too.
type output struct {
	format  string
	writer  report.Writer
	printed int // records
	lines   atomic.Int64
	err     error
}

func newOutput(format string, stdout io.Writer) (*output, error) {
	if format == "" {
		format = "jsonl"
		if isTerminal(stdout) {
			format = "table"
		}
	}
	w, err := report.New(format, stdout, report.Options{Color: color(stdout), Width: width(stdout)})
	if err != nil {
		return nil, usage("", "%w", err)
	}
	return &output{format: format, writer: w}, nil
}

// Event does nothing: stdout gets outcomes.
func (*output) Event(bench.Stamped) error { return nil }

// Outcome prints a record, if there is one. A failure is noted and logged once.
func (o *output) Outcome(r *result.Outcome) error {
	if o.err != nil {
		return nil
	}
	if o.err = o.writer.Write(*r); o.err != nil {
		slog.Warn("stdout cannot be written; the run continues", "error", o.err)
		return nil
	}
	if r.Status == result.OK {
		o.printed++
		if o.format == "jsonl" {
			o.lines.Add(1)
		}
	}
	return nil
}

func (o *output) close() {
	if o.err != nil {
		return
	}
	if o.err = o.writer.Close(); o.err != nil {
		o.printed = 0 // formats for people are written at the end
	}
}

// exitNow is the exit code of a run that a signal ends at once, from any
// goroutine: lines that were printed are good, other formats are incomplete.
func (o *output) exitNow(s syscall.Signal) int {
	if o.lines.Load() > 0 {
		return exitOK
	}
	return exitSignal + int(s)
}
