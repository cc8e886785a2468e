package supervise

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// worker is a worker process, seen from the parent.
type worker struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events *os.File
	lines  chan []byte   // one event each; closed after the last
	exited chan struct{} // closed when the process has ended
	output *tail

	stops    *Stops
	oomKills func() (count uint64, ok bool) // may be nil
	killed   uint64                         // oomKills' count when the worker started
	counted  bool                           // killed is known
}

// start starts a worker in a process group of its own. A terminal's interrupt then
// reaches only the parent, and the worker's children can be ended with it.
func start(o Options, job bench.Job) (*worker, error) {
	line, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("%w: encode job: %w", ErrStart, err)
	}
	events, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	defer theirs.Close()
	w := &worker{events: events, lines: make(chan []byte), exited: make(chan struct{}), output: &tail{log: o.Log}, stops: o.Stops, oomKills: o.OOMKills}
	if w.oomKills != nil {
		w.killed, w.counted = w.oomKills()
	}
	w.cmd = exec.Command(o.Command[0], o.Command[1:]...)
	if o.Program != "" {
		w.cmd.Path, w.cmd.Err = o.Program, nil
	}
	w.cmd.Env = append(os.Environ(), o.Env...)
	w.cmd.ExtraFiles = []*os.File{theirs}
	w.cmd.Stdout, w.cmd.Stderr = w.output, w.output
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.cmd.WaitDelay = leftOpenLimit
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		_ = events.Close()
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	if err := w.stops.start(w.cmd); err != nil {
		_ = events.Close()
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	// When memory runs out, the kernel shall end the worker, not this process or
	// another one. If this fails, the kernel most likely still chooses the worker,
	// because it is the largest.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", w.cmd.Process.Pid), []byte("1000"), 0)
	go func() {
		// If this fails, the worker has died at once, and its end says why.
		_, _ = w.stdin.Write(append(line, '\n'))
	}()
	go w.read()
	go w.reap()
	return w, nil
}

// leftOpenLimit is how long a child of the worker may hold the worker's pipes open
// after its end. Everything that the worker wrote is read within that time.
const leftOpenLimit = time.Second

// reap waits for the end of the process and ends all its children.
func (w *worker) reap() {
	_ = w.cmd.Wait() // describe uses the process state instead of the error
	w.stops.ended(w.cmd.Process.Pid)
	w.kill()
	_ = w.events.SetReadDeadline(time.Now().Add(leftOpenLimit)) // fails only if events is closed
	close(w.exited)
}

// read passes on lines until the worker closes its end. A line that is too long is
// passed on in parts, which are refused as garbage. A last line that was cut off is
// dropped: the end of the worker says more.
func (w *worker) read() {
	defer close(w.lines)
	r := bufio.NewReaderSize(w.events, bench.MaxEventBytes)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		w.lines <- bytes.Clone(line)
	}
}

// acknowledge tells the worker that its event is safe.
func (w *worker) acknowledge() {
	_, _ = w.stdin.Write([]byte{'\n'}) // if the worker is gone, the next read shows it
}

// repeat tells the worker that its event was not kept, and that the step is to be
// repeated.
func (w *worker) repeat() { _, _ = w.stdin.Write([]byte{repeatByte}) }

// terminate asks the worker to stop.
func (w *worker) terminate() { _ = w.cmd.Process.Signal(syscall.SIGTERM) }

// kill ends the worker and all its children.
func (w *worker) kill() { _ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL) }

// end ends the worker, if it still lives, and releases its resources.
func (w *worker) end() {
	select {
	case <-w.exited:
	default:
		w.kill()
		select {
		case <-w.exited:
		case <-time.After(killLimit): // the kernel holds it; go on without it
		}
	}
	_ = w.stdin.Close()
	_ = w.events.Close()
	for range w.lines { //nolint:revive // drain it, so that read returns
	}
}

// describe says in a user's words how a worker ended that the parent did not end. The
// process must have exited.
func (w *worker) describe(output []string) *record.Loss {
	line := causeOf(output)
	l := w.ending(line)
	if limited(line) {
		l.Code = bench.ProcessLimit
	}
	return l
}

// ending describes the end of the process. line is the line of its output that explains
// most.
func (w *worker) ending(line string) *record.Loss {
	exit := w.cmd.ProcessState
	status, ok := exit.Sys().(syscall.WaitStatus)
	cause := ""
	if line != "" {
		cause = ": " + line
	}
	switch {
	case ok && status.Signaled() && status.Signal() == syscall.SIGKILL:
		killed, known := w.killedForMemory()
		switch {
		case killed:
			return lost(result.OutOfMemory, "the kernel killed the worker because memory ran out")
		case known:
			return lost(result.Crashed, "the worker was killed (SIGKILL), but not because memory ran out")
		default:
			return lost(result.OutOfMemory, "the worker was killed (SIGKILL), most likely by the kernel because memory ran out")
		}
	case noMemory(line):
		return lost(result.OutOfMemory, "the worker ran out of memory"+cause)
	case ok && status.Signaled():
		return lost(result.Crashed, fmt.Sprintf("the worker was ended by signal %d (%v)%s", int(status.Signal()), status.Signal(), cause))
	case exit.Success():
		return lost(result.Crashed, "the worker ended before its work was done"+cause)
	default:
		return lost(result.Crashed, fmt.Sprintf("the worker crashed (exit code %d)%s", exit.ExitCode(), cause))
	}
}

// lost is the loss of a worker that has ended.
func lost(status result.Status, reason string) *record.Loss {
	return &record.Loss{Status: status, Reason: reason, Gone: true}
}

// killedForMemory tells whether the kernel has killed a process because memory ran out
// since the worker started. known is false if this machine does not count it.
func (w *worker) killedForMemory() (killed, known bool) {
	if !w.counted {
		return false, false
	}
	count, ok := w.oomKills()
	return ok && count > w.killed, ok
}

