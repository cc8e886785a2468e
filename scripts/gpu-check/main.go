// Command gpu-check measures on a machine with a GPU what cannot be known
// without one: devices, the first start with an empty and a warm cache of
// kernels, parity with llama-bench, what reading the GPU costs, how fast an
// abort is, how many passes it takes until repetitions are alike, telemetry,
// whether a long context is computed by kernels that were compiled before,
// what running out of memory costs, and how long 70 billion parameters take to
// load. It prints a table and writes one JSON file. No network is needed.
//
//	gpu-check [-model NAME] [-large NAME] [-pairs N] [-o FILE] [-only CHECK,…]
//	gpu-check -rpc HOST:PORT   the same on an RPC device, to try it without a GPU
//
// A check that fails does not end the others; the exit code is then 1.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// options are the flags.
type options struct {
	program, parity, tool string
	model, large          string
	rpc                   string
	pp, tg                int
	pairs, aborts         int
	limit                 time.Duration // of one program
	dir                   string        // for the run's files
}

// finding is what one check found.
type finding struct {
	Check   string         `json:"check"`
	Status  string         `json:"status"` // ok, failed, skipped
	Figures map[string]any `json:"figures,omitempty"`
	Note    string         `json:"note,omitempty"`
	Seconds float64        `json:"seconds"`
}

// errSkipped is a check that this machine cannot do.
var errSkipped = errors.New("skipped")

// checks in the order in which they run.
var checks = []struct {
	name string
	run  func(*options) (map[string]any, error)
}{
	{"devices", devices},
	{"first start", firstStart}, // before anything else has filled the cache
	{"parity", parity},
	{"aborts", aborts},
	{"warm-ups", warmups},
	{"telemetry", telemetry},
	{"depth", deep},
	{"out of memory", outOfMemory},
	{"large model", largeModel},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("gpu-check: ")
	var o options
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "this program")
	flag.StringVar(&o.parity, "parity", "bin/parity", "scripts/parity, built")
	flag.StringVar(&o.tool, "llama-tool", "scripts/llama-tool", "runs a tool of the same packages")
	flag.StringVar(&o.model, "model", "llama-7b.Q4_K_M.gguf", "default model to measure, with synthetic weights")
	flag.StringVar(&o.large, "large", "Llama-3.3-70B-Instruct-Q4_K_M.gguf", "default model to load where it fits; empty: none")
	flag.StringVar(&o.rpc, "rpc", "", "RPC server in place of a GPU, HOST:PORT")
	flag.IntVar(&o.pp, "p", 512, "prompt length")
	flag.IntVar(&o.tg, "n", 128, "generation length")
	flag.IntVar(&o.pairs, "pairs", 10, "alternations with llama-bench, at least 5")
	flag.IntVar(&o.aborts, "aborts", 100, "aborts of each test")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "most time of one program")
	out := flag.String("o", "gpu-check.json", "file for the findings")
	only := flag.String("only", "", "checks to make, comma-separated (default: all)")
	flag.Parse()

	chosen, err := choose(*only)
	if err != nil {
		log.Fatal(err)
	}
	if o.dir, err = os.MkdirTemp("", "gpu-check-"); err == nil {
		err = os.Mkdir(filepath.Join(o.dir, "kernels"), 0o755)
	}
	if err != nil {
		log.Fatal(err)
	}
	findings := o.run(chosen)
	_ = os.RemoveAll(o.dir) // nothing of it is needed
	fmt.Println(render(findings))
	data, err := json.MarshalIndent(findings, "", "  ")
	if err == nil {
		err = renameio.WriteFile(*out, append(data, '\n'), 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
	if slices.ContainsFunc(findings, func(f finding) bool { return f.Status == "failed" }) {
		os.Exit(1)
	}
}

// choose gives the places of the checks of a list; all of them for none.
func choose(only string) (chosen []int, err error) {
	for i, c := range checks {
		if only == "" || slices.Contains(strings.Split(only, ","), c.name) {
			chosen = append(chosen, i)
		}
	}
	if only != "" && len(chosen) != len(strings.Split(only, ",")) {
		var names []string
		for _, c := range checks {
			names = append(names, c.name)
		}
		return nil, fmt.Errorf("-only: one of %s", strings.Join(names, ", "))
	}
	return chosen, nil
}

func (o *options) run(chosen []int) (findings []finding) {
	for _, i := range chosen {
		c := checks[i]
		log.Printf("%s …", c.name)
		start := time.Now()
		figures, err := c.run(o)
		f := finding{Check: c.name, Status: "ok", Figures: figures, Seconds: time.Since(start).Seconds()}
		if err != nil {
			f.Status, f.Note = "failed", err.Error()
			if errors.Is(err, errSkipped) {
				f.Status = "skipped"
			}
		}
		findings = append(findings, f)
		if c.name == "devices" && f.Status == "failed" {
			break // every other check would measure the CPU
		}
	}
	return findings
}

func render(findings []finding) string {
	t := table.NewWriter()
	t.AppendHeader(table.Row{"check", "status", "found", "seconds"})
	for _, f := range findings {
		var found []string
		names := make([]string, 0, len(f.Figures))
		for name := range f.Figures {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			value := fmt.Sprint(f.Figures[name])
			if x, ok := f.Figures[name].(float64); ok {
				value = strconv.FormatFloat(x, 'g', 4, 64)
			}
			found = append(found, name+" "+value)
		}
		if f.Note != "" {
			found = append(found, f.Note)
		}
		t.AppendRow(table.Row{f.Check, f.Status, strings.Join(found, "\n"), fmt.Sprintf("%.0f", f.Seconds)})
	}
	return t.Render()
}

// command runs a program to its end and returns its standard output. The error
// has the last lines that it said.
func (o *options) command(name string, args ...string) ([]byte, error) {
	out, said, err := o.said(name, args...)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said), "\n")
		err = fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.Join(lines[max(0, len(lines)-2):], "; "))
	}
	return out, err
}

