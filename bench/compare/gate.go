package compare

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Gate says which comparisons fail.
type Gate struct {
	Below   float64 // a row fails if its ratio is shown to be below this; 0: none fails
	Unclear bool    // a row also fails if that cannot be told
}

// ErrGate is a comparison that does not pass a gate.
var ErrGate = errors.New("slower than allowed")

// GateError is the ErrGate of a comparison.
type GateError struct {
	Gate    Gate
	Failing []Failing // at least one
}

// Failing is a row that does not pass a gate.
type Failing struct {
	Model  string
	Test   result.Test
	Side   string // label
	Reason string
}

func (e *GateError) Error() string {
	var rows []string
	for _, f := range e.Failing {
		rows = append(rows, fmt.Sprintf("%s of %s in %s (%s)", f.Test, f.Model, f.Side, f.Reason))
	}
	what := fmt.Sprintf("%s below %g of the base", result.Count(len(rows), "row"), e.Gate.Below)
	if e.Gate.Unclear {
		what += ", or unclear"
	}
	return what + ": " + strings.Join(rows, ", ")
}

// Unwrap returns ErrGate.
func (e *GateError) Unwrap() error { return ErrGate }

// Pass returns a GateError if a row of the base does not pass the gate. A row is shown to
// be below the limit if its whole interval is. It cannot be told if the limit lies within
// the interval, or if a side has no record that can be compared. The intervals are those
// of the rows, and not corrected for their number.
func (g Gate) Pass(c *Comparison) error {
	if g.Below <= 0 {
		return nil
	}
	e := &GateError{Gate: g}
	for _, row := range c.Rows {
		if row.Cells[0].Runs == 0 {
			continue
		}
		for i, cell := range row.Cells[1:] {
			f := Failing{row.Model, row.Test, c.Sides[i+1], "not measured"}
			unclear := true
			if r := cell.Ratio; r != nil {
				f.Reason = fmt.Sprintf("%.3f, %.3f…%.3f", r.Value, r.Low, r.High)
				below, notBelow := r.Below(g.Below)
				unclear = !below && !notBelow
				if below {
					e.Failing = append(e.Failing, f)
				}
			}
			if unclear && g.Unclear {
				e.Failing = append(e.Failing, f)
			}
		}
	}
	for _, a := range c.Alone {
		if a.Side == 0 && g.Unclear {
			e.Failing = append(e.Failing, Failing{a.Model, a.Test, strings.Join(c.Sides[1:], ", "), a.Reason})
		}
	}
	if len(e.Failing) == 0 {
		return nil
	}
	return e
}