// causeOf returns the line of a crashed worker's output that explains most: a failed
// allocation, an assertion of ggml, a C++ exception, or the signal that Go's run time
// caught. After the signal, Go's run time prints only stacks.
func causeOf(output []string) string {
	end := slices.IndexFunc(output, isSignal)
	if end < 0 {
		end = len(output)
	}
	// The worker survived an allocation that failed long before the end.
	near := output[max(0, end-fatalLines):min(end+1, len(output))]
	for _, line := range near {
		if noMemory(line) {
			return bare(line)
		}
	}
	for _, mark := range slices.Concat(causes, signals) {
		for _, line := range output {
			if strings.Contains(line, mark) {
				return bare(line)
			}
		}
	}
	if len(output) > 0 {
		return strings.TrimSpace(output[len(output)-1])
	}
	return ""
}

// bare is a line without the prefix of this program or of C++, which prints an exception's
// text after "what():".
func bare(line string) string {
	line = strings.TrimSpace(strings.TrimPrefix(line, errorPrefix))
	return strings.TrimSpace(strings.TrimPrefix(line, "what():"))
}

// fatalLines is how many lines before the end of a crash explain it: the failure, the
// assertion, the exception and its text.
const fatalLines = 5

// Marks of lines that explain a crash, the most useful first.
var (
	causes = []string{
		"GGML_ASSERT", "GGML_ABORT", "CUDA error", "what():", "terminate called", "pthread_create failed", "libgomp:",
		"crashed or returned malformed response", errorPrefix, "failed to create new OS thread",
	}
	signals = []string{"SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT", "fatal error:", "panic:"}
)

// errorPrefix begins an error line of this program, which a hint follows.
const errorPrefix = "benchmark-llm: "

// limited tells whether a line reports a limit of the process: of llama/limits, libc,
// libgomp or Go's run time.
func limited(line string) bool {
	return contains(line, []string{"address space is limited", "more threads can be started", "pthread_create failed", "failed to create new OS thread", "Thread creation failed"}) ||
		noMemory(line) && addressSpaceLimited()
}

// addressSpaceLimited tells whether workers inherit a limit (ulimit -v).
func addressSpaceLimited() bool {
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_AS, &limit) == nil && limit.Cur != unix.RLIM_INFINITY
}

// noMemory tells whether a line reports a failed allocation by C++, ggml and its
// back-ends, libgomp, or Go's run time.
func noMemory(line string) bool {
	return contains(strings.ToLower(line), []string{
		"bad_alloc", "out of memory", "outofdevicememory", "insufficient memory", "failed to allocate", "unable to allocate",
		"cannot allocate memory", "address space is limited", "memory allocation failed", "alloc_tensor_range", "failed to reserve page summary memory",
	})
}

// isSignal tells whether Go's run time prints stacks after this line.
func isSignal(line string) bool {
	return slices.ContainsFunc(signals, func(mark string) bool { return strings.HasPrefix(line, mark) })
}

func contains(line string, marks []string) bool {
	return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(line, mark) })
}

// Limits of the output that is kept of a worker.
const (
	tailLines     = 50 // first lines, and as many last lines
	tailLineBytes = 1000
	stackLines    = 20 // that Go's run time prints after a signal
)

// tail keeps the first and the last lines of a worker's output. It passes lines of the
// worker's log on to the parent's log. The cause of a crash comes before the stacks of
// Go's run time, which are therefore cut.
type tail struct {
	log *slog.Logger

	mu      sync.Mutex // guards all below
	partial []byte     // line without its end
	all     kept
	recent  kept // of the current test; before the first test, all
	stack   int  // lines since the signal; 0: no signal yet
}

// kept are lines of an output: the first and the last.
type kept struct{ head, last []string }

func (k *kept) add(line string) {
	switch {
	case len(k.head) < tailLines:
		k.head = append(k.head, line)
		return
	case len(k.last) == tailLines:
		k.last = k.last[1:]
	}
	k.last = append(k.last, line)
}

// testStarts notes that the worker has survived what it printed until now. A failure of
// an earlier test does not explain its end.
func (t *tail) testStarts() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recent = kept{}
}

// Write takes a part of the output.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range p {
		switch {
		case b == '\n':
			t.line(string(t.partial))
			t.partial = t.partial[:0]
		case len(t.partial) < tailLineBytes:
			t.partial = append(t.partial, b)
		}
	}
	return len(p), nil
}

func (t *tail) line(s string) {
	if strings.TrimSpace(s) == "" {
		return
	}
	var record struct {
		Level  slog.Level `json:"level"`
		Msg    string     `json:"msg"`
		Source string     `json:"source"`
	}
	if s[0] == '{' && json.Unmarshal([]byte(s), &record) == nil && record.Msg != "" {
		attrs := []any{}
		if record.Source != "" {
			attrs = append(attrs, "source", record.Source)
		}
		t.log.Log(context.Background(), record.Level, record.Msg, attrs...)
		s = record.Msg
	} else {
		t.log.Debug(s, "source", "worker")
		if t.stack > 0 || isSignal(s) {
			t.stack++
		}
	}
	if t.stack <= stackLines { // keep the lines before the signal
		t.all.add(s)
		t.recent.add(s)
	}
}

// lines returns the lines that were kept, oldest first, and those of the current test
// among them.
func (t *tail) lines() (all, recent []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, recent = slices.Concat(t.all.head, t.all.last), slices.Concat(t.recent.head, t.recent.last)
	if len(t.partial) > 0 {
		all, recent = append(all, string(t.partial)), append(recent, string(t.partial))
	}
	return all, recent
}
