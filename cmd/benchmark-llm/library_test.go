//go:build cgo

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/benchtest"
)

// scripts is the folder of the scripts for a build with the library.
const scripts = "library"

// run is the program at work, as a process of its own.
type run struct {
	*exec.Cmd
	t       *testing.T
	results string
	stdout  bytes.Buffer
	stderr  benchtest.LockedBuffer
}

// newRun is a run of tests of the embedded model, not started yet. It is ended
// with the test, in case it is still there. args replace the usual values of their flags.
func newRun(t *testing.T, args ...string) *run {
	t.Helper()
	r := &run{t: t, results: t.TempDir()}
	args = withUsual(args, "-m", "SmolLM-135M.Q4_K_M.gguf", "--weights", "synthetic", "-t", "1", "--timeout", "0s", "--results-dir", r.results)
	r.Cmd = exec.CommandContext(t.Context(), "benchmark-llm", args...)
	r.Stdout, r.Stderr = &r.stdout, &r.stderr
	return r
}

// withUsual adds flags with their usual values to args, unless args have them.
func withUsual(args []string, usual ...string) []string {
	for pair := range slices.Chunk(usual, 2) {
		if !slices.Contains(args, pair[0]) {
			args = append(args, pair...)
		}
	}
	return args
}

func (r *run) start() {
	r.t.Helper()
	if err := r.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// exitCode waits for the end.
func (r *run) exitCode() int {
	r.t.Helper()
	err := r.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return r.ProcessState.ExitCode()
}

// file is what a file of the run's directory holds; nothing while there is none.
func (r *run) file(name string) string {
	r.t.Helper()
	found, err := filepath.Glob(filepath.Join(r.results, "*", name))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(found) == 0 {
		return ""
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *run) events() string { r.t.Helper(); return r.file("events.jsonl") }

// until waits for something to become true that will.
func (r *run) until(what string, is func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			r.t.Fatalf("waited in vain for %s; stderr:\n%s", what, r.stderr.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// untilEvent waits for n events of a kind.
func (r *run) untilEvent(kind string, n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d times %s", n, kind), func() bool { return strings.Count(r.events(), `"event":"`+kind+`"`) >= n })
}

var pidOf = regexp.MustCompile(`"event":"engine_ready".*?"pid":(\d+)`)

// worker is the process that has the engine; the newest, when one was lost.
func (r *run) worker() int {
	r.t.Helper()
	r.untilEvent("engine_ready", 1)
	all := pidOf.FindAllStringSubmatch(r.events(), -1)
	pid, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil {
		r.t.Fatal(err)
	}
	return pid
}

// gone tells whether a process ended; one that nobody has waited for yet has.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z ")) || bytes.Contains(stat, []byte(") X "))
}

// stopped says whether SIGSTOP has reached every thread of a process.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range threads {
		stat, err := os.ReadFile(name)
		if err == nil && !bytes.Contains(stat, []byte(") T ")) {
			return false
		}
	}
	return err == nil && len(threads) > 0
}

func (r *run) kill(pid int, s syscall.Signal) {
	r.t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		r.t.Fatalf("send %v: %v", s, err)
	}
}

// Lengths that take minutes: the run ends because it is told to.
const long = "16000"

// TestSignal stops runs: with something printed the exit code is 0, else that
// of the signal. Whatever was measured is kept, and no worker stays.
func TestSignal(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		after  string // event
		n      int    // times
		signal syscall.Signal
		code   int
	}{
		{"interrupted while it loads", []string{"-p", long}, "load_started", 1, syscall.SIGINT, 130},
		{"interrupted in a repetition", []string{"-p", long, "-n", "0", "--no-warmup"}, "context_ready", 1, syscall.SIGINT, 130},
		{"terminated between repetitions", []string{"-p", "0", "-n", "1", "-r", "10000"}, "repetition_done", 2, syscall.SIGTERM, 143},
		{"terminal closed", []string{"-p", "0", "-n", long}, "warmup_done", 1, syscall.SIGHUP, 129},
		{"interrupted after a record", []string{"-p", "8", "-n", long, "-r", "1"}, "warmup_done", 2, syscall.SIGINT, 0},
		{"terminated after a record", []string{"-p", "8", "-n", long, "-r", "1"}, "warmup_done", 2, syscall.SIGTERM, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.signal == syscall.SIGHUP { // which is ignored below nohup, and not by children of who listens
				heard := make(chan os.Signal, 1)
				signal.Notify(heard, tc.signal)
				defer signal.Stop(heard)
			}
			r := newRun(t, tc.args...)
			r.start()
			r.untilEvent(tc.after, tc.n)
			r.kill(r.Process.Pid, tc.signal)
			if code := r.exitCode(); code != tc.code {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, tc.code, r.stderr.String())
			}
			records := 0
			if tc.code == 0 {
				records = 1
			}
			if got := r.stdout.String(); strings.Count(got, "\n") != records || got != r.file("results.jsonl") {
				t.Errorf("stdout %q is not the %d records kept", got, records)
			}
			if tc.after == "repetition_done" && strings.Count(r.events(), `"repetition_done"`) < tc.n {
				t.Error("repetitions were lost")
			}
			if !strings.Contains(r.file("run.json"), `"ended"`) || !strings.Contains(r.file("report.md"), "aborted: ") {
				t.Errorf("the run's directory is not complete; report:\n%s", r.file("report.md"))
			}
			if strings.Contains(r.stderr.String(), " ERR ") {
				t.Errorf("a stop is no error:\n%s", r.stderr.String())
			}
			if pid := r.worker(); !gone(pid) {
				t.Errorf("worker %d is still there", pid)
			}
		})
	}
}

