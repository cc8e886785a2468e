package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/lmittmann/tint"
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

// oneLine replaces characters that could end a line or move the cursor. File names
// and the library's texts may contain them.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, strings.TrimSpace(s))
}

// newLogger logs to w as plain lines or as JSON. screen is what w writes to in the end.
// A log that goes elsewhere than to a terminal is kept, so its times have a date.
func newLogger(w io.Writer, format string, level slog.Level, screen io.Writer) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: asText}))
	}
	times := time.RFC3339
	if isTerminal(screen) {
		times = time.TimeOnly
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{
		Level: level, TimeFormat: times, NoColor: !color(screen), ReplaceAttr: readable,
	}))
}

// asText replaces values that JSON would show as objects with texts.
func asText(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case slog.Level, time.Time:
	case fmt.Stringer:
		a.Value = slog.StringValue(v.String())
	}
	return a
}

// readable makes the values of a log line easy to read, and its texts, including the
// message, safe for a terminal. JSON has numbers with the unit in the key; here the
// unit is in the value: took_s=0.276 becomes took=276ms.
func readable(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case float64, int64, uint64:
		return report.UnitInValue(a)
	case []string:
		a.Value = slog.StringValue(oneLine(strings.Join(v, " ")))
	case string:
		a.Value = slog.StringValue(oneLine(v))
	case error:
		a.Value = slog.StringValue(oneLine(v.Error()))
	case slog.Level, time.Duration, time.Time:
	case fmt.Stringer:
		a.Value = slog.StringValue(oneLine(v.String()))
	}
	return a
}

// expendable are columns that a narrow terminal does without, the first one first.
var expendable = []string{"repository", "elements", "load within", "disk", "devices", "file", "back-end", "tests", "wall p95 s", "wrong %", "lost %"}

// printTable prints a table. The columns named in right are aligned to the right. On a
// terminal it is as wide as that at most.
func printTable(w io.Writer, header table.Row, rows []table.Row, right ...string) error {
	o := report.TableOptions{Right: right, Expendable: expendable}
	if isTerminal(w) {
		o.Width = width(w)
	}
	_, err := io.WriteString(w, report.Table(header, rows, o))
	return printed(err)
}

// printJSON prints v as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return printed(e.Encode(v))
}
