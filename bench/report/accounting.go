package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// AccountingLine tells on one line where the time of a run went: "timed 71 %,
// warm-up 12 %, …".
func AccountingLine(a result.Accounting) string {
	var parts []string
	for _, p := range a.Parts() {
		parts = append(parts, p.Name+" "+percent(a, p.Time))
	}
	return strings.Join(parts, ", ")
}

// accountingTable is the same in Markdown, with the times.
func accountingTable(a result.Accounting) string {
	w := table.NewWriter()
	w.Style().Markdown.PadContent = true
	w.AppendHeader(table.Row{"time", "", "share"})
	w.SetColumnConfigs([]table.ColumnConfig{
		{Number: 2, Align: text.AlignRight, AlignHeader: text.AlignRight},
		{Number: 3, Align: text.AlignRight, AlignHeader: text.AlignRight},
	})
	for _, p := range a.Parts() {
		w.AppendRow(table.Row{p.Name, duration(p.Time), percent(a, p.Time)})
	}
	w.AppendRow(table.Row{"wall", duration(a.Wall), percent(a, a.Wall)})
	return w.RenderMarkdown()
}

func percent(a result.Accounting, d time.Duration) string {
	return fmt.Sprintf("%.0f %%", 100*a.Share(d))
}

// duration is d for people: tenths of a second, and milliseconds below one.
func duration(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
