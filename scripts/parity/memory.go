//go:build cgo && parity

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/llama"
)

const (
	cycles = 200
	// settled is the number of cycles after which allocators keep no more memory.
	settled = 20
	// growthBound and peakBound are the requirements, in KiB.
	growthBound = 4 << 10
	peakBound   = 30 << 10
)

// watchMemory measures the resident memory over cycles of load, run and close, and
// compares the peak with that of a plain C program. It reports whether both meet the
// requirements.
func watchMemory(o options) (bool, error) {
	model, err := o.file(1)
	if err != nil {
		return false, err
	}
	job := bench.Job{
		Model:       bench.Model{Name: o.model, Path: model, Weights: result.FileWeights},
		Tests:       []bench.TestBudget{{Test: result.Test{Prompt: 16}}, {Test: result.Test{Gen: 4}}},
		Repetitions: 1, Seed: 1, Settings: bench.DefaultSettings(o.threads),
	}
	var after [cycles]int64
	for i := range cycles {
		e, err := llamacpp.New(job, llamacpp.Options{})
		if err != nil {
			return false, err
		}
		if err := bench.RunJob(context.Background(), e, job, nil, func(bench.Stamped) error { return nil }); err != nil {
			return false, err
		}
		if err := e.Close(); err != nil {
			return false, err
		}
		if after[i], err = residentKiB(); err != nil {
			return false, err
		}
	}
	growth := after[cycles-1] - after[settled-1]
	fmt.Printf("resident memory after %d, %d, %d, %d cycles of load, run and close: %s MiB\n",
		settled, cycles/4, cycles/2, cycles, mib(after[settled-1], after[cycles/4-1], after[cycles/2-1], after[cycles-1]))
	fmt.Printf("growth from cycle %d to %d: %+.1f MiB\n", settled, cycles, float64(growth)/1024)

	plain, err := plainPeak(o, model)
	if err != nil {
		return false, err
	}
	ours, err := workerPeak(o, model, "file")
	if err != nil {
		return false, err
	}
	fmt.Printf("peak resident memory: plain C %s MiB, the worker %s MiB, %+.1f MiB\n", mib(plain), mib(ours), float64(ours-plain)/1024)
	return growth <= growthBound && ours-plain <= peakBound, nil
}

// mib lists sizes in MiB.
func mib(kib ...int64) string {
	s := make([]string, len(kib))
	for i, k := range kib {
		s[i] = fmt.Sprintf("%.1f", float64(k)/1024)
	}
	return strings.Join(s, ", ")
}

// residentKiB is the resident memory (VmRSS) of this process.
func residentKiB() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
	fields := strings.Fields(string(rest))
	if len(fields) == 0 {
		return 0, fmt.Errorf("/proc/self/status has no VmRSS")
	}
	return strconv.ParseInt(fields[0], 10, 64)
}

// plainPeak builds and runs plain.c and returns its peak memory in KiB.
func plainPeak(o options, model string) (int64, error) {
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "llama").Output()
	if err != nil {
		return 0, fmt.Errorf("pkg-config: %w", err)
	}
	binary := filepath.Join(o.dir, "plain")
	// The shell splits the linker's flags like the build.
	build := exec.Command("sh", "-c", fmt.Sprintf("cc -O2 -I llama -o %q scripts/plain.c $CGO_LDFLAGS %s", binary, bytes.TrimSpace(flags)))
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build plain.c: %w: %s", err, out)
	}
	out, err := exec.Command(binary, model, filepath.Join(llama.LibraryDir(), "ggml/backends0"), strconv.Itoa(o.threads)).Output()
	if err != nil {
		return 0, fmt.Errorf("plain C program: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
}

// workerPeak runs the program on the same tests and returns the peak memory of its
// worker in KiB, counted by the kernel. It polls every 5 ms, so it misses almost
// nothing at the end.
func workerPeak(o options, model, weights string, args ...string) (int64, error) {
	run := o.ours(model, weights)
	cmd := exec.Command(run.args[0], slices.Concat(run.args[1:],
		[]string{"-p", "128", "-n", "16", "-r", "2", "--results-dir", filepath.Join(o.dir, "runs")}, args)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var most int64
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			return most, err
		case <-time.After(5 * time.Millisecond):
			most = max(most, childPeakKiB(cmd.Process.Pid))
		}
	}
}

// childPeakKiB is the largest peak memory (VmHWM) of a process's children.
func childPeakKiB(pid int) int64 {
	var children []byte
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		more, _ := os.ReadFile(t)
		children = append(append(children, ' '), more...)
	}
	var most int64
	for child := range strings.FieldsSeq(string(children)) {
		status, _ := os.ReadFile("/proc/" + child + "/status")
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		if f := strings.Fields(rest); len(f) > 0 {
			k, _ := strconv.ParseInt(f[0], 10, 64)
			most = max(most, k)
		}
	}
	return most
}
