//go:build cgo && parity

// Command parity proves that this program's figures are llama-bench's. It
// alternates programs on one machine and prints ratios of medians beside the
// noise floor of the same run, the ratio of a program with itself.
//
//	parity               llama-bench against this program, and in process
//	parity -equivalence  a model file against synthetic weights
//	parity -memory       resident memory over 200 runs, and against plain C
//	parity -prefetch     tests beside a background download, and a run's wall time
//	parity -abort NAME   abort latency on a model's shape, and its longest node
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// options are the flags.
type options struct {
	pairs, repetitions, inProcess, aborts, loads int
	prompts, gens                                string
	threads                                      int
	program, tool, model, dir                    string
	loadMode                                     string // of the file, for -equivalence
	arch                                         string // what -equivalence compares
}

const confidence = 0.95

func main() {
	log.SetFlags(0)
	log.SetPrefix("parity: ")
	var o options
	flag.IntVar(&o.pairs, "pairs", 20, "alternations of the programs for each test, at least 10 for a verdict")
	flag.IntVar(&o.repetitions, "r", 2, "repetitions in each process: short ones alternate faster than the machine changes")
	flag.IntVar(&o.inProcess, "in-process", 400, "alternations inside one process, at least 60 for a verdict")
	flag.IntVar(&o.loads, "loads", 15, "loads of each model, for -equivalence")
	flag.IntVar(&o.aborts, "aborts", 100, "aborts of each test, for -abort")
	flag.StringVar(&o.prompts, "p", "", "prompt lengths (default 16,128,512; 128,512 for -equivalence)")
	flag.StringVar(&o.gens, "n", "", "generation lengths (default 16,128; 32 for -equivalence)")
	flag.IntVar(&o.threads, "t", runtime.NumCPU(), "threads")
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "this program")
	flag.StringVar(&o.tool, "llama-tool", "scripts/llama-tool", "runs a tool of the same packages")
	flag.StringVar(&o.model, "model", "SmolLM-135M.Q4_K_M.gguf", "default model to compare on")
	flag.StringVar(&o.arch, "arch", architectures, "what to compare, for -equivalence: architectures, or names of default models")
	flag.StringVar(&o.loadMode, "load-mode", "mmap", "how the file is loaded, for -equivalence: mmap, none")
	equivalence := flag.Bool("equivalence", false, "compare a file with synthetic weights")
	memory := flag.Bool("memory", false, "watch resident memory")
	prefetch := flag.Bool("prefetch", false, "measure tests beside downloads, and runs that keep them off")
	abort := flag.String("abort", "", "measure aborts on the shape of this default model")
	flag.Parse()

	dir, err := os.MkdirTemp("", "parity-")
	if err != nil {
		log.Fatal(err)
	}
	o.dir = dir
	var ok bool
	switch {
	case *abort != "":
		ok, err = aborts(o, *abort)
	case *memory:
		ok, err = watchMemory(o)
	case *prefetch:
		ok, err = comparePrefetch(o)
	case *equivalence:
		ok, err = compareWeights(o)
	default:
		ok, err = compareWithLlamaBench(o)
	}
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
	if !ok {
		os.Exit(1)
	}
}

// file writes the model, with weights of a seed, to a file.
func (o options) file(seed int) (string, error) {
	path := filepath.Join(o.dir, fmt.Sprintf("seed%d", seed), o.model)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	out, err := exec.Command(o.program, "models", "synth", o.model, "--seed", strconv.Itoa(seed), "-o", path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("write the model: %w: %s", err, out)
	}
	return path, nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// program is one of the two that are compared: a command that prints records
// when it is given a test.
type program struct {
	name string
	args []string
}

func (o options) llamaBench(model string) program {
	return program{"llama-bench", []string{
		o.tool, "llama-bench", "-m", model,
		"-r", strconv.Itoa(o.repetitions), "-t", strconv.Itoa(o.threads), "-fa", "1", "-o", "jsonl",
	}}
}

func (o options) ours(name, model, weights string) program {
	return program{name, []string{
		o.program, "run", "-m", model, "--weights", weights,
		"-r", strconv.Itoa(o.repetitions), "-t", strconv.Itoa(o.threads), "-o", "jsonl",
		"--timeout", "0s", "-q", "--results-dir", filepath.Join(o.dir, "runs"),
	}}
}

// tests are those of the length flags.
func (o options) tests() ([]result.Test, error) {
	var tests []result.Test
	for _, kind := range []struct {
		lengths string
		test    func(int) result.Test
	}{
		{o.prompts, func(n int) result.Test { return result.Test{Prompt: n} }},
		{o.gens, func(n int) result.Test { return result.Test{Gen: n} }},
	} {
		for text := range strings.SplitSeq(kind.lengths, ",") {
			n, err := strconv.Atoi(text)
			if err != nil {
				return nil, fmt.Errorf("length %q is not a number", text)
			}
			if n > 0 {
				tests = append(tests, kind.test(n))
			}
		}
	}
	return tests, nil
}

// rate runs one test in a process of its own: the median rate of its
// repetitions, in tokens/second.
func (p program) rate(t result.Test) (float64, error) {
	cmd := exec.Command(p.args[0], append(p.args[1:len(p.args):len(p.args)], "-p", strconv.Itoa(t.Prompt), "-n", strconv.Itoa(t.Gen))...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", p.name, err, stderr.Bytes())
	}
	records, err := report.ReadRecords(&stdout)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.name, err)
	}
	if len(records) != 1 || records[0].Test() != t {
		return 0, fmt.Errorf("%s: %d records, not one of %v", p.name, len(records), t)
	}
	s, err := stats.New(records[0].SamplesTS)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.name, err)
	}
	return s.Median(), nil
}

