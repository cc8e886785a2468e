package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

const (
	defaultWidth = 80   // columns
	confidence   = 0.95 // wanted; the table shows the confidence achieved
)

// terminal writes a table per model and numbered footnotes. It writes nothing
// before Close, because the widths depend on all rows.
type terminal struct {
	w        io.Writer
	options  Options
	outcomes []result.Outcome
}

func (t *terminal) Write(o result.Outcome) error {
	if err := check(o); err != nil {
		return err
	}
	t.outcomes = append(t.outcomes, o)
	return nil
}

func (t *terminal) Close() error {
	if len(t.outcomes) == 0 {
		return nil
	}
	width := t.options.Width
	if width <= 0 {
		width = defaultWidth
	}
	var notes footnotes
	models := group(t.outcomes, &notes, &notes)
	for _, m := range models {
		m.fold()
	}

	var b strings.Builder
	columns := t.fitting(models, width)
	for _, m := range models {
		b.WriteString(t.style(text.Bold, wrap(m.name, "", width)) + "\n")
		for _, line := range m.facts {
			b.WriteString(wrap(line, "  ", width) + "\n")
		}
		b.WriteString("\n" + m.render(columns, t.style) + "\n\n")
		for _, line := range append(latencies(m.records), limitsLines(m.records)...) {
			b.WriteString(wrap(line, "  ", width) + "\n\n")
		}
		if lines := costs(m.records); len(lines) > 0 {
			for _, line := range lines {
				b.WriteString(wrap(line, "  ", width) + "\n")
			}
			b.WriteString("\n")
		}
	}
	for i, note := range notes {
		b.WriteString(wrap(note, fmt.Sprintf("[%d] ", i+1), width) + "\n")
	}
	return write(t.w, []byte(strings.TrimRight(b.String(), "\n")+"\n"))
}

// model is the part of a report about one model.
type model struct {
	name    string
	facts   []string // lines below the name
	records []*result.Record
	rows    []row
}

// row is the row of a test.
type row struct {
	outcome result.Outcome
	test    string
	cells   map[string]string // text by column
	noCells string            // shown in place of cells, unless empty
	verdict string            // "doubtful" or "invalid"; empty: valid, or not judged
	marks   string            // marks of its footnotes: "[1] [2]"
}

// group groups outcomes by model, in the order of each model's first outcome. It
// adds warnings to notes, and reasons to reasons unless that is nil.
func group(outcomes []result.Outcome, notes, reasons *footnotes) []*model {
	var models []*model
	for _, o := range outcomes {
		name := printable(o.Model)
		i := slices.IndexFunc(models, func(m *model) bool { return m.name == name })
		if i < 0 {
			i = len(models)
			models = append(models, &model{name: name})
		}
		m := models[i]
		if o.Record != nil {
			m.records = append(m.records, o.Record)
		}
		m.rows = append(m.rows, makeRow(o, notes, reasons))
	}
	for _, m := range models {
		m.facts = facts(m.records)
	}
	return models
}

// fold replaces the rows by a single one if no test of the model was begun, and
// all have the same status and footnotes.
func (m *model) fold() {
	first := m.rows[0]
	for _, r := range m.rows {
		if r.outcome.Status == result.OK || len(r.outcome.Samples) > 0 || r.noCells != first.noCells || r.marks != first.marks {
			return
		}
	}
	if n := len(m.rows); n > 1 {
		first.test = fmt.Sprintf("all %d", n)
		m.rows = []row{first}
	}
}

// facts are the lines about the model and the machine of records. What differs between
// them is left out: a sweep names it in each row.
func facts(records []*result.Record) []string {
	if len(records) == 0 {
		return nil
	}
	model := []string{
		common(records, func(r *result.Record) string { return r.ModelType }),
		common(records, func(r *result.Record) string { return size(r.ModelSizeBytes) }),
		common(records, func(r *result.Record) string { return params(r.ModelParams) + " parameters" }),
		common(records, func(r *result.Record) string {
			if r.Ext.Weights == "" {
				return ""
			}
			return string(r.Ext.Weights) + " weights"
		}),
	}
	device := []string{
		common(records, func(r *result.Record) string { return r.Backends }),
		common(records, func(r *result.Record) string { return r.CPUInfo }),
		common(records, func(r *result.Record) string { return r.GPUInfo }),
		common(records, threads),
	}
	return []string{printable(joined(model...)), printable(joined(device...)) + "; rates in tokens/second"}
}

// threads is the number of threads of a record, as "2 threads".
func threads(r *result.Record) string { return result.Count(r.Threads, "thread") }

// common is what all records say; empty if they differ.
func common(records []*result.Record, what func(*result.Record) string) string {
	text := what(records[0])
	for _, r := range records[1:] {
		if what(r) != text {
			return ""
		}
	}
	return text
}

// joined joins the texts that are not empty.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), ", ")
}

// footnotes are texts, numbered from 1 in the order of their first mark.
type footnotes []string

// mark is the mark of a text, such as "[1]". It adds the text if it is new.
func (f *footnotes) mark(s string) string {
	i := slices.Index(*f, s)
	if i < 0 {
		i = len(*f)
		*f = append(*f, s)
	}
	return fmt.Sprintf("[%d]", i+1)
}

