package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// AddCost gives a record the cost of its tokens at these prices. A price that is not given
// is the record's own. nil changes nothing. The error is result.ErrCurrencies.
func AddCost(r *result.Record, given *result.Prices) error {
	if given == nil {
		return nil
	}
	p := r.Ext.Cost.Prices()
	if given.Machine != nil {
		p.Machine = given.Machine
	}
	if given.Electricity != nil {
		p.Electricity = given.Electricity
	}
	if _, err := p.Currency(); err != nil {
		return fmt.Errorf("%s of %s: %w", r.Test(), r.ModelFilename, err)
	}
	speed := r.AvgTS
	if s, err := stats.New(r.SamplesTS); err == nil {
		speed = s.Median()
	}
	r.Ext.Cost = p.Cost(r.Test(), speed, r.Ext.Energy)
	return nil
}

// costColumn is the heading of what a million tokens cost. The column is shown if a record
// has a cost.
const costColumn = "cost of 1 M"

// columnsFor are the columns of the tables of models.
func columnsFor(models []*model) []string {
	names := slices.Clone(tableColumns)
	priced := slices.ContainsFunc(models, func(m *model) bool {
		return slices.ContainsFunc(m.records, func(r *result.Record) bool { return r.Ext.Cost != nil })
	})
	if priced {
		names = slices.Insert(names, slices.Index(names, "reps"), costColumn)
	}
	return names
}

// costs are the sentences about the cost and the energy of a model's tokens: of the tests
// that headline chooses.
func costs(records []*result.Record) []string {
	var lines []string
	var outcomes []result.Outcome
	for _, r := range records {
		outcomes = append(outcomes, result.Outcome{Model: r.ModelFilename, Test: r.Test(), Record: r})
	}
	for _, o := range telling(outcomes) {
		if c := o.Record.Ext.Cost; c != nil {
			lines = append(lines, fmt.Sprintf("%s: %s", o.Test, printable(c.Sentence())))
		}
		if line := energyLine(o.Record); line != "" {
			lines = append(lines, fmt.Sprintf("%s: %s", o.Test, line))
		}
	}
	return lines
}

// energyLine says what energy a token of a record takes; empty: it is not known.
func energyLine(r *result.Record) string {
	e := r.Ext.Energy
	if e == nil || len(e.JoulesPerToken.Known()) == 0 {
		return ""
	}
	parts := func(p result.Parts, unit string) string {
		var texts []string
		for _, part := range p.Known() {
			texts = append(texts, fmt.Sprintf("%s %s %s", part.Name, result.FormatRate(**part.Value), unit))
		}
		return strings.Join(texts, ", ")
	}
	line := "a token takes " + parts(e.JoulesPerToken, "J")
	if idle := parts(e.IdleWatts, "W"); idle != "" {
		line += "; idle " + idle
	}
	return line
}

// telling are the tests of the largest model that a headline quotes: the pp test nearest to
// 512 tokens and the tg test nearest to 128, llama-bench's defaults. Without these it is
// the first test. All outcomes have a record.
func telling(outcomes []result.Outcome) (chosen []result.Outcome) {
	if len(outcomes) == 0 {
		return nil
	}
	largest := outcomes[0]
	for _, o := range outcomes {
		if o.Record.ModelSizeBytes > largest.Record.ModelSizeBytes {
			largest = o
		}
	}
	for _, want := range []struct {
		kind   result.Kind
		tokens float64
	}{{result.PromptProcessing, 512}, {result.TextGeneration, 128}} {
		best := math.Inf(1)
		var nearest result.Outcome
		for _, o := range outcomes {
			far := math.Abs(math.Log(float64(o.Test.Tokens()) / want.tokens))
			if o.Model == largest.Model && o.Test.Kind() == want.kind && o.Test.Depth == 0 && far < best {
				best, nearest = far, o
			}
		}
		if nearest.Record != nil {
			chosen = append(chosen, nearest)
		}
	}
	if len(chosen) == 0 {
		chosen = []result.Outcome{largest}
	}
	return chosen
}

