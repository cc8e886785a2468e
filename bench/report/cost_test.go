package report

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// pricedOutcomes are two tests with energy and a price, one without, and one that has no
// record.
func pricedOutcomes(t *testing.T) []result.Outcome {
	t.Helper()
	pp, tg, short := completed(result.Test{Prompt: 512}, 366.12, 364.9, 367.3, 365.2, 366.8), completed(result.Test{Gen: 128}, 107.1, 107.3, 107.2, 106.9, 107.0), completed(result.Test{Gen: 16}, 106, 107, 108)
	pp.Record.Ext.Energy = &result.Energy{JoulesPerToken: result.Parts{Package: new(0.21), DRAM: new(0.01)}, IdleWatts: result.Parts{Package: new(11.0)}}
	tg.Record.Ext.Energy = &result.Energy{JoulesPerToken: result.Parts{Package: new(0.71), DRAM: new(0.05)}, IdleWatts: result.Parts{Package: new(11.0)}}
	prices := &result.Prices{Machine: &result.Price{PerHour: 0.53, Currency: "EUR"}, Electricity: &result.PowerPrice{PerKWh: 0.3}}
	for _, o := range []result.Outcome{pp, tg} {
		if err := AddCost(o.Record, prices); err != nil {
			t.Fatal(err)
		}
	}
	late := result.Outcome{Model: pp.Model, Test: result.Test{Gen: 4096}, Status: result.PredictedTimeout, Reason: "needs 412 s of the 250 s it has"}
	return []result.Outcome{pp, tg, short, late}
}

func TestCostGolden(t *testing.T) {
	priced := pricedOutcomes(t)
	golden(t, "cost.txt", render1(t, "table", Options{}, priced...))
	golden(t, "cost-wide.txt", render1(t, "table", Options{Width: 130}, priced...))
	golden(t, "cost-narrow.txt", render1(t, "table", Options{Width: 50}, priced...))
	golden(t, "cost.md", render1(t, "md", Options{}, priced...))
	var b strings.Builder
	if err := WriteDocument(&b, Document{Title: "Run", Outcomes: priced}); err != nil {
		t.Fatal(err)
	}
	golden(t, "document-cost.md", b.String())
	for line := range strings.Lines(render1(t, "table", Options{}, priced...)) {
		if n := text.StringWidth(strings.TrimRight(line, "\n")); n > defaultWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	page := renderPage(t, Page{Title: "Run", Runs: []PageRun{{Document: Document{Outcomes: priced}}}})
	for _, want := range []string{
		"<th scope=\"col\">" + costColumn + "</th>", "<td>1.438 EUR</td>", `colspan="8"`,
		"tg128: 1 M generated tokens cost 1.438 EUR (0.06333 EUR of it electricity)", "tg128: a token takes package 0.7100 J, dram 0.05000 J; idle package 11.00 W",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// A price changes no field of llama-bench, in no format for programs.
func TestCostIsNoDropInField(t *testing.T) {
	plain := slices.DeleteFunc(pricedOutcomes(t), func(o result.Outcome) bool { return o.Record == nil })
	priced := pricedOutcomes(t)[:len(plain)]
	for _, o := range plain {
		o.Record.Ext.Cost = nil
	}
	for _, format := range []string{"csv", "sql"} {
		if diff := cmp.Diff(render1(t, format, Options{}, plain...), render1(t, format, Options{}, priced...)); diff != "" {
			t.Errorf("%s (-without +with a price)\n%s", format, diff)
		}
	}
	got := render1(t, "jsonl", Options{}, priced[1])
	i, j := strings.Index(got, `,"cost":{`), strings.Index(got, `},"warnings"`)
	if i < 0 {
		t.Fatal(got)
	}
	if j < 0 {
		j = strings.LastIndex(got, "}}}")
	}
	if without := got[:i] + got[j+1:]; without != render1(t, "jsonl", Options{}, plain[1]) {
		t.Errorf("more than ext.cost changed: %s", got)
	}
}

// What is given to a report replaces what the run was given, price by price.
func TestAddCost(t *testing.T) {
	eur, usd := &result.Price{PerHour: 0.36, Currency: "EUR"}, &result.Price{PerHour: 0.72, Currency: "USD"}
	power := &result.PowerPrice{PerKWh: 0.3, Currency: "EUR"}
	for _, tt := range []struct {
		name        string
		had, given  *result.Prices
		want, error string
	}{
		{"nothing", nil, nil, "", ""},
		{"kept", &result.Prices{Machine: eur}, nil, "1.000 EUR", ""},
		{"new", nil, &result.Prices{Machine: eur}, "1.000 EUR", ""},
		{"other", &result.Prices{Machine: eur}, &result.Prices{Machine: usd}, "2.000 USD", ""},
		{"electricity is added", &result.Prices{Machine: eur}, &result.Prices{Electricity: power}, "1.300 EUR", ""},
		{"another currency", &result.Prices{Machine: eur, Electricity: power}, &result.Prices{Machine: usd}, "", "tg128 of m.gguf: the machine and its electricity have prices in different currencies: USD and EUR"},
	} {
		r := result.Record{ModelFilename: "m.gguf", GenTokens: 128, AvgTS: 90, SamplesTS: []float64{50, 100, 120}}
		r.Ext.Energy = &result.Energy{JoulesPerToken: result.Parts{System: new(3.6)}}
		if err := AddCost(&r, tt.had); err != nil {
			t.Fatal(err)
		}
		err := AddCost(&r, tt.given)
		if (err != nil) != (tt.error != "") || err != nil && (err.Error() != tt.error || !errors.Is(err, result.ErrCurrencies)) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.error)
			continue
		}
		got := ""
		if r.Ext.Cost != nil {
			got = fmt.Sprint(r.Ext.Cost)
		}
		if err == nil && got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Estimates are refused in every form in which they could come among records.
func TestReadRefusesEstimates(t *testing.T) {
	for name, text := range map[string]string{
		"estimate -o json": `[{"kind": "estimate", "estimated": true, "model": "m.gguf", "test": "tg128", "ts": 9.2}]`,
		"lines":            `{"estimated": true, "model_filename": "m.gguf", "n_prompt": 512, "avg_ts": 9.2}`,
		"other types":      `{"n_prompt": "many", "estimated": "yes"}`,
		"after a record":   `{"model_filename": "m.gguf", "n_prompt": 512, "avg_ts": 9.2}` + "\n" + `{"model_filename": "m.gguf", "n_prompt": 16, "avg_ts": 9.2, "estimated": true}`,
	} {
		if _, err := ReadFile(strings.NewReader(text)); !errors.Is(err, ErrEstimate) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadFile(strings.NewReader(`{"model_filename": "m.gguf", "n_prompt": 512, "avg_ts": 9.2, "estimated": false}`)); err != nil {
		t.Error(err)
	}
}
