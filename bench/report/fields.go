package report

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// A Column is a field of a record in llama-bench's flat formats: CSV and SQL.
type Column struct {
	Name  string
	index int // index of the field in result.Record
}

// columns are llama-bench's: the fields of the record before the samples, in its order.
// mmap is the only field after the samples that has a place in flat formats.
var columns, mmap = func() (cs []Column, mmap Column) {
	t := reflect.TypeFor[result.Record]()
	flat := true
	for i := range t.NumField() {
		switch c := (Column{jsonName(t.Field(i)), i}); {
		case c.Name == "samples_ns":
			flat = false
		case c.Name == "use_mmap":
			mmap = c
		case flat:
			cs = append(cs, c)
		}
	}
	return cs, mmap
}()

// Columns are llama-bench's columns, in its order, then use_mmap, which
// compare-llama-bench.py needs.
func Columns() []Column { return append(slices.Clone(columns), mmap) }

// Type is the column's type in SQL: TEXT, INTEGER or REAL.
func (c Column) Type() string {
	switch reflect.TypeFor[result.Record]().Field(c.index).Type.Kind() {
	case reflect.String:
		return "TEXT"
	case reflect.Float64:
		return "REAL"
	default:
		return "INTEGER"
	}
}

// Value is the value of the column: a string, a float64, an int64 or a bool.
func (c Column) Value(r *result.Record) any {
	switch v := reflect.ValueOf(r).Elem().Field(c.index); v.Kind() {
	case reflect.Uint64:
		return int64(v.Uint()) //nolint:gosec // sizes of models
	case reflect.Int, reflect.Int64:
		return v.Int()
	default:
		return v.Interface()
	}
}

// text is the value of the column in llama-bench's flat formats: booleans are 0
// or 1, fractions look as from C++'s to_string.
func (c Column) text(r *result.Record) string {
	switch v := reflect.ValueOf(r).Elem().Field(c.index); v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return "1"
		}
		return "0"
	case reflect.Float64:
		return fmt.Sprintf("%f", v.Float())
	default:
		return fmt.Sprint(v.Interface())
	}
}

// cell is the value of the column for a spreadsheet.
func (c Column) cell(r *result.Record) string {
	text := c.text(r)
	if reflect.ValueOf(r).Elem().Field(c.index).Kind() == reflect.String && text != "" && strings.Contains(formulaSigns, text[:1]) {
		return "'" + text
	}
	return text
}

// formulaSigns are how a formula begins in a spreadsheet.
const formulaSigns = "=+-@\t\r"

// checkFinite returns an error that names the first number of r that JSON cannot
// represent.
func checkFinite(r *result.Record) error {
	if name, x := notFinite("", reflect.ValueOf(r)); name != "" {
		return fmt.Errorf("field %s is %g", name, x)
	}
	return nil
}

// notFinite finds the first number in v that is not finite, and its name. name is
// that of v; the result is empty if all are finite.
func notFinite(name string, v reflect.Value) (string, float64) {
	switch v.Kind() {
	case reflect.Pointer:
		return notFinite(name, v.Elem()) // nil has an Elem of no kind
	case reflect.Struct:
		for i := range v.NumField() {
			field := strings.TrimPrefix(name+"."+jsonName(v.Type().Field(i)), ".")
			if bad, x := notFinite(field, v.Field(i)); bad != "" {
				return bad, x
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if bad, x := notFinite(fmt.Sprintf("%s[%d]", name, i), v.Index(i)); bad != "" {
				return bad, x
			}
		}
	case reflect.Float64:
		if x := v.Float(); math.IsNaN(x) || math.IsInf(x, 0) {
			return name, x
		}
	}
	return "", 0
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
