//go:build cgo && parity

// Command parity checks that this program measures the same speed as llama-bench.
// It alternates programs on one machine and prints ratios of their speeds. Beside
// each ratio it prints the noise floor: the ratio of a program to itself, from the
// same run.
//
//	parity               compare llama-bench with this program, and in one process
//	parity -control      measure the effect of taking turns on llama-bench's samples
//	parity -equivalence  compare a model file with synthetic weights
//	parity -load         measure the stream of synthetic weights, loads and their memory
//	parity -memory       measure resident memory over 200 runs, and against plain C
//	parity -prefetch     measure tests beside a download, and a run's wall time
//	parity -abort NAME   measure abort latency on a model's shape, and its longest node
//	parity -peers        compare llama-bench with this program and go-llama.cpp
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// options are the flags.
type options struct {
	loads, turns, inProcess, aborts int
	piece                           int
	prompts, gens                   string
	threads                         int
	program, tool, model            string
	gollama                         string // path of gollama-peer, for -peers
	loadMode                        string // load mode of the file, for -equivalence
	arch                            string // architectures or models, for -equivalence
	gpuLayers                       int
	rpc, json, device               string
	only                            string // half of -prefetch

	dir     string        // temporary directory
	gate    string        // path of the library built from turns.c
	samples *json.Encoder // gets the rates of every turn; may be nil
}

// confidence is the confidence of all intervals.
const confidence = 0.95

// glibc reads its tunables when a program starts.
const (
	tunables   = "GLIBC_TUNABLES"
	askForHuge = "glibc.malloc.hugetlb=1" // asks for huge pages when memory is mapped
	// returnFreed fixes the threshold at its default. Otherwise glibc raises it and
	// keeps freed memory, so the next load would get the same pages.
	returnFreed = "glibc.malloc.mmap_threshold=131072"
)

// fewestLoads is the number of groups that stats.GroupedRatio needs.
const fewestLoads = 5

