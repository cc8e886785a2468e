package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// comparisons are the formats of a comparison.
var comparisons = []struct {
	name  string
	write func(io.Writer, *compare.Comparison, Options) error
}{
	{"table", comparisonTable},
	{"md", comparisonMarkdown},
	{"html", comparisonHTML},
	{"csv", comparisonCSV},
	{"json", comparisonJSON},
	{"benchstat", comparisonBenchstat},
	{"github-action", comparisonGitHub},
}

// ComparisonFormats are the names that WriteComparison takes.
func ComparisonFormats() []string {
	var names []string
	for _, f := range comparisons {
		names = append(names, f.name)
	}
	return names
}

// WriteComparison writes a comparison in one of ComparisonFormats.
func WriteComparison(format string, w io.Writer, c *compare.Comparison, o Options) error {
	for _, f := range comparisons {
		if f.name == format {
			return f.write(w, c, o)
		}
	}
	return fmt.Errorf("unknown format %q", format)
}

// comparisonRows are the header and the rows of the table. Two sides have their speeds,
// the ratio, its interval and the verdict. More sides have a column each.
func comparisonRows(c *compare.Comparison) (header []string, rows [][]string) {
	if len(c.Sides) == 2 {
		header = []string{"model", "test", c.Sides[0], c.Sides[1], "ratio", "95 % interval", "verdict"}
	} else {
		header = append([]string{"model", "test"}, c.Sides...)
	}
	model := ""
	name := func(m string) string {
		if m == model {
			return ""
		}
		model = m
		return m
	}
	for _, r := range c.Rows {
		row := []string{name(r.Model), spaced(r.Test.String(), r.Settings)}
		if len(c.Sides) == 2 {
			row = append(row, cellSpeed(r.Cells[0]), cellSpeed(r.Cells[1]))
			row = append(row, ratioTexts(r.Cells[1].Ratio)...)
		} else {
			row = append(row, manyCells(r)...)
		}
		rows = append(rows, row)
	}
	for _, m := range c.Means {
		row := []string{m.Model, fmt.Sprintf("mean of %d %s", m.Rows, kindName(m.Kind))}
		if len(c.Sides) == 2 {
			row = append(row, "", "")
			row = append(row, ratioTexts(m.Ratios[1])...)
		} else {
			for _, r := range m.Ratios {
				text := ""
				if r != nil {
					text = fmt.Sprintf("×%.3f", r.Value)
				}
				row = append(row, text)
			}
		}
		rows = append(rows, row)
	}
	return header, rows
}

func kindName(k result.Kind) string {
	if k == result.PromptProcessing {
		return "pp"
	}
	return "tg"
}

// manyCells are the speeds of more than two sides, relative to the base. The fastest that
// is shown to be faster than the base has a star.
func manyCells(r compare.Row) []string {
	best := -1
	for i, cell := range r.Cells {
		if cell.Runs > 0 && (best < 0 || cell.TokensPerSecond > r.Cells[best].TokensPerSecond) {
			best = i
		}
	}
	var texts []string
	for i, cell := range r.Cells {
		t := cellSpeed(cell)
		if cell.Ratio != nil {
			t += fmt.Sprintf(" ×%.2f", cell.Ratio.Value)
			if cell.Ratio.Verdict == compare.Unclear {
				t += "?"
			}
		}
		if i == best {
			t += " *"
		}
		texts = append(texts, t)
	}
	return texts
}

// doubtMark follows a speed of doubtful records.
const doubtMark = "!"

func cellSpeed(c compare.Cell) string {
	switch {
	case c.Runs > 0 && c.Doubtful:
		return result.FormatRate(c.TokensPerSecond) + " " + doubtMark
	case c.Runs > 0:
		return result.FormatRate(c.TokensPerSecond)
	case c.Status != "":
		return strings.ReplaceAll(string(c.Status), "_", " ")
	default:
		return "–"
	}
}

func ratioTexts(r *compare.Relative) []string {
	if r == nil {
		return []string{"", "", ""}
	}
	return []string{fmt.Sprintf("%.3f", r.Value), fmt.Sprintf("%.3f…%.3f", r.Low, r.High), string(r.Verdict)}
}

