package compare

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestCosts(t *testing.T) {
	// A record of a speed at a price per hour; none: 0.
	at := func(speed, perHour float64, currency string) []result.Record {
		return one(record(tg128, around(speed), func(r *result.Record) {
			if perHour > 0 {
				r.Ext.Cost = (&result.Prices{Machine: &result.Price{PerHour: perHour, Currency: currency}}).Cost(tg128, speed, nil)
			}
		}))
	}
	for _, tt := range []struct {
		name  string
		sides []Side
		want  []string // of each side: cost, ratio and verdict
	}{
		{"no price", []Side{side("a", at(100, 0, "")), side("b", at(120, 0, ""))}, []string{"-", "-"}},
		{"twice the price, half as fast again", []Side{side("a", at(100, 0.36, "EUR")), side("b", at(150, 0.72, "EUR"))}, []string{"1.000 EUR", "1.333 EUR ×1.333 dearer"}},
		{"the same price, faster", []Side{side("a", at(100, 0.36, "EUR")), side("b", at(150, 0.36, "EUR"))}, []string{"1.000 EUR", "0.667 EUR ×0.667 cheaper"}},
		{"one side has a price", []Side{side("a", at(100, 0.36, "EUR")), side("b", at(150, 0, ""))}, []string{"1.000 EUR", "-"}},
		{"two currencies", []Side{side("a", at(100, 0.36, "EUR")), side("b", at(150, 0.36, "USD"))}, []string{"1.000 EUR", "0.667 USD"}},
		{"twice as fast at twice the price", []Side{side("a", at(100, 0.36, "EUR")), side("b", at(200, 0.72, "EUR"))}, []string{"1.000 EUR", "1.000 EUR ×1.000 same"}},
		{"too noisy to tell", []Side{side("a", at(100, 0.36, "EUR")), side("b", at(200, 0.74, "EUR"))}, []string{"1.000 EUR", "1.028 EUR ×1.028 unclear"}},
		{
			"several runs", []Side{
				side("a", at(100, 0.36, "EUR"), at(100.1, 0.36, "EUR"), at(99.9, 0.36, "EUR")), side("b", at(100, 0.36, "EUR"), at(100.1, 0.36, "EUR"), at(99.9, 0.36, "EUR")),
			}, []string{"1.000 EUR", "1.000 EUR ×1.000 same"},
		},
		{"a run of a side has no price", []Side{side("a", at(100, 0.36, "EUR")), side("b", at(150, 0.36, "EUR"), at(151, 0, ""))}, []string{"1.000 EUR", "-"}},
	} {
		o := DefaultOptions()
		if o.Loads.Spread = 0.003; tt.name == "too noisy to tell" {
			o.Loads.Spread = 0.02
		}
		c, err := Compare(tt.sides, o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, cell := range c.Rows[0].Cells {
			text := "-"
			if m := cell.Cost; m != nil {
				text = fmt.Sprintf("%.3f %s", m.PerMillion, m.Currency)
				if q := m.Ratio; q != nil {
					text += fmt.Sprintf(" ×%.3f %s", q.Value, q.Verdict)
					if !(q.Low <= q.Value && q.Value <= q.High) {
						t.Errorf("%s: %+v", tt.name, q)
					}
				}
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}
