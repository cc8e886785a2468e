package result_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestPrice(t *testing.T) {
	for text, want := range map[string]result.Price{
		"0.53/h":           {PerHour: 0.53},
		"€0.53/h":          {PerHour: 0.53, Currency: "€"},
		"0.53 USD/h":       {PerHour: 0.53, Currency: "USD"},
		" 12 kr /h ":       {PerHour: 12, Currency: "kr"},
		"$1.5/h":           {PerHour: 1.5, Currency: "$"},
		"":                 {},
		"0.53":             {},
		"cheap/h":          {},
		"€/h":              {},
		"0/h":              {},
		"-1/h":             {},
		"1,5/h":            {},
		"1e999/h":          {},
		"$1€/h":            {},
		"1 far too/h":      {PerHour: 1, Currency: "far too"},
		"1 far too long/h": {},
		"NaN/h":            {},
		"USD 0.53/h":       {PerHour: 0.53, Currency: "USD"},
		"0.53 EUR / h":     {PerHour: 0.53, Currency: "EUR"},
		"abc":              {},
		"/h":               {},
		"inf/h":            {},
		"0.5/d":            {},
		"0.5/d/h":          {},
		"0x10/h":           {},
		"1_0/h":            {},
		"1e-320/h":         {},
		"1\x1b[1m/h":       {},
		"1 \xff/h":         {},
	} {
		got, err := result.ParsePrice(text)
		if got != want || (err == nil) != (want.PerHour > 0) {
			t.Errorf("%q is %+v, %v, want %+v", text, got, err, want)
		}
	}
	// 100 tokens a second are 360,000 an hour.
	if got := (result.Price{PerHour: 0.36}).PerMillion(100); math.Abs(got-1) > 1e-12 {
		t.Error(got)
	}
}

func TestPowerPrice(t *testing.T) {
	for text, want := range map[string]result.PowerPrice{
		"0.30/kWh":     {PerKWh: 0.3},
		"0.30 EUR/kwh": {PerKWh: 0.3, Currency: "EUR"},
		"0.30/h":       {},
		"0.30":         {},
		"-0.1/kWh":     {},
		"/kWh":         {},
	} {
		got, err := result.ParsePowerPrice(text)
		if got != want || (err == nil) != (want.PerKWh > 0) {
			t.Errorf("%q is %+v, %v, want %+v", text, got, err, want)
		}
	}
	// A token of 3.6 J: a million take 1 kWh.
	if got := (result.PowerPrice{PerKWh: 0.3}).PerMillion(3.6); math.Abs(got-0.3) > 1e-12 {
		t.Error(got)
	}
}

func TestCost(t *testing.T) {
	eur := &result.Price{PerHour: 0.36, Currency: "EUR"} // 1 EUR at 100 tokens/second
	power := &result.PowerPrice{PerKWh: 0.3}
	energy := func(p result.Parts) *result.Energy { return &result.Energy{JoulesPerToken: p} }
	pp, tg := result.Test{Prompt: 512}, result.Test{Gen: 128}
	for _, tt := range []struct {
		name   string
		prices *result.Prices
		test   result.Test
		speed  float64
		energy *result.Energy
		want   string // the sentence; empty: no cost
		of     []string
	}{
		{"no price", nil, tg, 100, nil, "", nil},
		{"no speed", &result.Prices{Machine: eur}, tg, 0, nil, "", nil},
		{"machine", &result.Prices{Machine: eur}, tg, 100, energy(result.Parts{System: new(3.6)}), "1 M generated tokens cost 1.000 EUR", nil},
		{"prompt", &result.Prices{Machine: eur}, pp, 1000, nil, "1 M prompt tokens cost 0.1000 EUR", nil},
		{"both", &result.Prices{Machine: eur}, result.Test{Prompt: 512, Gen: 128}, 100, nil, "1 M prompt and generated tokens cost 1.000 EUR", nil},
		{"no currency", &result.Prices{Machine: &result.Price{PerHour: 0.36}}, tg, 100, nil, "1 M generated tokens cost 1.000", nil},
		{
			"the system has all parts", &result.Prices{Machine: eur, Electricity: power}, tg, 100,
			energy(result.Parts{System: new(3.6), Package: new(1.8), GPU: new(1.8)}),
			"1 M generated tokens cost 1.300 EUR (0.3000 EUR of it electricity)", []string{"system"},
		},
		{
			"packages, memory and GPUs", &result.Prices{Machine: eur, Electricity: power}, tg, 100,
			energy(result.Parts{Package: new(1.2), DRAM: new(0.6), GPU: new(1.8)}),
			"1 M generated tokens cost 1.300 EUR (0.3000 EUR of it electricity)", []string{"package", "dram", "gpu"},
		},
		{
			"the platform has the packages", &result.Prices{Electricity: &result.PowerPrice{PerKWh: 0.3, Currency: "USD"}}, tg, 100,
			energy(result.Parts{Psys: new(1.8), Package: new(1.2), DRAM: new(0.6), GPU: new(1.8)}),
			"1 M generated tokens cost 0.3000 USD of electricity", []string{"psys", "gpu"},
		},
		{"no energy", &result.Prices{Machine: eur, Electricity: power}, tg, 100, nil, "1 M generated tokens cost 1.000 EUR", nil},
		{"only electricity, no energy", &result.Prices{Electricity: power}, tg, 100, &result.Energy{}, "", nil},
	} {
		c := tt.prices.Cost(tt.test, tt.speed, tt.energy)
		if c == nil {
			if tt.want != "" {
				t.Errorf("%s: no cost", tt.name)
			}
			continue
		}
		if c.Sentence() != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, c.Sentence(), tt.want)
		}
		if diff := cmp.Diff(tt.of, c.ElectricityOf); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
		// The prices of a cost give it again.
		p := c.Prices()
		if diff := cmp.Diff(c, p.Cost(tt.test, tt.speed, tt.energy)); diff != "" {
			t.Errorf("%s again: (-want +got)\n%s", tt.name, diff)
		}
	}
	two := &result.Prices{Machine: eur, Electricity: &result.PowerPrice{PerKWh: 1, Currency: "USD"}}
	if _, err := two.Currency(); !errors.Is(err, result.ErrCurrencies) || two.Cost(tg, 1, nil) != nil {
		t.Errorf("two currencies: %v", err)
	}
	if diff := cmp.Diff([]any{"0.3600 EUR", "0.1800 EUR"}, two.CostOf(time.Hour, 30*time.Minute)); diff != "" {
		t.Error(diff)
	}
}

// FuzzPrice: what is read is finite, above 0, and the same when it is read again.
func FuzzPrice(f *testing.F) {
	for _, seed := range []string{"0.53/h", "USD 0.53/h", "€1e3/h", "1/kWh", "/h", "-1/h", "inf/h", "0x1p-2/h", "1 kr/h\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := result.ParsePrice(text)
		if err == nil {
			again, err := result.ParsePrice(p.String())
			if !(p.PerHour > 0) || math.IsInf(p.PerHour, 0) || err != nil || again != p || strings.ContainsAny(p.String(), "\n\x1b") {
				t.Errorf("%q is %+v, and again %+v, %v", text, p, again, err)
			}
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
		if w, err := result.ParsePowerPrice(text); err == nil && !(w.PerKWh > 0) {
			t.Errorf("%q is %+v", text, w)
		}
	})
}
