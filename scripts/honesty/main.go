// Honesty runs the same tests of one model twice, by turns, and counts how often the
// median of one run lies inside the intervals of the other. An interval that claims a
// confidence must be right about as often.
//
// With -until it measures what `run --until` costs and how often it is right.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

type options struct {
	program, model string
	prompt, gen    string
	rounds         int
	until          string
	spread         float64
	keep, from     string
}

func main() {
	var o options
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "the `program`")
	flag.StringVar(&o.model, "model", "SmolLM-135M.Q4_K_M.gguf", "default `model`, with synthetic weights")
	flag.StringVar(&o.prompt, "p", "16,64,256", "prompt `lengths`")
	flag.StringVar(&o.gen, "n", "8,32,64", "generation `lengths`")
	flag.IntVar(&o.rounds, "rounds", 10, "`number` of pairs of runs")
	flag.StringVar(&o.until, "until", "", "`precisions` to measure, as 5%,2%,1%")
	flag.Float64Var(&o.spread, "load-spread", stats.LoadSpread, "`share` by which loads differ")
	flag.StringVar(&o.keep, "keep", "", "write the records to `file`, two runs a line, for -from")
	flag.StringVar(&o.from, "from", "", "judge the records of `file` instead of measuring")
	flag.Parse()
	run := honesty
	if o.until != "" {
		run = precisions
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "honesty:", err)
		os.Exit(1)
	}
}

// measure runs the tests once and returns the records and the time it took.
func measure(o options, more ...string) ([]result.Record, time.Duration, error) {
	args := append([]string{"run", "-q", "-o", "jsonl", "-m", o.model, "--weights", "synthetic", "--timeout", "0s", "-p", o.prompt, "-n", o.gen}, more...)
	dir, err := os.MkdirTemp("", "honesty-")
	if err != nil {
		return nil, 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system clears it
	cmd := exec.Command(o.program, append(args, "--results-dir", dir)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	records, err := report.ReadRecords(bytes.NewReader(out))
	return records, time.Since(start), err
}

// count counts how often a claim was right.
type count struct{ right, all int }

func (c *count) add(right bool) {
	c.all++
	if right {
		c.right++
	}
}

func (c count) share() float64 { return float64(c.right) / float64(c.all) }

// String has the share and its standard error.
func (c count) String() string {
	p := c.share()
	return fmt.Sprintf("%5.1f %% ± %.1f", p*100, 100*math.Sqrt(p*(1-p)/float64(c.all)))
}

// A pair has one record of each run.
type pair [2]result.Record

// valid says whether the verdicts found nothing that could have moved either speed.
func (p pair) valid() bool {
	for _, r := range p {
		if r.Ext.Verdict == nil || r.Ext.Verdict.Verdict != result.Valid {
			return false
		}
	}
	return true
}

func honesty(o options) error {
	rounds, err := measured(o)
	if err != nil {
		return err
	}
	pairs := map[string][]pair{}
	var order []string
	for _, runs := range rounds {
		if len(runs[0]) != len(runs[1]) {
			return fmt.Errorf("runs with %d and %d records", len(runs[0]), len(runs[1]))
		}
		for i := range runs[0] {
			name := runs[0][i].Test().String()
			if !slices.Contains(order, name) {
				order = append(order, name)
			}
			pairs[name] = append(pairs[name], pair{runs[0][i], runs[1][i]})
		}
	}

	var interval, again, validInterval, validAgain count
	var claimed, expected float64
	fmt.Printf("%-8s %10s %12s %12s %14s %14s\n", "test", "median t/s", "within a run", "between runs", "in ci", "in again")
	var between []float64
	for _, name := range order {
		var ci, next count
		var medians, within []float64
		for _, p := range pairs[name] {
			for side := range 2 {
				first, second := sampleOf(p[side]), sampleOf(p[1-side])
				medians = append(medians, first.Median())
				cv, _ := first.CV()
				within = append(within, cv)
				in, ok := first.MedianCI(0.95)
				after, okAgain := first.Again(0.95, o.spread)
				if !ok {
					return errors.New("a record has too few repetitions")
				}
				claimed = in.Confidence
				expected = insideExtremes(first.N(), second.N())
				inside, insideAgain := in.Contains(second.Median()), after.Contains(second.Median())
				ci.add(inside)
				if p.valid() {
					validInterval.add(inside)
				}
				if !okAgain { // it claims nothing
					continue
				}
				next.add(insideAgain)
				if p.valid() {
					validAgain.add(insideAgain)
				}
			}
		}
		interval.right, interval.all = interval.right+ci.right, interval.all+ci.all
		again.right, again.all = again.right+next.right, again.all+next.all
		mean, sd := stat.MeanStdDev(medians, nil)
		between = append(between, sd/mean)
		fmt.Printf("%-8s %10.1f %10.2f %% %10.2f %% %14s %14s\n", name, mean, 100*stat.Mean(within, nil), 100*sd/mean, ci, next)
	}
	fmt.Printf("\nci (claims %.2f %% for this load's median; %.1f %% expected for another run's): %v\n", claimed*100, expected*100, interval)
	fmt.Printf("again (claims 95 %% for another run's median; load spread %.2f %%): %v\n", o.spread*100, again)
	if n := validAgain.all; n > 0 {
		fmt.Printf("only where both records are valid, %d of %d: ci %v, again %v\n", n, again.all, validInterval, validAgain)
	} else {
		fmt.Println("in no pair both records are valid: measure on a quieter machine")
	}
	fmt.Printf("between runs: %.2f %% (root mean square)\n", 100*rms(between))
	return nil
}

// A round has the records of two runs.
type round [2][]result.Record

// measured are the rounds of -from, or new ones.
func measured(o options) ([]round, error) {
	var rounds []round
	if o.from != "" {
		f, err := os.Open(o.from)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // only read
		for d := json.NewDecoder(f); d.More(); {
			var r round
			if err := d.Decode(&r); err != nil {
				return nil, fmt.Errorf("%s: round %d: %w", o.from, len(rounds)+1, err)
			}
			rounds = append(rounds, r)
		}
		return rounds, nil
	}
	var kept bytes.Buffer
	for i := range o.rounds {
		var runs round
		for _, side := range []int{i % 2, 1 - i%2} { // the sides take turns to be first
			records, _, err := measure(o)
			if err != nil {
				return nil, err
			}
			runs[side] = records
		}
		rounds = append(rounds, runs)
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, o.rounds)
		if o.keep == "" {
			continue
		}
		if err := json.NewEncoder(&kept).Encode(runs); err != nil {
			return nil, err
		}
		if err := os.WriteFile(o.keep, kept.Bytes(), 0o644); err != nil {
			return nil, err
		}
	}
	return rounds, nil
}

func rms(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum / float64(len(x)))
}

