package report

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Errors of ReadFile.
var (
	ErrNoRecords  = errors.New("no records")
	ErrNotResults = errors.New("not results of this program or of llama-bench")
)

// ReadFile reads a results file: JSON lines, JSON or CSV of this program, or of
// llama-bench from build 4753 on. It recognises the format by the first character. A
// byte-order mark and Windows line ends are accepted. Errors name the line.
// The error wraps ErrNoRecords if the file is empty, ErrEstimate if it has estimates, and ErrNotResults if it has no
// format of these.
func ReadFile(r io.Reader) ([]result.Record, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if mark, _ := in.Peek(3); string(mark) == "\xef\xbb\xbf" {
		_, _ = in.Discard(3) // they were read
	}
	first, err := firstByte(in)
	switch {
	case errors.Is(err, io.EOF):
		return nil, ErrNoRecords
	case err != nil:
		return nil, err
	}
	var records []result.Record
	switch first {
	case '{':
		if head, _ := in.Peek(64); quickTable.Match(head) { // less, at the end of the file
			return nil, fmt.Errorf("line 1: the table of quick: %w", ErrEstimate)
		}
		records, err = ReadRecords(in)
	case '[':
		records, err = readArray(in)
	case 'b': // build_commit
		records, err = readCSV(in)
	default:
		return nil, fmt.Errorf("line 1: %w", ErrNotResults)
	}
	if err == nil && len(records) == 0 {
		err = ErrNoRecords
	}
	return records, err
}

// quickTable is how the JSON of quick begins. Some of its speeds are estimates.
var quickTable = regexp.MustCompile(`^{\s*"kind":\s*"quick"`)

// firstByte skips white space and returns the byte after it without taking it.
func firstByte(in *bufio.Reader) (byte, error) {
	for {
		b, err := in.ReadByte()
		if err != nil {
			return 0, err
		}
		if !bytes.ContainsRune([]byte(" \t\r\n"), rune(b)) {
			return b, in.UnreadByte()
		}
	}
}

// lineCounter counts the lines that were read.
type lineCounter struct {
	r io.Reader
	n int
}

func (l *lineCounter) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.n += bytes.Count(p[:n], []byte{'\n'})
	return n, err
}

// readArray reads the records of a JSON array, one at a time.
func readArray(r io.Reader) ([]result.Record, error) {
	counted := &lineCounter{r: r}
	d := json.NewDecoder(counted)
	if _, err := d.Token(); err != nil { // the bracket
		return nil, err
	}
	var records []result.Record
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return records, fmt.Errorf("record %d, up to line %d: %w", len(records)+1, counted.n+1, unexpected(err))
		}
		record, err := readRecord(raw)
		if err == nil && len(records) == MaxRecords {
			err = ErrManyRecords
		}
		if err != nil {
			return records, fmt.Errorf("record %d, up to line %d: %w", len(records)+1, counted.n+1, err)
		}
		records = append(records, record)
	}
	if _, err := d.Token(); err != nil {
		return records, fmt.Errorf("line %d: the list of records does not end: %w", counted.n+1, unexpected(err))
	}
	return records, nil
}

// unexpected is err, with the end of a file as an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readCSV reads llama-bench's CSV. It has no samples.
func readCSV(r io.Reader) ([]result.Record, error) {
	in := csv.NewReader(r)
	in.ReuseRecord = true
	header, err := in.Read()
	if err != nil {
		return nil, err
	}
	header = slices.Clone(header)
	if header[0] != "build_commit" || !slices.Contains(header, "avg_ts") {
		return nil, fmt.Errorf("line 1: %w", ErrNotResults)
	}
	byName := map[string]Column{}
	for _, c := range Columns() {
		byName[c.Name] = c
	}
	seen := map[string]bool{}
	for _, name := range header {
		if seen[name] {
			return nil, fmt.Errorf("line 1: column %q twice", name)
		}
		seen[name] = true
	}
	var records []result.Record
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil { // names the line
			return records, err
		}
		line, _ := in.FieldPos(0)
		var record result.Record
		for i, text := range fields {
			c, known := byName[header[i]]
			if !known {
				continue
			}
			if err := c.Set(&record, c.plain(text)); err != nil {
				return records, fmt.Errorf("line %d: %s: %w", line, c.Name, err)
			}
		}
		err = record.Test().Validate()
		if err == nil && len(records) == MaxRecords {
			err = ErrManyRecords
		}
		if err != nil {
			return records, fmt.Errorf("line %d: %w", line, err)
		}
		share(&record)
		records = append(records, record)
	}
}

// plain takes the apostrophe away that cell adds.
func (c Column) plain(cell string) string {
	if c.Type() == "TEXT" && len(cell) > 1 && cell[0] == '\'' && strings.Contains(formulaSigns, cell[1:2]) {
		return cell[1:]
	}
	return cell
}

// Set parses a value of the column.
func (c Column) Set(r *result.Record, text string) error {
	switch v := reflect.ValueOf(r).Elem().Field(c.index); v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither 0 nor 1", text)
		}
		v.SetBool(b)
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(x)
	case reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetUint(n)
	default:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(n)
	}
	return nil
}