func main() {
	log.SetFlags(0)
	log.SetPrefix("parity: ")
	var o options
	flag.IntVar(&o.piece, "piece", 4<<10, "for -equivalence: `bytes` per write of the file; more than a memory page gives larger pages if the kernel has them")
	flag.IntVar(&o.turns, "turns", 0, "`number` of turns per load; 0: as many as take some seconds, or 8 for -equivalence")
	hugePages := flag.Bool("huge-pages", false, "run all programs with "+tunables+"="+askForHuge+", for huge pages if the kernel gives them on request")
	samples := flag.String("samples", "", "`file` to write the rates of every turn to, for the comparison with llama-bench and -equivalence")
	flag.IntVar(&o.inProcess, "in-process", 600, "`number` of alternations inside one process, at least 60 for a verdict")
	flag.IntVar(&o.loads, "loads", 0, "`number` of loads per program and test, at least 10 for a verdict (default 12; 60 for -equivalence, 15 for -peers, 7 for -load); contexts for -prefetch (default 10)")
	flag.IntVar(&o.aborts, "aborts", 100, "for -abort: `number` of aborts of each test")
	flag.StringVar(&o.prompts, "p", "", "prompt lengths in `tokens` (default 16,128,512; 128,512 for -equivalence and -peers)")
	flag.StringVar(&o.gens, "n", "", "generation lengths in `tokens` (default 16,128; 32 for -equivalence; 32,128 for -peers)")
	flag.IntVar(&o.threads, "t", runtime.NumCPU(), "`number` of threads")
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "`path` of benchmark-llm")
	flag.StringVar(&o.gollama, "gollama", "bin/gollama-peer", "for -peers: `path` of gollama-peer")
	flag.StringVar(&o.tool, "llama-tool", "scripts/llama-tool", "`path` of the script that runs llama-bench")
	flag.StringVar(&o.model, "model", "SmolLM-135M.Q4_K_M.gguf", "`name` of the model: a default model, or one of scripts/parity/testdata for the comparison with llama-bench and -prefetch")
	flag.StringVar(&o.arch, "arch", architectures, "for -equivalence: `names` of architectures or default models")
	flag.StringVar(&o.loadMode, "load-mode", "mmap", "for -equivalence: load `mode` of the file, mmap or none")
	equivalence := flag.Bool("equivalence", false, "compare a model file with synthetic weights")
	control := flag.Bool("control", false, "measure the effect of taking turns on llama-bench's samples")
	load := flag.Bool("load", false, "measure the stream of synthetic weights by type, loads and their memory")
	memory := flag.Bool("memory", false, "measure resident memory over many runs, and against plain C")
	flag.StringVar(&o.only, "only", "", "for -prefetch: `half` to measure, beside (tests beside downloads) or walls (wall times of runs)")
	prefetch := flag.Bool("prefetch", false, "measure tests beside downloads, and the wall times of runs that hold downloads back")
	flag.IntVar(&o.gpuLayers, "ngl", 0, "for -abort: `number` of layers on devices; -1: all")
	flag.StringVar(&o.rpc, "rpc", "", "for -abort: `address` of an RPC server whose device to use")
	flag.StringVar(&o.device, "device", "", "for -abort: `name` of the device to use (default: the library's choice)")
	flag.StringVar(&o.json, "json", "", "for -abort: `file` to write the figures to, in milliseconds")
	peers := flag.Bool("peers", false, "compare llama-bench with this program and go-llama.cpp")
	abort := flag.String("abort", "", "measure aborts on the shape of the default model of this `name`")
	flag.Parse()
	if o.loads != 0 && o.loads < fewestLoads {
		log.Fatalf("-loads %d is too few, at least %d are needed", o.loads, fewestLoads)
	}

	var ask []string
	if *hugePages {
		ask = append(ask, askForHuge)
	}
	if *equivalence {
		ask = append(ask, returnFreed)
	}
	if err := withTunables(ask); err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "parity-")
	if err != nil {
		log.Fatal(err)
	}
	o.dir = dir
	if *samples != "" {
		f, err := os.Create(*samples)
		if err != nil {
			log.Fatal(err)
		}
		defer f.Close()
		o.samples = json.NewEncoder(f)
	}
	var ok bool
	switch {
	case *control:
		ok, err = controlTurns(o)
	case *abort != "":
		ok, err = aborts(o, *abort)
	case *load:
		ok, err = measureLoads(o)
	case *peers:
		ok, err = comparePeers(o)
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

// file writes the model to a file and returns its path. flags are further flags of
// `models synth`.
func (o options) file(seed int, flags ...string) (string, error) {
	path := filepath.Join(o.dir, fmt.Sprintf("seed%d", seed), o.model)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	args := append([]string{"models", "synth", o.model, "--seed", strconv.Itoa(seed), "-o", path}, flags...)
	out, err := exec.Command(o.program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("write the model: %w: %s", err, out)
	}
	return path, nil
}

// program is a command to compare. It runs a test and prints its samples.
type program struct {
	name        string
	args        []string
	read        func(io.Reader, result.Test) ([]sample, error) // reads its stdout
	keepsEvents bool                                           // writes events to its results directory
}

func (o options) llamaBench(model string) program {
	return program{name: "llama-bench", read: fromRecord, args: []string{
		o.tool, "llama-bench", "-m", model, "-t", strconv.Itoa(o.threads), "-fa", "1", "-o", "jsonl",
	}}
}

func (o options) ours(model, weights string) program {
	return program{name: "benchmark-llm", read: fromRecord, keepsEvents: true, args: []string{
		o.program, "run", "-m", model, "--weights", weights, "-t", strconv.Itoa(o.threads), "-o", "jsonl", "--timeout", "0s", "-q",
	}}
}

// tests are the tests of the flags -p and -n.
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

// compareWithLlamaBench compares two processes of llama-bench and one of this
// program, which take turns. It then compares inside one process. It reports whether
// all ratios are within the noise.
func compareWithLlamaBench(o options) (bool, error) {
	model, err := o.quantized(o.model)
	if err != nil {
		return false, err
	}
	a, b := o.llamaBench(model), o.ours(model, "file")
	ok, err := compare(o, []string{a.name, b.name}, []program{a, a, b}, func(passes int) []side {
		return []side{{0, passes}, {1, passes}, {2, passes}}
	})
	if err != nil {
		return false, err
	}
	inside, err := compareInProcess(o, model)
	return ok && inside, err
}

// openTurn is the number of passes of a long turn, at whose end llama-bench runs as
// it does alone.
const openTurn = 8

// controlTurns measures the effect of turns on samples, in one process of
// llama-bench. It compares the last sample of the turns of compareWithLlamaBench
// with that of long turns.
func controlTurns(o options) (bool, error) {
	setDefault(&o.prompts, "16")
	setDefault(&o.gens, "16")
	model, err := o.file(1)
	if err != nil {
		return false, err
	}
	return compare(o, []string{"long turns", "turns"}, []program{o.llamaBench(model)}, func(passes int) []side {
		return []side{{0, openTurn}, {0, openTurn}, {0, passes}}
	})
}

// setDefault sets *s unless it has a value.
func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// compare compares three sides, of which the first two are alike. For each test it
// prints the ratio of the third side to both, and the noise floor: the ratio of the
// second to the first. It reports whether all ratios are within the noise.
func compare(o options, names []string, programs []program, sides func(passes int) []side) (bool, error) {
	setDefault(&o.prompts, "16,128,512")
	setDefault(&o.gens, "16,128")
	tests, err := o.tests()
	if err != nil {
		return false, err
	}
	if o.gate, err = o.buildGate(); err != nil {
		return false, err
	}
	o.loads = cmp.Or(o.loads, 12)
	fmt.Printf("%s, %d threads, %d loads of each program\n", o.model, o.threads, o.loads)
	t := newTable()
	t.AppendHeader(table.Row{"test", "turns", names[0] + " t/s", names[1] + " t/s", "ratio (95 %)", "noise floor", "verdict"})
	var ratios []float64
	ok := true
	for _, test := range tests {
		pass, err := o.passOf(programs[0], test)
		if err != nil {
			return false, err
		}
		turns := sides(passesOfTurn(pass))
		count := o.turnsOfLoad(pass, turns)
		samples, err := o.loadsOf(test, programs, turns, count)
		if err != nil {
			return false, err
		}
		j, err := judge([3][][]float64{ratesOf(samples[0]), ratesOf(samples[1]), ratesOf(samples[2])})
		if err != nil {
			return false, err
		}
		ok = ok && j.verdict == stats.WithinNoise
		ratios = append(ratios, j.ab.Value)
		t.AppendRow(append(table.Row{test, count}, j.cells()...))
	}
	fmt.Println(t.Render())
	signless, err := printSign(ratios)
	return ok && signless, err
}

// passOf measures the time of a pass of a test: the shortest of three.
func (o options) passOf(p program, t result.Test) (time.Duration, error) {
	cmd := p.command(t, 3)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", p.name, err, stderr.Bytes())
	}
	samples, err := p.read(&out, t)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.name, err)
	}
	fastest := slices.MaxFunc(samples, func(a, b sample) int { return cmp.Compare(a.rate, b.rate) })
	return time.Duration(float64(t.Tokens()) / fastest.rate * 1e9), nil
}

