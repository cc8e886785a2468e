// Estimates compares estimated speeds with measured ones: `benchmark-llm estimate --check`
// measures the full model in turn with the thin ones. It prints the error of each case,
// how often the interval holds the measured speed, and how far the full model is from
// itself: its repetitions' first half against their second. Without -keep, all of it has
// to run at once; with it, several calls with few -models add their cases to one file,
// which -from prints.
//
// With -fleet it does something else: it takes the speeds of two small models on many
// servers, predicts a third model from them by layers, bytes and operations, and compares
// the errors with those of a log-linear fit.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

type options struct {
	program, models, prompt, gen string
	cases, rounds, repetitions   int
	keep, from, fleet            string
}

func main() {
	var o options
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "the `program`")
	flag.StringVar(&o.models, "models", "SmolLM-135M.Q4_K_M.gguf,qwen1_5-0_5b-chat-q4_k_m.gguf,gemma-2b.Q4_K_M.gguf,llama-7b.Q4_K_M.gguf", "default `models`, with synthetic weights")
	flag.StringVar(&o.prompt, "p", "128,512", "prompt `lengths`")
	flag.StringVar(&o.gen, "n", "32", "generation `lengths`")
	flag.IntVar(&o.cases, "cases", 3, "`number` of estimates of each model")
	flag.IntVar(&o.rounds, "rounds", 2, "`number` of loads of each model in an estimate")
	flag.IntVar(&o.repetitions, "r", 3, "`number` of repetitions of each load")
	flag.StringVar(&o.keep, "keep", "", "`file` to which the estimates are added")
	flag.StringVar(&o.from, "from", "", "`file` of kept estimates, to be printed instead of measuring")
	flag.StringVar(&o.fleet, "fleet", "", "`file` of the fleet's results, as JSON lines in gzip")
	flag.Parse()
	run := check
	if o.fleet != "" {
		run = fleet
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "estimates:", err)
		os.Exit(1)
	}
}

// check estimates and measures, or reads what was kept, and prints all cases.
func check(o options) error {
	rows, err := kept(o.from)
	if err != nil {
		return err
	}
	if o.from == "" {
		if rows, err = estimated(o); err != nil {
			return err
		}
	}
	var all, apart, again []float64
	held := 0
	fmt.Println("| model | test | estimated t/s | interval | measured t/s | error | measured again |\n|---|---|---|---|---|---|---|")
	for _, r := range rows {
		if r.Full == nil || r.Speed == 0 {
			fmt.Printf("| %s | %s | - | | | %s | |\n", r.Model, r.Test, r.Reason)
			all = append(all, math.Inf(1))
			continue
		}
		apart = append(apart, 100*math.Abs(r.Speed/r.Full.Speed-1))
		all, again = append(all, 100*math.Abs(r.Full.Off)), append(again, 100*math.Abs(r.Full.Again))
		if r.Low <= r.Full.Speed && r.Full.Speed <= r.High {
			held++
		}
		fmt.Printf("| %s | %s | %.4g | %.4g … %.4g | %.4g | %+.1f %% | %+.1f %% |\n", r.Model, r.Test, r.Speed, r.Low, r.High, r.Full.Speed, 100*r.Full.Off, 100*r.Full.Again)
	}
	off, err := stats.New(all)
	if err != nil {
		return err
	}
	fmt.Printf("\n%d cases: median error %.1f %%, largest %.1f %%; the interval holds %d of them\n", off.N(), off.Median(), off.Max(), held)
	if medians, err := stats.New(apart); err == nil {
		fmt.Printf("the same by the medians of all repetitions, without their turns: median %.1f %%, largest %.1f %%\n", medians.Median(), medians.Max())
	}
	if floor, err := stats.New(again); err == nil {
		fmt.Printf("the full model against itself: median %.1f %%, largest %.1f %%\n", floor.Median(), floor.Max())
	}
	return nil
}

// estimated runs the estimates and keeps them.
func estimated(o options) (all []estimate.Row, err error) {
	for range o.cases {
		for _, model := range strings.Split(o.models, ",") {
			cmd := exec.Command(o.program, "estimate", "-q", "--check", "-o", "json", "-p", o.prompt, "-n", o.gen, "--rounds", fmt.Sprint(o.rounds), "-r", fmt.Sprint(o.repetitions), model)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil && len(out) == 0 {
				return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
			}
			var rows []estimate.Row
			if err := json.Unmarshal(out, &rows); err != nil {
				return nil, err
			}
			if err := keep(o.keep, rows); err != nil {
				return nil, err
			}
			all = append(all, rows...)
		}
	}
	return all, nil
}

// keep adds rows to a file of JSON lines; without a name it does nothing.
func keep(name string, rows []estimate.Row) error {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(f).Encode(rows), f.Close())
}

// kept reads what keep wrote, ordered by models.
func kept(name string) (all []estimate.Row, err error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var rows []estimate.Row
		if err := d.Decode(&rows); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, rows...)
	}
	slices.SortStableFunc(all, func(a, b estimate.Row) int { return cmp.Compare(a.Needs, b.Needs) })
	return all, nil
}

// quantiles describes errors, in percent.
func quantiles(name string, errs []float64) {
	slices.Sort(errs)
	s, err := stats.New(errs)
	if err != nil {
		return
	}
	fmt.Printf("| %s | %d | %.1f %% | %.1f %% |\n", name, s.N(), 100*s.Median(), 100*s.Quantile(0.9))
}
