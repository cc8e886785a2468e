//go:build cgo && linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
)

// state is the state of a process by /proc: 'T' if it is stopped.
func state(t *testing.T, pid int) byte {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return stat[bytes.LastIndexByte(stat, ')')+2]
}

// repeated checks that a run that was stopped in its first test's second repetition has
// repeated that repetition, and counted the others once.
func (r *faulty) repeated(stops int) {
	r.t.Helper()
	var story []string
	for _, e := range r.steps() {
		switch e := e.(type) {
		case bench.TestStarted:
			story = append(story, fmt.Sprintf("start at %d", len(e.Done)+1))
		case bench.RepetitionDone:
			story = append(story, fmt.Sprintf("done %d", e.Sample.Repetition))
		case bench.Continued:
			story = append(story, "continued")
		case bench.TestDone:
			story = append(story, string(e.Status))
		}
	}
	want := []string{"start at 1", "done 1"}
	want = append(want, slices.Repeat([]string{"continued"}, stops)...)
	want = append(want, "start at 2", "done 2", "done 3", "ok")
	if !slices.Equal(story, want) {
		r.t.Errorf("events %q, want %q", story, want)
	}
	if got := r.printed(); len(got) != 1 || len(got[0].SamplesNs) != 3 {
		r.t.Errorf("records %+v", got)
	}
}

// stoppable is a run of one test with repetitions of some seconds.
func stoppable(t *testing.T) faulty {
	t.Helper()
	r := newFaulty(t, "-p", "256", "-n", "0", "-r", "3", "--no-warmup")
	r.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell starts it
	return r
}

// A terminal's stop reaches the worker, which has a process group of its own, and the
// repetition under way does not count.
func TestStop(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			r := stoppable(t)
			r.start()
			worker := r.worker()
			r.untilEvent("repetition_done", 1)
			r.kill(r.Process.Pid, sig)
			r.until("the stop of both", func() bool { return state(t, r.Process.Pid) == 'T' && state(t, worker) == 'T' })
			r.kill(-r.Process.Pid, syscall.SIGCONT) // to the group, as a shell
			r.over(exitOK)
			r.repeated(1)
		})
	}
}

// SIGSTOP cannot be caught. Its end can.
func TestStopUncaught(t *testing.T) {
	t.Parallel()
	r := stoppable(t)
	r.start()
	r.worker()
	r.untilEvent("repetition_done", 1)
	r.kill(r.Process.Pid, syscall.SIGSTOP)
	r.until("the stop", func() bool { return state(t, r.Process.Pid) == 'T' })
	r.kill(r.Process.Pid, syscall.SIGCONT)
	r.over(exitOK)
	r.repeated(1)
}

// A job in the background of a terminal that lets only the foreground write is stopped
// with its worker when it writes.
func TestStopTostop(t *testing.T) {
	t.Parallel()
	terminal, name := openPTY(t)
	tty, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	r := newFaulty(t, "-p", "256", "-n", "0", "-r", "3", "--no-warmup")
	var quoted []string
	for _, a := range append([]string{r.Path}, r.Args[1:]...) {
		quoted = append(quoted, "'"+a+"'")
	}
	sh := exec.Command(bash, "--norc", "-i")
	sh.Env, sh.Stdin, sh.Stdout, sh.Stderr = r.Env, tty, tty, tty
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	defer sh.Wait()         //nolint:errcheck // it is killed
	defer sh.Process.Kill() //nolint:errcheck // it may have ended
	say := func(line string) {
		if _, err := terminal.WriteString(line + "\n"); err != nil {
			t.Error(err)
		}
	}
	drained := make(chan string, 1)
	go func() {
		var all bytes.Buffer
		_, _ = all.ReadFrom(terminal) // ends with an error when the terminal closes
		drained <- all.String()
	}()
	out := r.results + "/stdout"
	say("stty tostop")
	say(strings.Join(quoted, " ") + " >" + out + " &")
	ours := func() (stopped, all int) {
		for _, pid := range r.processes() {
			comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil || !bytes.Contains(comm, []byte("--log-level")) && !bytes.Contains(comm, []byte("--results-dir")) {
				continue
			}
			all++
			if state(t, pid) == 'T' {
				stopped++
			}
		}
		return stopped, all
	}
	wait := func(what string, is func() bool) {
		for range 12000 {
			if is() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("waited in vain for %s", what)
	}
	wait("the stop of all processes", func() bool { stopped, all := ours(); return all > 0 && stopped == all })
	say("fg")
	wait("the record", func() bool {
		text, _ := os.ReadFile(out)
		return bytes.Count(text, []byte("\n")) == 1
	})
	wait("the end", func() bool { _, all := ours(); return all == 0 })
	say("exit")
}
