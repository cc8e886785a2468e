package supervise

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stops makes the worker stop and go on with this process. The worker has a process
// group of its own, so a terminal's stop signals (SIGTSTP, SIGTTOU, SIGTTIN) do not reach
// it. Its methods may be called from any goroutine. A nil *Stops does nothing.
type Stops struct {
	signals chan os.Signal
	resumed chan struct{} // has a value after each continuation; has room for one

	mu    sync.Mutex // guards all below; held while this process is stopped
	group int        // process group of the current worker; 0: none
	seen  stopCount
}

// stopCount counts stops.
type stopCount struct {
	n     int
	total time.Duration // stopped, as far as known
}

// WatchStops begins to pass stop signals on. A signal that was ignored at the start stays
// ignored. The caller must call Close.
func WatchStops() *Stops {
	s := &Stops{signals: make(chan os.Signal, 8), resumed: make(chan struct{}, 1)}
	signal.Notify(s.signals, syscall.SIGCONT)
	for _, stop := range []os.Signal{syscall.SIGTSTP, syscall.SIGTTOU, syscall.SIGTTIN} {
		if !signal.Ignored(stop) {
			signal.Notify(s.signals, stop)
		}
	}
	go func() {
		for sig := range s.signals {
			switch {
			case sig == syscall.SIGCONT: // SIGSTOP, which cannot be caught, came before
				s.goOn(0)
			case sig != syscall.SIGTSTP && foreground():
				// A thread that writes to the terminal gets the signal again and again until the
				// stop, so this one may be from before it.
			case !orphaned():
				s.stop()
			}
		}
	}()
	return s
}

// Close ends the watch.
func (s *Stops) Close() {
	signal.Stop(s.signals) // no signal is sent to the channel after this
	close(s.signals)
}

// stop stops the worker with its children, then this process, and waits for SIGCONT.
func (s *Stops) stop() {
	s.mu.Lock()
	s.signalWorker(syscall.SIGSTOP)
	for len(s.signals) > 0 { // from before the stop
		<-s.signals
	}
	began := time.Now()
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // cannot fail
	for sig := range s.signals {
		if sig == syscall.SIGCONT {
			break
		}
	}
	s.mu.Unlock()
	s.goOn(time.Since(began))
}

// goOn continues the worker after a stop of known length; 0: not known. The stop is
// counted before the worker goes on.
func (s *Stops) goOn(stopped time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.n++
	s.seen.total += stopped
	s.signalWorker(syscall.SIGCONT)
	select {
	case s.resumed <- struct{}{}:
	default:
	}
}

// signalWorker sends a signal to the current worker and its children. The caller holds
// the lock.
func (s *Stops) signalWorker(sig syscall.Signal) {
	if s.group != 0 {
		_ = syscall.Kill(-s.group, sig) // if the group has ended, there is nothing to do
	}
}

// start starts a worker as cmd. No stop comes between its start and its first signal.
func (s *Stops) start(cmd *exec.Cmd) error {
	if s == nil {
		return cmd.Start()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := cmd.Start()
	if err == nil {
		s.group = cmd.Process.Pid
	}
	return err
}

// ended forgets a worker, whose number may soon belong to another process.
func (s *Stops) ended(pid int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.group == pid {
		s.group = 0
	}
}

// C has a value after a stop.
func (s *Stops) C() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.resumed
}

// count returns the stops so far.
func (s *Stops) count() stopCount {
	if s == nil {
		return stopCount{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// foreground tells whether this process may use its terminal.
func foreground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close() //nolint:errcheck // nothing was written
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == syscall.Getpgrp()
}

// orphaned tells whether no shell could continue this process after a stop: no process of
// its group has a parent in another group of the same session. The kernel ignores a
// terminal's stop signals then, unless they are caught.
func orphaned() bool {
	group := syscall.Getpgrp()
	session, err := unix.Getsid(0)
	if err != nil {
		return true
	}
	for pid := os.Getppid(); pid > 0; pid = parentOf(pid) { // 0: outside of this PID namespace
		if sid, err := unix.Getsid(pid); err != nil || sid != session {
			return true
		}
		if pgid, err := syscall.Getpgid(pid); err != nil || pgid != group {
			return err != nil
		}
	}
	return true
}

// parentOf returns the parent of a process; 0: not known.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name of the program may contain anything, so fields count from its end.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return 0
	}
	return parent
}
