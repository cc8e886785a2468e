//go:build cgo && parity

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Processes that take turns: all are alive with their model loaded, and one
// computes at a time. Each loads scripts/turns.c beside itself, which makes
// llama_memory_clear, called before every pass with no clock running, wait until
// passes are granted; cmd/gollama-peer, whose module clears at other moments, calls
// something of its own there. While the clock of a sample runs nothing of this is called,
// and nobody else computes.
//
// What a sample could notice is what came before: after a wait the pool's threads
// are asleep and the clocks low. So a turn of short passes is two, of which the
// first takes that away, and its last sample counts. This program does such a
// pass of itself, untimed, so its turn has one sample; llama-bench's has two. For
// a long pass it does not matter.

// longPass is the time of a pass from which on a turn is one pass. It is well
// above the time from which on this program needs no untimed pass, so that a
// pass of about that time, now with one and now without, has turns of two.
const longPass = time.Second

func passesOfTurn(pass time.Duration) int {
	if pass >= longPass {
		return 1
	}
	return 2
}

// side is one of the series that are compared: turns of so many passes of one of
// the processes.
type side struct{ process, passes int }

// sample is what a timed pass gave; the zero value stands for none.
type sample struct {
	rate  float64 // tokens/second
	parts parts   // of the time, where the program tells them
}

// ratesOf are the rates of samples, load by load and turn by turn.
func ratesOf(samples [][]sample) [][]float64 {
	rates := make([][]float64, len(samples))
	for load, ofLoad := range samples {
		for _, s := range ofLoad {
			rates[load] = append(rates[load], s.rate)
		}
	}
	return rates
}

// orders are those in which one, three and four sides are loaded and take their turns:
// each follows each other as often. Orders come in pairs of which one is the other backwards,
// so that what changes evenly over both favours nobody.
var orders = map[int][][]int{
	1: {{0}},
	3: {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}, {1, 0, 2}},
	4: {{0, 1, 3, 2}, {2, 3, 1, 0}, {1, 2, 0, 3}, {3, 0, 2, 1}},
}

// order is that of so many sides in a round.
func order(sides, round int) []int { return orders[sides][round%len(orders[sides])] }

