package report

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Run is one run in a list of runs.
type Run struct {
	Name      string     `json:"name,omitempty"` // last, last~1 and so on; empty: it has none
	Path      string     `json:"path"`           // of its directory
	Status    string     `json:"status"`
	Problem   string     `json:"problem,omitempty"` // why it cannot be read; empty: it can
	Started   *time.Time `json:"started,omitempty"` // UTC; nil: not known
	Models    []string   `json:"models"`
	Machine   string     `json:"machine,omitempty"` // GPUs and CPU
	Records   int        `json:"records"`
	Tests     int        `json:"tests"` // planned ones; 0: not known
	SizeBytes int64      `json:"size_bytes"`
}

// runFormats are the formats of a list of runs.
var runFormats = []struct {
	name  string
	write func(io.Writer, []Run, Options) error
}{
	{"table", runsTable},
	{"json", runsJSON},
	{"csv", runsCSV},
	{"md", runsMarkdown},
}

// RunFormats are the names that WriteRuns takes.
func RunFormats() []string {
	var names []string
	for _, f := range runFormats {
		names = append(names, f.name)
	}
	return names
}

// WriteRuns writes a list of runs in one of RunFormats. A list without runs is empty in
// the formats for people.
func WriteRuns(format string, w io.Writer, runs []Run, o Options) error {
	for _, f := range runFormats {
		if f.name == format {
			return f.write(w, runs, o)
		}
	}
	return fmt.Errorf("unknown format %q", format)
}

var runHeader = table.Row{"run", "started", "models", "machine", "records", "status", "size"}

// runRow is a run for people. Its name is that of its directory if it has no other.
func runRow(r Run) table.Row {
	started, records := "?", strconv.Itoa(r.Records)
	if r.Started != nil {
		started = r.Started.UTC().Format("2006-01-02 15:04")
	}
	if r.Tests > 0 {
		records += "/" + strconv.Itoa(r.Tests)
	}
	models := "?"
	if len(r.Models) > 0 {
		models = strings.TrimSuffix(r.Models[0], ".gguf")
		if n := len(r.Models) - 1; n > 0 {
			models += " +" + strconv.Itoa(n)
		}
	}
	name := cmp.Or(r.Name, r.Path[strings.LastIndexByte(r.Path, '/')+1:])
	return table.Row{printable(name), started, printable(models), printable(cmp.Or(shortMachine(r.Machine), "?")), records, r.Status, humanize.IBytes(uint64(max(r.SizeBytes, 0)))}
}

// noise is what names of CPUs have beside the name.
var noise = regexp.MustCompile(`\((?:R|TM|tm)\)| CPU @ [0-9.]+ ?GHz| (?:[0-9]+-Core )?Processor\b| \([^()]*\)`)

// shortMachine is the name of a machine without what tells it from no other.
func shortMachine(name string) string { return noise.ReplaceAllString(name, "") }

// runsTable cuts models and machines to the width.
func runsTable(w io.Writer, runs []Run, o Options) error {
	if len(runs) == 0 {
		return nil
	}
	const models, machine = 2, 3
	rows := make([]table.Row, len(runs))
	for i, r := range runs {
		rows[i] = runRow(r)
	}
	to := TableOptions{Right: []string{"records", "size"}}
	columns := func(column int) (n int) { // that the widest cell takes
		for _, r := range rows {
			n = max(n, text.StringWidth(r[column].(string)))
		}
		return n
	}
	if over := text.LongestLineLen(Table(runHeader, rows, to)) - cmp.Or(max(o.Width, 0), defaultWidth); over > 0 {
		const least = 8 // columns of a name that is cut
		a, b := columns(models), columns(machine)
		room := max(a+b-over, 2*least)
		share := map[int]int{models: max(room/2, room-b), machine: max(room/2, room-a)} // half each, or what the other leaves
		for column, n := range share {
			for _, r := range rows {
				if s := r[column].(string); text.StringWidth(s) > n {
					r[column] = text.Snip(s, n, "…")
				}
			}
		}
	}
	return write(w, []byte(Table(runHeader, rows, to)))
}

func runsMarkdown(w io.Writer, runs []Run, _ Options) error {
	if len(runs) == 0 {
		return nil
	}
	t := table.NewWriter()
	t.Style().Markdown.PadContent = true
	t.AppendHeader(runHeader)
	for _, r := range runs {
		row := runRow(r)
		for i := range row {
			row[i] = escapeMarkdown(row[i].(string))
		}
		t.AppendRow(row)
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Name: "records", Align: text.AlignRight}, {Name: "size", Align: text.AlignRight}})
	return write(w, []byte(t.RenderMarkdown()+"\n"))
}

func runsJSON(w io.Writer, runs []Run, _ Options) error {
	if runs == nil {
		runs = []Run{}
	}
	b, err := json.MarshalIndent(runs, "", "  ")
	if err != nil {
		return err
	}
	return write(w, append(b, '\n'))
}

func runsCSV(w io.Writer, runs []Run, _ Options) error {
	lines := [][]string{{"name", "path", "status", "problem", "started", "models", "machine", "records", "tests", "size_bytes"}}
	for _, r := range runs {
		started := ""
		if r.Started != nil {
			started = r.Started.UTC().Format(time.RFC3339)
		}
		lines = append(lines, []string{
			r.Name, noFormula(r.Path), r.Status, noFormula(r.Problem), started, noFormula(strings.Join(r.Models, ";")), noFormula(r.Machine),
			strconv.Itoa(r.Records), strconv.Itoa(r.Tests), strconv.FormatInt(r.SizeBytes, 10),
		})
	}
	if err := csv.NewWriter(w).WriteAll(lines); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// RunDetails is what WriteRun shows of a run.
type RunDetails struct {
	Run
	Facts    []Fact           // how it was measured, and on what
	Outcomes []result.Outcome // of its tests
	Files    []RunFile
	Resume   string // the command that continues it; empty: nothing is left to do
}

// RunFile is a file in the directory of a run.
type RunFile struct {
	Name      string
	SizeBytes int64
	Foreign   bool // it is not the run's
}

// WriteRun writes the details of a run for people.
func WriteRun(w io.Writer, d RunDetails, o Options) error {
	width := cmp.Or(max(o.Width, 0), defaultWidth)
	var b strings.Builder
	add := func(name, value string) {
		if value != "" {
			b.WriteString(wrap(printable(value), fmt.Sprintf("%-11s", printable(name))+"  ", width) + "\n")
		}
	}
	add("run", d.Path)
	status := d.Status
	if d.Tests > 0 {
		status += fmt.Sprintf(", %d of %s", d.Records, result.Count(d.Tests, "record"))
	}
	add("status", status)
	add("problem", d.Problem)
	for _, f := range d.Facts {
		add(f.Name, f.Value)
	}
	for i, f := range d.Files {
		name, about := "", humanize.IBytes(uint64(max(f.SizeBytes, 0)))
		if i == 0 {
			name = "files"
		}
		if f.Foreign {
			about += ", not of the run"
		}
		fmt.Fprintf(&b, "%-11s  %s (%s)\n", name, printable(f.Name), about)
	}
	add("resume", d.Resume)
	if len(d.Outcomes) > 0 {
		b.WriteString("\n")
	}
	if err := write(w, []byte(b.String())); err != nil {
		return err
	}
	t, err := New("table", w, o)
	if err != nil {
		return err
	}
	for _, outcome := range d.Outcomes {
		if err := t.Write(outcome); err != nil {
			return err
		}
	}
	return t.Close()
}