// costRows are the header and the rows of the table of costs. There are none without a
// cost.
func costRows(c *compare.Comparison) (header []string, rows [][]string) {
	two := len(c.Sides) == 2
	header = append([]string{"model", "test"}, c.Sides...)
	if two {
		header = append(header, "ratio", "95 % interval", "cost")
	}
	model := ""
	for _, r := range c.Rows {
		if !slices.ContainsFunc(r.Cells, func(cell compare.Cell) bool { return cell.Cost != nil }) {
			continue
		}
		row := []string{"", spaced(r.Test.String(), r.Settings)}
		if r.Model != model {
			row[0], model = r.Model, r.Model
		}
		for _, cell := range r.Cells {
			row = append(row, costCell(cell, !two))
		}
		if two {
			last := []string{"", "", ""}
			if q := costRatio(r.Cells[1]); q != nil {
				last = []string{fmt.Sprintf("%.3f", q.Value), fmt.Sprintf("%.3f…%.3f", q.Low, q.High), string(q.Verdict)}
			}
			row = append(row, last...)
		}
		rows = append(rows, row)
	}
	return header, rows
}

func costRatio(c compare.Cell) *compare.Cheapest {
	if c.Cost == nil {
		return nil
	}
	return c.Cost.Ratio
}

// costCell is the cost of a cell, with the ratio to the base if there is no column for it.
func costCell(c compare.Cell, ratio bool) string {
	if c.Cost == nil {
		return "–"
	}
	t := spaced(result.FormatRate(c.Cost.PerMillion), c.Cost.Currency)
	if q := costRatio(c); q != nil && ratio {
		t += fmt.Sprintf(" ×%.2f", q.Value)
		if q.Verdict == compare.UnclearCost {
			t += "?"
		}
	}
	return t
}

// costNote explains the table of costs.
func costNote(c *compare.Comparison) string {
	cheaper := "the side is cheaper than " + c.Sides[0] + "; ? marks an unclear difference"
	if len(c.Sides) == 2 {
		cheaper = c.Sides[1] + " is cheaper than " + c.Sides[0]
	}
	note := fmt.Sprintf("Costs are those of a million tokens, on a machine that does nothing else. A ratio below 1 means that %s.", cheaper)
	currencies := map[string]bool{}
	for _, r := range c.Rows {
		for _, cell := range r.Cells {
			if cell.Cost != nil {
				currencies[cell.Cost.Currency] = true
			}
		}
	}
	if len(currencies) > 1 {
		note += " Costs in different currencies are not compared."
	}
	return note
}

// costTable is the table of costs for a terminal; empty: no side has a cost.
func costTable(c *compare.Comparison, width int) string {
	header, rows := costRows(c)
	if len(rows) == 0 {
		return ""
	}
	var lines []table.Row
	for _, r := range rows {
		lines = append(lines, tableRow(r))
	}
	o := TableOptions{Width: width, Right: slices.Clone(header[2:])}
	if len(c.Sides) == 2 {
		o.Right, o.Expendable = header[2:len(header)-1], []string{"95 % interval"}
	}
	return "\n" + Table(tableRow(header), lines, o) + "\n" + wrap(printable(costNote(c)), "", width) + "\n"
}

// costMarkdown is the table of costs in Markdown; empty: no side has a cost.
func costMarkdown(c *compare.Comparison) string {
	header, rows := costRows(c)
	if len(rows) == 0 {
		return ""
	}
	t := table.NewWriter()
	t.Style().Markdown.PadContent = true
	var configs []table.ColumnConfig
	for i := 2; i < len(c.Sides)+2; i++ {
		configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
	escaped := func(texts []string) (row table.Row) {
		for _, s := range texts {
			row = append(row, escapeMarkdown(printable(s)))
		}
		return row
	}
	t.AppendHeader(escaped(header))
	for _, r := range rows {
		t.AppendRow(escaped(r))
	}
	return "\n" + t.RenderMarkdown() + "\n\n" + escapeMarkdown(printable(costNote(c))) + "\n"
}
