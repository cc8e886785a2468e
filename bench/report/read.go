package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// MaxLineBytes is the longest line that ReadRecords accepts. It holds about
// 50,000 repetitions.
const MaxLineBytes = 1 << 20

// ReadRecords reads JSON lines of this program or of llama-bench, from build 4753
// (February 2025) on. It ignores unknown keys and blank lines; missing fields stay
// zero. The error names the first line that is too long, not JSON, or not the
// record of a test. The records before that line are returned with the error.
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
	// The outer fields hide those of the record.
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
