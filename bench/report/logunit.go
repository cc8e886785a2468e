package report

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// UnitInValue is an attribute of a log line for people. Lines for programs have numbers
// with the unit in the key. UnitInValue moves it to the value: took_s=0.276 becomes
// took=276ms. Other attributes stay.
func UnitInValue(a slog.Attr) slog.Attr {
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
