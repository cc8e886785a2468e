package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Document is the content of the report of a whole run.
type Document struct {
	Title      string
	Facts      []Fact // about the run and its machine, in the order shown
	Outcomes   []result.Outcome
	Accounting result.Accounting
}

// Fact is one line about a run. A fact without a value is omitted.
type Fact struct{ Name, Value string }

// WriteDocument writes d as Markdown: the facts, a table of records and a list of
// tests without one for each model, the models of which no test ran, the accounting,
// and the footnotes. Tests with the same reason share a line. It returns the errors that
// Writer.Write returns.
func WriteDocument(w io.Writer, d Document) error {
	for _, o := range d.Outcomes {
		if err := check(o); err != nil {
			return err
		}
	}
	blocks := []string{"# " + markdownText(d.Title)}
	var lines []string
	for _, f := range d.Facts {
		if f.Value != "" {
			lines = append(lines, fmt.Sprintf("- %s: %s", f.Name, markdownText(f.Value)))
		}
	}
	blocks = append(blocks, strings.Join(lines, "\n"))

	var notes footnotes
	var absent []*model
	for _, m := range group(d.Outcomes, &notes, nil) {
		if m.absent() {
			absent = append(absent, m)
			continue
		}
		blocks = append(blocks, "## "+markdownText(m.name))
		if len(m.records) > 0 {
			facts := append(slices.Clone(m.facts), settingsLine(m.records), memoryLine(m.records))
			for _, f := range facts {
				blocks = append(blocks, markdownText(f))
			}
			blocks = append(blocks, m.markdown())
			blocks = append(blocks, latencies(m.records)...)
			for _, line := range costs(m.records) {
				blocks = append(blocks, markdownText(line))
			}
			blocks = append(blocks, limitsLines(m.records)...)
		}
		if missing := m.missing(); len(missing) > 0 {
			blocks = append(blocks, "Not completed:", strings.Join(missing, "\n"))
		}
	}
	if len(absent) > 0 {
		blocks = append(blocks, "## Models without a record", strings.Join(absentLines(absent), "\n"))
	}

	if d.Accounting.Wall > 0 {
		blocks = append(blocks, "## Where the time went", accountingTable(d.Accounting))
	}
	if len(notes) > 0 {
		lines = nil
		for i, note := range notes {
			lines = append(lines, fmt.Sprintf("- [%d] %s", i+1, markdownText(note)))
		}
		blocks = append(blocks, "## Notes", strings.Join(lines, "\n"))
	}
	blocks = slices.DeleteFunc(blocks, func(b string) bool { return b == "" })
	return write(w, []byte(strings.Join(blocks, "\n\n")+"\n"))
}

// why tells why a test has no record: its status, the reason, how far the test came, and
// the marks of its footnotes.
func (r row) why() string {
	s := statusText(r.outcome)
	if n := len(r.outcome.Samples); n > 0 {
		s += fmt.Sprintf(" (%s completed)", result.Count(n, "repetition"))
	}
	return spaced(markdownText(s), r.marks)
}

// missing lists the tests without a record, one line for each reason.
func (m *model) missing() []string {
	var lines lines
	for _, r := range m.rows {
		if r.outcome.Status != result.OK {
			lines.add(r.why(), markdownText(r.test))
		}
	}
	return lines.text()
}

// absent tells whether no test of the model was begun, and all have the same reason.
func (m *model) absent() bool {
	for _, r := range m.rows {
		if r.outcome.Status == result.OK || len(r.outcome.Samples) > 0 || r.why() != m.rows[0].why() {
			return false
		}
	}
	return true
}

// absentLines lists models of which no test was begun, one line for each reason.
func absentLines(models []*model) []string {
	var lines lines
	for _, m := range models {
		tests := result.Count(len(m.rows), "test")
		if len(m.rows) == 1 {
			tests = m.rows[0].test
		}
		lines.add(m.rows[0].why(), markdownText(fmt.Sprintf("%s (%s)", m.name, tests)))
	}
	return lines.text()
}

// lines are what is said about things, each with the things that it is said about.
type lines []struct {
	said   string
	things []string
}

// add says something about one more thing.
func (l *lines) add(said, thing string) {
	for i := range *l {
		if (*l)[i].said == said {
			(*l)[i].things = append((*l)[i].things, thing)
			return
		}
	}
	*l = append(*l, struct {
		said   string
		things []string
	}{said, []string{thing}})
}

// text is a Markdown list: "- pp16, pp128: timeout".
func (l *lines) text() []string {
	var text []string
	for _, line := range *l {
		text = append(text, fmt.Sprintf("- %s: %s", strings.Join(line.things, ", "), line.said))
	}
	return text
}

// markdown is the table of the model's records.
func (m *model) markdown() string {
	w := table.NewWriter()
	w.Style().Markdown.PadContent = true
	names := append(slices.DeleteFunc(columnsFor([]*model{m}), func(c string) bool { return c == "status" }), "notes")
	setColumns(w, names)
	for _, r := range m.rows {
		if r.outcome.Status != result.OK {
			continue
		}
		cells := table.Row{r.test}
		for _, name := range names[1 : len(names)-1] {
			cells = append(cells, r.cells[name])
		}
		w.AppendRow(append(cells, spaced(r.verdict, r.marks)))
	}
	return w.RenderMarkdown()
}

// settingsLine lists the settings that markdown shows as columns for one of the
// records, each with all its values.
func settingsLine(records []*result.Record) string {
	var parts []string
	for _, s := range settings {
		c := columns[slices.IndexFunc(columns, func(c Column) bool { return c.Name == s.field })]
		var values []string
		shown := false
		for _, r := range records {
			if v := printable(c.text(r)); !slices.Contains(values, v) {
				values = append(values, v)
			}
			shown = shown || isShown(r, c, s.standard)
		}
		if shown {
			parts = append(parts, s.field+" "+strings.Join(values, "/"))
		}
	}
	return "settings: " + strings.Join(parts, ", ")
}

// memoryLine says what the test with the most memory took by the library's report,
// and the largest resident memory of all tests. It is empty if no record has memory.
func memoryLine(records []*result.Record) string {
	var most *result.Record
	var peak uint64
	for _, r := range records {
		m := r.Ext.Memory
		if m == nil {
			continue
		}
		peak = max(peak, m.PeakResidentBytes)
		if most == nil || m.Total() > most.Ext.Memory.Total() {
			most = r
		}
	}
	if most == nil {
		return ""
	}
	m := most.Ext.Memory
	line := fmt.Sprintf("memory of %s: weights %s, KV cache %s, compute buffers %s", most.Test(),
		humanize.IBytes(m.WeightsBytes), humanize.IBytes(m.CacheBytes), humanize.IBytes(m.ComputeBytes))
	if len(m.Devices) > 1 {
		var parts []string
		for _, d := range m.Devices {
			parts = append(parts, d.Name+" "+humanize.IBytes(d.WeightsBytes+d.CacheBytes+d.ComputeBytes))
		}
		line += "; on " + strings.Join(parts, ", ")
	}
	if peak > 0 {
		line += "; peak resident " + humanize.IBytes(peak)
	}
	return line
}

// markdownText escapes a text of unknown origin for one line of Markdown.
func markdownText(s string) string {
	return markdownMarks.Replace(printable(s))
}

var markdownMarks = strings.NewReplacer("<", "&lt;", "*", `\*`, "`", "\\`")
