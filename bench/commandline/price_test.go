package commandline

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestPriceFlags(t *testing.T) {
	eur := func(perHour float64) *result.Prices {
		return &result.Prices{Machine: &result.Price{PerHour: perHour, Currency: "EUR"}}
	}
	for _, tt := range []struct {
		args  string // separated by |
		sides bool
		want  []*result.Prices // of sides a and b, or of the machine
		error string
		hint  string
	}{
		{"", false, []*result.Prices{nil}, "", ""},
		{"", true, []*result.Prices{nil, nil}, "", ""},
		{"--price|0.5 EUR/h", false, []*result.Prices{eur(0.5)}, "", ""},
		{
			"--price|0.5 EUR/h|--power-price|0.3/kWh", false,
			[]*result.Prices{{Machine: &result.Price{PerHour: 0.5, Currency: "EUR"}, Electricity: &result.PowerPrice{PerKWh: 0.3}}}, "", "",
		},
		{"--price|0.5 EUR/h", true, []*result.Prices{eur(0.5), eur(0.5)}, "", ""},
		{"--price|a=0.5 EUR/h", true, []*result.Prices{eur(0.5), nil}, "", ""},
		{"--price|b=0.5 EUR/h|--price|1 EUR/h", true, []*result.Prices{eur(1), eur(0.5)}, "", ""},
		{"--price|c=0.5/h", true, nil, `--price: no side is called "c"`, "the sides are a, b"},
		{"--power-price|c=0.5/kWh", true, nil, `--power-price: no side is called "c"`, "the sides are a, b"},
		{"--price|1/h|--price|2/h", true, nil, "given twice", ""},
		{"--price|1/h|--price|2/h", false, nil, "given twice", ""},
		{"--price|a=1/h", false, nil, "has no currency", ""},
		{"--price|a=abc", true, nil, "is not a price", ""},
		{"--price|1 EUR/h|--power-price|1 USD/kWh", false, nil, "different currencies: EUR and USD", "give both in one currency"},
		{"--price|abc", false, nil, "is not a price per hour", ""},
		{"--price=-1/h", false, nil, "is not above 0", ""},
		{"--price|0.5", false, nil, "is not a price per hour", ""},
		{"--price|/h", false, nil, "is not a price per hour", ""},
		{"--price|inf/h", false, nil, "is not a price per hour", ""},
		{"--price|0.5/d", false, nil, "is not a price per hour", ""},
		{"--power-price|0.5/h", false, nil, "is not a price of electricity", ""},
	} {
		var p PriceFlags
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		p.Register(f, tt.sides)
		var got []*result.Prices
		err := f.Parse(strings.FieldsFunc(tt.args, func(r rune) bool { return r == '|' }))
		if err == nil {
			if got, err = p.Sides([]string{"a", "b"}); !tt.sides {
				got = make([]*result.Prices, 1)
				got[0], err = p.Prices()
			}
		}
		if tt.error != "" {
			var m *Mistake
			if err == nil || !strings.Contains(err.Error(), tt.error) || errors.As(err, &m) && m.Hint != tt.hint {
				t.Errorf("%s: %v, want %q", tt.args, err, tt.error)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", tt.args, err, diff)
		}
	}
}
