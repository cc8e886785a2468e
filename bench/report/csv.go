package report

import (
	"io"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// csvLines writes llama-bench's CSV, with the column use_mmap at its end: a header
// without quotes, then all values in quotes. encoding/csv cannot write that. Samples and
// extensions are omitted. A text that a spreadsheet would take for a formula gets an
// apostrophe, which readCSV removes.
type csvLines struct {
	w       io.Writer
	started bool
}

func (c *csvLines) Write(o result.Outcome) error {
	if err := check(o); err != nil || o.Status != result.OK {
		return err
	}
	values := make([]string, len(columns)+1)
	for i, column := range Columns() {
		values[i] = `"` + strings.ReplaceAll(column.cell(o.Record), `"`, `""`) + `"`
	}
	return c.line(strings.Join(values, ","))
}

func (c *csvLines) Close() error {
	if c.started {
		return nil
	}
	return c.line("")
}

// line writes the values. The first call writes the header, too.
func (c *csvLines) line(values string) error {
	var b strings.Builder
	if !c.started {
		names := make([]string, len(columns)+1)
		for i, column := range Columns() {
			names[i] = column.Name
		}
		b.WriteString(strings.Join(names, ",") + "\n")
	}
	if values != "" {
		b.WriteString(values + "\n")
	}
	if err := write(c.w, []byte(b.String())); err != nil {
		return err
	}
	c.started = true
	return nil
}
