// Estimates compares estimated speeds with measured ones: `benchmark-llm estimate` and
// `run` take turns on the same machine. It prints the error of each case, and how often
// the interval holds the measured speed.
//
// With -fleet it does something else: it takes the speeds of two small models on many
// servers, predicts a third model from them by layers, bytes and operations, and compares
// the errors with those of a log-linear fit.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

type options struct {
	program, models, prompt, gen string
	rounds                       int
	fleet                        string
}

func main() {
	var o options
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "the `program`")
	flag.StringVar(&o.models, "models", "SmolLM-135M.Q4_K_M.gguf,qwen1_5-0_5b-chat-q4_k_m.gguf,gemma-2b.Q4_K_M.gguf,llama-7b.Q4_K_M.gguf", "default `models`, with synthetic weights")
	flag.StringVar(&o.prompt, "p", "128,512", "prompt `lengths`")
	flag.StringVar(&o.gen, "n", "32", "generation `lengths`")
	flag.IntVar(&o.rounds, "rounds", 3, "`number` of pairs of estimate and run of each model")
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

// row is what this program reads of an estimate.
type row struct {
	Test   string  `json:"test"`
	Speed  float64 `json:"ts"`
	Low    float64 `json:"ts_low"`
	High   float64 `json:"ts_high"`
	Reason string  `json:"reason"`
}

// check lets estimates and runs take turns.
func check(o options) error {
	var all []float64
	held := 0
	fmt.Println("| model | test | estimated t/s | interval | measured t/s | error |\n|---|---|---|---|---|---|")
	for _, model := range strings.Split(o.models, ",") {
		for range o.rounds {
			rows, err := estimated(o, model)
			if err != nil {
				return err
			}
			speeds, err := measured(o, model)
			if err != nil {
				return err
			}
			for _, r := range rows {
				speed, ok := speeds[r.Test]
				if !ok || r.Speed == 0 {
					fmt.Printf("| %s | %s | - | | %.4g | %s |\n", model, r.Test, speed, r.Reason)
					continue
				}
				off := 100 * (r.Speed/speed - 1)
				all = append(all, math.Abs(off))
				if r.Low <= speed && speed <= r.High {
					held++
				}
				fmt.Printf("| %s | %s | %.4g | %.4g … %.4g | %.4g | %+.1f %% |\n", model, r.Test, r.Speed, r.Low, r.High, speed, off)
			}
		}
	}
	s, err := stats.New(all)
	if err != nil {
		return err
	}
	fmt.Printf("\n%d cases: median error %.1f %%, largest %.1f %%; the interval holds %d of them\n", s.N(), s.Median(), s.Max(), held)
	return nil
}

func output(program string, args ...string) ([]byte, error) {
	cmd := exec.Command(program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && len(out) == 0 {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return out, nil
}

func estimated(o options, model string) (rows []row, err error) {
	out, err := output(o.program, "estimate", "-q", "-o", "json", "-p", o.prompt, "-n", o.gen, model)
	if err != nil {
		return nil, err
	}
	return rows, json.Unmarshal(out, &rows)
}

// measured are the medians of a run, by test.
func measured(o options, model string) (map[string]float64, error) {
	out, err := output(o.program, "run", "-q", "-o", "jsonl", "-m", model, "--weights", "synthetic", "--timeout", "0s", "--results-dir", "none", "-p", o.prompt, "-n", o.gen)
	if err != nil {
		return nil, err
	}
	records, err := report.ReadRecords(bytes.NewReader(out))
	if err != nil {
		return nil, err
	}
	speeds := make(map[string]float64)
	for _, r := range records {
		speeds[r.Test().String()] = r.Ext.Statistics.Median
	}
	if len(speeds) == 0 {
		return nil, errors.New("the run has no record")
	}
	return speeds, nil
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
