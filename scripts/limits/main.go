// Limits measures the limits of the machine again and again, by turns with an independent
// C program that reads memory (scripts/stream.c). It prints how far the rates repeat, the
// ratio of the plain read to that program, and what share of the limit a generation with a
// model far larger than the caches reaches. It exits with code 1 if one of them misses its
// target. Run it on a quiet machine.
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
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// The targets.
const (
	spreadTarget = 0.03 // largest distance of a run from the median
	streamTarget = 0.05 // distance of the plain read from the other program, median of the turns
	shareTarget  = 1.03 // of the memory's limit, in a generation
)

type options struct {
	program, stream string
	types, model    string
	turns, threads  int
	gen             int
}

func main() {
	var o options
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "the `program`")
	flag.StringVar(&o.stream, "stream", "bin/stream", "scripts/stream.c, compiled")
	flag.StringVar(&o.types, "type", "q4_K,q6_K", "`types` of weights")
	flag.StringVar(&o.model, "model", "gemma-2b.Q4_K_M.gguf", "default `model` far larger than the caches, with synthetic weights; empty: none")
	flag.IntVar(&o.turns, "turns", 10, "`number` of turns")
	flag.IntVar(&o.threads, "t", 0, "`number` of threads (default: the program's)")
	flag.IntVar(&o.gen, "n", 128, "generation `length`")
	flag.Parse()
	if err := check(o); err != nil {
		fmt.Fprintln(os.Stderr, "limits:", err)
		os.Exit(1)
	}
}

func check(o options) error {
	var plain, stream []float64
	rates := map[string][]float64{}
	var names []string
	keep := func(name string, rate float64) {
		if _, ok := rates[name]; !ok {
			names = append(names, name)
		}
		rates[name] = append(rates[name], rate)
	}
	var seconds []float64
	for turn := range o.turns {
		limits, err := measure(o)
		if err != nil {
			return err
		}
		for _, t := range limits.Types {
			keep(t.Type+" matrix-vector", t.VectorBytesPerSecond)
			keep(t.Type+" matrix-matrix", t.MatrixOpsPerSecond)
		}
		keep("plain read", limits.ReadBytesPerSecond)
		seconds = append(seconds, limits.Elapsed.Seconds())
		other, err := read(o, limits)
		if err != nil {
			return err
		}
		plain, stream = append(plain, limits.ReadBytesPerSecond), append(stream, other)
		fmt.Printf("turn %d: plain read %s, stream.c %s\n", turn+1, result.FormatBytesPerSecond(limits.ReadBytesPerSecond), result.FormatBytesPerSecond(other))
	}
	var missed []string
	fmt.Printf("\n%-22s %12s %10s\n", "rate", "median G/s", "spread")
	for _, name := range append(names, "stream.c") {
		values := rates[name]
		if name == "stream.c" {
			values = stream
		}
		s := spread(values)
		fmt.Printf("%-22s %12.3f %8.1f %%\n", name, median(values)/1e9, 100*s)
		if name != "stream.c" && s > spreadTarget {
			missed = append(missed, fmt.Sprintf("%s repeats within %.1f %%, not %.0f %%", name, 100*s, 100*spreadTarget))
		}
	}
	var ratios []float64
	for i := range plain {
		ratios = append(ratios, plain[i]/stream[i])
	}
	ratio := median(ratios)
	fmt.Printf("\nplain read / stream.c: %.3f, of the turns %.3f … %.3f\n", ratio, slices.Min(ratios), slices.Max(ratios))
	if math.Abs(ratio-1) > streamTarget {
		missed = append(missed, fmt.Sprintf("the plain read is %.1f %% off stream.c, more than %.0f %%", 100*math.Abs(ratio-1), 100*streamTarget))
	}
	fmt.Printf("a measurement takes %.2f s, at most %.2f s\n", median(seconds), slices.Max(seconds))
	if o.model != "" {
		shares, err := shares(o)
		if err != nil {
			return err
		}
		fmt.Printf("%s, tg%d: %.1f %% of the memory's limit, in the fastest repetition %.1f %%\n", o.model, o.gen, 100*shares[0], 100*shares[1])
		if shares[0] > shareTarget {
			missed = append(missed, fmt.Sprintf("tg%d reaches more than %.0f %% of the limit", o.gen, 100*shareTarget))
		}
	}
	if len(missed) > 0 {
		return errors.New(strings.Join(missed, "; "))
	}
	return nil
}

// measure runs the command once.
func measure(o options) (result.DeviceLimits, error) {
	args := []string{"limits", "--device", "CPU", "--type", o.types, "-o", "json"}
	if o.threads > 0 {
		args = append(args, "-t", strconv.Itoa(o.threads))
	}
	out, err := output(o.program, args...)
	if err != nil {
		return result.DeviceLimits{}, err
	}
	var limits []result.DeviceLimits
	if err := json.Unmarshal(out, &limits); err != nil || len(limits) != 1 {
		return result.DeviceLimits{}, fmt.Errorf("%s limits: %d devices, %w", o.program, len(limits), err)
	}
	return limits[0], nil
}

// read runs the other program once, with as much memory and as many threads.
func read(o options, limits result.DeviceLimits) (float64, error) {
	cmd := exec.Command(o.stream, strconv.FormatUint(limits.WeightsBytes>>20, 10), "10")
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS="+strconv.Itoa(limits.Threads))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", o.stream, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// shares are those of the memory's limit in a generation: of the median and of the fastest
// repetition.
func shares(o options) ([2]float64, error) {
	dir, err := os.MkdirTemp("", "limits-")
	if err != nil {
		return [2]float64{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system clears it
	args := []string{"run", "-m", o.model, "--weights", "synthetic", "--limits", "-p", "0", "-n", strconv.Itoa(o.gen), "-r", "5", "--timeout", "0s", "--results-dir", dir, "-o", "jsonl"}
	if o.threads > 0 {
		args = append(args, "-t", strconv.Itoa(o.threads))
	}
	out, err := output(o.program, args...)
	if err != nil {
		return [2]float64{}, err
	}
	records, err := report.ReadRecords(bytes.NewReader(out))
	if err != nil {
		return [2]float64{}, err
	}
	for _, r := range records {
		if l := r.Ext.Limits; l != nil && l.MemoryShare != nil {
			return [2]float64{*l.MemoryShare, *l.MemoryShare * r.Ext.Statistics.Max / r.Ext.Statistics.Median}, nil
		}
	}
	return [2]float64{}, fmt.Errorf("%s: no record has a share of the memory's limit; the caches may hold the model", o.model)
}

func output(program string, args ...string) ([]byte, error) {
	cmd := exec.Command(program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is the largest distance from the median, as a share of it.
func spread(values []float64) (most float64) {
	m := median(values)
	for _, v := range values {
		most = max(most, math.Abs(v/m-1))
	}
	return most
}
