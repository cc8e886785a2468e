package compare

import (
	"math"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// CellCost is what a million tokens of a row cost on a side, if its records know that.
type CellCost struct {
	PerMillion float64   `json:"per_million"` // geometric mean of the runs
	Currency   string    `json:"currency,omitempty"`
	Ratio      *Cheapest `json:"ratio"` // to the base; nil for the base, and without a cost in its currency
}

// Cheapest is a cost relative to the base. Its interval is that of the speeds: prices and
// energy are taken as exact.
type Cheapest struct {
	Value   float64     `json:"value"`
	Low     float64     `json:"low"`
	High    float64     `json:"high"`
	Verdict CostVerdict `json:"verdict"`
}

// CostVerdict is what the measurements show about the cost of a side.
type CostVerdict string

// The verdicts of costs.
const (
	Cheaper     CostVerdict = "cheaper"
	Dearer      CostVerdict = "dearer"
	SameCost    CostVerdict = "same" // the whole interval lies within the margin
	UnclearCost CostVerdict = "unclear"
)

// costOf is the cost of the records of a cell; nil if one has none or another currency.
func costOf(records []*result.Record) *CellCost {
	var sum float64
	for _, r := range records {
		c, first := r.Ext.Cost, records[0].Ext.Cost
		if c == nil || first == nil || c.Currency != first.Currency || !(c.PerMillion > 0) {
			return nil
		}
		sum += math.Log(c.PerMillion)
	}
	if len(records) == 0 {
		return nil
	}
	return &CellCost{PerMillion: math.Exp(sum / float64(len(records))), Currency: records[0].Ext.Cost.Currency}
}

// weigh compares the costs of the cells with the base's. The speeds must be compared.
func (c *Comparison) weigh(margin float64) {
	for _, row := range c.Rows {
		base := row.Cells[0].Cost
		for _, cell := range row.Cells[1:] {
			own, speed := cell.Cost, cell.Ratio
			if base == nil || own == nil || speed == nil || own.Currency != base.Currency {
				continue
			}
			q := &Cheapest{Value: own.PerMillion / base.PerMillion}
			q.Low, q.High = q.Value*speed.Value/speed.High, q.Value*speed.Value/speed.Low
			switch {
			case q.Low >= 1-margin && q.High <= 1+margin:
				q.Verdict = SameCost
			case q.High < 1:
				q.Verdict = Cheaper
			case q.Low > 1:
				q.Verdict = Dearer
			default:
				q.Verdict = UnclearCost
			}
			own.Ratio = q
		}
	}
}
