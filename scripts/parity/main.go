//go:build cgo && parity

// Command parity proves that this program's figures are llama-bench's. It
// alternates programs on one machine and prints ratios of medians beside the
// noise floor of the same run, the ratio of a program with itself.
//
//	parity               llama-bench against this program, and in process
//	parity -control      what taking turns does to llama-bench's samples
//	parity -equivalence  a model file against synthetic weights
//	parity -load         the stream of generated weights, loads and their memory
//	parity -memory       resident memory over 200 runs, and against plain C
//	parity -prefetch     tests beside a background download, and a run's wall time
//	parity -abort NAME   abort latency on a model's shape, and its longest node
//	parity -peers        llama-bench against this program and go-llama.cpp
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
	program, tool, model, dir       string
	gollama                         string // go-llama.cpp, for -peers
	loadMode                        string // of the file, for -equivalence
	arch                            string // what -equivalence compares
	gpuLayers                       int
	rpc, json                       string
	only                            string        // half of -prefetch
	gate                            string        // turns.c, compiled
	samples                         *json.Encoder // of every turn's; may be nil
}

const confidence = 0.95

// What glibc reads when a program starts.
const (
	tunables    = "GLIBC_TUNABLES"
	askForHuge  = "glibc.malloc.hugetlb=1"             // when it maps memory
	returnFreed = "glibc.malloc.mmap_threshold=131072" // its default, which it then leaves so: it raises it to keep what was freed, and the next load would get the same pages
)

// fewestLoads is how many groups stats.GroupedRatio needs.
const fewestLoads = 5

func main() {
	log.SetFlags(0)
	log.SetPrefix("parity: ")
	var o options
	flag.IntVar(&o.piece, "piece", 4<<10, "bytes of each write of the file, for -equivalence: more than a page of memory gives larger pages, where the kernel has such, which lie side by side")
	flag.IntVar(&o.turns, "turns", 0, "turns of each process with a model loaded, 0 for as many as take some seconds; for -equivalence: of each model, 0 for 8")
	hugePages := flag.Bool("huge-pages", false, "this and all programs with "+tunables+"="+askForHuge+": huge pages for all memory that is allocated, where the kernel gives them on request")
	samples := flag.String("samples", "", "write every turn's rates to this file, for the comparison with llama-bench and for -equivalence")
	flag.IntVar(&o.inProcess, "in-process", 600, "alternations inside one process, at least 60 for a verdict")
	flag.IntVar(&o.loads, "loads", 0, "loads of each program for each test, at least 10 for a verdict; of each model, for -equivalence (default 12; 60 for -equivalence, 15 for -peers); contexts, for -prefetch (default 10)")
	flag.IntVar(&o.aborts, "aborts", 100, "aborts of each test, for -abort")
	flag.StringVar(&o.prompts, "p", "", "prompt lengths (default 16,128,512; 128,512 for -equivalence and -peers)")
	flag.StringVar(&o.gens, "n", "", "generation lengths (default 16,128; 32 for -equivalence; 32,128 for -peers)")
	flag.IntVar(&o.threads, "t", runtime.NumCPU(), "threads")
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "this program")
	flag.StringVar(&o.gollama, "gollama", "bin/gollama-peer", "go-llama.cpp, for -peers")
	flag.StringVar(&o.tool, "llama-tool", "scripts/llama-tool", "runs a tool of the same packages")
	flag.StringVar(&o.model, "model", "SmolLM-135M.Q4_K_M.gguf", "model to compare on: a default one, or for the comparison with llama-bench and for -prefetch one of scripts/parity/testdata")
	flag.StringVar(&o.arch, "arch", architectures, "what to compare, for -equivalence: architectures, or names of default models")
	flag.StringVar(&o.loadMode, "load-mode", "mmap", "how the file is loaded, for -equivalence: mmap, none")
	equivalence := flag.Bool("equivalence", false, "compare a file with synthetic weights")
	control := flag.Bool("control", false, "show what taking turns does to llama-bench's samples")
	load := flag.Bool("load", false, "measure the stream of each type, loads and their memory")
	memory := flag.Bool("memory", false, "watch resident memory")
	flag.StringVar(&o.only, "only", "", "half of -prefetch: beside (tests beside downloads), walls (of runs)")
	prefetch := flag.Bool("prefetch", false, "measure tests beside downloads, and runs that keep them off")
	flag.IntVar(&o.gpuLayers, "ngl", 0, "layers on devices, for -abort; -1: all")
	flag.StringVar(&o.rpc, "rpc", "", "RPC server whose device to use, for -abort")
	flag.StringVar(&o.json, "json", "", "write the figures of -abort to this file, in milliseconds")
	peers := flag.Bool("peers", false, "compare with llama-bench and go-llama.cpp")
	abort := flag.String("abort", "", "measure aborts on the shape of this default model")
	flag.Parse()
	if o.loads != 0 && o.loads < fewestLoads {
		log.Fatalf("%d loads are too few to compare, %d are not", o.loads, fewestLoads)
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

// file writes the model, with weights of a seed, to a file; flags are more of
// those of models synth.
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

// program is one of those that are compared: a command that prints its samples
// when it is given a test.
type program struct {
	name        string
	args        []string
	read        func(io.Reader, result.Test) ([]sample, error) // what it prints
	keepsEvents bool                                           // in its results directory
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

// compareWithLlamaBench is the parity report: three processes that take turns,
// two of them llama-bench, and then the comparison inside one process.
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

// openTurn is how many passes a turn has in which llama-bench runs as it does
// alone.
const openTurn = 8

// controlTurns shows what turns do to a sample: in one process of llama-bench,
// the last sample of a turn as compareWithLlamaBench has it, against the last of
// a long turn.
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

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// compare prints, test by test, the ratio of the third side to the first beside
// that of the second, which is like the first. It tells whether every ratio is
// within.
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

// passOf is about how long a pass of a test takes: the shortest of three.
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

// secondsOfLoad is about for how long the turns of a load go on, and fewestTurns
// is how many they are at least. A load differs from the next by some per cent
// for as long as it lives, a turn from the next by what the machine does
// meanwhile: so many loads, with turns that take about as long as the loading.
const (
	secondsOfLoad = 6
	fewestTurns   = 2
)

// turnsOfLoad is how many turns each side has in a load.
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

// loadsOf are the samples of the sides, load by load and turn by turn.
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

// record writes the rates of each side in a load down, if that was asked for.
func (o options) record(test result.Test, load int, rates [][]float64) error {
	if o.samples == nil {
		return nil
	}
	return o.samples.Encode(map[string]any{"model": o.model, "test": test.String(), "load": load, "rates": rates})
}

func newTable() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleDefault)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.Style().Box.PaddingLeft = ""
	return t
}

// withTunables starts this program again where glibc was not asked for all of ask.
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
