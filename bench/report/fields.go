package report

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// column is a field of llama-bench's flat formats. These have the fields of the
// record before the samples, in its order.
type column struct {
	name  string
	index int // index of the field in result.Record
}

var columns = func() []column {
	var cs []column
	t := reflect.TypeFor[result.Record]()
	for i := range t.NumField() {
		name := jsonName(t.Field(i))
		if name == "samples_ns" {
			break
		}
		cs = append(cs, column{name, i})
	}
	return cs
}()

// text is the value of the column in llama-bench's flat formats: booleans are 0
// or 1, fractions look as from C++'s to_string.
func (c column) text(r *result.Record) string {
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
func (c column) cell(r *result.Record) string {
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
