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

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// worker is a worker process, seen from the parent.
type worker struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events *os.File
	lines  chan []byte   // one event each; closed when no more can come
	exited chan struct{} // closed when the process has ended
	output *tail

	oomKills func() (count uint64, ok bool) // may be nil
	killed   uint64                         // their count when the worker started
	counted  bool                           // it is known
}

// start starts a worker in a process group of its own, so that a terminal's
// interrupt reaches the parent alone and grandchildren end with it.
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
	w := &worker{events: events, lines: make(chan []byte), exited: make(chan struct{}), output: &tail{log: o.Log}, oomKills: o.OOMKills}
	if w.oomKills != nil {
		w.killed, w.counted = w.oomKills()
	}
	w.cmd = exec.Command(o.Command[0], o.Command[1:]...)
	w.cmd.Env = append(os.Environ(), o.Env...)
	w.cmd.ExtraFiles = []*os.File{theirs}
	w.cmd.Stdout, w.cmd.Stderr = w.output, w.output
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.cmd.WaitDelay = leftOpenLimit
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		_ = events.Close()
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	if err := w.cmd.Start(); err != nil {
		_ = events.Close()
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	// When memory runs out, this process and whatever else runs on the machine
	// shall survive. Where that cannot be said the kernel's own choice, by size,
	// is most likely the same.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", w.cmd.Process.Pid), []byte("1000"), 0)
	go func() {
		// An error here is a worker that died at once: its end tells why.
		_, _ = w.stdin.Write(append(line, '\n'))
	}()
	go w.read()
	go w.reap()
	return w, nil
}

// leftOpenLimit is how long a grandchild may hold a worker's pipes open after
// the worker's end. All that the worker itself wrote is read before that.
const leftOpenLimit = time.Second

// reap waits for the end of the process and ends all it left behind.
func (w *worker) reap() {
	_ = w.cmd.Wait() // the state says more
	w.kill()
	_ = w.events.SetReadDeadline(time.Now().Add(leftOpenLimit)) // closed: nobody reads any more
	close(w.exited)
}

// read passes lines on until the worker closes its end. A line beyond the limit
// is passed on in parts, to be refused as garbage; a last line without an end is
// dropped: the worker's own end, which cut it off, tells more.
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
	_, _ = w.stdin.Write([]byte{'\n'}) // a worker that is gone shows at the next read
}

// terminate asks the worker to stop.
func (w *worker) terminate() { _ = w.cmd.Process.Signal(syscall.SIGTERM) }

// kill ends the worker and all its children.
func (w *worker) kill() { _ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL) }

// end ends the worker, if it still lives, and frees what start made.
func (w *worker) end() {
	select {
	case <-w.exited:
	default:
		w.kill()
		select {
		case <-w.exited:
		case <-time.After(killLimit): // the kernel holds it: go on without it
		}
	}
	_ = w.stdin.Close()
	_ = w.events.Close()
	for range w.lines { //nolint:revive // drained: the reader must not stay behind
	}
}

// describe says in a user's words how a worker ended that nobody had ended; the
// process has exited.
func (w *worker) describe(output []string) *record.Loss {
	exit := w.cmd.ProcessState
	status, ok := exit.Sys().(syscall.WaitStatus)
	said := telling(output)
	cause := ""
	if said != "" {
		cause = ": " + said
	}
	switch {
	case ok && status.Signaled() && status.Signal() == syscall.SIGKILL:
		killed, known := w.killedForMemory()
		switch {
		case killed:
			return lost(result.OutOfMemory, "the worker was killed by the kernel for memory")
		case known:
			return lost(result.Crashed, "the worker was killed (SIGKILL), not by the kernel for memory")
		default:
			return lost(result.OutOfMemory, "the worker was killed (SIGKILL), most likely by the kernel for lack of memory")
		}
	case noMemory(said):
		return lost(result.OutOfMemory, "the worker could not get the memory it needed"+cause)
	case ok && status.Signaled():
		return lost(result.Crashed, fmt.Sprintf("the worker was ended by signal %d (%v)%s", int(status.Signal()), status.Signal(), cause))
	case exit.Success():
		return lost(result.Crashed, "the worker ended before its work was done"+cause)
	default:
		return lost(result.Crashed, fmt.Sprintf("the worker crashed (exit code %d)%s", exit.ExitCode(), cause))
	}
}