// The columns of the table. If the terminal is too narrow for all of them, groups
// of columns are omitted in the order of dropped.
var (
	tableColumns = []string{"test", "median", "mean ± sd", "CV", "CI of median", "min", "max", "reps", "status"}
	dropped      = [][]string{{"min", "max"}, {"mean ± sd"}, {"CI of median"}, {"reps"}, {"CV"}}
)

// fitting are the columns with which the tables of all models fit the width. The
// columns that are never dropped may still be too wide.
func (t *terminal) fitting(models []*model, width int) []string {
	columns := columnsFor(models)
	for _, drop := range dropped {
		if !slices.ContainsFunc(models, func(m *model) bool { return text.LongestLineLen(m.render(columns, t.style)) > width }) {
			break
		}
		columns = slices.DeleteFunc(columns, func(c string) bool { return slices.Contains(drop, c) })
	}
	return columns
}

// setColumns sets the header. All columns but the first and the last hold numbers
// and are aligned to the right.
func setColumns(w table.Writer, columns []string) {
	var header table.Row
	var configs []table.ColumnConfig
	for i, name := range columns {
		header = append(header, name)
		if i > 0 && i < len(columns)-1 {
			configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	w.AppendHeader(header)
	w.SetColumnConfigs(configs)
}

func (m *model) render(columns []string, style func(text.Color, string) string) string {
	w := table.NewWriter()
	plain := table.StyleLight
	plain.Box.PaddingLeft, plain.Box.PaddingRight = "  ", ""
	plain.Options = table.OptionsNoBordersAndSeparators
	plain.Options.SeparateHeader = true
	plain.Format.Header = text.FormatDefault
	w.SetStyle(plain)
	w.SuppressTrailingSpaces()
	setColumns(w, columns)
	for _, r := range m.rows {
		cells := table.Row{r.test}
		for _, name := range columns[1:] {
			switch {
			case r.noCells != "":
				cells = append(cells, spaced(style(text.FgYellow, r.noCells), r.marks))
			case name == "status" && r.verdict != "":
				cells = append(cells, spaced(style(text.FgYellow, r.cells[name]), r.marks))
			case name == "status":
				cells = append(cells, spaced(r.cells[name], r.marks))
			default:
				cells = append(cells, r.cells[name])
			}
		}
		// Equal cells merge into one.
		w.AppendRow(cells, table.RowConfig{AutoMerge: r.noCells != "", AutoMergeAlign: text.AlignLeft})
	}
	return w.Render()
}

// makeRow makes the row of a test. It computes the statistics from the samples,
// because records of llama-bench do not have all of them.
func makeRow(o result.Outcome, feet, reasons *footnotes) row {
	row := row{outcome: o, test: o.Test.String()}
	var marks []string
	if o.Reason != "" && reasons != nil {
		marks = append(marks, reasons.mark(printable(o.Reason)))
	}
	for _, note := range notes(o) {
		marks = append(marks, feet.mark(note))
	}
	row.marks = strings.Join(marks, " ")
	status := strings.ReplaceAll(string(o.Status), "_", " ")
	if o.Status != result.OK {
		if n := len(o.Samples); n > 0 {
			status += " after " + result.Count(n, "rep")
		}
		row.noCells = status
		return row
	}
	r := o.Record
	if row.verdict, _ = doubt(o); row.verdict != "" {
		status = row.verdict
	}
	c := map[string]string{"reps": strconv.Itoa(len(r.SamplesTS)), "status": status}
	s, err := stats.New(r.SamplesTS)
	if err != nil {
		row.noCells = err.Error()
		return row
	}
	rate := func(v float64) string { return result.FormatDecimals(v, s.Median()) } // all with the decimals of the median
	c["median"] = rate(s.Median())
	c["mean ± sd"] = rate(r.AvgTS)
	c["min"], c["max"] = rate(s.Min()), rate(s.Max())
	if sd, ok := s.SD(); ok {
		c["mean ± sd"] += " ± " + rate(sd)
	}
	if cv, ok := s.CV(); ok {
		c["CV"] = fmt.Sprintf("%.1f %%", 100*cv)
	}
	if ci, ok := s.MedianCI(confidence); ok {
		c["CI of median"] = fmt.Sprintf("%s–%s (%.0f %%)", result.FormatRate(ci.Low), result.FormatRate(ci.High), 100*ci.Confidence)
	}
	if r.Ext.Cost != nil {
		c[costColumn] = printable(r.Ext.Cost.String())
	}
	row.cells = c
	return row
}

// spaced joins a and b with a space unless one of them is empty.
func spaced(a, b string) string { return strings.TrimSpace(a + " " + b) }

// style colors s if the options say so. The table library's own colors depend on
// the environment.
func (t *terminal) style(c text.Color, s string) string {
	if !t.options.Color {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", int(c), s)
}

// wrap breaks s into lines of at most width columns. The first line begins with
// head, the others with as many spaces.
func wrap(s, head string, width int) string {
	indent := strings.Repeat(" ", text.StringWidth(head))
	lines := strings.Split(text.WrapSoft(s, max(1, width-len(indent))), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return head + strings.Join(lines, "\n"+indent)
}
