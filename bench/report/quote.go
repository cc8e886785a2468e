package report

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// quoted is the maximum number of records of a Quote.
const quoted = 4

// Quote is the result of a short run on one line: model, median of each test, machine
// and build. Behind ± is the distance from the median to the farther end of its
// confidence interval, in percent, as benchstat shows it. Quote is empty if there is no
// record, or if there are more than four or of more than one model.
func Quote(records []result.Outcome) string {
	if len(records) == 0 || len(records) > quoted {
		return ""
	}
	var tests []string
	noted := 0
	for _, o := range records {
		s, err := stats.New(o.Record.SamplesTS)
		if err != nil || o.Model != records[0].Model {
			return ""
		}
		test := fmt.Sprintf("%s %s t/s", o.Test, result.FormatRate(s.Median()))
		if ci, ok := s.MedianCI(confidence); ok && s.Median() > 0 {
			test += fmt.Sprintf(" ± %.0f %%", 100*math.Max(ci.High/s.Median()-1, 1-ci.Low/s.Median()))
		}
		tests = append(tests, test)
		noted += len(warnings(o))
	}
	r := records[0].Record
	name := records[0].Model
	if r.Ext.Weights == result.SyntheticWeights {
		name += " (synthetic weights)"
	}
	all := make([]*result.Record, len(records))
	for i, o := range records {
		all[i] = o.Record
	}
	machine := joined(common(all, func(r *result.Record) string { return cmp.Or(r.GPUInfo, r.CPUInfo) }), common(all, threads), fmt.Sprintf("build %s (%d)", r.BuildCommit, r.BuildNumber))
	line := fmt.Sprintf("%s: %s; %s", name, strings.Join(tests, ", "), machine)
	if noted > 0 {
		line += "; " + result.Count(noted, "warning")
	}
	return printable(line)
}
