package main

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"gonum.org/v1/gonum/stat"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// What verdicts must reach.
const (
	mostFalse  = 0.05 // of the A/A rows
	leastFound = 0.90 // of the pairs with this slowdown of a generation and so many runs a side
	slowdown   = 0.05
	runsASide  = 5
)

// slowdowns are the parts by which a repetition takes longer. The first are the A/A pairs.
var slowdowns = []float64{0, 0.03, 0.05, 0.10}

// run holds the records of one process, one of each test.
type run []result.Record

// split tells runs apart: a new one begins where a test comes again. All must have the same
// tests in the same order.
func split(records []result.Record) ([]run, error) {
	var runs []run
	for _, r := range records {
		last := len(runs) - 1
		if last < 0 || slices.ContainsFunc(runs[last], func(before result.Record) bool { return before.Test() == r.Test() }) {
			runs = append(runs, run{})
			last++
		}
		runs[last] = append(runs[last], r)
	}
	for i, r := range runs {
		if !slices.EqualFunc(r, runs[0], func(a, b result.Record) bool { return a.Test() == b.Test() }) {
			return nil, fmt.Errorf("run %d has other tests than the first", i+1)
		}
	}
	return runs, nil
}

// pair is the indices of the runs of two sides.
type pair [2][]int

// form forms at most count pairs of sides of size runs each, from n runs in the order in
// which they were measured. Each pair takes 2·size runs that follow one another; the sides
// take turns, and take turns to be first. The pairs begin at places that are equally far
// from one another, so pairs share runs if there are more than n/(2·size).
func form(n, size, count int) []pair {
	places := max(0, n-2*size+1)
	count = min(count, places)
	var pairs []pair
	for i := range count {
		first := i * (places - 1) / max(1, count-1)
		var p pair
		for turn := range size {
			lead := (turn + i) % 2
			p[lead] = append(p[lead], first+2*turn)
			p[1-lead] = append(p[1-lead], first+2*turn+1)
		}
		pairs = append(pairs, p)
	}
	return pairs
}

// slower is a record whose repetitions took longer by a part: 0.05 is 5 %.
func slower(r result.Record, by float64) result.Record {
	r.AvgNs = int64(math.Round(float64(r.AvgNs) * (1 + by)))
	r.AvgTS /= 1 + by
	r.SamplesNs, r.SamplesTS = slices.Clone(r.SamplesNs), slices.Clone(r.SamplesTS)
	for i := range r.SamplesNs {
		r.SamplesNs[i] = int64(math.Round(float64(r.SamplesNs[i]) * (1 + by)))
	}
	for i := range r.SamplesTS {
		r.SamplesTS[i] /= 1 + by
	}
	return r
}

// tally counts the verdicts about one test in pairs of one size with one slowdown.
type tally struct {
	test     result.Test
	size     int // runs a side
	apart    int // pairs that share no run
	by       float64
	pairs    int
	verdicts map[compare.Verdict]int // empty: the row was not compared
	means    map[compare.Verdict]int // by the ratio of means
}

// hits is the share of pairs with a verdict that says that a side is slower; of A/A pairs,
// also that it is faster.
func (t tally) hits(verdicts map[compare.Verdict]int) float64 {
	n := verdicts[compare.Slower]
	if t.by == 0 {
		n += verdicts[compare.Faster]
	}
	return float64(n) / float64(t.pairs)
}

// count compares the sides of all pairs of one size.
func count(runs []run, size, most int) ([]tally, error) {
	if len(runs) == 0 {
		return nil, errors.New("no runs")
	}
	var tallies []tally
	pairs := form(len(runs), size, most)
	for _, r := range runs[0] {
		if len(pairs) == 0 {
			break
		}
		for _, by := range slowdowns {
			tallies = append(tallies, tally{r.Test(), size, min(len(pairs), len(runs)/(2*size)), by, len(pairs), map[compare.Verdict]int{}, map[compare.Verdict]int{}})
		}
	}
	for _, p := range pairs {
		for _, by := range slowdowns {
			base, other := sideOf("base", runs, p[0], 0), sideOf("other", runs, p[1], by)
			c, err := compare.Compare([]compare.Side{base, other}, compare.DefaultOptions())
			if err != nil && !errors.Is(err, compare.ErrNoRow) {
				return nil, err
			}
			for i := range tallies {
				t := &tallies[i]
				if t.by != by {
					continue
				}
				verdict := compare.Verdict("")
				if c != nil {
					verdict = verdictOf(c, t.test)
				}
				t.verdicts[verdict]++
				t.means[byMeans(base, other, t.test, compare.DefaultOptions().Margin)]++
			}
		}
	}
	return tallies, nil
}

// sideOf is a side of the runs at indices, slowed down.
func sideOf(label string, runs []run, indices []int, by float64) compare.Side {
	side := compare.Side{Label: label}
	for _, i := range indices {
		var records []result.Record
		for _, r := range runs[i] {
			records = append(records, slower(r, by))
		}
		side.Runs = append(side.Runs, compare.Run{Records: records})
	}
	return side
}