// notes are the sentences that a reader of the table needs.
func comparisonNotes(c *compare.Comparison) []string {
	var notes []string
	notes = append(notes, fmt.Sprintf("Speeds are medians in tokens/second. A ratio above 1 means that %s.", faster(c)))
	notes = append(notes, fmt.Sprintf("same: the whole interval lies within ±%.3g %%. faster and slower are corrected for %s (Holm).",
		c.Margin*100, result.Count(c.Corrected(), "row")))
	if c.OneRun() {
		notes = append(notes, fmt.Sprintf("A side has one run, so how much loads of its model differ is not known: %.2g %% is assumed. More runs narrow the intervals.", c.Loads.Spread*100))
	}
	if slices.ContainsFunc(c.Rows, func(r compare.Row) bool {
		return slices.ContainsFunc(r.Cells, func(cell compare.Cell) bool { return cell.Doubtful })
	}) {
		notes = append(notes, doubtMark+" marks the speed of a doubtful record; its ext.verdict says why.")
	}
	for _, a := range few(c.LeftOut) {
		notes = append(notes, fmt.Sprintf("left out: a record of %s of %s in %s: %s", a.Test, a.Model, c.Sides[a.Side], a.Reason))
	}
	for _, a := range few(c.Alone) {
		notes = append(notes, fmt.Sprintf("not compared: %s of %s in %s: %s", a.Test, a.Model, c.Sides[a.Side], a.Reason))
	}
	if more := len(c.LeftOut) - len(few(c.LeftOut)) + len(c.Alone) - len(few(c.Alone)); more > 0 {
		notes = append(notes, fmt.Sprintf("not compared: %s more; -o json lists all", result.Count(more, "record")))
	}
	return notes
}

// few are at most 100 records: more notes would hide the table.
func few(all []compare.Alone) []compare.Alone { return all[:min(len(all), 100)] }

func faster(c *compare.Comparison) string {
	if len(c.Sides) == 2 {
		return c.Sides[1] + " is faster than " + c.Sides[0]
	}
	return "the side is faster than " + c.Sides[0] + "; * marks the fastest, ? an unclear difference"
}

// differenceLines name what differs between the sides.
func differenceLines(c *compare.Comparison) []string {
	var lines []string
	for _, d := range c.Differences {
		var values []string
		for i, v := range d.Values {
			values = append(values, c.Sides[i]+": "+printable(v))
		}
		line := d.Name + " differs: " + strings.Join(values, "; ")
		if d.Compared {
			line += " (compared)"
		}
		lines = append(lines, line)
	}
	return lines
}

func comparisonTable(w io.Writer, c *compare.Comparison, o Options) error {
	width := o.Width
	if width <= 0 {
		width = defaultWidth
	}
	var b strings.Builder
	for _, line := range differenceLines(c) {
		b.WriteString(wrap(line, "", width) + "\n")
	}
	if len(c.Differences) > 0 {
		b.WriteString("\n")
	}
	header, rows := comparisonRows(c)
	t := table.NewWriter()
	plain := table.StyleLight
	plain.Box.PaddingLeft, plain.Box.PaddingRight = "  ", ""
	plain.Options = table.OptionsNoBordersAndSeparators
	plain.Options.SeparateHeader = true
	plain.Format.Header = text.FormatDefault
	t.SetStyle(plain)
	t.SuppressTrailingSpaces()
	fill(t, header, rows, len(c.Sides) == 2)
	b.WriteString(t.Render() + "\n\n")
	for _, note := range comparisonNotes(c) {
		b.WriteString(wrap(printable(note), "", width) + "\n")
	}
	b.WriteString(costTable(c, width))
	return write(w, []byte(b.String()))
}

