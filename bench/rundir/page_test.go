package rundir

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A page is called by the names of its sources, not by their paths. The path of a file is
// among the facts.
func TestPageNames(t *testing.T) {
	t.Chdir(t.TempDir())
	results(t, "deep/below/old/a.jsonl", "1")
	results(t, "deep/below/new/a.jsonl", "2")
	for _, tt := range []struct {
		args         string
		title, label string
		fact         string // of the first run
	}{
		{"deep/below/old/a.jsonl", "Results of a.jsonl", "a", "deep/below/old/a.jsonl"},
		{"deep/below/old/a.jsonl deep/below/new/a.jsonl", "Results of old/a, new/a", "old/a", "deep/below/old/a.jsonl"},
		{"both=deep/below/old/a.jsonl,deep/below/new/a.jsonl", "Results of both", "both a.jsonl", "deep/below/old/a.jsonl"},
	} {
		page, err := Page(strings.Fields(tt.args), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		run := page.Runs[0]
		got := []string{page.Title, run.Label, run.Title, run.Facts[0].Value}
		if diff := cmp.Diff([]string{tt.title, tt.label, "Results of a.jsonl", tt.fact}, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.args, diff)
		}
		var b strings.Builder
		if err := report.WritePage(&b, page); err != nil {
			t.Fatal(err)
		}
		for _, tag := range []string{"<title>", "<h1>", "<h2>"} {
			for _, heading := range strings.Split(b.String(), tag)[1:] {
				if heading, _, _ = strings.Cut(heading, "<"); strings.Contains(heading, "below") {
					t.Errorf("%s: heading %q", tt.args, heading)
				}
			}
		}
	}
}

// The prices of sides reach the page and the comparison.
func TestPrices(t *testing.T) {
	t.Chdir(t.TempDir())
	results(t, "a.jsonl", "1")
	results(t, "b.jsonl", "2")
	priced := func(labels []string) (all []*result.Prices, err error) {
		if diff := cmp.Diff([]string{"a", "b"}, labels); diff != "" {
			t.Error(diff)
		}
		return []*result.Prices{{Machine: &result.Price{PerHour: 0.36, Currency: "EUR"}}, nil}, nil
	}
	page, err := Page([]string{"a.jsonl", "b.jsonl"}, "", priced)
	if err != nil {
		t.Fatal(err)
	}
	a, b := page.Runs[0].Outcomes[0].Record.Ext.Cost, page.Runs[1].Outcomes[0].Record.Ext.Cost
	if a == nil || a.Currency != "EUR" || b != nil {
		t.Errorf("%+v, %+v", a, b)
	}
	if c := page.Comparison; c == nil || c.Rows[0].Cells[0].Cost == nil || c.Rows[0].Cells[1].Cost != nil {
		t.Errorf("%+v, %s", c, page.NoComparison)
	}
	refused := errors.New("no such side")
	if _, err := Page([]string{"a.jsonl"}, "", func([]string) ([]*result.Prices, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Error(err)
	}
}
