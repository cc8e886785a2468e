package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// sqlLines writes llama-bench's SQL: the table llama_bench, then an INSERT for each
// record, with all values in quotes. `sqlite3 FILE` reads it. Samples and extensions are
// omitted.
type sqlLines struct {
	w       io.Writer
	started bool
}

func (s *sqlLines) Write(o result.Outcome) error {
	if err := check(o); err != nil || o.Status != result.OK {
		return err
	}
	names, values := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
		values[i] = "'" + strings.ReplaceAll(c.text(o.Record), "'", "''") + "'"
	}
	return s.statement(fmt.Sprintf("INSERT INTO llama_bench (%s) VALUES (%s);\n", strings.Join(names, ", "), strings.Join(values, ", ")))
}

func (s *sqlLines) Close() error {
	if s.started {
		return nil
	}
	return s.statement("")
}

// statement writes a statement. The first call creates the table, too.
func (s *sqlLines) statement(text string) error {
	if !s.started {
		var fields []string
		for _, c := range columns {
			fields = append(fields, "  "+c.Name+" "+c.Type())
		}
		text = "CREATE TABLE IF NOT EXISTS llama_bench (\n" + strings.Join(fields, ",\n") + "\n);\n\n" + text
	}
	if err := write(s.w, []byte(text)); err != nil {
		return err
	}
	s.started = true
	return nil
}