// secondsOfLoad is the approximate time of all turns of a load, and fewestTurns their
// least number. The speed differs by some per cent from load to load, for the whole
// life of a load. So there are many loads, each with turns for about as long as the
// loading takes.
const (
	secondsOfLoad = 6
	fewestTurns   = 2
)

// turnsOfLoad is the number of turns of each side in a load.
func (o options) turnsOfLoad(pass time.Duration, sides []side) int {
	if o.turns > 0 {
		return o.turns
	}
	passes := 0
	for _, s := range sides {
		passes += s.passes
	}
	return max(fewestTurns, int(secondsOfLoad*time.Second/(pass*time.Duration(passes))))
}

// loadsOf measures the samples of the sides, by side, load and turn.
func (o options) loadsOf(test result.Test, programs []program, sides []side, turns int) ([][][]sample, error) {
	series := make([][][]sample, len(sides))
	for load := range o.loads {
		samples, err := o.takeTurns(load, programs, sides, test, turns)
		if err != nil {
			return nil, err
		}
		if err := o.record(test, load, ratesOf(samples)); err != nil {
			return nil, err
		}
		for i, ofLoad := range complete(samples) {
			series[i] = append(series[i], ofLoad)
		}
		fmt.Fprintf(os.Stderr, "\r%v: %d of %d loads   ", test, load+1, o.loads)
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return series, nil
}

// record writes the rates of each side in a load to the file of -samples, if any.
func (o options) record(test result.Test, load int, rates [][]float64) error {
	if o.samples == nil {
		return nil
	}
	return o.samples.Encode(map[string]any{"model": o.model, "test": test.String(), "load": load, "rates": rates})
}

// newTable makes a table in the style of all reports.
func newTable() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleDefault)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.Style().Box.PaddingLeft = ""
	return t
}

// withTunables starts this program again, unless glibc already has these tunables.
func withTunables(ask []string) error {
	want := strings.Join(ask, ":")
	if want == "" || os.Getenv(tunables) == want {
		return nil
	}
	if err := os.Setenv(tunables, want); err != nil {
		return err
	}
	return fmt.Errorf("start again with %s=%s: %w", tunables, want, syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}