// lost is the loss of a worker that is gone.
func lost(status result.Status, reason string) *record.Loss {
	return &record.Loss{Status: status, Reason: reason, Gone: true}
}

// killedForMemory tells whether the kernel has killed a process for memory since
// the worker started; known is false when that is not counted here.
func (w *worker) killedForMemory() (killed, known bool) {
	if !w.counted {
		return false, false
	}
	count, ok := w.oomKills()
	return ok && count > w.killed, ok
}

// telling is the line of a crashed worker's output that tells most: an
// allocation that failed, an assertion of ggml, a C++ exception, or the signal
// that Go's run time caught. Whatever Go's run time prints after the signal is
// its own stacks.
func telling(output []string) string {
	end := slices.IndexFunc(output, isSignal)
	if end < 0 {
		end = len(output)
	}
	// An allocation that failed long before the end was got over.
	near := output[max(0, end-fatalLines):min(end+1, len(output))]
	for _, line := range near {
		if noMemory(line) {
			return strings.TrimSpace(line)
		}
	}
	for _, mark := range slices.Concat(causes, signals) {
		for _, line := range output {
			if strings.Contains(line, mark) {
				return strings.TrimSpace(line)
			}
		}
	}
	if len(output) > 0 {
		return strings.TrimSpace(output[len(output)-1])
	}
	return ""
}

// fatalLines is how many lines of a crash are about its cause: what failed, the
// assertion that it broke, the exception and its text.
const fatalLines = 5

// What crashes say, the most telling first.
var (
	causes = []string{
		"GGML_ASSERT", "GGML_ABORT", "CUDA error", "what():", "terminate called", "pthread_create failed", "libgomp:",
		"crashed or returned malformed response",
	}
	signals = []string{"SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT", "fatal error:", "panic:"}
)

// noMemory tells whether a line is about memory that could not be had: of C++,
// ggml and its back-ends, libgomp, and Go's run time.
func noMemory(line string) bool {
	return contains(strings.ToLower(line), []string{
		"bad_alloc", "out of memory", "outofdevicememory", "insufficient memory", "failed to allocate", "unable to allocate",
		"cannot allocate memory", "memory allocation failed", "alloc_tensor_range", "failed to reserve page summary memory",
	})
}

// isSignal tells whether Go's run time prints stacks after this line.
func isSignal(line string) bool {
	return slices.ContainsFunc(signals, func(mark string) bool { return strings.HasPrefix(line, mark) })
}

func contains(line string, marks []string) bool {
	return slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(line, mark) })
}

// tailLines is how many lines of a worker's output are kept: a crash of ggml
// says why before Go's run time prints its stacks.
const (
	tailLines     = 50
	tailLineBytes = 1000
	stackLines    = 20 // of what Go's run time prints after a signal
)

// tail keeps the first and the last lines of a worker's output and passes what
// is a line of its log on to the parent's.
type tail struct {
	log *slog.Logger

	mu      sync.Mutex
	partial []byte
	head    []string
	last    []string
	stack   int // lines since the signal; 0: none came
}

// Write takes output as it comes.
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
	switch {
	case t.stack > stackLines: // it must not push out what led to it
		return
	case len(t.head) < tailLines:
		t.head = append(t.head, s)
		return
	case len(t.last) == tailLines:
		t.last = t.last[1:]
	}
	t.last = append(t.last, s)
}

// lines are the lines kept, oldest first.
func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := append(append([]string(nil), t.head...), t.last...)
	if len(t.partial) > 0 {
		lines = append(lines, string(t.partial))
	}
	return lines
}
