package rundir

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// Page reads sources as Sides does, for a report. Several sources are compared, across
// machines and libraries. A Pricer adds costs; it may be nil. Errors are those of Sides and
// of the Pricer, and result.ErrCurrencies.
func Page(args []string, parent string, priced Pricer) (report.Page, error) {
	sides, err := Sides(args, parent)
	if err != nil {
		return report.Page{}, err
	}
	prices, err := addCosts(sides, priced)
	if err != nil {
		return report.Page{}, err
	}
	var labels []string
	var page report.Page
	for i, side := range sides {
		labels = append(labels, side.Label)
		for _, source := range side.Runs {
			run, err := pageOf(source, parent)
			if err != nil {
				return report.Page{}, err
			}
			for _, o := range run.Outcomes {
				if o.Record == nil {
					continue
				}
				if err := report.AddCost(o.Record, prices[i]); err != nil {
					return report.Page{}, err
				}
			}
			run.Label = side.Label
			if len(side.Runs) > 1 {
				run.Label += " " + filepath.Base(source.Name)
			}
			page.Runs = append(page.Runs, run)
		}
	}
	page.Title = "Results of " + strings.Join(labels, ", ")
	if len(page.Runs) == 1 && page.Runs[0].Title != "" {
		page.Title = page.Runs[0].Title
	}
	if len(sides) > 1 {
		o := compare.DefaultOptions()
		o.Across = []string{"machine", "library"}
		if page.Comparison, err = compare.Compare(sides, o); err != nil {
			page.NoComparison = err.Error()
		}
	}
	return page, nil
}

// pageOf is what is known of a source. A results file tells its records only.
func pageOf(source compare.Run, parent string) (report.PageRun, error) {
	path, err := Find(source.Name, parent)
	if err != nil {
		return report.PageRun{}, err
	}
	about, outcomes, err := Read(path)
	switch {
	case err == nil:
		return about.pageRun(path, outcomes), nil
	case !errors.Is(err, ErrNotRun):
		return report.PageRun{}, err
	}
	run := report.PageRun{Document: report.Document{
		Title: "Results of " + filepath.Base(source.Name), Facts: []report.Fact{{Name: "file", Value: source.Name}},
	}}
	for i := range source.Records {
		run.Outcomes = append(run.Outcomes, outcomeOf(source.Records[i]))
	}
	return run, nil
}

// outcomeOf is the outcome of a record from a file. CSV of llama-bench has no
// repetitions: their mean stands for them, and a warning says so.
func outcomeOf(r result.Record) result.Outcome {
	if len(r.SamplesTS) == 0 || len(r.SamplesNs) != len(r.SamplesTS) {
		if len(r.SamplesTS) == 0 {
			r.SamplesTS = []float64{r.AvgTS}
			r.Ext.Warnings = append(r.Ext.Warnings, result.Warning{
				Code: result.WarnFewRepetitions, Message: "the file has no repetitions: the speed is their mean",
			})
		}
		r.SamplesNs = make([]int64, len(r.SamplesTS))
		for i, speed := range r.SamplesTS {
			if speed > 0 {
				r.SamplesNs[i] = int64(float64(r.Test().Tokens()) / speed * 1e9)
			}
		}
	}
	return result.Outcome{Model: r.ModelFilename, Test: r.Test(), Status: result.OK, Record: &r}
}

// pageRun is the run for its report.
func (d *Description) pageRun(path string, outcomes []result.Outcome) report.PageRun {
	run := report.PageRun{Document: report.Document{Title: "Run " + filepath.Base(path), Facts: d.facts(false), Outcomes: d.inOrder(outcomes)}}
	if d.Accounting != nil {
		run.Accounting = *d.Accounting
	}
	run.Command = shellLine(d.Command)
	if d.Selection.Timeout == nil && !d.Selection.Suite.GivenOrder {
		targets := d.Selection.Suite.Targets
		run.Targets = map[result.Kind][]report.Target{
			result.PromptProcessing: targetsOf(targets.Prompt), result.TextGeneration: targetsOf(targets.Generation),
		}
	}
	return run
}

func targetsOf(targets []suite.Target) (all []report.Target) {
	for _, t := range targets {
		all = append(all, report.Target(t))
	}
	return all
}

// shellLine is a command for a shell.
func shellLine(words []string) string {
	var quoted []string
	for _, w := range words {
		plain := w != "" && !strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("-_./:=,+@%", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		})
		if !plain {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		quoted = append(quoted, w)
	}
	return strings.Join(quoted, " ")
}
