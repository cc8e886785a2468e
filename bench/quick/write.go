package quick

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
)

// Result is the table of a quick measurement. It is no record.
type Result struct {
	Kind           string                `json:"kind"` // "quick"
	WithinS        float64               `json:"within_s"`
	TookS          float64               `json:"took_s"`
	Machine        string                `json:"machine"`
	Threads        int                   `json:"threads"`
	Build          string                `json:"build"`
	AvailableBytes uint64                `json:"memory_available,omitempty"`
	Busy           string                `json:"busy,omitempty"` // what disturbed the measurement when it began
	Rows           []Row                 `json:"models"`
	Limits         []result.DeviceLimits `json:"limits,omitempty"`
	Quote          string                `json:"quote"`
}

// Row is a model.
type Row struct {
	Model       string `json:"model"`
	Name        string `json:"name"` // without the quantisation
	Params      uint64 `json:"params"`
	MemoryBytes uint64 `json:"memory_bytes"` // weights, cache and compute buffers
	Fits        *bool  `json:"fits_memory,omitempty"`
	Prompt      *Speed `json:"prompt,omitempty"`
	Gen         *Speed `json:"generation,omitempty"`
	Reason      string `json:"reason,omitempty"` // why a speed is missing
}

// Speed is that of a test, in tokens per second, with the interval where another run of
// it is expected.
type Speed struct {
	Test        string         `json:"test"`
	Estimated   bool           `json:"estimated"`
	TS          float64        `json:"ts"`
	Low         float64        `json:"ts_low"`
	High        float64        `json:"ts_high"`
	Confidence  float64        `json:"confidence"`
	Repetitions int            `json:"repetitions,omitempty"`     // of a measurement
	From        []string       `json:"from,omitempty"`            // of an estimate: the tests of the thin models
	Layers      []int          `json:"measured_layers,omitempty"` // of an estimate: their numbers of layers
	Rounds      int            `json:"rounds,omitempty"`          // of an estimate
	Cost        *estimate.Cost `json:"cost,omitempty"`
}

func (r *Row) set(s Speed) {
	if s.Test == prompt.String() {
		r.Prompt = &s
	} else {
		r.Gen = &s
	}
}

// short is the name of a model's file without the parts that all default models share.
func short(file string) string {
	name := strings.TrimSuffix(file, ".gguf")
	for _, quantisation := range []string{".Q4_K_M", "-Q4_K_M", "-q4_k_m", "-q4"} {
		name = strings.TrimSuffix(name, quantisation)
	}
	return name
}

// Formats are the output formats, the default first.
func Formats() []string { return []string{"table", "md", "json"} }

// mark stands before every estimated speed.
const mark = "≈ "

// text is the speed as it is quoted: 41.2, or ≈ 9.21.
func (s *Speed) text() string {
	if s == nil {
		return "-"
	}
	if s.Estimated {
		return mark + result.FormatEstimate(s.TS)
	}
	return result.FormatRate(s.TS)
}

// cell is the speed with the distance to the farther end of its interval.
func (s *Speed) cell() string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%s ±%3.0f %%", s.text(), 100*math.Max(s.High/s.TS-1, 1-s.Low/s.TS))
}

func (s *Speed) cost() string {
	if s == nil || s.Cost == nil {
		return "-"
	}
	currency := report.OneLine(s.Cost.Currency)
	if s.Estimated {
		return mark + strings.TrimSpace(result.FormatEstimate(s.Cost.PerMillion)+" "+currency)
	}
	return strings.TrimSpace(result.FormatRate(s.Cost.PerMillion) + " " + currency)
}

// Write writes a result in one of Formats. width limits a table, in columns; 0: no limit.
func Write(w io.Writer, format string, r Result, width int) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	pp, tg := prompt.String()+" t/s", gen.String()+" t/s"
	header := table.Row{"model", "params", "memory", "fits", pp, tg}
	priced := slices.ContainsFunc(r.Rows, func(row Row) bool {
		return row.Prompt != nil && row.Prompt.Cost != nil || row.Gen != nil && row.Gen.Cost != nil
	})
	ppCost, tgCost := "10⁶ prompt tokens", "10⁶ generated"
	if priced {
		header = append(header, ppCost, tgCost)
	}
	var cells []table.Row
	for _, row := range r.Rows {
		fits := "?"
		if row.Fits != nil {
			fits = map[bool]string{true: "yes", false: "no"}[*row.Fits]
		}
		line := table.Row{row.Name, params(row.Params), humanize.IBytes(row.MemoryBytes), fits, row.Prompt.cell(), row.Gen.cell()}
		if priced {
			line = append(line, row.Prompt.cost(), row.Gen.cost())
		}
		cells = append(cells, line)
	}
	lines, between, rendered := r.lines(), "\n", ""
	if format == "md" {
		t := table.NewWriter()
		t.AppendHeader(header)
		t.AppendRows(cells)
		rendered, between = t.RenderMarkdown()+"\n", "\n\n"
		lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	} else {
		rendered = report.Table(header, cells, report.TableOptions{
			Right: []string{"params", "memory", pp, tg, ppCost, tgCost}, Expendable: []string{"params", "fits", "memory", ppCost, tgCost}, Width: width,
		})
	}
	_, err := fmt.Fprintf(w, "%s\n%s\n", rendered, strings.Join(lines, between))
	return err
}

// params is a number of parameters as in the names of models: 135M or 6.7B.
func params(n uint64) string {
	if n < 1e9 {
		return fmt.Sprintf("%.0fM", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1fB", float64(n)/1e9)
}

// lines stand below the table.
func (r Result) lines() []string {
	lines := []string{
		fmt.Sprintf("%sestimated from models with fewer layers; ±: where %.0f %% of other runs would be", mark, 100*estimate.Confidence),
		fmt.Sprintf("synthetic weights of the published files' shapes; measured in %.0f s", r.TookS),
	}
	for _, row := range r.Rows {
		if row.Reason != "" {
			lines = append(lines, row.Name+": "+report.OneLine(row.Reason))
		}
	}
	for _, d := range r.Limits {
		lines = append(lines, "limits: "+report.OneLine(roofline.Sentence(d)))
	}
	if r.Busy != "" {
		lines = append(lines, "the machine was busy: "+report.OneLine(r.Busy))
	}
	if r.Quote != "" {
		lines = append(lines, "", r.Quote)
	}
	return lines
}

// quote is the result in one sentence: the smallest model, the largest that fits, and the
// first that does not.
func (r Result) quote() string {
	var told []string
	say := func(row Row) { told = append(told, fmt.Sprintf("%s %s t/s", row.Name, row.Gen.text())) }
	fits := func(row Row) bool { return row.Gen != nil && (row.Fits == nil || *row.Fits) }
	first := slices.IndexFunc(r.Rows, fits)
	if first >= 0 {
		say(r.Rows[first])
	}
	for i := len(r.Rows) - 1; i > first && first >= 0; i-- {
		if fits(r.Rows[i]) {
			say(r.Rows[i])
			break
		}
	}
	for _, row := range r.Rows {
		if row.Gen != nil && row.Fits != nil && !*row.Fits {
			say(row)
			told[len(told)-1] += fmt.Sprintf(" if it had %s of memory", humanize.IBytes(row.MemoryBytes))
			break
		}
	}
	if len(told) == 0 {
		return ""
	}
	return report.OneLine(fmt.Sprintf("%s, %s, generates with %s (%v, 4 bits, llama.cpp %s).", r.Machine, result.Count(r.Threads, "thread"), strings.Join(told, ", "), gen, r.Build))
}
