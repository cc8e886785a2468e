package estimate

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Formats are the output formats, the default first.
func Formats() []string { return []string{"table", "md", "json"} }

// mark stands before every estimated speed.
const mark = "≈ "

// perMillion is the heading of the cost.
const perMillion = "cost of 10⁶ tokens"

// Write writes rows in one of Formats. width limits a table, in columns; 0: no limit.
func Write(w io.Writer, format string, rows []Row, width int) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	header := table.Row{"model", "test", "estimated t/s", "interval", "measured with", "needs", "fits"}
	checked := slices.ContainsFunc(rows, func(r Row) bool { return r.Full != nil })
	if checked {
		header = append(header, "measured t/s", "estimate off")
	}
	priced := slices.ContainsFunc(rows, func(r Row) bool { return r.Cost != nil })
	if priced {
		header = append(header, perMillion)
	}
	var cells []table.Row
	for _, r := range rows {
		speed, interval := "-", "-"
		if r.Speed > 0 {
			speed = mark + result.FormatEstimate(r.Speed)
			interval = result.FormatEstimate(r.Low) + " … " + result.FormatEstimate(r.High)
		}
		var depths []string
		for _, n := range r.Measured {
			depths = append(depths, fmt.Sprint(n))
		}
		fits := "?"
		if r.Fits != nil {
			fits = map[bool]string{true: "yes", false: "no"}[*r.Fits]
		}
		with := fmt.Sprintf("%s of %d layers", strings.Join(depths, " and "), r.Layers)
		row := table.Row{report.OneLine(r.Model), r.Test, speed, interval, with, humanize.IBytes(r.Needs), fits}
		if full := r.Full; full != nil {
			row = append(row, result.FormatRate(full.Speed), fmt.Sprintf("%+.1f %%", 100*full.Off))
		} else if checked {
			row = append(row, "-", "-")
		}
		if c := r.Cost; c != nil {
			row = append(row, strings.TrimSpace(mark+result.FormatEstimate(c.PerMillion)+" "+report.OneLine(c.Currency)))
		} else if priced {
			row = append(row, "-")
		}
		cells = append(cells, row)
	}
	if format == "md" {
		t := table.NewWriter()
		t.AppendHeader(header)
		t.AppendRows(cells)
		_, err := fmt.Fprintf(w, "%s\n\n%s\n", t.RenderMarkdown(), strings.Join(lines(rows), "\n\n"))
		return err
	}
	text := report.Table(header, cells, report.TableOptions{Right: []string{"estimated t/s", "needs", "measured t/s", "estimate off", perMillion}, Expendable: []string{"measured with", "needs", "fits"}, Width: width})
	_, err := fmt.Fprintf(w, "%s\n%s\n", text, strings.Join(lines(rows), "\n"))
	return err
}

// lines stand below the rows.
func lines(rows []Row) []string {
	all := []string{fmt.Sprintf("%sestimated from models with fewer layers, not measured; intervals of %.0f %%", mark, 100*Confidence)}
	for _, r := range rows {
		if r.Reason != "" {
			all = append(all, report.OneLine(fmt.Sprintf("%s, %s: not estimated: %s", r.Model, r.Test, r.Reason)))
		}
		if r.Speed > 0 && len(r.GPUs) > 0 && r.Fits != nil && !*r.Fits {
			all = append(all, report.OneLine(fmt.Sprintf("%s, %s: estimated as if %s had the memory for all layers; with layers on the CPU it is slower", r.Model, r.Test, strings.Join(r.GPUs, " and "))))
		}
		if r.CheckOff != nil {
			all = append(all, report.OneLine(fmt.Sprintf("%s, %s: the length that checks the cost of attention is off by %+.1f %%", r.Model, r.Test, 100**r.CheckOff)))
		}
	}
	return all
}