// verdictOf is the verdict about a test; empty if it was not compared.
func verdictOf(c *compare.Comparison, test result.Test) compare.Verdict {
	for _, row := range c.Rows {
		if row.Test == test && row.Cells[1].Ratio != nil {
			return row.Cells[1].Ratio.Verdict
		}
	}
	return ""
}

// byMeans is the verdict of the ratio of the sides' mean speeds. compare-llama-bench.py
// prints this ratio and no interval, so its reader can only ask whether it is beyond a
// margin.
func byMeans(base, other compare.Side, test result.Test, margin float64) compare.Verdict {
	mean := func(s compare.Side) float64 {
		var speeds []float64
		for _, run := range s.Runs {
			for _, r := range run.Records {
				if r.Test() == test {
					speeds = append(speeds, r.AvgTS)
				}
			}
		}
		return stat.Mean(speeds, nil)
	}
	switch ratio := mean(other) / mean(base); {
	case ratio > 1+margin:
		return compare.Faster
	case ratio < 1-margin:
		return compare.Slower
	default:
		return compare.Same
	}
}

// shortfalls say what verdicts do not reach. The A/A rows of all tests and sizes count
// together.
func shortfalls(tallies []tally) (missed []string) {
	wrong, rows := 0.0, 0
	for _, t := range tallies {
		if t.by == 0 {
			wrong += t.hits(t.verdicts) * float64(t.pairs)
			rows += t.pairs
		}
	}
	if share := wrong / float64(rows); share > mostFalse {
		missed = append(missed, fmt.Sprintf("%.1f %% of the A/A rows have a false verdict, at most %.0f %% may", share*100, mostFalse*100))
	}
	for _, t := range tallies {
		if hits := t.hits(t.verdicts); t.by == slowdown && t.size == runsASide && t.test.Kind() == result.TextGeneration && hits < leastFound {
			missed = append(missed, fmt.Sprintf("%s, %s a side: a slowdown of %.0f %% is found in %.0f %%, and must be in %.0f %%",
				t.test, result.Count(t.size, "run"), t.by*100, hits*100, leastFound*100))
		}
	}
	return missed
}

// render has a line for each test and size. Beside each share of compare stands that of the
// ratio of means.
func render(tallies []tally) string {
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	w.Style().Format.Header = text.FormatDefault
	header := table.Row{"test", "runs a side", "pairs", "share no run"}
	for _, by := range slowdowns {
		name := "A/A: false"
		if by > 0 {
			name = fmt.Sprintf("%.0f %% found", by*100)
		}
		header = append(header, name)
	}
	w.AppendHeader(append(header, "not compared", "slowed, but same or faster"))
	for i := 0; i < len(tallies); i += len(slowdowns) {
		row := table.Row{tallies[i].test, tallies[i].size, tallies[i].pairs, tallies[i].apart}
		none, wrong := 0, 0
		for _, t := range tallies[i : i+len(slowdowns)] {
			row = append(row, fmt.Sprintf("%3.0f %% (means %.0f %%)", 100*t.hits(t.verdicts), 100*t.hits(t.means)))
			none += t.verdicts[""]
			if t.by > 0 {
				wrong += t.verdicts[compare.Same] + t.verdicts[compare.Faster]
			}
		}
		w.AppendRow(append(row, none, wrong))
	}
	return w.Render()
}

// renderRuns has a line for each test: how much its speed differs within and between runs.
func renderRuns(runs []run) string {
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	w.Style().Format.Header = text.FormatDefault
	w.AppendHeader(table.Row{"test", "runs", "median t/s", "repetition ms", "within a run", "between runs", "between neighbours", "doubtful", "invalid"})
	for i, first := range runs[0] {
		var logs, steps, within, ms []float64
		judged := map[result.Judgement]int{}
		for n, r := range runs {
			s, err := stats.New(r[i].SamplesTS)
			if err != nil {
				continue
			}
			logs = append(logs, math.Log(s.Median()))
			if cv, ok := s.CV(); ok {
				within = append(within, cv)
			}
			ms = append(ms, float64(first.Test().Tokens())/s.Median()*1000)
			if n%2 == 1 && len(logs) > 1 {
				steps = append(steps, (logs[len(logs)-1]-logs[len(logs)-2])/math.Sqrt2)
			}
			if v := r[i].Ext.Verdict; v != nil {
				judged[v.Verdict]++
			}
		}
		share := func(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) }
		w.AppendRow(table.Row{
			first.Test(), len(runs), fmt.Sprintf("%.1f", math.Exp(stat.Mean(logs, nil))), fmt.Sprintf("%.0f", stat.Mean(ms, nil)),
			share(stat.Mean(within, nil)), share(stat.StdDev(logs, nil)), share(stat.StdDev(steps, nil)), judged[result.Doubtful], judged[result.Invalid],
		})
	}
	return w.Render()
}