// compareWithLlamaBench is the parity report.
func compareWithLlamaBench(o options) (bool, error) {
	setDefault(&o.prompts, "16,128,512")
	setDefault(&o.gens, "16,128")
	model, err := o.file(1)
	if err != nil {
		return false, err
	}
	fmt.Printf("%s, %d threads, %d pairs of processes for each test, %d repetitions each\n", o.model, o.threads, o.pairs, o.repetitions)
	ok, err := compare(o, o.llamaBench(model), o.ours("benchmark-llm", model, "file"))
	if err != nil {
		return false, err
	}
	inside, err := compareInProcess(o, model)
	return ok && inside, err
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// compare alternates, test by test, a, a again and b, in turning order, and
// prints the ratio b/a beside a/a. It tells whether every ratio is within.
func compare(o options, a, b program) (bool, error) {
	tests, err := o.tests()
	if err != nil || len(tests) == 0 {
		return err == nil, err
	}
	t := newTable()
	t.AppendHeader(table.Row{"test", a.name + " t/s", b.name + " t/s", "ratio (95 %)", "noise floor", "verdict"})
	var ratios []float64
	ok := true
	for _, test := range tests {
		first, again, other, err := series(o, test, a, b)
		if err != nil {
			return false, err
		}
		ab, err := stats.PairedRatioOfMedians(other, first, confidence)
		if err != nil {
			return false, err
		}
		aa, err := stats.PairedRatioOfMedians(again, first, confidence)
		if err != nil {
			return false, err
		}
		verdict := stats.Within(ab.Interval, aa.Interval)
		ok = ok && verdict == stats.WithinNoise
		ratios = append(ratios, ab.Value)
		t.AppendRow(table.Row{test, median(first), median(other), interval(ab), interval(aa), verdict})
	}
	fmt.Println(t.Render())
	if len(ratios) > 2 { // two say little about a sign
		pooled, err := stats.PooledLogRatio(ratios, confidence)
		if err != nil {
			return false, err
		}
		sign := "no systematic sign"
		if !pooled.Contains(0) {
			sign = "a systematic sign"
			ok = false
		}
		fmt.Printf("pooled log-ratio over the tests: %+.4f (%+.4f…%+.4f), %s\n", pooled.Value, pooled.Low, pooled.High, sign)
	}
	return ok, nil
}

// series are the rates of one test by a, by a again and by b; the first round
// warms caches and clocks up and does not count.
func series(o options, test result.Test, a, b program) (first, again, other []float64, err error) {
	turns := []struct {
		program
		to *[]float64
	}{{a, &first}, {a, &again}, {b, &other}}
	for round := range o.pairs + 1 {
		for i := range turns {
			turn := turns[(round+i)%len(turns)]
			rate, err := turn.rate(test)
			if err != nil {
				return nil, nil, nil, err
			}
			if round > 0 {
				*turn.to = append(*turn.to, rate)
			}
		}
		fmt.Fprintf(os.Stderr, "\r%v: %d of %d pairs   ", test, round, o.pairs)
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return first, again, other, nil
}

func median(x []float64) string {
	s, err := stats.New(x)
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", s.Median())
}

func interval(e stats.Estimate) string {
	return fmt.Sprintf("%.4f (%.4f…%.4f)", e.Value, e.Interval.Low, e.Interval.High)
}

func newTable() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleDefault)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.Style().Box.PaddingLeft = ""
	return t
}