// TestSecondSignal has a worker that cannot stop: a second signal does not wait
// for it.
func TestSecondSignal(t *testing.T) {
	for _, tc := range []struct {
		name   string
		prompt string
		events int // warm-ups to wait for
		code   int
	}{
		{"nothing printed", "0", 1, 130},
		{"a record printed", "8", 2, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRun(t, "-p", tc.prompt, "-n", long, "-r", "1")
			r.start()
			r.untilEvent("warmup_done", tc.events)
			pid := r.worker()
			r.kill(pid, syscall.SIGSTOP)
			r.until("the worker's stop", func() bool { return stopped(pid) }) // the kernel wakes none that is still stopping
			r.kill(r.Process.Pid, syscall.SIGINT)
			r.until("the first signal", func() bool { return strings.Contains(r.stderr.String(), "a second signal stops at once") })
			r.kill(r.Process.Pid, syscall.SIGINT)
			if code := r.exitCode(); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if strings.Contains(r.file("run.json"), `"ended"`) {
				t.Error("the second signal waited")
			}
			// The kernel wakes what nobody else can.
			r.until("the worker's end", func() bool { return gone(pid) })
		})
	}
}

// TestIgnoredSignal is a run below nohup.
func TestIgnoredSignal(t *testing.T) {
	r := newRun(t, "-p", "8", "-n", "64", "-r", "1")
	r.Args = append([]string{"nohup"}, r.Args...)
	nohup, err := exec.LookPath("nohup")
	if err != nil {
		t.Fatal(err)
	}
	r.Path = nohup
	r.start()
	r.untilEvent("load_started", 1)
	r.kill(r.Process.Pid, syscall.SIGHUP)
	if code := r.exitCode(); code != 0 || strings.Count(r.stdout.String(), "\n") != 2 {
		t.Errorf("exit code %d, stdout %q", code, r.stdout.String())
	}
}

// TestParentKilled leaves no worker behind.
func TestParentKilled(t *testing.T) {
	r := newRun(t, "-p", "0", "-n", long)
	r.start()
	r.untilEvent("warmup_done", 1)
	pid := r.worker()
	r.kill(r.Process.Pid, syscall.SIGKILL)
	_ = r.Wait() // it was killed
	r.until("the worker's end", func() bool { return gone(pid) })
	if r.stdout.Len() > 0 {
		t.Errorf("stdout %q", r.stdout.String())
	}
}

