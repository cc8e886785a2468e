package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
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
		return withUnit(a)
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

// withUnit moves the unit of a number from the key of a log line to its value.
func withUnit(a slog.Attr) slog.Attr {
	var n float64
	switch v := a.Value.Any().(type) {
	case float64:
		n = v
	case int64:
		n = float64(v)
	case uint64:
		n = float64(v)
	}
	for _, unit := range []struct {
		suffix string
		text   func(float64) string
	}{
		{"_bytes_per_second", func(n float64) string { return humanize.IBytes(uint64(max(n, 0))) + "/s" }},
		{"_bytes", func(n float64) string { return humanize.IBytes(uint64(max(n, 0))) }},
		{"_percent", func(n float64) string { return fmt.Sprintf("%.0f%%", n) }},
		{"_tokens_per_second", result.FormatRate},
		{"_s", func(n float64) string { return report.Duration(seconds(n)) }},
	} {
		if key, ok := strings.CutSuffix(a.Key, unit.suffix); ok {
			return slog.String(key, unit.text(n))
		}
	}
	if a.Key == "tokens_per_second" {
		return slog.String(a.Key, result.FormatRate(n))
	}
	return a
}

// seconds is a number of seconds as a duration.
func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// expendable are columns that a narrow terminal does without, the first one first.
var expendable = []string{"repository", "elements", "load within", "disk", "devices", "file", "back-end", "tests", "wall p95 s", "wrong %", "lost %"}

// printTable prints a table without lines. The columns named in right are aligned to
// the right. If a terminal is too narrow, expendable columns are left out, and a line
// names them.
func printTable(w io.Writer, header table.Row, rows []table.Row, right ...string) error {
	rendered, leftOut := renderTable(header, rows, right), ""
	if isTerminal(w) {
		rendered, leftOut = fitTable(width(w), header, rows, right)
	}
	_, err := fmt.Fprint(w, rendered+"\n"+leftOut)
	return printed(err)
}

// fitTable renders a table without the expendable columns for which the terminal is too
// narrow. leftOut names them on a line.
func fitTable(columns int, header table.Row, rows []table.Row, right []string) (rendered, leftOut string) {
	var gone []string
	rendered = renderTable(header, rows, right)
	for _, name := range expendable {
		i := slices.Index(header, any(name))
		if i < 0 || text.LongestLineLen(rendered) <= columns {
			continue
		}
		without := func(r table.Row) table.Row { return slices.Concat(r[:i], r[i+1:]) }
		header, gone = without(header), append(gone, name)
		narrow := make([]table.Row, len(rows))
		for k, r := range rows {
			narrow[k] = without(r)
		}
		rows, rendered = narrow, renderTable(header, narrow, right)
	}
	if len(gone) > 0 {
		leftOut = fmt.Sprintf("(a wider terminal also shows: %s)\n", strings.Join(gone, ", "))
	}
	return rendered, leftOut
}

func renderTable(header table.Row, rows []table.Row, right []string) string {
	t := table.NewWriter()
	s := table.StyleDefault
	s.Options = table.OptionsNoBordersAndSeparators
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
	s.Format.Header = text.FormatDefault
	t.SetStyle(s)
	t.SuppressTrailingSpaces()
	t.AppendHeader(header)
	t.AppendRows(rows)
	var columns []table.ColumnConfig
	for _, name := range right {
		columns = append(columns, table.ColumnConfig{Name: name, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	return t.Render()
}

// printJSON prints v as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return printed(e.Encode(v))
}
