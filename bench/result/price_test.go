package result_test

import (
	"math"
	"testing"

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
