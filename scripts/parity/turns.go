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

// The processes take turns: all have their model loaded, and one computes at a
// time. Each process preloads the library of scripts/turns.c. It makes
// llama_memory_clear wait until passes are granted. Programs call that function
// before every pass, while no clock runs. (The module of cmd/gollama-peer clears
// memory at other moments, so that program calls a function of its own.) While a
// sample is timed, none of this is called and no other process computes.
//
// A wait could affect the next sample, because the pool's threads are asleep and the
// clocks are low. So the first of a turn's short passes does not count, and a turn has
// two of them. The effect of a wait on a long pass is negligible.
//
// This program runs passes in bursts, like llama-bench, and may make an untimed pass
// between two bursts. Its turns have three short passes: after the first, at least one
// is timed, because no two untimed passes follow each other. The last one counts.

// longPass is the shortest time of a pass for turns of one pass. It is well above the
// time from which on this program makes no untimed pass. A pass near that time,
// which may have an untimed pass or not, has turns of two.
const longPass = time.Second

// passesOfTurn is the number of passes in a turn, by the time of a pass.
func passesOfTurn(pass time.Duration) int {
	if pass >= longPass {
		return 1
	}
	return 2
}

// side is one of the series to compare: turns of a process, with a number of passes
// each.
type side struct{ process, passes int }

// passesOf is the number of passes in a turn of a side.
func (s side) passesOf(p program) int {
	if p.keepsEvents && s.passes > 1 {
		return s.passes + 1 // one may be untimed
	}
	return s.passes
}

// sample is the result of a timed pass. The zero value means no sample.
type sample struct {
	rate  float64 // tokens/second
	parts parts   // parts of the time, if the program reports them

	begin, end time.Time // of the pass, if the program reports them
}

// turn is a turn of a process.
type turn struct {
	passes     int
	last       int       // number of the last pass, from 0, without the warm-up
	begin, end time.Time // passes were granted; the process waits again
}

// ratesOf are the rates of samples, by load and turn.
func ratesOf(samples [][]sample) [][]float64 {
	rates := make([][]float64, len(samples))
	for load, ofLoad := range samples {
		for _, s := range ofLoad {
			rates[load] = append(rates[load], s.rate)
		}
	}
	return rates
}

// orders are the orders of one, three and four sides, for loads and turns. Each side
// follows each other side equally often. Every order is followed by its reverse, which
// cancels a steady drift.
var orders = map[int][][]int{
	1: {{0}},
	3: {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}, {1, 0, 2}},
	4: {{0, 1, 3, 2}, {2, 3, 1, 0}, {1, 2, 0, 3}, {3, 0, 2, 1}},
}

// order is the order of the sides in a round.
func order(sides, round int) []int { return orders[sides][round%len(orders[sides])] }