func sampleOf(r result.Record) stats.Sample {
	s, err := stats.New(r.SamplesTS)
	if err != nil {
		panic(err) // the program writes no such record
	}
	return s
}

// insideExtremes is the probability that the median of m values lies between the
// extremes of n others, if all are independent and of one distribution: all orders of
// the n+m values are equally likely. m is odd.
func insideExtremes(n, m int) float64 {
	// The median is below all n if at least (m+1)/2 of the m are.
	below := 0.0
	for k := (m + 1) / 2; k <= m; k++ {
		// k of the m come first, then one of the n.
		below += choose(n+m-k-1, n-1) / choose(n+m, n)
	}
	return 1 - 2*below
}

func choose(n, k int) float64 {
	c := 1.0
	for i := range k {
		c = c * float64(n-i) / float64(i+1)
	}
	return c
}

// precisions measures runs with --until.
func precisions(o options) error {
	type tally struct {
		n            []float64
		took         time.Duration
		reached      int
		medians      []float64
		half         []float64
		test, wanted string
	}
	var all []*tally
	find := func(wanted, test string) *tally {
		for _, t := range all {
			if t.wanted == wanted && t.test == test {
				return t
			}
		}
		t := &tally{wanted: wanted, test: test}
		all = append(all, t)
		return t
	}
	for round := range o.rounds {
		for _, wanted := range strings.Split(o.until, ",") {
			records, _, err := measure(o, "--until", wanted)
			if err != nil {
				return err
			}
			for _, r := range records {
				t, p := find(wanted, r.Test().String()), r.Ext.Precision
				t.n = append(t.n, float64(len(r.SamplesNs)))
				for _, ns := range r.SamplesNs {
					t.took += time.Duration(ns)
				}
				if p.StoppedBy == result.StoppedByPrecision {
					t.reached++
				}
				t.medians = append(t.medians, r.Ext.Statistics.Median)
				half := math.Inf(1)
				if p.Reached != nil {
					half = *p.Reached
				}
				t.half = append(t.half, half)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
	}
	slices.SortStableFunc(all, func(a, b *tally) int { return cmp.Compare(a.test, b.test) })
	fmt.Printf("%-8s %6s %8s %12s %10s %16s %16s\n", "test", "until", "reached", "repetitions", "time", "within stated", "within wanted")
	for _, t := range all {
		// The reference is the median of all runs of the test, of every precision.
		var reference []float64
		for _, other := range all {
			if other.test == t.test {
				reference = append(reference, other.medians...)
			}
		}
		s, err := stats.New(reference)
		if err != nil {
			return err
		}
		var stated, within count
		var limit float64
		if _, err := fmt.Sscanf(t.wanted, "%g%%", &limit); err != nil {
			return err
		}
		for i, m := range t.medians {
			off := math.Abs(m/s.Median() - 1)
			stated.add(off <= t.half[i])
			within.add(off <= limit/100)
		}
		fmt.Printf("%-8s %6s %5d/%-2d %12.0f %10s %16s %16s\n", t.test, t.wanted, t.reached, len(t.n), stat.Mean(t.n, nil),
			(t.took / time.Duration(len(t.n))).Round(10*time.Millisecond), stated, within)
	}
	return nil
}