// takeTurns starts the programs, each loads its model, and runs a test in turns
// of the sides, in another order each time; round is how often that was done
// before. What it returns are the last samples of each turn of each side. A first
// turn of each does not count: what follows a load and a warm-up of one token is
// not yet steady.
func (o options) takeTurns(round int, programs []program, sides []side, t result.Test, turns int) (samples [][]sample, err error) {
	repetitions := make([]int, len(programs))
	for _, s := range sides {
		repetitions[s.process] += (turns + 1) * s.passes
	}
	processes := make([]*process, len(programs))
	defer func() {
		for _, p := range processes {
			if p != nil {
				p.kill()
			}
		}
	}()
	for _, which := range order(len(programs), round) {
		p, err := o.start(programs[which], t, repetitions[which])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", programs[which].name, err)
		}
		processes[which] = p
		if err := p.turn(1); err != nil { // the warm-up
			return nil, fmt.Errorf("%s: warm-up: %w", p.name, err)
		}
	}
	last := make([][]int, len(sides)) // sample of each turn, -1 for none
	for turn := range turns + 1 {
		for _, s := range order(len(sides), round+turn) {
			p := processes[sides[s].process]
			before, err := p.sampled()
			if err == nil {
				err = p.turn(sides[s].passes)
			}
			after := before
			if err == nil {
				after, err = p.sampled()
			}
			if err != nil {
				return nil, fmt.Errorf("%s: turn %d: %w", p.name, turn, err)
			}
			if turn > 0 {
				last[s] = append(last[s], lastSample(before, after))
			}
		}
	}
	ended := make([][]sample, len(programs))
	for i, p := range processes {
		if ended[i], err = p.end(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for i, s := range sides {
		chosen, err := choose(ended[s.process], last[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", programs[s.process].name, err)
		}
		samples = append(samples, chosen)
	}
	return samples, nil
}

// lastSample is the index of the last sample of a turn, before and after which
// there were so many; -1 if the turn had none.
func lastSample(before, after int) int {
	if after == before {
		return -1
	}
	return after - 1
}

// choose are the samples at the indices, none at a negative one.
func choose(samples []sample, indices []int) ([]sample, error) {
	chosen := make([]sample, len(indices))
	for i, index := range indices {
		switch {
		case index >= len(samples):
			return nil, fmt.Errorf("%d samples, but turn %d ended with number %d", len(samples), i+1, index+1)
		case index >= 0:
			chosen[i] = samples[index]
		}
	}
	return chosen, nil
}

// complete leaves out the turns in which a side has no sample.
func complete(samples [][]sample) [][]sample {
	kept := make([][]sample, len(samples))
	for turn := range samples[0] {
		if slices.ContainsFunc(samples, func(side []sample) bool { return side[turn].rate == 0 }) {
			continue
		}
		for i, side := range samples {
			kept[i] = append(kept[i], side[turn])
		}
	}
	return kept
}

// process is a program that runs a test in turns.
type process struct {
	program
	test    result.Test
	results string // directory of its runs
	cmd     *exec.Cmd
	out     bytes.Buffer
	stderr  bytes.Buffer
	exited  chan struct{} // closed when cmd.Wait has returned err
	err     error
	turns   *net.UnixConn
	pid     int // of the process that computes: ours has a parent
	passes  int // granted, without the warm-up
	done    bool
}

// start starts a program and returns when it waits for its warm-up.
func (o options) start(which program, t result.Test, repetitions int) (*process, error) {
	dir, err := os.MkdirTemp(o.dir, "process-")
	if err != nil {
		return nil, err
	}
	address := &net.UnixAddr{Name: filepath.Join(dir, "turns"), Net: "unix"}
	listener, err := net.ListenUnix("unix", address)
	if err != nil {
		return nil, err
	}
	p := &process{program: which, test: t, results: dir, exited: make(chan struct{})}
	p.cmd = which.command(t, repetitions)
	if which.keepsEvents {
		p.cmd.Args = append(p.cmd.Args, "--results-dir", dir)
	}
	preload := strings.TrimSpace(o.gate + " " + os.Getenv("LD_PRELOAD")) // with what it was started with, as a stand-in for CUDA
	p.cmd.Env = append(p.cmd.Env, "LD_PRELOAD="+preload, "PARITY_TURNS="+address.Name)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.stderr
	if err := p.cmd.Start(); err != nil {
		_ = listener.Close()
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = listener.Close() // nobody will come any more
		close(p.exited)
	}()
	p.turns, err = listener.AcceptUnix()
	_ = listener.Close()
	if err != nil {
		return nil, p.failure()
	}
	raw, err := p.turns.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			peer, e := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
			if err = e; e == nil {
				p.pid = int(peer.Pid)
			}
		})
	}
	if err == nil {
		err = p.await()
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	p.passes = -1
	return p, nil
}

// turn lets the process do so many passes and returns when it waits again, all
// its threads asleep, or has ended.
func (p *process) turn(passes int) error {
	if p.done {
		return p.failure()
	}
	if _, err := p.turns.Write([]byte{byte(passes)}); err != nil {
		return p.failure()
	}
	p.passes += passes
	return p.await()
}

func (p *process) await() error {
	_, err := p.turns.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		p.done = true
		<-p.exited
		return nil
	}
	if err != nil {
		return err
	}
	return rest(p.pid)
}

