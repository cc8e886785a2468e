// Command gpu-check makes the measurements that need a GPU. It prints a table and
// writes the findings to a JSON file. It needs no network.
//
// It measures:
//   - devices: the devices that the program finds
//   - first start: with an empty and a warm cache of compiled kernels
//   - parity: the speed beside llama-bench's, and the cost of telemetry
//   - aborts: the time from an abort to its return
//   - warm-ups: the number of passes until repetitions are steady
//   - telemetry: the figures of the GPU in a record
//   - depth: whether a long context needs kernels that were not compiled before
//   - out of memory: whether a run goes on after a test that does not fit
//   - large model: the load of 70 billion parameters
//
// Usage:
//
//	gpu-check [-model NAME] [-large NAME] [-pairs N] [-o FILE] [-only CHECK,…]
//	gpu-check -device NAME     use this device: Vulkan0, CUDA0 (default: the program's choice)
//	gpu-check -rpc HOST:PORT   use an RPC device in place of a GPU
//
// The other checks still run after a failed one. The exit code is then 1.
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
	rpc, device           string
	pp, tg                int
	pairs, aborts         int
	limit                 time.Duration // for one run of a program
	dir                   string        // temporary directory
}

// finding is the result of one check.
type finding struct {
	Check   string         `json:"check"`
	Status  string         `json:"status"` // ok, failed, skipped
	Figures map[string]any `json:"figures,omitempty"`
	Note    string         `json:"note,omitempty"`
	Seconds float64        `json:"seconds"`
}

// errSkipped says that this machine cannot do a check.
var errSkipped = errors.New("skipped")

// checks are all checks, in the order in which they run.
var checks = []struct {
	name string
	run  func(*options) (map[string]any, error)
}{
	{"devices", devices},
	{"first start", firstStart}, // before another check fills the cache
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
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "`path` of benchmark-llm")
	flag.StringVar(&o.parity, "parity", "bin/parity", "`path` of the program of scripts/parity")
	flag.StringVar(&o.tool, "llama-tool", "scripts/llama-tool", "`path` of the script that runs llama-bench")
	flag.StringVar(&o.model, "model", "llama-7b.Q4_K_M.gguf", "`name` of the default model to measure, with synthetic weights")
	flag.StringVar(&o.large, "large", "Llama-3.3-70B-Instruct-Q4_K_M.gguf", "`name` of the default model to load if it fits; empty: none")
	flag.StringVar(&o.device, "device", "", "`name` of the device to measure, as benchmark-llm devices lists it (default: the program's choice)")
	flag.StringVar(&o.rpc, "rpc", "", "`address` (HOST:PORT) of an RPC server to use in place of a GPU")
	flag.IntVar(&o.pp, "p", 512, "prompt length in `tokens`")
	flag.IntVar(&o.tg, "n", 128, "generation length in `tokens`")
	flag.IntVar(&o.pairs, "pairs", 10, "`number` of alternations with llama-bench, at least 5")
	flag.IntVar(&o.aborts, "aborts", 100, "`number` of aborts of each test")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "time `limit` for one run of a program")
	out := flag.String("o", "gpu-check.json", "`file` to write the findings to")
	only := flag.String("only", "", "comma-separated `checks` to run (default: all)")
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
	_ = os.RemoveAll(o.dir) // temporary files
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

// choose returns the indices of the named checks, or of all checks for no names.
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
		return nil, fmt.Errorf("-only: unknown check in %q (known: %s)", only, strings.Join(names, ", "))
	}
	return chosen, nil
}

// run runs checks and returns their findings. If no device is found, it stops.
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

// render is the table of the findings.
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

// command runs a program to its end and returns its stdout. The error has the last
// lines of its stderr.
func (o *options) command(name string, args ...string) ([]byte, error) {
	out, messages, err := o.execute(name, args...)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(messages), "\n")
		err = fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.Join(lines[max(0, len(lines)-2):], "; "))
	}
	return out, err
}

// execute runs a program to its end and returns its stdout and stderr. All programs
// share a cache of compiled kernels, which is empty at the start.
func (o *options) execute(name string, args ...string) (out []byte, messages string, err error) {
	c := exec.Command(name, args...)
	cache := filepath.Join(o.dir, "kernels")
	c.Env = append(os.Environ(), "CUDA_CACHE_PATH="+cache, "CUDA_CACHE_MAXSIZE=4294967296", "MESA_SHADER_CACHE_DIR="+cache, "__GL_SHADER_DISK_CACHE_PATH="+cache)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Start(); err != nil {
		return nil, "", err
	}
	timer := time.AfterFunc(o.limit, func() { _ = c.Process.Kill() }) // fails if the program has ended
	defer timer.Stop()
	err = c.Wait()
	return stdout.Bytes(), stderr.String(), err
}

// records runs benchmark-llm on a model and returns its records.
func (o *options) records(model string, args ...string) ([]result.Record, error) {
	args = append([]string{"run", "-m", model, "-o", "jsonl", "--results-dir", o.dir, "--timeout", "0s", "--benchmark-timeout-scale", "30"}, args...)
	if _, err := os.Stat(model); err != nil {
		args = append(args, "--weights", "synthetic")
	}
	if o.device != "" {
		args = append(args, "--device", o.device)
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

// readRecords reads JSON lines.
func readRecords(lines []byte) (records []result.Record, err error) {
	for line := range bytes.Lines(lines) {
		var r result.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return records, fmt.Errorf("line is not a record: %w: %.80s", err, line)
		}
		records = append(records, r)
	}
	return records, nil
}

// file returns the path of the model's file. The first call writes it.
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
	if o.device != "" {
		args = append(args, "-dev", o.device)
	}
	if o.rpc != "" {
		args = append(args, "--rpc", o.rpc)
	}
	out, err := o.command(o.tool, args...)
	if err != nil {
		return nil, err
	}
	return readRecords(out)
}
