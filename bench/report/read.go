package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unique"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// MaxLineBytes is the longest line that ReadRecords accepts. It holds about
// 50,000 repetitions.
const MaxLineBytes = 1 << 20

// MaxRecords is how many records a file may have. A suite has tens; a file of another
// kind is refused before it fills the memory.
const MaxRecords = 100_000

// ErrManyRecords says that a file has more than MaxRecords.
var ErrManyRecords = fmt.Errorf("more than %d records", MaxRecords)

// ReadRecords reads JSON lines of this program or of llama-bench, from build 4753
// (February 2025) on. It ignores unknown keys and blank lines; missing fields stay
// zero. The error names the first line that is too long, not JSON, or not the
// record of a test, if a field is there twice, or if there are more than MaxRecords. The records before that line are returned with the error.
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
		if err == nil && len(records) == MaxRecords {
			err = ErrManyRecords
		}
		if err != nil {
			return records, fmt.Errorf("line %d: %w", number, err)
		}
		records = append(records, record)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", MaxLineBytes)
		}
		return records, fmt.Errorf("line %d: %w", number+1, err)
	}
	return records, nil
}

// ErrEstimate says that a row is an estimate: it is shown to nobody as a measurement.
var ErrEstimate = errors.New("an estimate, not a measurement")

func readRecord(line []byte) (result.Record, error) {
	var r result.Record
	// First of all: an estimate may have fields of a record with other types.
	var row struct {
		Estimated any `json:"estimated"`
	}
	if json.Unmarshal(line, &row) == nil && row.Estimated != nil && row.Estimated != false {
		return result.Record{}, fmt.Errorf("read record: %w", ErrEstimate)
	}
	// The outer fields hide those of the record.
	outer := struct {
		*result.Record
		FlashAttn   intOrBool `json:"flash_attn"`
		NoOpOffload intOrBool `json:"no_op_offload"`
	}{Record: &r}
	if err := json.Unmarshal(line, &outer); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			err = fmt.Errorf("field %q is a %s", strings.TrimPrefix(wrong.Field, "Record."), wrong.Value)
		}
		return result.Record{}, fmt.Errorf("read record: %w", err)
	}
	if name, twice := fieldTwice(line); twice {
		return result.Record{}, fmt.Errorf("read record: field %s twice", name)
	}
	share(&r)
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

// fieldTwice finds a name that an object has twice, with its quotes. The object is valid
// JSON; objects inside it are not searched.
func fieldTwice(object []byte) (name string, twice bool) {
	names := make([][]byte, 0, 64)
	depth := 0
	for i := 0; i < len(object); i++ {
		switch object[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			start := i
			for i++; object[i] != '"'; i++ {
				if object[i] == '\\' {
					i++
				}
			}
			text := object[start : i+1]
			if rest := bytes.TrimLeft(object[i+1:], " \t\r\n"); depth != 1 || rest[0] != ':' {
				continue
			}
			if slices.ContainsFunc(names, func(n []byte) bool { return bytes.Equal(n, text) }) {
				return string(text), true
			}
			names = append(names, text)
		}
	}
	return "", false
}

// share makes equal texts of records share their memory: those of a thousand runs are
// mostly the same.
func share(r *result.Record) {
	v := reflect.ValueOf(r).Elem()
	for _, c := range columns {
		if f := v.Field(c.index); f.Kind() == reflect.String {
			f.SetString(unique.Make(f.String()).Value())
		}
	}
}