// takeTurns starts the programs, which load their model, and runs a test in turns of
// the sides, each time in another order. round is the number of earlier calls. It
// returns a sample of each turn, by side. The first turn of each side does not
// count, because the speed is not yet steady after a load and a warm-up of one token.
func (o options) takeTurns(round int, programs []program, sides []side, t result.Test, turns int) (samples [][]sample, err error) {
	repetitions := make([]int, len(programs))
	for _, s := range sides {
		repetitions[s.process] += (turns + 1) * s.passesOf(programs[s.process])
	}
	processes := make([]*process, len(programs))
	defer func() {
		for _, p := range processes {
			if p != nil {
				p.kill()
			}
		}
	}()
	for _, i := range order(len(programs), round) {
		p, err := o.start(programs[i], t, repetitions[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", programs[i].name, err)
		}
		processes[i] = p
		if err := p.turn(1); err != nil { // the warm-up
			return nil, fmt.Errorf("%s: warm-up: %w", p.name, err)
		}
	}
	taken := make([][]turn, len(sides))
	for n := range turns + 1 {
		for _, s := range order(len(sides), round+n) {
			p := processes[sides[s].process]
			t := turn{passes: sides[s].passesOf(p.program), begin: time.Now()}
			if err := p.turn(t.passes); err != nil {
				return nil, fmt.Errorf("%s: turn %d: %w", p.name, n, err)
			}
			t.last, t.end = p.passes-1, time.Now()
			if n > 0 {
				taken[s] = append(taken[s], t)
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
		choose := byNumber
		if programs[s.process].keepsEvents {
			choose = byTime
		}
		chosen, err := choose(ended[s.process], taken[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", programs[s.process].name, err)
		}
		samples = append(samples, chosen)
	}
	return samples, nil
}

// byNumber returns the samples of the turns' last passes, for a program all of whose passes
// are samples.
func byNumber(samples []sample, turns []turn) ([]sample, error) {
	chosen := make([]sample, len(turns))
	for i, t := range turns {
		if t.last >= len(samples) {
			return nil, fmt.Errorf("turn %d ended with pass %d, but there are %d samples", i+1, t.last+1, len(samples))
		}
		chosen[i] = samples[t.last]
	}
	return chosen, nil
}

// byTime returns the last sample of each turn, for a program some of whose passes are
// untimed. In a turn of several passes, the first does not count. A turn can be without a
// sample.
func byTime(samples []sample, turns []turn) ([]sample, error) {
	chosen := make([]sample, len(turns))
	for i, t := range turns {
		for _, s := range samples {
			if s.end.Before(t.begin) || s.end.After(t.end) {
				continue
			}
			if later := s.begin.Sub(t.begin) > s.end.Sub(s.begin)/2; later || t.passes == 1 {
				chosen[i] = s
			}
		}
	}
	return chosen, nil
}

// complete removes the turns in which a side has no sample.
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
	results string // its results directory
	cmd     *exec.Cmd
	out     bytes.Buffer
	stderr  bytes.Buffer
	exited  chan struct{} // closed when cmd.Wait has returned err
	err     error
	turns   *net.UnixConn
	pid     int  // the process that computes; in this program, the worker
	passes  int  // passes granted, without the warm-up
	done    bool // all passes are done and the process has ended
}

// start starts a program and returns when the program waits for its warm-up.
func (o options) start(prog program, t result.Test, repetitions int) (*process, error) {
	dir, err := os.MkdirTemp(o.dir, "process-")
	if err != nil {
		return nil, err
	}
	address := &net.UnixAddr{Name: filepath.Join(dir, "turns"), Net: "unix"}
	listener, err := net.ListenUnix("unix", address)
	if err != nil {
		return nil, err
	}
	p := &process{program: prog, test: t, results: dir, exited: make(chan struct{})}
	p.cmd = prog.command(t, repetitions)
	if prog.keepsEvents {
		p.cmd.Args = append(p.cmd.Args, "--results-dir", dir)
	}
	preload := strings.TrimSpace(o.gate + " " + os.Getenv("LD_PRELOAD")) // keep other libraries, such as a CUDA for tests
	p.cmd.Env = append(p.cmd.Env, "LD_PRELOAD="+preload, "PARITY_TURNS="+address.Name)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.stderr
	if err := p.cmd.Start(); err != nil {
		_ = listener.Close()
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = listener.Close() // the process cannot connect any more
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

// turn grants passes to the process. It returns when the process waits again with all
// threads asleep, or has ended.
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

// await waits until the process waits for passes, or has ended.
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

// rest waits until all threads of a process sleep. Threads of an OpenMP team first
// poll for more work, for some milliseconds.
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
				continue // the thread has ended
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
	return fmt.Errorf("threads of process %d are still running after %v", pid, patience)
}

// fromEvents reads the samples from this program's event file.
func (p *process) fromEvents() ([]sample, error) {
	files, err := filepath.Glob(filepath.Join(p.results, "*", "events.jsonl"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("%d event files, expected one: %w", len(files), err)
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
			samples = append(samples, sample{rate: p.test.TokensPerSecond(r.Sample.Elapsed), begin: e.At.Add(-r.Sample.Elapsed), end: e.At})
		}
	}
	return samples, nil
}

// end ends the process and returns all its samples. Other programs have printed their
// samples and ended. This program may have repetitions left; its samples are in its
// event file.
func (p *process) end() ([]sample, error) {
	if p.keepsEvents {
		if !p.done {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				return nil, err
			}
			_ = p.turns.Close() // aborts the pass that the process waits for
			<-p.exited
		}
		return p.fromEvents()
	}
	if !p.done || p.err != nil {
		return nil, fmt.Errorf("the process did not end with its turns: %w", p.failure())
	}
	samples, err := p.read(&p.out, p.test)
	if err == nil && len(samples) != p.passes {
		err = fmt.Errorf("%d samples of %d passes: the program does not wait exactly once before each pass", len(samples), p.passes)
	}
	return samples, err
}

// failure ends the process and returns the error about its end.
func (p *process) failure() error {
	p.kill()
	if p.err == nil {
		return fmt.Errorf("the process ended before its turns: %s", p.stderr.Bytes())
	}
	return fmt.Errorf("the process ended before its turns: %w: %s", p.err, p.stderr.Bytes())
}

// kill ends the process. This program's worker ends with its parent.
func (p *process) kill() {
	if p.turns != nil {
		_ = p.turns.Close()
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// fromRecord reads the samples of the only record printed, which must be of test t.
func fromRecord(printed io.Reader, t result.Test) ([]sample, error) {
	records, err := report.ReadRecords(printed)
	if err != nil {
		return nil, err
	}
	if len(records) != 1 || records[0].Test() != t {
		return nil, fmt.Errorf("%d records, expected one of %v", len(records), t)
	}
	samples := make([]sample, len(records[0].SamplesTS))
	for i, rate := range records[0].SamplesTS {
		samples[i].rate = rate
	}
	return samples, nil
}

// buildGate builds the library of turns.c and returns its path.
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

// command is the command that runs a test.
func (p program) command(t result.Test, repetitions int) *exec.Cmd {
	args := append(p.args[1:len(p.args):len(p.args)], "-p", strconv.Itoa(t.Prompt), "-n", strconv.Itoa(t.Gen), "-r", strconv.Itoa(repetitions))
	cmd := exec.Command(p.args[0], args...)
	cmd.Env = os.Environ()
	return cmd
}
