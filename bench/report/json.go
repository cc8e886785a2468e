package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// jsonLines writes one record per line.
type jsonLines struct{ w io.Writer }

func (j *jsonLines) Write(o result.Outcome) error {
	if err := check(o); err != nil || o.Status != result.OK {
		return err
	}
	line, err := marshal(o.Record, "", "")
	if err != nil {
		return err
	}
	return write(j.w, line)
}

func (j *jsonLines) Close() error { return nil }

// jsonArray writes all records as one array, which is valid even if it is empty.
type jsonArray struct {
	w       io.Writer
	started bool
}

func (j *jsonArray) Write(o result.Outcome) error {
	if err := check(o); err != nil || o.Status != result.OK {
		return err
	}
	object, err := marshal(o.Record, "  ", "  ")
	if err != nil {
		return err
	}
	head := ",\n  "
	if !j.started {
		head = "[\n  "
	}
	if err := write(j.w, append([]byte(head), bytes.TrimSuffix(object, []byte("\n"))...)); err != nil {
		return err
	}
	j.started = true
	return nil
}

func (j *jsonArray) Close() error {
	if !j.started {
		return write(j.w, []byte("[\n]\n"))
	}
	return write(j.w, []byte("\n]\n"))
}

// marshal is r as JSON with a newline at its end. Unlike json.Marshal it does not
// escape <, > and &, which occur in model names.
func marshal(r *result.Record, prefix, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent(prefix, indent)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return b.Bytes(), nil
}
