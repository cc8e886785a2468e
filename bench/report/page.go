package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Page is the content of report.html: one run, or several beside each other.
type Page struct {
	Title        string
	Runs         []PageRun
	Comparison   *compare.Comparison // of several runs; nil: of one, or see NoComparison
	NoComparison string              // why the runs cannot be compared, in one line
}

// PageRun is one run of a page. What is not known of it is omitted.
type PageRun struct {
	Label string // tells it from the other runs
	Document
	Targets map[result.Kind][]Target // of the suite
	Command string                   // that measures the same again
}

// Target is the speed that a suite expects at a length.
type Target struct {
	Tokens          int
	TokensPerSecond float64
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// The data of page.html.
type (
	pageView struct {
		Page
		Headline        string
		Several         bool
		Speed           []figure
		Views           []runView
		Header          []string
		Rows            [][]string
		CostHeader      []string
		CostRows        [][]string
		CostNote        string
		Differ, Remarks []string
	}
	runView struct {
		PageRun
		Headline string
		Models   []modelView
		Absent   []string
		Time     []figure
		Parts    [][3]string
		GPU      []figure
		Notes    footnotes
	}
	modelView struct {
		Name, Anchor string
		Lines        []string
		Header       []string
		Cells        int // of a row, without the test and the notes
		Rows         []rowView
		Repetitions  []figure
	}
	rowView struct {
		Test, Stopped, Notes string
		Cells                []string
	}
)

// WritePage writes p as one HTML file, which needs no other file and no script. It
// returns the errors that Writer.Write returns.
func WritePage(w io.Writer, p Page) (err error) {
	defer func() { // a plot that cannot be drawn must not end a run
		if r := recover(); r != nil {
			err = fmt.Errorf("draw plots: %v", r)
		}
	}()
	v := pageView{Page: p, Several: len(p.Runs) > 1, Speed: speeds(p.Runs)}
	v.Title = printable(p.Title)
	for _, run := range p.Runs {
		for _, o := range run.Outcomes {
			if err := check(o); err != nil {
				return err
			}
		}
		v.Views = append(v.Views, viewRun(run))
	}
	if len(v.Views) == 1 {
		v.Headline = v.Views[0].Headline
	}
	if c := p.Comparison; c != nil {
		v.Header, v.Rows = comparisonRows(c)
		v.Differ, v.Remarks = differenceLines(c), comparisonNotes(c)
		v.CostHeader, v.CostRows = costRows(c)
		v.CostNote = costNote(c)
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		return err
	}
	return write(w, b.Bytes())
}

func viewRun(run PageRun) runView {
	v := runView{PageRun: run, Headline: headline(run.Outcomes)}
	v.Label = printable(run.Label)
	v.Facts = slices.DeleteFunc(slices.Clone(run.Facts), func(f Fact) bool { return f.Value == "" })
	models := group(run.Outcomes, &v.Notes, nil)
	names := append(slices.DeleteFunc(columnsFor(models), func(c string) bool { return c == "status" }), "notes")
	for _, m := range models {
		mv := modelView{Name: m.name, Header: names, Cells: len(names) - 2}
		if len(m.records) > 0 {
			mv.Lines = slices.DeleteFunc(append(slices.Clone(m.facts), settingsLine(m.records), memoryLine(m.records)), func(s string) bool { return s == "" })
			mv.Lines = append(mv.Lines, latencies(m.records)...)
			mv.Lines = append(mv.Lines, costs(m.records)...)
			mv.Lines = append(mv.Lines, limitsLines(m.records)...)
		}
		if m.absent() {
			v.Absent = append(v.Absent, fmt.Sprintf("%s (%s): %s", m.name, result.Count(len(m.rows), "test"), stopText(m.rows[0].outcome)))
			continue
		}
		for _, r := range m.rows {
			row := rowView{Test: r.test, Notes: spaced(r.verdict, r.marks), Stopped: r.noCells}
			if r.outcome.Status != result.OK {
				row.Stopped = stopText(r.outcome)
			}
			for _, name := range names[1 : len(names)-1] {
				row.Cells = append(row.Cells, r.cells[name])
			}
			mv.Rows = append(mv.Rows, row)
		}
		if f, ok := repetitions(m); ok {
			mv.Repetitions = []figure{f}
		}
		v.Models = append(v.Models, mv)
	}
	if f, ok := timePlot(run.Accounting); ok {
		v.Time = []figure{f}
		for _, part := range run.Accounting.Parts() {
			v.Parts = append(v.Parts, [3]string{part.Name, duration(part.Time), percent(run.Accounting, part.Time)})
		}
		v.Parts = append(v.Parts, [3]string{"wall time", duration(run.Accounting.Wall), percent(run.Accounting, run.Accounting.Wall)})
	}
	v.GPU = gpuPlots(run.Outcomes)
	return v
}

// stopText tells why a test has no record, and how far it came.
func stopText(o result.Outcome) string {
	s := statusText(o)
	if n := len(o.Samples); n > 0 {
		s += fmt.Sprintf(" (%s completed)", result.Count(n, "repetition"))
	}
	return s
}

// headline is the Quote of the tests that tell most.
func headline(outcomes []result.Outcome) string {
	outcomes = slices.DeleteFunc(slices.Clone(outcomes), func(o result.Outcome) bool { return o.Record == nil })
	if len(outcomes) == 0 {
		return "No test has a record."
	}
	return Quote(telling(outcomes))
}

// reports are the formats of a report beside those of New.
var reports = []string{"html", "md"}

// PageFormats are the names that WritePageAs takes.
func PageFormats() []string {
	return append(slices.Clone(reports), slices.DeleteFunc(Formats(), func(f string) bool { return slices.Contains(reports, f) })...)
}

// WritePageAs writes p in one of PageFormats. The formats for programs have the records
// of all runs.
func WritePageAs(format string, w io.Writer, p Page, o Options) error {
	switch format {
	case "html":
		return WritePage(w, p)
	case "md":
		var b strings.Builder
		for _, run := range p.Runs {
			if err := WriteDocument(&b, run.Document); err != nil {
				return err
			}
			b.WriteString("\n")
		}
		if p.Comparison != nil {
			b.WriteString("# Comparison\n\n")
			if err := comparisonMarkdown(&b, p.Comparison, o); err != nil {
				return err
			}
		}
		return write(w, []byte(strings.TrimRight(b.String(), "\n")+"\n"))
	}
	out, err := New(format, w, o)
	if err != nil {
		return err
	}
	for _, run := range p.Runs {
		for _, outcome := range run.Outcomes {
			if err := out.Write(outcome); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// comparisonHTML writes the comparison as one HTML file.
func comparisonHTML(w io.Writer, c *compare.Comparison, _ Options) error {
	return WritePage(w, Page{Title: "Comparison of " + strings.Join(c.Sides, ", "), Comparison: c})
}
