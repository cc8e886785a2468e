package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/term"

	"github.com/sparecores/benchmark-llm/bench/report"
)

// isTerminal tells whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// moves tells whether w is a terminal that can redraw lines.
func moves(w io.Writer) bool { return isTerminal(w) && os.Getenv("TERM") != "dumb" }

// color tells whether output to w is colored (no-color.org).
func color(w io.Writer) bool { return moves(w) && os.Getenv("NO_COLOR") == "" }

// width returns the number of columns of w, or 80 if w is no terminal.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// columns is the width that limits a table: that of a terminal, else 0.
func columns(w io.Writer) int {
	if isTerminal(w) {
		return width(w)
	}
	return 0
}

var oneLine = report.OneLine

// newLogger logs to w as plain lines or as JSON. screen is what w writes to in the end.
// A log that goes elsewhere than to a terminal is kept, so its times have a date.
func newLogger(w io.Writer, format string, level slog.Level, screen io.Writer) *slog.Logger {
	return report.NewLogger(w, report.LogOptions{JSON: format == "json", Level: level, Dates: !isTerminal(screen), Color: color(screen)})
}

// expendable are columns that a narrow terminal does without, the first one first.
var expendable = []string{"repository", "back-end", "tests", "wall p95 s", "wrong %", "lost %"}

// printTable prints a table. The columns named in right are aligned to the right. On a
// terminal it is as wide as that at most.
func printTable(w io.Writer, header table.Row, rows []table.Row, right ...string) error {
	_, err := io.WriteString(w, report.Table(header, rows, report.TableOptions{Right: right, Expendable: expendable, Width: columns(w)}))
	return printed(err)
}

// printJSON prints v as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return printed(e.Encode(v))
}
