package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// MaxLineBytes bounds a line that ReadRecords accepts: some 50,000
// repetitions.
const MaxLineBytes = 1 << 20

// ReadRecords reads the JSON lines that this program or llama-bench printed,
// today's and older ones back to build 4753 (February 2025). Keys it does not
// know are ignored, fields that a line lacks stay zero, and blank lines are
// skipped. The error names the line that is too long, not JSON, or no record
// of a test; the records before it are returned with it.
func ReadRecords(r io.Reader) ([]result.Record, error) {
	var records []result.Record
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, MaxLineBytes)
	number := 0
	for lines.Scan() {
		number++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		record, err := readRecord(lines.Bytes())
		if err != nil {
			return records, fmt.Errorf("line %d: %w", number, err)
		}
		records = append(records, record)
	}
	if err := lines.Err(); err != nil {
		return records, fmt.Errorf("line %d: %w", number+1, err)
	}
	return records, nil
}

func readRecord(line []byte) (result.Record, error) {
	var r result.Record
	// The outer fields take the place of the record's.
	outer := struct {
		*result.Record
		FlashAttn   intOrBool `json:"flash_attn"`
		NoOpOffload intOrBool `json:"no_op_offload"`
	}{Record: &r}
	if err := json.Unmarshal(line, &outer); err != nil {
		return result.Record{}, fmt.Errorf("read record: %w", err)
	}
	r.FlashAttn, r.NoOpOffload = int(outer.FlashAttn), int(outer.NoOpOffload)
	if err := r.Test().Validate(); err != nil {
		return result.Record{}, fmt.Errorf("read record: %w", err)
	}
	return r, nil
}

// intOrBool is an integer that older versions of llama-bench print as a boolean.
type intOrBool int

func (f *intOrBool) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*f = 1
		return nil
	case "false":
		*f = 0
		return nil
	default:
		return json.Unmarshal(b, (*int)(f))
	}
}