// rest waits until all threads of a process sleep: those of an OpenMP team look
// for more work for some milliseconds first.
func rest(pid int) error {
	const patience = 10 * time.Second
	for start := time.Now(); time.Since(start) < patience; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			return err
		}
		awake := 0
		for _, t := range threads {
			stat, err := os.ReadFile(t)
			if err != nil {
				continue // it has ended
			}
			// The state follows the name, which is in parentheses.
			if _, state, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") ")); ok && state[0] != 'S' {
				awake++
			}
		}
		if awake == 0 {
			return nil
		}
	}
	return fmt.Errorf("process %d does not rest", pid)
}

// sampled is how many samples there are until now.
func (p *process) sampled() (int, error) {
	if !p.keepsEvents {
		return max(0, p.passes), nil // every pass but the warm-up is one: see end
	}
	samples, err := p.fromEvents()
	return len(samples), err
}

// fromEvents are the repetitions that this program has written down.
func (p *process) fromEvents() ([]sample, error) {
	files, err := filepath.Glob(filepath.Join(p.results, "*", "events.jsonl"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("%d files of events, not one: %w", len(files), err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var samples []sample
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e bench.Stamped
		if err := e.UnmarshalLine(lines.Bytes()); err != nil {
			return nil, err
		}
		if r, ok := e.Event.(bench.RepetitionDone); ok {
			samples = append(samples, sample{rate: p.test.TokensPerSecond(r.Sample.Elapsed)})
		}
	}
	return samples, nil
}

// end ends the process and returns all its samples. Others have printed them and
// gone; this program may have repetitions left, and has written down those that
// are done.
func (p *process) end() ([]sample, error) {
	if p.keepsEvents {
		samples, err := p.fromEvents()
		if !p.done {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				return nil, err
			}
			_ = p.turns.Close() // the pass it waits for is aborted
			<-p.exited
		}
		return samples, err
	}
	if !p.done || p.err != nil {
		return nil, fmt.Errorf("not ended with its turns: %w", p.failure())
	}
	samples, err := p.read(&p.out, p.test)
	if err == nil && len(samples) != p.passes {
		err = fmt.Errorf("%d samples of %d passes: it does not wait once before each", len(samples), p.passes)
	}
	return samples, err
}

// failure is why a process is of no use.
func (p *process) failure() error {
	p.kill()
	if p.err == nil {
		return fmt.Errorf("it ended before its turns: %s", p.stderr.Bytes())
	}
	return fmt.Errorf("it ended before its turns: %w: %s", p.err, p.stderr.Bytes())
}

// kill ends the process if need be; the worker of this program ends with its
// parent.
func (p *process) kill() {
	if p.turns != nil {
		_ = p.turns.Close()
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// fromRecord are the samples of a test's record.
func fromRecord(printed io.Reader, t result.Test) ([]sample, error) {
	records, err := report.ReadRecords(printed)
	if err != nil {
		return nil, err
	}
	if len(records) != 1 || records[0].Test() != t {
		return nil, fmt.Errorf("%d records, not one of %v", len(records), t)
	}
	samples := make([]sample, len(records[0].SamplesTS))
	for i, rate := range records[0].SamplesTS {
		samples[i].rate = rate
	}
	return samples, nil
}

// buildGate compiles turns.c and returns the library's path.
func (o options) buildGate() (string, error) {
	flags, err := exec.Command("pkg-config", "--cflags", "llama").Output()
	if err != nil {
		return "", fmt.Errorf("pkg-config: %w", err)
	}
	library := filepath.Join(o.dir, "turns.so")
	args := append(strings.Fields(string(flags)), "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", library, "scripts/turns.c")
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build turns.c: %w: %s", err, out)
	}
	return library, nil
}

// command is the program's for a test.
func (p program) command(t result.Test, repetitions int) *exec.Cmd {
	args := append(p.args[1:len(p.args):len(p.args)], "-p", strconv.Itoa(t.Prompt), "-n", strconv.Itoa(t.Gen), "-r", strconv.Itoa(repetitions))
	cmd := exec.Command(p.args[0], args...)
	cmd.Env = os.Environ()
	return cmd
}
