package report

import (
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// accountingTable is a Markdown table of the parts, with times and shares.
func accountingTable(a result.Accounting) string {
	w := table.NewWriter()
	w.Style().Markdown.PadContent = true
	w.AppendHeader(table.Row{"part", "time", "share"})
	w.SetColumnConfigs([]table.ColumnConfig{
		{Number: 2, Align: text.AlignRight, AlignHeader: text.AlignRight},
		{Number: 3, Align: text.AlignRight, AlignHeader: text.AlignRight},
	})
	for _, p := range a.Parts() {
		w.AppendRow(table.Row{p.Name, duration(p.Time), percent(a, p.Time)})
	}
	w.AppendRow(table.Row{"wall time", duration(a.Wall), percent(a, a.Wall)})
	return w.RenderMarkdown()
}

// percent is the share of the wall time that d is.
func percent(a result.Accounting, d time.Duration) string {
	return fmt.Sprintf("%.0f %%", 100*a.Share(d))
}

// duration is d for people, rounded to tenths of a second, or to milliseconds if
// it is below one second.
func duration(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
