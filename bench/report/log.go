package report

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/lmittmann/tint"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// LogOptions say how a log is written.
type LogOptions struct {
	JSON  bool // one object per line; else lines for people
	Level slog.Level
	Dates bool // times have a date; JSON always has it
	Color bool
}

// NewLogger logs to w.
func NewLogger(w io.Writer, o LogOptions) *slog.Logger {
	if o.JSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.Level, ReplaceAttr: asText}))
	}
	times := time.TimeOnly
	if o.Dates {
		times = time.RFC3339
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: o.Level, TimeFormat: times, NoColor: !o.Color, ReplaceAttr: readable}))
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
		return unitInValue(a)
	case []string:
		a.Value = slog.StringValue(OneLine(strings.Join(v, " ")))
	case string:
		a.Value = slog.StringValue(OneLine(v))
	case error:
		a.Value = slog.StringValue(OneLine(v.Error()))
	case slog.Level, time.Duration, time.Time:
	case fmt.Stringer:
		a.Value = slog.StringValue(OneLine(v.String()))
	}
	return a
}

// OneLine replaces characters that could end a line or move the cursor. File names
// and the library's texts may contain them.
func OneLine(s string) string { return printable(strings.TrimSpace(s)) }

// unitInValue is an attribute of a log line for people. Lines for programs have numbers
// with the unit in the key. unitInValue moves it to the value: took_s=0.276 becomes
// took=276ms. Other attributes stay.
func unitInValue(a slog.Attr) slog.Attr {
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
		{"_s", func(n float64) string { return duration(time.Duration(n * float64(time.Second))) }},
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
