package report

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// The list of runs fits the terminal, whatever the names are; other formats cut nothing.
func TestRunsFit(t *testing.T) {
	at := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
	runs := []Run{
		{Name: "last", Path: "d/20261128T100000Z-1", Status: "incomplete", Started: &at, Models: []string{"Llama-3.3-70B-Instruct-Q4_K_M.gguf", "b.gguf"}, Machine: "8 × NVIDIA H200, AMD EPYC 9R14 96-Core Processor", Records: 11, Tests: 66, SizeBytes: 1 << 20},
		{Path: "d/x", Status: "damaged", Models: []string{}},
	}
	for _, width := range []int{0, 80, 100, 200} {
		var b strings.Builder
		if err := WriteRuns("table", &b, runs, Options{Width: width}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n, most := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), max(width, 80); n > most {
				t.Errorf("width %d: a line of %d columns: %s", width, n, line)
			}
		}
		if whole := strings.Contains(b.String(), "Llama-3.3-70B-Instruct-Q4_K_M +1  8 × NVIDIA H200, AMD EPYC 9R14  "); whole != (width == 200) {
			t.Errorf("width %d:\n%s", width, b.String())
		}
	}
	for _, format := range []string{"json", "csv"} {
		var b strings.Builder
		if err := WriteRuns(format, &b, runs, Options{Width: 80}); err != nil || !strings.Contains(b.String(), "AMD EPYC 9R14 96-Core Processor") {
			t.Errorf("%s: %v\n%s", format, err, b.String())
		}
	}
}