// TestWorkerKilled runs the test again in which a worker was lost, once.
func TestWorkerKilled(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		r := newRun(t, "-p", "8", "-n", "512", "-r", "1")
		r.start()
		r.untilEvent("warmup_done", 2)
		r.kill(r.worker(), syscall.SIGKILL)
		if code := r.exitCode(); code != 0 {
			t.Errorf("exit code %d; stderr:\n%s", code, r.stderr.String())
		}
		if n := strings.Count(r.stdout.String(), "\n"); n != 2 {
			t.Errorf("%d records, want 2", n)
		}
		if !strings.Contains(r.stderr.String(), "trying again") || !strings.Contains(r.events(), `"event":"worker_lost"`) {
			t.Errorf("nobody is told:\n%s", r.stderr.String())
		}
	})
	t.Run("twice", func(t *testing.T) {
		r := newRun(t, "-p", "0", "-n", long+",1", "-r", "1")
		r.start()
		for i := range 2 {
			r.untilEvent("warmup_done", i+1)
			r.kill(r.worker(), syscall.SIGKILL)
		}
		if code := r.exitCode(); code != 0 {
			t.Errorf("exit code %d; stderr:\n%s", code, r.stderr.String())
		}
		if out := r.stdout.String(); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"n_gen":1,`) {
			t.Errorf("stdout %q is not the other test's record", out)
		}
		if !strings.Contains(r.file("report.md"), "tg"+long+": ") {
			t.Errorf("the report lacks the test that was lost:\n%s", r.file("report.md"))
		}
	})
}

// TestStdoutFails keeps the records of a run that cannot print them, and says
// where.
func TestStdoutFails(t *testing.T) {
	closedPipe := func(t *testing.T) io.WriteCloser {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	full := func(t *testing.T) io.WriteCloser {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, tc := range []struct {
		name string
		open func(*testing.T) io.WriteCloser
		form string
	}{
		{"closed pipe", closedPipe, "jsonl"},
		{"closed pipe, at the end", closedPipe, "table"},
		{"full", full, "jsonl"},
		{"full, array", full, "json"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRun(t, "-p", "8", "-n", "1", "-r", "1", "-o", tc.form)
			w := tc.open(t)
			defer w.Close()
			r.Stdout = w
			r.start()
			if code := r.exitCode(); code != exitOutput {
				t.Errorf("exit code %d, want %d", code, exitOutput)
			}
			if n := strings.Count(r.file("results.jsonl"), "\n"); n != 2 {
				t.Errorf("%d records kept, want 2", n)
			}
			for _, want := range []string{"(?m)^benchmark-llm: stdout: .*(broken pipe|no space left)", "(?m)^hint: read the records in .*results.jsonl$"} {
				if n := len(regexp.MustCompile(want).FindAllString(r.stderr.String(), -1)); n != 1 {
					t.Errorf("%d matches of %s in\n%s", n, want, r.stderr.String())
				}
			}
		})
	}
}

// TestClosedFiles starts the program without what a shell opens for it.
func TestClosedFiles(t *testing.T) {
	r := newRun(t, "-p", "8", "-n", "1", "-r", "1")
	r.Args = append([]string{"sh", "-c", `exec "$0" "$@" <&- 2>&-`}, r.Args...)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	r.Path = sh
	r.start()
	if code := r.exitCode(); code != 0 || r.stdout.String() != r.file("results.jsonl") || r.stdout.Len() == 0 {
		t.Errorf("exit code %d, stdout %q", code, r.stdout.String())
	}
}

// TestTwoRuns has two runs share a results directory.
func TestTwoRuns(t *testing.T) {
	a := newRun(t, "-p", "8", "-n", "0", "-r", "1")
	b := newRun(t, "-p", "16", "-n", "0", "-r", "1", "--results-dir", a.results)
	a.start()
	b.start()
	if code := a.exitCode() + b.exitCode(); code != 0 {
		t.Error("a run failed")
	}
	dirs, err := os.ReadDir(a.results)
	if err != nil || len(dirs) != 2 {
		t.Errorf("%d directories (%v), want 2", len(dirs), err)
	}
}

// The program looks for back-ends beside its library alone: the directory that was
// compiled into ggml may hold those of another ggml of this machine.
func TestOnlyOwnBackends(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.CommandContext(t.Context(), "benchmark-llm", "devices")
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+sharedLibrary(t, "opendirs.so", "testdata/opendirs/opendirs.c"), "OPENDIRS_LOG="+log)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	library := regexp.MustCompile(`/\S*/libllama\.so\S*`).FindString(string(maps))
	own := filepath.Join(filepath.Dir(library), "ggml")
	for path := range strings.Lines(string(b)) {
		if !strings.HasPrefix(path, own) {
			t.Errorf("looked into %s", path)
		}
	}
}

// On a terminal, the line that tells what quick does is gone before the table comes.
func TestQuickOnTerminal(t *testing.T) {
	tty, screen := terminal(t, 100)
	cmd := exec.CommandContext(t.Context(), "benchmark-llm", "quick", "--within", "20s", "-m", "SmolLM-135M.Q4_K_M.gguf")
	cmd.Stdout, cmd.Stderr = tty, tty
	err := cmd.Run()
	lines := screen()
	if err != nil {
		t.Fatalf("%v: %s", err, strings.Join(lines, "\n"))
	}
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "model ") }) || strings.Contains(strings.Join(lines, "\n"), "s left") {
		t.Errorf("the terminal shows:\n%s", strings.Join(lines, "\n"))
	}
}
