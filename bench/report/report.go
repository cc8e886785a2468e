// Package report writes outcomes for readers: llama-bench's formats for
// programs, Markdown and a terminal table for people. Writers are pure: what
// they write depends on the outcomes and the options only, never on the
// environment or on what the destination is.
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
	// Write adds an outcome. Formats for programs write its record at once,
	// in a single call to the destination, and nothing for an outcome that
	// is not OK. The error tells when the destination failed, or that the
	// record cannot be written: it is missing, has no samples, or holds a
	// number that is not finite.
	Write(result.Outcome) error
	// Close writes what ends the document, or for md and table all of it. It
	// does not close the destination.
	Close() error
}

// Options are for the terminal table; the other formats have none.
type Options struct {
	Color bool // ANSI colors
	Width int  // of the terminal, in columns; 0 means 80
}

var formats = []struct {
	name string
	open func(io.Writer, Options) Writer
}{
	{"jsonl", func(w io.Writer, _ Options) Writer { return &jsonLines{w} }},
	{"json", func(w io.Writer, _ Options) Writer { return &jsonArray{w: w} }},
	{"csv", func(w io.Writer, _ Options) Writer { return &csvLines{w: w} }},
	{"md", func(w io.Writer, _ Options) Writer { return &markdown{w: w} }},
	{"table", func(w io.Writer, o Options) Writer { return &terminal{w: w, options: o} }},
}

// Formats are the names that New knows.
func Formats() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return names
}

// New is a writer of the named format to w. The error of an unknown name lists
// the known ones.
func New(format string, w io.Writer, o Options) (Writer, error) {
	for _, f := range formats {
		if f.name == format {
			return f.open(w, o), nil
		}
	}
	return nil, fmt.Errorf("unknown output format %q (known: %s)", format, strings.Join(Formats(), ", "))
}

// check tells why o cannot be written as it claims to be.
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

// write passes b on in a single call, so that a reader never sees a part of it
// that waits in a buffer.
func write(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// warnings are those of the outcome and of its record, each once.
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

// printable replaces what could move the cursor or break a line: file names
// and error texts come from outside.
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