// said is command with what the program said on standard error. All of them share
// a cache of compiled kernels, which is empty at the start.
func (o *options) said(name string, args ...string) (out []byte, said string, err error) {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "CUDA_CACHE_PATH="+filepath.Join(o.dir, "kernels"), "CUDA_CACHE_MAXSIZE=4294967296")
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Start(); err != nil {
		return nil, "", err
	}
	timer := time.AfterFunc(o.limit, func() { _ = c.Process.Kill() }) // it may be over
	defer timer.Stop()
	err = c.Wait()
	return stdout.Bytes(), stderr.String(), err
}

// records runs benchmark-llm on a model and reads what it prints.
func (o *options) records(model string, args ...string) ([]result.Record, error) {
	args = append([]string{"run", "-m", model, "-o", "jsonl", "--results-dir", o.dir, "--timeout", "0s", "--benchmark-timeout-scale", "30"}, args...)
	if _, err := os.Stat(model); err != nil {
		args = append(args, "--weights", "synthetic")
	}
	if o.rpc != "" {
		args = append(args, "--rpc", o.rpc)
	}
	out, err := o.command(o.program, args...)
	if err != nil {
		return nil, err
	}
	return readRecords(out)
}

func readRecords(lines []byte) (records []result.Record, err error) {
	for line := range bytes.Lines(lines) {
		var r result.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return records, fmt.Errorf("not a record: %w: %.80s", err, line)
		}
		records = append(records, r)
	}
	return records, nil
}

// file is the model in a file, written once.
func (o *options) file() (string, error) {
	path := filepath.Join(o.dir, o.model)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	_, err := o.command(o.program, "models", "synth", o.model, "-o", path)
	return path, err
}

// llamaBench runs llama-bench on the model's file.
func (o *options) llamaBench(path string, args ...string) ([]result.Record, error) {
	args = append([]string{"llama-bench", "-m", path, "-fa", "1", "-o", "jsonl"}, args...)
	if o.rpc != "" {
		args = append(args, "--rpc", o.rpc)
	}
	out, err := o.command(o.tool, args...)
	if err != nil {
		return nil, err
	}
	return readRecords(out)
}
