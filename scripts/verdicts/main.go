// Command verdicts measures how often compare is right. It runs one small model many times,
// each time in a process of its own, and forms pairs of sides from these runs. The sides of a
// pair take turns, and no run is in both or twice in one.
//
// In an A/A pair both sides are as measured, so a row that is called faster or slower is a
// false verdict. In the other pairs one side is slower by a known part, exactly: its times are
// multiplied, as if its clock ran faster. All else about them is as measured. The real
// compare judges both. Beside it stands the rule of compare-llama-bench.py, the ratio of
// means, with the same margin.
//
// Usage:
//
//	verdicts [-runs N] [-o FILE]
//	verdicts -from FILE
//
// The exit code is 1 if more than 5 % of the A/A rows have a false verdict, or if a
// slowdown of 5 % of a generation is found in fewer than 90 % of the pairs of 5 runs a side.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// options are the flags of the measurement.
type options struct {
	program, model string
	prompt, gen    string
	threads        int
	repetitions    int
	runs           int
	limit          time.Duration
	file           string
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("verdicts: ")
	var o options
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "`path` of benchmark-llm")
	flag.StringVar(&o.model, "model", synth.Tiny, "default `model`, with synthetic weights")
	flag.StringVar(&o.prompt, "p", "512", "prompt `lengths`")
	flag.StringVar(&o.gen, "n", "256", "generation `lengths`")
	flag.IntVar(&o.threads, "t", 1, "`number` of threads")
	flag.IntVar(&o.repetitions, "r", 20, "`number` of repetitions of a test")
	flag.IntVar(&o.runs, "runs", 180, "`number` of runs")
	flag.DurationVar(&o.limit, "limit", 9*time.Minute, "end the measurement after this `time`, with the runs that there are")
	flag.StringVar(&o.file, "o", "bin/verdicts.jsonl", "`file` for the records")
	from := flag.String("from", "", "judge the records of this `file`; measure nothing")
	pairs := flag.Int("pairs", 100, "`number` of pairs of each size")
	sizes := flag.String("sizes", "1,3,5,10", "`numbers` of runs a side")
	flag.Parse()

	file := *from
	if file == "" {
		file = o.file
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if err := measure(ctx, o); err != nil {
			log.Fatal(err) //nolint:gocritic // the context dies with the process
		}
	}
	ok, err := judge(file, *pairs, *sizes)
	if err != nil {
		log.Fatal(err)
	}
	if !ok {
		os.Exit(1)
	}
}

// measure writes the records of all runs to o.file.
func measure(ctx context.Context, o options) error {
	if found := host.Busy(ctx, "/"); len(found) > 0 {
		log.Printf("the machine is busy, so the figures say little: %s", host.Texts(found))
	}
	f, err := os.Create(o.file)
	if err != nil {
		return err
	}
	defer f.Close()
	start := time.Now()
	n := 0
	for ; n < o.runs && ctx.Err() == nil && time.Since(start) < o.limit; n++ {
		cmd := exec.CommandContext(ctx, o.program, "run", "-q", "-o", "jsonl", "-m", o.model, "--weights", "synthetic", "--timeout", "0s", "--results-dir", "none",
			"-p", o.prompt, "-n", o.gen, "-r", strconv.Itoa(o.repetitions), "-t", strconv.Itoa(o.threads))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("run %d: %s: %w: %s", n+1, strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
		}
		if _, err := f.Write(out); err != nil {
			return err
		}
		if (n+1)%50 == 0 {
			log.Printf("run %d of %d", n+1, o.runs)
		}
	}
	log.Printf("%d runs in %s, their records are in %s", n, time.Since(start).Round(time.Second), o.file)
	return f.Close()
}

// judge forms and compares pairs of the runs in a file, and prints the tables. ok tells
// whether the verdicts are as they should be.
func judge(file string, pairs int, sizes string) (ok bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	records, err := report.ReadFile(f)
	if err != nil {
		return false, result.AtPath(file, err)
	}
	runs, err := split(records)
	if err != nil {
		return false, result.AtPath(file, err)
	}
	var found []tally
	for _, text := range strings.Split(sizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil || size < 1 {
			return false, fmt.Errorf("-sizes: %q is not a number of runs", text)
		}
		tallies, err := count(runs, size, pairs)
		if err != nil {
			return false, err
		}
		found = append(found, tallies...)
	}
	if len(found) == 0 {
		return false, errors.New("there are too few runs for a pair")
	}
	fmt.Println(renderRuns(runs))
	fmt.Println(render(found))
	missed := shortfalls(found)
	for _, text := range missed {
		fmt.Println(text)
	}
	return len(missed) == 0, nil
}
