package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// prompts are the lengths of one run's tests.
func (o options) prompts() []int {
	var lengths []int
	for i := range o.perRun {
		lengths = append(lengths, o.prompt+i)
	}
	return lengths
}

// plain runs the tests once, in a cgroup if there is one.
func (o options) plain(ctx context.Context, in *cgroup, flags ...string) ([]result.Record, error) {
	if len(flags) == 0 {
		flags = []string{"-m", model, "--weights", "synthetic"}
	}
	lengths := strings.Trim(strings.ReplaceAll(fmt.Sprint(o.prompts()), " ", ","), "[]")
	args := append([]string{o.program, "run", "-q", "-p", lengths, "-n", "0", "-r", strconv.Itoa(o.repetitions),
		"-t", strconv.Itoa(o.threads), "--timeout", "0s", "-o", "jsonl", "--results-dir", filepath.Join(o.dir, "runs")}, flags...)
	if in != nil {
		args = append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, in.processes()}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it prints what it has
	cmd.WaitDelay = time.Minute
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	records, readErr := report.ReadRecords(bytes.NewReader(out))
	if err != nil && len(records) == 0 {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return records, readErr
}

// spinArgument makes this program a busy neighbour.
const spinArgument = "-spin"

// neighbour runs the tests beside a process that is busy on CPU 0 of those allowed.
func neighbour(ctx context.Context, o options, strength int) ([]result.Record, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	busy := exec.CommandContext(ctx, self, spinArgument, []string{"100", "50", "30", "15"}[strength])
	busy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := busy.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = busy.Process.Kill()
		_ = busy.Wait() // it was killed
	}()
	return o.plain(ctx, nil)
}

// spin uses a part of the first allowed CPU, in percent, until it is killed.
func spin(percent string) {
	share, err := strconv.Atoi(percent)
	var allowed, first unix.CPUSet
	if err == nil {
		err = unix.SchedGetaffinity(0, &allowed)
	}
	for cpu := range 1024 {
		if allowed.IsSet(cpu) {
			first.Set(cpu)
			break
		}
	}
	if err == nil {
		err = unix.SchedSetaffinity(unix.Getpid(), &first)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "disturb:", err)
		os.Exit(1)
	}
	const period = 20 * time.Millisecond
	for {
		begin := time.Now()
		for time.Since(begin) < period*time.Duration(share)/100 {
		}
		time.Sleep(period * time.Duration(100-share) / 100)
	}
}

// quota runs the tests with less CPU time than they use.
func quota(ctx context.Context, o options, strength int) ([]result.Record, error) {
	group, err := newCgroup("cpu")
	if err != nil {
		return nil, err
	}
	defer group.remove()
	const period = 100_000 // microseconds
	limit := int([]float64{0.5, 0.75, 0.85, 0.92}[strength] * period * float64(o.threads))
	if group.v2 {
		err = group.set("cpu.max", fmt.Sprintf("%d %d", limit, period))
	} else {
		err = errors.Join(group.set("cpu.cfs_period_us", strconv.Itoa(period)), group.set("cpu.cfs_quota_us", strconv.Itoa(limit)))
	}
	if err != nil {
		return nil, err
	}
	return o.plain(ctx, group)
}

// file writes the model to a file, once.
func (o options) file(ctx context.Context) (string, error) {
	path := filepath.Join(o.dir, model)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	out, err := exec.CommandContext(ctx, o.program, "models", "synth", model, "-o", path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("write the model: %w: %s", err, bytes.TrimSpace(out))
	}
	return path, nil
}

// mapped are the flags of tests whose weights stay in the model's file.
func (o options) mapped(path string) []string {
	return []string{"-m", path, "--load-mode", "mmap", "--no-repack"}
}

// fromFile runs the tests from a file that fits memory.
func fromFile(ctx context.Context, o options) ([]result.Record, error) {
	path, err := o.file(ctx)
	if err != nil {
		return nil, err
	}
	return o.plain(ctx, nil, o.mapped(path)...)
}

// smallMemory runs the tests in a cgroup that cannot hold the file of the model.
func smallMemory(ctx context.Context, o options, strength int) ([]result.Record, error) {
	path, err := o.file(ctx)
	if err != nil {
		return nil, err
	}
	if err := forget(path); err != nil {
		return nil, err
	}
	group, err := newCgroup("memory")
	if err != nil {
		return nil, err
	}
	defer group.remove()
	limit := strconv.Itoa([]int{70, 80, 90, 100}[strength] << 20)
	name := "memory.limit_in_bytes"
	if group.v2 {
		name = "memory.high"
	}
	if err := group.set(name, limit); err != nil {
		return nil, err
	}
	return o.plain(ctx, group, o.mapped(path)...)
}

// forget drops a file from memory. Otherwise it stays charged to another cgroup.
func forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// cgroup is a control group of this program's, at the top of its hierarchy.
type cgroup struct {
	path string
	v2   bool
}

// newCgroup makes a group with a controller, of version 2 if that has it.
func newCgroup(controller string) (*cgroup, error) {
	name := fmt.Sprintf("disturb-%d", os.Getpid())
	const root = "/sys/fs/cgroup"
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	g := &cgroup{path: filepath.Join(root, name), v2: true}
	if err == nil && strings.Contains(" "+strings.TrimSpace(string(controllers))+" ", " "+controller+" ") {
		// Without it the group has no files of the controller, and set fails.
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0)
	} else {
		g = &cgroup{path: filepath.Join(root, controller, name)}
	}
	if err := os.Mkdir(g.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%w: no cgroup: %w", errSkipped, err)
	}
	return g, nil
}

// processes is the file to which a process writes its id to join.
func (g *cgroup) processes() string { return filepath.Join(g.path, "cgroup.procs") }

func (g *cgroup) set(name, value string) error {
	if err := os.WriteFile(filepath.Join(g.path, name), []byte(value), 0); err != nil {
		return fmt.Errorf("%w: %w", errSkipped, err)
	}
	return nil
}

// remove removes the group. The kernel refuses while a process has not quite ended.
func (g *cgroup) remove() {
	for range 50 {
		if err := os.Remove(g.path); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
