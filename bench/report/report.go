// Package report writes outcomes: in llama-bench's formats for programs, as
// Markdown and as a terminal table for people. It also reads records back. The
// output of a writer depends on the outcomes and the options only, never on the
// environment or on the kind of destination.
package report

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Writer writes outcomes in one format.
type Writer interface {
	// Write adds an outcome. The formats for programs write the record at once,
	// in a single call to the destination; they write nothing if the outcome is
	// not OK. Write fails if the destination fails, or if the record is missing,
	// has no samples, or holds a number that is not finite.
	Write(result.Outcome) error
	// Close writes the end of the document; md and table write all of it here.
	// Close does not close the destination.
	Close() error
}

// Options are the options of the terminal table. The other formats have none.
type Options struct {
	Color bool // ANSI colors
	Width int  // width of the terminal in columns; 0 means 80
}

// formats are all output formats, in the order in which help texts list them.
var formats = []struct {
	name string
	open func(io.Writer, Options) Writer
}{
	{"jsonl", func(w io.Writer, _ Options) Writer { return &jsonLines{w} }},
	{"json", func(w io.Writer, _ Options) Writer { return &jsonArray{w: w} }},
	{"csv", func(w io.Writer, _ Options) Writer { return &csvLines{w: w} }},
	{"sql", func(w io.Writer, _ Options) Writer { return &sqlLines{w: w} }},
	{"md", func(w io.Writer, _ Options) Writer { return &markdown{w: w} }},
	{"table", func(w io.Writer, o Options) Writer { return &terminal{w: w, options: o} }},
}

// Formats lists the names of the output formats.
func Formats() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return names
}

// New returns a writer to w in the named format. The error about an unknown name
// lists the known ones.
func New(format string, w io.Writer, o Options) (Writer, error) {
	for _, f := range formats {
		if f.name == format {
			return f.open(w, o), nil
		}
	}
	return nil, fmt.Errorf("unknown output format %q (known: %s)", format, strings.Join(Formats(), ", "))
}

// check returns an error if o cannot be written with the status that it has.
func check(o result.Outcome) error {
	if err := checkRecord(o); err != nil {
		return fmt.Errorf("%s of %s: %w", o.Test, o.Model, err)
	}
	return nil
}

func checkRecord(o result.Outcome) error {
	switch r := o.Record; {
	case o.Status != result.OK:
		return nil
	case r == nil:
		return errors.New("completed test has no record")
	case len(r.SamplesNs) == 0 || len(r.SamplesNs) != len(r.SamplesTS):
		return fmt.Errorf("record has %d samples in nanoseconds and %d in tokens/second", len(r.SamplesNs), len(r.SamplesTS))
	default:
		return checkFinite(r)
	}
}

// write writes b in a single call, which keeps a reader from seeing a part of it.
func write(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// doubt is the verdict about the outcome's record and its reasons; both are empty if
// nothing speaks against the record.
func doubt(o result.Outcome) (verdict, reasons string) {
	if o.Record == nil || o.Record.Ext.Verdict == nil || o.Record.Ext.Verdict.Verdict == result.Valid {
		return "", ""
	}
	v := o.Record.Ext.Verdict
	messages := make([]string, len(v.Reasons))
	for i, r := range v.Reasons {
		messages[i] = printable(r.Message)
	}
	verdict = printable(string(v.Verdict))
	return verdict, verdict + ": " + strings.Join(messages, "; ")
}

// notes are the reasons to read the outcome with care, for people: those of the verdict
// in one line, then the warnings that are no reasons of the verdict.
func notes(o result.Outcome) []string {
	var lines []string
	if _, reasons := doubt(o); reasons != "" {
		lines = append(lines, reasons)
	}
	for _, w := range warnings(o) {
		said := o.Record != nil && o.Record.Ext.Verdict != nil &&
			slices.ContainsFunc(o.Record.Ext.Verdict.Reasons, func(r result.Reason) bool { return r.Code == w.Code })
		if !said {
			lines = append(lines, printable(w.Message))
		}
	}
	return lines
}

// warnings are the warnings of the outcome and of its record, without duplicates.
func warnings(o result.Outcome) []result.Warning {
	all := slices.Clone(o.Warnings)
	if o.Record != nil {
		for _, w := range o.Record.Ext.Warnings {
			if !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	return all
}

// printable replaces characters that could move the cursor or break a line. File
// names and error texts come from outside.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// size is a number of bytes as llama-bench prints it.
func size(bytes uint64) string {
	const mib = 1 << 20
	const gib = 1 << 30
	if bytes < gib {
		return fmt.Sprintf("%.2f MiB", float64(bytes)/mib)
	}
	return fmt.Sprintf("%.2f GiB", float64(bytes)/gib)
}

// params is a number of parameters as llama-bench prints it.
func params(n uint64) string {
	if n < 1e9 {
		return fmt.Sprintf("%.2f M", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f B", float64(n)/1e9)
}
