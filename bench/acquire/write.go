package acquire

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// expendable are columns that a narrow terminal does without, the first one first.
var expendable = []string{"elements", "load within", "disk", "devices", "file", "tests"}

// writeTable writes a table of at most columns, if that is not 0. The columns named in right
// are aligned to the right.
func writeTable(w io.Writer, columns int, header table.Row, rows []table.Row, right ...string) error {
	_, err := io.WriteString(w, report.Table(header, rows, report.TableOptions{Right: right, Expendable: expendable, Width: columns}))
	return err
}

// Write writes the plan as a table and lines below it. The table is at most columns wide,
// if that is not 0.
func (p *Plan) Write(w io.Writer, columns int) error {
	header := table.Row{"model", "tests", "size", "file", "disk", "load within", "tests within", "needs", "memory", "devices"}
	var rows []table.Row
	for i := range p.Models {
		rows = append(rows, planRow(&p.Models[i]))
	}
	if err := writeTable(w, columns, header, rows, "tests", "size", "load within", "tests within", "needs"); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, m := range p.Models {
		if m.Bad != "" {
			fmt.Fprintf(&b, "%s: cannot be run: %s\n", report.OneLine(m.Name), report.OneLine(m.Bad))
		}
	}
	for _, n := range p.Notes() {
		fmt.Fprintf(&b, "%s: %s\n", report.OneLine(strings.Join(n.Models, ", ")), report.OneLine(n.Text))
	}
	for _, line := range []string{p.diskLine(), p.memoryLine(), p.devicesLine(), p.gpuLines(), p.loadsLine(), p.timeLine()} {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func planRow(m *PlannedModel) table.Row {
	size, load, tests, needs := "?", "?", "?", "?"
	if m.SizeBytes > 0 {
		size, load, tests = humanize.IBytes(m.SizeBytes), budgetText(m.LoadBudgetSeconds), budgetText(m.TestBudgetSeconds)
	}
	if m.Memory != nil {
		needs = humanize.IBytes(m.Memory.Total())
	}
	file := "synthetic"
	switch {
	case m.Bad != "":
		file = "cannot run"
	case m.Path != "":
		file = "here"
	case m.Source != "" && m.DownloadBytes == 0:
		file = "to fetch"
	case m.Source != "":
		file = "to fetch, " + humanize.IBytes(uint64(m.DownloadBytes))
	}
	if m.Fallback && m.Path == "" {
		file += ", else synthetic"
	}
	return table.Row{strings.TrimSuffix(report.OneLine(m.Name)+" "+m.Settings, " "), len(m.Tests), size, file, orDash(m.Disk), load, tests, needs, orDash(m.InMemory), orDash(m.OnDevices)}
}

// BytesOrUnknown is a number of bytes for people; 0 is not known.
func BytesOrUnknown(n uint64) string {
	if n == 0 {
		return "?"
	}
	return humanize.IBytes(n)
}

func orDash(f Fit) string { return cmp.Or(string(f), "-") }

// budgetText is a budget for people; 0 is no limit.
func budgetText(seconds float64) string {
	if seconds == 0 {
		return "no limit"
	}
	return durationText(seconds)
}

// durationText is a duration without trailing zero parts: 1h20m, not 1h20m0s.
func durationText(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	text := d.String()
	if d >= time.Minute && d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d >= time.Hour && d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (p *Plan) diskLine() string {
	if p.FreeBytes == nil {
		return ""
	}
	about, all := "", Fits
	for _, m := range p.Models {
		if m.Disk == Unknown {
			about = "at least "
		} else if m.About && m.Path == "" && about == "" {
			about = "about "
		}
		if m.Disk == DoesNotFit || m.Disk == Unknown && all == Fits {
			all = m.Disk
		}
	}
	size := about + humanize.IBytes(uint64(p.DownloadBytes))
	if all == Unknown && p.DownloadBytes == 0 {
		size = "unknown size"
	}
	return fmt.Sprintf("download: %s to %s, which has room for %s: %s", size,
		report.OneLine(p.Directory), humanize.IBytes(uint64(max(*p.FreeBytes, 0))), all)
}

func (p *Plan) memoryLine() string {
	if p.MemoryAvailableBytes == nil {
		return "memory: unknown"
	}
	return fmt.Sprintf("memory: %s available", humanize.IBytes(*p.MemoryAvailableBytes))
}

func (p *Plan) devicesLine() string {
	if p.DevicesUnknown != "" {
		return "devices: unknown: " + report.OneLine(p.DevicesUnknown)
	}
	var names []string
	for _, d := range p.Devices {
		about := []string{report.OneLine(d.Type), BytesOrUnknown(d.FreeBytes) + " free"}
		if how := gpu.KernelWords(d.Kernels); how != "" {
			about = append(about, how)
		}
		if d.NotUsed != "" {
			about = append(about, "not used: "+report.OneLine(d.NotUsed))
		}
		names = append(names, fmt.Sprintf("%s (%s)", report.OneLine(d.Name), strings.Join(about, ", ")))
	}
	return "devices: " + strings.Join(names, ", ")
}

// gpuLines say which GPUs are not used or may not work; empty if there are none.
func (p *Plan) gpuLines() string {
	var lines []string
	if p.GPUNotUsed != "" {
		lines = append(lines, gpu.Unused+": "+report.OneLine(p.GPUNotUsed))
	}
	for _, doubt := range p.GPUDoubts {
		lines = append(lines, "a GPU may not work: "+report.OneLine(doubt))
	}
	return strings.Join(lines, "\n")
}

// loadsLine says how often models are loaded, if they are loaded with several settings.
func (p *Plan) loadsLine() string {
	if !slices.ContainsFunc(p.Models, func(m PlannedModel) bool { return m.Settings != "" }) {
		return ""
	}
	return fmt.Sprintf("loads: %d, one for each model and its settings", p.Loads)
}

func (p *Plan) timeLine() string {
	var b strings.Builder
	switch {
	case p.UpperBoundSeconds != nil:
		fmt.Fprintf(&b, "time: at most %s by the budgets, without downloads", durationText(*p.UpperBoundSeconds))
		if n := p.UnknownSizes; n > 0 {
			b.WriteString(" and without " + result.Count(n, "model") + " of unknown size")
		}
	case p.UnknownSizes == len(p.Models):
		b.WriteString("time: unknown")
	default:
		b.WriteString("time: tests have no limit")
	}
	if p.LikelySeconds != nil {
		fmt.Fprintf(&b, "; likely %s by an earlier run, which measured %d of %s", durationText(*p.LikelySeconds), p.LikelyTests, result.Count(p.Tests, "test"))
	}
	switch {
	case p.TimeLimitSeconds == nil:
		b.WriteString("; the run has no time limit")
	case p.UpperBoundSeconds != nil && *p.UpperBoundSeconds <= *p.TimeLimitSeconds:
		fmt.Fprintf(&b, "; the run's limit is %s: fits", durationText(*p.TimeLimitSeconds))
	default:
		fmt.Fprintf(&b, "; the run's limit is %s: tests that would end later are skipped", durationText(*p.TimeLimitSeconds))
	}
	return b.String()
}

// Write prints three tables: facts, tensors by type, and memory by length. They are
// at most columns wide, if that is not 0.
func (in *Inspection) Write(w io.Writer, columns int) error {
	var facts strings.Builder
	add := func(what string, value any) { fmt.Fprintf(&facts, "%-14s%v\n", what, value) }
	add("model", report.OneLine(in.Model))
	if in.Name != "" {
		add("name", report.OneLine(in.Name))
	}
	add("architecture", report.OneLine(in.Architecture))
	add("parameters", humanize.Comma(int64(in.Params)))
	add("size", fmt.Sprintf("%s of tensors, %s in %s", humanize.IBytes(in.TensorBytes), humanize.IBytes(uint64(in.FileBytes)), result.Count(in.Files, "file")))
	for _, c := range []struct {
		what string
		n    uint64
	}{{"layers", in.Layers}, {"embedding", in.Embedding}, {"context", in.ContextTokens}, {"vocabulary", in.Vocabulary}} {
		if c.n > 0 {
			add(c.what, c.n)
		}
	}
	if in.Experts > 0 {
		add("experts", fmt.Sprintf("%d, each token uses %d", in.Experts, in.ExpertsUsed))
	}
	add("each token", fmt.Sprintf("reads %s of weights and needs %.3g billion operations", humanize.IBytes(in.Token.WeightBytes), float64(in.Token.Ops())/1e9))
	if in.Unsupported != "" {
		add("cannot run", in.Unsupported)
	}
	if in.Available != nil {
		add("memory here", humanize.IBytes(*in.Available)+" available")
	}
	if in.DevicesFree != nil {
		add("GPU memory", humanize.IBytes(*in.DevicesFree)+" free")
	}
	fmt.Fprintln(&facts)
	if _, err := io.WriteString(w, facts.String()); err != nil {
		return err
	}
	var types []table.Row
	for _, s := range in.Types {
		types = append(types, table.Row{s.Type.String(), s.Tensors, humanize.Comma(int64(s.Elements)), humanize.IBytes(s.Bytes)})
	}
	if err := writeTable(w, columns, table.Row{"type", "tensors", "elements", "size"}, types, "tensors", "elements", "size"); err != nil || len(in.Memory) == 0 {
		return err
	}
	type place struct {
		heading string
		bytes   *uint64 // free; nil: unknown
	}
	places := []place{{"fits here", in.Available}}
	if in.DevicesFree != nil {
		places = append(places, place{"fits GPUs", in.DevicesFree})
	}
	header := table.Row{"context", "weights", "KV cache", "compute", "total"}
	for _, p := range places {
		header = append(header, p.heading)
	}
	var memory []table.Row
	for _, m := range in.Memory {
		row := table.Row{m.Tokens, humanize.IBytes(m.Weights), humanize.IBytes(m.Cache), humanize.IBytes(m.Compute), humanize.IBytes(m.Total())}
		for _, p := range places {
			fits := "?"
			if p.bytes != nil {
				fits = "no"
				if m.Fits(*p.bytes) == nil {
					fits = "yes"
				}
			}
			row = append(row, fits)
		}
		memory = append(memory, row)
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return writeTable(w, columns, header, memory, "context", "weights", "KV cache", "compute", "total")
}