// fill adds a header and rows. The columns of numbers are aligned to the right.
func fill(t table.Writer, header []string, rows [][]string, verdict bool) {
	right := len(header)
	if verdict {
		right--
	}
	var configs []table.ColumnConfig
	for n := 3; n <= right; n++ {
		configs = append(configs, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
	t.AppendHeader(tableRow(header))
	for _, r := range rows {
		t.AppendRow(tableRow(r))
	}
}

func tableRow(texts []string) (row table.Row) {
	for _, t := range texts {
		row = append(row, printable(t))
	}
	return row
}

func comparisonMarkdown(w io.Writer, c *compare.Comparison, _ Options) error {
	var b strings.Builder
	for _, line := range differenceLines(c) {
		b.WriteString("- " + escapeMarkdown(line) + "\n")
	}
	if len(c.Differences) > 0 {
		b.WriteString("\n")
	}
	header, rows := comparisonRows(c)
	t := table.NewWriter()
	t.Style().Markdown.PadContent = true
	for i := range header {
		header[i] = escapeMarkdown(header[i])
	}
	for _, r := range rows {
		for i := range r {
			r[i] = escapeMarkdown(r[i])
		}
	}
	fill(t, header, rows, len(c.Sides) == 2)
	b.WriteString(t.RenderMarkdown() + "\n\n")
	for _, note := range comparisonNotes(c) {
		b.WriteString(escapeMarkdown(printable(note)) + "\n")
	}
	b.WriteString(costMarkdown(c))
	return write(w, []byte(b.String()))
}

// comparisonCSV writes a line for each row and side but the base. encoding/csv quotes; a
// text that a spreadsheet would take for a formula gets a leading apostrophe.
func comparisonCSV(w io.Writer, c *compare.Comparison, _ Options) error {
	out := csv.NewWriter(w)
	lines := [][]string{{
		"model", "model_type", "test", "settings", "base", "side", "base_tokens_per_second", "tokens_per_second",
		"ratio", "low", "high", "p_corrected", "verdict", "base_runs", "runs", "doubtful",
		"base_cost_per_million", "cost_per_million", "currency", "cost_ratio", "cost_low", "cost_high", "cost_verdict",
	}}
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 8, 64) }
	for _, r := range c.Rows {
		for i, cell := range r.Cells[1:] {
			line := []string{
				noFormula(r.Model), noFormula(r.Type), r.Test.String(), noFormula(r.Settings), noFormula(c.Sides[0]), noFormula(c.Sides[i+1]),
				number(r.Cells[0].TokensPerSecond), number(cell.TokensPerSecond), "", "", "", "", "",
				strconv.Itoa(r.Cells[0].Runs), strconv.Itoa(cell.Runs), strconv.FormatBool(r.Cells[0].Doubtful || cell.Doubtful),
			}
			if q := cell.Ratio; q != nil {
				copy(line[8:], []string{number(q.Value), number(q.Low), number(q.High), number(q.P), string(q.Verdict)})
			}
			costs := make([]string, 7)
			if base := r.Cells[0].Cost; base != nil && cell.Cost != nil && base.Currency == cell.Cost.Currency {
				costs[0] = number(base.PerMillion)
			}
			if cost := cell.Cost; cost != nil {
				costs[1], costs[2] = number(cost.PerMillion), noFormula(cost.Currency)
			}
			if q := costRatio(cell); q != nil {
				copy(costs[3:], []string{number(q.Value), number(q.Low), number(q.High), string(q.Verdict)})
			}
			line = append(line, costs...)
			lines = append(lines, line)
		}
	}
	if err := out.WriteAll(lines); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// escapeMarkdown keeps text from being read as Markdown or HTML.
func escapeMarkdown(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_[]<>&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func noFormula(s string) string {
	s = printable(s)
	if s != "" && strings.Contains(formulaSigns, s[:1]) {
		return "'" + s
	}
	return s
}

// comparisonJSON writes the comparison as one object.
func comparisonJSON(w io.Writer, c *compare.Comparison, _ Options) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return write(w, append(b, '\n'))
}

// comparisonBenchstat writes Go's benchmark format, a line for each repetition. benchstat
// -col side compares it.
func comparisonBenchstat(w io.Writer, c *compare.Comparison, _ Options) error {
	var b strings.Builder
	b.WriteString("Unit tokens/s better=higher\n")
	for side, label := range c.Sides {
		fmt.Fprintf(&b, "\nside: %s\n", printable(label))
		for _, r := range c.Rows {
			name := "Benchmark" + benchmarkName(r.Model) + "/" + benchmarkName(spaced(r.Test.String(), r.Settings))
			for _, run := range r.Cells[side].Samples {
				for _, speed := range run {
					fmt.Fprintf(&b, "%s 1 %s tokens/s\n", name, strconv.FormatFloat(speed, 'g', -1, 64))
				}
			}
		}
	}
	return write(w, []byte(b.String()))
}

// benchmarkName is text as part of a benchmark's name, which has no white space. A slash
// begins a sub-benchmark, and a minus sign with digits at the end is GOMAXPROCS.
func benchmarkName(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '/' || r == '-' {
			return '_'
		}
		return r
	}, printable(s))
}

// comparisonGitHub writes what github-action-benchmark reads as customBiggerIsBetter: the
// last side's speeds.
func comparisonGitHub(w io.Writer, c *compare.Comparison, _ Options) error {
	type entry struct {
		Name  string  `json:"name"`
		Unit  string  `json:"unit"`
		Value float64 `json:"value"`
		Range string  `json:"range,omitempty"`
		Extra string  `json:"extra,omitempty"`
	}
	entries := []entry{}
	last := len(c.Sides) - 1
	for _, r := range c.Rows {
		cell := r.Cells[last]
		if cell.Runs == 0 {
			continue
		}
		e := entry{Name: spaced(printable(r.Model)+" "+r.Test.String(), r.Settings), Unit: "tokens/s", Value: cell.TokensPerSecond}
		all := slices.Concat(cell.Samples...)
		e.Range = fmt.Sprintf("± %s", result.FormatRate((slices.Max(all)-slices.Min(all))/2))
		if q := cell.Ratio; q != nil {
			e.Extra = fmt.Sprintf("%s: %.3f of %s (%.3f…%.3f)", q.Verdict, q.Value, c.Sides[0], q.Low, q.High)
		}
		entries = append(entries, e)
	}
	b, err := json.MarshalIndent(entries, "", "  ")
	if err != nil {
		return err
	}
	return write(w, append(b, '\n'))
}
