//go:build cgo && linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// The faults here are real: processes are killed and stopped, memory and disks
// run out, files are broken. Parents are this test binary run as the program
// (see TestMain), workers are its children.

const embedded = "SmolLM-135M.Q4_K_M.gguf"

// markEnv marks the processes of one run: its workers have it too.
const markEnv = "BENCHMARK_LLM_TEST_RUN"

var marks atomic.Int64

// faulty is a run of the embedded model that something will happen to.
type faulty struct {
	*run
	mark string
}

func newFaulty(t *testing.T, args ...string) faulty {
	t.Helper()
	r := faulty{newRun(t, args...), fmt.Sprintf("%d.%d", os.Getpid(), marks.Add(1))}
	r.Env = append(os.Environ(), markEnv+"="+r.mark)
	return r
}

// throughShell runs the program below a shell script, which ends with its
// execution.
func (r *faulty) throughShell(script string) {
	r.t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		r.t.Fatal(err)
	}
	r.Path, r.Args = sh, append([]string{"sh", "-c", script + `; exec "$0" "$@"`}, r.Args...)
}

// processes are those of the run that still live, but for the program itself.
func (r *faulty) processes() []int {
	r.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		r.t.Fatal(err)
	}
	var pids []int
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || r.Process != nil && pid == r.Process.Pid {
			continue
		}
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !bytes.Contains(env, []byte(markEnv+"="+r.mark+"\x00")) || gone(pid) {
			continue // another's, or gone meanwhile
		}
		pids = append(pids, pid)
	}
	return pids
}

// untilEvent waits for n events of a kind, of a run that goes on.
func (r *faulty) untilEvent(kind string, n int) {
	r.t.Helper()
	have := func() bool { return strings.Count(r.events(), `"event":"`+kind+`"`) >= n }
	r.until(fmt.Sprintf("%d times %s", n, kind), func() bool { return have() || gone(r.Process.Pid) })
	if !have() {
		r.t.Fatalf("the run ended before %d times %s; stderr:\n%s", n, kind, r.stderr.String())
	}
}

// steps are the events so far. The last line may be on its way.
func (r *faulty) steps() []bench.Event {
	r.t.Helper()
	var steps []bench.Event
	text := r.events()
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") && r.ProcessState == nil {
			break
		}
		var s bench.Stamped
		if err := s.UnmarshalLine([]byte(line)); err != nil {
			r.t.Errorf("malformed event: %v in %q", err, line)
			continue
		}
		steps = append(steps, s.Event)
	}
	return steps
}

// printedRecord is what is checked of a line of stdout.
type printedRecord struct {
	Prompt    int     `json:"n_prompt"`
	Gen       int     `json:"n_gen"`
	AvgTS     float64 `json:"avg_ts"`
	SamplesNs []int64 `json:"samples_ns"`
}

func (r printedRecord) test() result.Test { return result.Test{Prompt: r.Prompt, Gen: r.Gen} }

// printed are the records on stdout, of which every line must be one.
func (r *faulty) printed() []printedRecord {
	r.t.Helper()
	text := r.stdout.String()
	if text != "" && !strings.HasSuffix(text, "\n") {
		r.t.Errorf("stdout does not end with a line: %q", text)
	}
	var records []printedRecord
	for line := range strings.Lines(text) {
		var rec printedRecord
		if err := json.Unmarshal([]byte(line), &rec); err != nil || rec.AvgTS <= 0 || len(rec.SamplesNs) == 0 {
			r.t.Errorf("malformed line on stdout: %v: %q", err, line)
			continue
		}
		records = append(records, rec)
	}
	return records
}

// over waits for the end of the run and checks what holds for all: the exit
// code, one error line with a hint or none, and that no process is left.
func (r *faulty) over(code int) {
	r.t.Helper()
	if r.ProcessState == nil {
		r.exitCode()
	}
	if got := r.ProcessState.ExitCode(); got != code {
		r.t.Errorf("exit code %d, want %d; stderr:\n%s", got, code, r.stderr.String())
	}
	errorLines := 0
	for line := range strings.Lines(r.stderr.String()) {
		if strings.HasPrefix(line, "benchmark-llm: ") {
			errorLines++
		}
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
			r.t.Errorf("control characters in %q", line)
		}
	}
	if want := min(code, 1); errorLines != want {
		r.t.Errorf("%d lines of error, want %d; stderr:\n%s", errorLines, want, r.stderr.String())
	}
	if left := r.processes(); len(left) > 0 {
		r.t.Errorf("processes %v are left", left)
	}
}

// tally is what became of the tests, "pp8 ok 3" each, by the events: the status
// and the number of repetitions done.
func tally(steps []bench.Event) []string {
	var all []string
	var test result.Test
	done := 0
	for _, e := range steps {
		switch e := e.(type) {
		case bench.TestStarted:
			test, done = e.Test, len(e.Done)
		case bench.RepetitionDone:
			done++
		case bench.TestDone:
			all = append(all, fmt.Sprintf("%v %s %d", e.Test, e.Status, done))
		case bench.TestSkipped:
			all = append(all, fmt.Sprintf("%v %s 0", e.Test, e.Status))
		case bench.WorkerLost:
			all = append(all, fmt.Sprintf("(%v lost: %s %d)", test, e.Status, done))
		}
	}
	return all
}

// Workers are killed at random moments of their lives. Each run ends well, with
// all its records, made of every repetition that was completed.
func TestFaultWorkerKilledAtRandom(t *testing.T) {
	const runs, seed = 50, 1
	args := []string{"-p", "8", "-n", "4", "-r", "3"}
	calm := newFaulty(t, args...)
	calm.start()
	calm.worker()
	began := time.Now()
	calm.over(exitOK)
	life := time.Since(began) // of a worker, from engine_ready to its end

	rng := rand.New(rand.NewPCG(seed, seed))
	for i := range runs {
		after := time.Duration(rng.Int64N(int64(life)))
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, args...)
			r.start()
			pid := r.worker()
			time.Sleep(after)
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have done its work
			r.over(exitOK)

			samples := make(map[result.Test][]result.Sample)
			var test result.Test
			lost := 0
			for _, e := range r.steps() {
				switch e := e.(type) {
				case bench.TestStarted:
					test = e.Test
					if diff := cmp.Diff(samples[test], e.Done); diff != "" {
						t.Errorf("killed after %v: %v goes on with other repetitions than were completed:\n%s", after, test, diff)
					}
				case bench.RepetitionDone:
					samples[test] = append(samples[test], e.Sample)
				case bench.WorkerLost:
					lost++
					if !strings.Contains(e.Reason, "SIGKILL") {
						t.Errorf("killed after %v: %s", after, e.Reason)
					}
				}
			}
			if lost > 1 {
				t.Errorf("killed after %v: %d workers were lost, one was killed", after, lost)
			}
			want := map[result.Test][]int64{{Prompt: 8}: nil, {Gen: 4}: nil}
			for test := range want {
				for n, s := range samples[test] {
					if s.Repetition != n+1 {
						t.Errorf("killed after %v: repetition %d of %v follows %d others", after, s.Repetition, test, n)
					}
					want[test] = append(want[test], s.Elapsed.Nanoseconds())
				}
			}
			got := make(map[result.Test][]int64)
			for _, rec := range r.printed() {
				got[rec.test()] = rec.SamplesNs
			}
			if diff := cmp.Diff(want, got); diff != "" || len(got[result.Test{Gen: 4}]) != 3 {
				t.Errorf("killed after %v: the records are not of the repetitions completed (-events +records):\n%s", after, diff)
			}
			if r.stdout.String() != r.file("results.jsonl") {
				t.Errorf("killed after %v: stdout and results.jsonl differ", after)
			}
		})
	}
}

// A parent killed at any moment leaves no worker behind.
func TestFaultParentKilled(t *testing.T) {
	const runs, seed = 8, 2
	rng := rand.New(rand.NewPCG(seed, seed))
	for i := range runs {
		after := time.Duration(rng.Int64N(int64(800 * time.Millisecond)))
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, "-p", "8", "-n", long, "-r", "3")
			r.start()
			time.Sleep(after)
			r.kill(r.Process.Pid, syscall.SIGKILL)
			_ = r.Wait() // it was killed
			r.until("the workers' end", func() bool { return len(r.processes()) == 0 })
			r.printed()
			for line := range strings.Lines(r.events()) { // all that was written is whole
				var s bench.Stamped
				if err := s.UnmarshalLine([]byte(line)); err != nil {
					t.Errorf("killed after %v: %v in %q", after, err, line)
				}
			}
		})
	}
}

// rpcServer starts ggml-rpc-server with a CPU device on a free port.
func rpcServer(t *testing.T) (endpoint string, server *os.Process) {
	t.Helper()
	return rpcServerWith(t, 0)
}

// rpcServerWith starts one that may use so much memory, which it does not know;
// 0 is no limit.
func rpcServerWith(t *testing.T, limitKiB int, args ...string) (endpoint string, server *os.Process) {
	t.Helper()
	return benchtest.StartRPC(t, benchtest.RPC{LimitKiB: limitKiB, Args: args})
}

// A worker hangs for real: the server that it computes on is stopped in the
// middle of a repetition, where no abort reaches. The test is ended at its
// deadline and after its grace, and the next one runs.
func TestFaultWorkerHangs(t *testing.T) {
	t.Parallel()
	endpoint, server := rpcServer(t)
	// The scale is for the load.
	r := newFaulty(t, "--rpc", endpoint, "-p", "8,64", "-n", "4", "-r", "3", "--timeout", "4s", "--benchmark-timeout-scale", "30")
	r.start()
	r.untilEvent("warmup_done", 2)
	time.Sleep(20 * time.Millisecond) // into a repetition
	pid := r.worker()
	r.kill(server.Pid, syscall.SIGSTOP)
	r.untilEvent("worker_lost", 1)
	time.Sleep(11 * time.Second) // busy for longer than it may be when a run begins
	r.kill(server.Pid, syscall.SIGCONT)
	if left := processesIn(t, pid); len(left) > 0 {
		t.Errorf("of the group of worker %d there are %v", pid, left)
	}
	r.over(exitOK)

	var order []string
	for _, e := range r.steps() {
		switch e := e.(type) {
		case bench.EngineReady:
			order = append(order, "worker")
		case bench.TestStarted:
			order = append(order, e.Test.String())
		case bench.AbortRequested:
			order = append(order, "abort")
		case bench.GraceExpired:
			order = append(order, "grace expired")
		case bench.WorkerLost:
			order = append(order, "lost")
		case bench.TestDone:
			order = append(order, string(e.Status))
		case bench.JobDone:
			order = append(order, "done")
		}
	}
	want := []string{"worker", "pp8", "ok", "pp64", "abort", "grace expired", "lost", "worker", "tg4", "ok", "done"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	var tests []string
	for _, rec := range r.printed() {
		tests = append(tests, rec.test().String())
	}
	if diff := cmp.Diff([]string{"pp8", "tg4"}, tests); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	// By the clock, or by what the policy made of it before.
	if report := r.file("report.md"); !strings.Contains(report, "pp64") || !strings.Contains(report, "timeout") {
		t.Errorf("the report does not tell of pp64:\n%s", report)
	}
}

// processesIn are the processes of a process group that still run.
func processesIn(t *testing.T, pgid int) []string {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-o", "pgid=", "-o", "pid=", "-o", "stat=", "-o", "args=").Output()
	if err != nil {
		t.Fatalf("%v (apt-get install procps)", err)
	}
	var left []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); f[0] == strconv.Itoa(pgid) && !strings.HasPrefix(f[2], "Z") {
			left = append(left, strings.TrimSpace(line))
		}
	}
	return left
}

// switchboard is one address in front of several servers: connections go to the
// one that is named last.
func switchboard(t *testing.T) (endpoint string, connectTo func(string)) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var target atomic.Value
	pipe := func(from, to net.Conn) {
		_, _ = io.Copy(to, from) // until either hangs up
		_, _ = from.Close(), to.Close()
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			server, err := net.Dial("tcp4", target.Load().(string))
			if err != nil {
				_ = client.Close()
				continue
			}
			go pipe(client, server)
			go pipe(server, client)
		}
	}()
	return l.Addr().String(), func(endpoint string) { target.Store(endpoint) }
}

// A worker crashes for real: the server that it computes on is killed. Another
// worker, with another server at the same address, goes on where it stopped.
func TestFaultWorkerCrashes(t *testing.T) {
	t.Parallel()
	first, server := rpcServer(t)
	second, _ := rpcServer(t)
	endpoint, connectTo := switchboard(t)
	connectTo(first)
	r := newFaulty(t, "--rpc", endpoint, "-p", "8,64", "-n", "4", "-r", "3")
	r.start()
	r.untilEvent("repetition_done", 4) // the first of pp64
	connectTo(second)
	r.kill(server.Pid, syscall.SIGKILL)
	r.over(exitOK)
	got := tally(r.steps())
	if len(got) == 4 {
		got[1], _, _ = strings.Cut(got[1], " crashed") // with one repetition, or two
	}
	if diff := cmp.Diff([]string{"pp8 ok 3", "(pp64 lost:", "pp64 ok 3", "tg4 ok 3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(r.printed()); n != 3 {
		t.Errorf("%d records, want 3", n)
	}
	if log := r.stderr.String(); !strings.Contains(log, "Remote RPC server crashed") {
		t.Errorf("nobody is told why:\n%s", log)
	}
}

// A server that is gone for good ends the run, which keeps what it has and names
// that one; also where another is left: the speed of one is not that of both.
func TestFaultServerGone(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d others", others), func(t *testing.T) {
			t.Parallel()
			gone, server := rpcServer(t)
			servers := gone
			for range others {
				other, _ := rpcServer(t)
				servers = other + "," + servers
			}
			r := newFaulty(t, "--rpc", servers, "-p", "8,64", "-n", "0", "-r", "3")
			r.start()
			r.untilEvent("warmup_done", 2)
			r.kill(server.Pid, syscall.SIGKILL)
			r.over(exitOK)
			if n := len(r.printed()); n != 1 {
				t.Errorf("%d records, want that of pp8", n)
			}
			if log := r.stderr.String(); !strings.Contains(log, "RPC server cannot be used: "+gone) {
				t.Errorf("nobody is told which:\n%s", log)
			}
			if report := r.file("report.md"); !strings.Contains(report, "- pp64: ") {
				t.Errorf("the report does not tell of pp64:\n%s", report)
			}
		})
	}
}

// A run that was interrupted goes on with its server, not without.
func TestFaultServerGoneAtResume(t *testing.T) {
	t.Parallel()
	endpoint, server := rpcServer(t)
	r := newFaulty(t, "--rpc", endpoint, "-p", "8,16", "-n", "0", "-r", "3")
	r.start()
	r.untilEvent("repetition_done", 3)
	r.kill(r.Process.Pid, syscall.SIGKILL)
	_ = r.Wait() // it was killed
	r.until("the worker's end", func() bool { return len(r.processes()) == 0 })
	r.kill(server.Pid, syscall.SIGKILL)
	dirs, err := filepath.Glob(filepath.Join(r.results, "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%v, %v", dirs, err)
	}
	again := newFaulty(t)
	again.Args = []string{"benchmark-llm", "run", "--resume", dirs[0]}
	again.start()
	again.over(exitLibrary)
	// A warning comes first if the kill came in the middle of a test.
	lines := strings.Split(strings.TrimSuffix(again.stderr.String(), "\n"), "\n")
	if n := len(lines); n < 2 || !strings.HasPrefix(lines[n-2], "benchmark-llm: RPC server cannot be used: "+endpoint+" cannot be reached: ") || !strings.HasPrefix(lines[n-1], "hint: ") {
		t.Errorf("not that line and a hint at the end:\n%s", again.stderr.String())
	}
	if again.stdout.Len() > 0 {
		t.Errorf("stdout: %s", again.stdout.String())
	}
}

// A server that dies while the model is loaded costs the model, with one reason.
func TestFaultServerDiesInLoad(t *testing.T) {
	t.Parallel()
	endpoint, server := rpcServer(t)
	r := newFaulty(t, "--rpc", endpoint, "-p", "8", "-n", "4", "-r", "3", "--benchmark-timeout-scale", "30")
	r.start()
	r.untilEvent("offload_try", 1)
	r.kill(server.Pid, syscall.SIGKILL)
	r.over(exitNothing)
	for _, e := range r.steps() {
		if e, ok := e.(bench.TestSkipped); ok && (e.Status != result.Crashed || !strings.Contains(e.Reason, "RPC server")) {
			t.Errorf("%+v", e)
		}
	}
	if log := r.stderr.String(); strings.Count(log, "\nbenchmark-llm: ") != 1 || !strings.Contains(log, "RPC server cannot be used: "+endpoint) {
		t.Errorf("nobody is told why, in one line:\n%s", log)
	}
}

// A worker that is lost while it loads with all layers on a device is followed
// by one that tries half of them.
func TestFaultLoadEndsWorker(t *testing.T) {
	t.Parallel()
	endpoint, _ := rpcServer(t)
	r := newFaulty(t, "--rpc", endpoint, "-p", "8", "-n", "0", "-r", "1", "--benchmark-timeout-scale", "30")
	r.start()
	r.untilEvent("offload_try", 1)
	r.kill(r.worker(), syscall.SIGABRT)
	r.over(exitOK)
	rec := offloadOf(t, r.stdout.String())
	if rec.GPULayers != 15 || rec.Ext.Offload.Layers != 15 || rec.Ext.Offload.Of != 31 {
		t.Errorf("n_gpu_layers %d, %+v", rec.GPULayers, *rec.Ext.Offload)
	}
	if w := rec.Ext.Warnings[0]; w.Code != "partial_offload" || !strings.HasPrefix(w.Message, "15 of 31 layers on devices: with 31, the worker ") {
		t.Errorf("%+v", w)
	}
}

// memoryGroup makes a control group with a limit; "" when this user may not, or
// the memory controller is not there. count is how many of its processes the
// kernel has killed.
func memoryGroup(t *testing.T, limitBytes int64) (dir string, count func() (uint64, bool)) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		v1 := f[2] == "cgroup" && slices.Contains(strings.Split(f[3], ","), "memory")
		if !v1 && f[2] != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(f[1], "benchmark-llm-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { // empty once the last process was collected
			for range 100 {
				if err = syscall.Rmdir(dir); err == nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Errorf("remove %s: %v", dir, err)
		})
		limit, swap, events := "memory.max", "memory.swap.max", "memory.events"
		if v1 {
			limit, swap, events = "memory.limit_in_bytes", "memory.swappiness", "memory.oom_control"
		}
		if os.WriteFile(filepath.Join(dir, limit), []byte(strconv.FormatInt(limitBytes, 10)), 0) != nil {
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, swap), []byte("0"), 0) // absent where nothing is swapped
		return dir, func() (n uint64, ok bool) {
			b, err := os.ReadFile(filepath.Join(dir, events))
			_, after, found := strings.Cut(string(b), "oom_kill ")
			_, scanErr := fmt.Sscan(after, &n)
			return n, err == nil && found && scanErr == nil
		}
	}
	return "", nil
}

// noGroup is said where no such group can be made, as by an ordinary user or in
// a container: TestFaultAddressSpace is all there is then.
const noGroup = "no control group can be made here: not tested"

// The kernel kills workers that are in a control group with too low a limit,
// while loading or for the KV cache of one test.
func TestFaultKilledForMemory(t *testing.T) {
	t.Parallel()
	const kernel = "the kernel killed the worker because memory ran out"
	for _, tt := range []struct {
		name   string
		limit  int64 // MiB
		prompt int
		want   []string
	}{
		{"no room for the model", 70, 16, []string{"pp8 out_of_memory", "pp16 out_of_memory", "tg2 out_of_memory"}},
		{"no room for one test", 340, 32000, []string{"pp8 ok", "pp32000 out_of_memory", "tg2 ok"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			group, count := memoryGroup(t, tt.limit<<20)
			if group == "" {
				t.Log(noGroup)
				return
			}
			job := faultJob(bench.Model{Name: embedded, Weights: result.SyntheticWeights, Seed: 1})
			job.Tests = slices.Insert(job.Tests, 1, bench.TestBudget{Test: result.Test{Prompt: tt.prompt}})
			outcomes, events, err := supervised(t, job, "echo $$ >"+filepath.Join(group, "cgroup.procs"), count)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range outcomes {
				got = append(got, fmt.Sprintf("%v %s", o.Test, o.Status))
				if o.Status != result.OK && o.Reason != kernel {
					t.Errorf("%v: %s", o.Test, o.Reason)
				}
			}
			slices.Sort(got) // a test that was lost may come last
			slices.Sort(tt.want)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			killed := 0
			for _, e := range events {
				if e, ok := e.(bench.WorkerLost); ok {
					killed++
					if e.Status != result.OutOfMemory || e.Reason != kernel {
						t.Errorf("%s: %s", e.Status, e.Reason)
					}
				}
			}
			if n, _ := count(); killed < 2 || uint64(killed) != n {
				t.Errorf("%d workers were lost, the kernel killed %d", killed, n)
			}
		})
	}
}

// The whole program in such a group survives what happens to its workers.
func TestFaultLittleMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		limit  int64 // MiB
		prompt string
		code   int
		want   []string
	}{
		{"no room for the model", 96, "8", exitNothing, nil},
		{"little more", 130, "8", exitNothing, nil},
		{"no room for one test", 340, "8,32000", exitOK, []string{"pp8", "tg4"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			group, count := memoryGroup(t, tt.limit<<20)
			if group == "" {
				t.Log(noGroup)
				return
			}
			r := newFaulty(t, "-p", tt.prompt, "-n", "4", "-r", "3")
			r.throughShell("echo $$ >" + filepath.Join(group, "cgroup.procs"))
			r.start()
			r.over(tt.code)
			var got []string
			for _, rec := range r.printed() {
				got = append(got, rec.test().String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			// Whether the kernel killed the worker or it was seen to come.
			if report := r.file("report.md"); !strings.Contains(report, "out of memory: ") {
				t.Errorf("the report does not say why:\n%s", report)
			}
			n, _ := count()
			t.Logf("the kernel killed %d workers", n)
			lost := 0
			for _, e := range r.steps() {
				if e, ok := e.(bench.WorkerLost); ok {
					lost++
					if e.Reason != "the kernel killed the worker because memory ran out" {
						t.Errorf("%s: %s", e.Status, e.Reason)
					}
				}
			}
			if uint64(lost) != n {
				t.Errorf("%d workers were lost", lost)
			}
		})
	}
}

// faultJob is a job of two short tests.
func faultJob(m bench.Model) bench.Job {
	const budget = time.Minute // for milliseconds: no fault of the machine's
	s := bench.DefaultSettings(1)
	if m.Weights == result.SyntheticWeights {
		s.LoadMode = "none"
	}
	return bench.Job{
		Model: m, LoadBudget: budget, Repetitions: 1, Seed: 1, Settings: s,
		Tests: []bench.TestBudget{
			{Test: result.Test{Prompt: 8}, Budget: budget}, {Test: result.Test{Gen: 2}, Budget: budget},
		},
	}
}

// supervised runs a job in the program's own workers, each below a shell script,
// and returns the outcomes and events.
func supervised(t *testing.T, job bench.Job, script string, oomKills func() (uint64, bool)) ([]*result.Outcome, []bench.Event, error) {
	t.Helper()
	var all gathered
	ready := func(context.Context, int) (bench.Job, error) { return job, nil }
	err := supervise.RunModels(t.Context(), []bench.Job{job}, ready, supervise.Options{
		Command:   []string{"sh", "-c", script + "; exec benchmark-llm worker --log-level error"},
		Env:       []string{"GGML_NO_BACKTRACE=1"},
		Version:   "test",
		Log:       slog.New(slog.DiscardHandler),
		OOMKills:  oomKills,
		Consumers: supervise.Consumers{&all},
	})
	return all.outcomes, all.events, err
}

// gathered consumes a run and keeps all of it.
type gathered struct {
	outcomes []*result.Outcome
	events   []bench.Event
}

func (g *gathered) Event(s bench.Stamped) error {
	g.events = append(g.events, s.Event)
	return nil
}

func (g *gathered) Outcome(o *result.Outcome) error {
	g.outcomes = append(g.outcomes, o)
	return nil
}

// Workers with ever more address space: with too little they cannot start, with
// some more not load, and at last they do all. Whatever fails fails for memory.
func TestFaultAddressSpace(t *testing.T) {
	t.Parallel()
	seen := make(map[string]int)
	for limit := 600; limit <= 3600; limit += 250 { // MiB
		outcomes, events, err := supervised(t, faultJob(bench.Model{Name: embedded, Weights: result.SyntheticWeights, Seed: 1}), fmt.Sprintf("ulimit -v %d", limit<<10), nil)
		if err != nil {
			// A back-end that cannot be mapped is one that is not there.
			if !errors.Is(err, supervise.ErrEngine) {
				t.Errorf("%d MiB: %v", limit, err)
			}
			seen["no engine"]++
			continue
		}
		if len(outcomes) != 2 {
			t.Errorf("%d MiB: %d outcomes of 2 tests", limit, len(outcomes))
		}
		for _, o := range outcomes {
			seen[string(o.Status)]++
			// A thread that cannot be made for lack of memory says no more than that.
			if o.Status != result.OK && o.Status != result.OutOfMemory && !strings.Contains(o.Reason, "pthread_create failed") {
				t.Errorf("%d MiB: %v is %s: %s", limit, o.Test, o.Status, o.Reason)
			}
		}
		for _, e := range events {
			if e, ok := e.(bench.LoadDone); ok && e.Status == result.OutOfMemory {
				seen["not loaded"]++
			}
		}
	}
	t.Logf("%v", seen)
	if seen["not loaded"] == 0 || seen["out_of_memory"] == 0 || seen["ok"] == 0 {
		t.Errorf("the limits tried miss a case: %v", seen)
	}
}

// tinyModel is a whole model of a few hundred KiB, with a vocabulary.
func tinyModel(t *testing.T) []byte {
	t.Helper()
	const vocab, width, inner, kvWidth = 64, 256, 256, 128
	tokens, scores, types := make([]string, vocab), make([]float32, vocab), make([]int32, vocab)
	for i := range tokens {
		tokens[i], scores[i], types[i] = fmt.Sprintf("<0x%02X>", i), -float32(i), 6 // a byte
	}
	tokens[0], tokens[1], tokens[2] = "<unk>", "<s>", "</s>"
	types[0], types[1], types[2] = 2, 3, 3
	f, err := gguf.New([]gguf.KeyValue{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.name", Value: "tiny"},
		{Key: "general.file_type", Value: uint32(15)},
		{Key: "general.quantization_version", Value: uint32(2)},
		{Key: "llama.vocab_size", Value: uint32(vocab)},
		{Key: "llama.block_count", Value: uint32(1)},
		{Key: "llama.context_length", Value: uint32(2048)},
		{Key: "llama.embedding_length", Value: uint32(width)},
		{Key: "llama.feed_forward_length", Value: uint32(inner)},
		{Key: "llama.attention.head_count", Value: uint32(4)},
		{Key: "llama.attention.head_count_kv", Value: uint32(2)},
		{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(1e-5)},
		{Key: "llama.rope.dimension_count", Value: uint32(64)},
		{Key: "llama.rope.freq_base", Value: float32(10000)},
		{Key: "tokenizer.ggml.model", Value: "llama"},
		{Key: "tokenizer.ggml.tokens", Value: tokens},
		{Key: "tokenizer.ggml.scores", Value: scores},
		{Key: "tokenizer.ggml.token_type", Value: types},
		{Key: "tokenizer.ggml.bos_token_id", Value: uint32(1)},
		{Key: "tokenizer.ggml.eos_token_id", Value: uint32(2)},
	}, []gguf.Tensor{
		{Name: "token_embd.weight", Dims: []uint64{width, vocab}, Type: gguf.Q6_K},
		{Name: "blk.0.attn_norm.weight", Dims: []uint64{width}, Type: gguf.F32},
		{Name: "blk.0.attn_q.weight", Dims: []uint64{width, width}, Type: gguf.Q4_K},
		{Name: "blk.0.attn_k.weight", Dims: []uint64{width, kvWidth}, Type: gguf.Q4_K},
		{Name: "blk.0.attn_v.weight", Dims: []uint64{width, kvWidth}, Type: gguf.Q8_0},
		{Name: "blk.0.attn_output.weight", Dims: []uint64{width, width}, Type: gguf.Q4_K},
		{Name: "blk.0.ffn_norm.weight", Dims: []uint64{width}, Type: gguf.F32},
		{Name: "blk.0.ffn_gate.weight", Dims: []uint64{width, inner}, Type: gguf.Q4_K},
		{Name: "blk.0.ffn_up.weight", Dims: []uint64{width, inner}, Type: gguf.Q4_K},
		{Name: "blk.0.ffn_down.weight", Dims: []uint64{inner, width}, Type: gguf.F16},
		{Name: "output_norm.weight", Dims: []uint64{width}, Type: gguf.F32},
		{Name: "output.weight", Dims: []uint64{width, vocab}, Type: gguf.Q8_0},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, tensor := range f.Tensors {
		values := make([]float32, tensor.Elements())
		for i := range values {
			values[i] = float32(rng.NormFloat64()) * 0.02
		}
		data, err := llamacpp.Quantizer{}.Quantize(tensor.Type, values, int(tensor.Dims[0]))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, data...)
		b = append(b, make([]byte, (32-len(b)%32)%32)...)
	}
	return b[:f.Size()]
}

// bounded keeps a worker from taking all memory when a broken model asks for it.
const bounded = "ulimit -c 0; ulimit -v 8388608"

// corruption is a broken copy of a model.
type corruption struct {
	name  string
	bytes []byte
}

// corruptions are truncations and flipped bits of a model whose header has so
// many bytes; most are in the header, for few bits of the data can be wrong.
func corruptions(model []byte, header int) []corruption {
	rng := rand.New(rand.NewPCG(3, 3))
	var all []corruption
	cut := func(n int) { all = append(all, corruption{fmt.Sprintf("cut at %d", n), model[:n]}) }
	for _, n := range []int{0, 1, 3, 4, 8, 24, header - 1, header, header + 1, len(model) - 1} {
		cut(n)
	}
	for range 40 {
		cut(rng.IntN(header))
		cut(header + rng.IntN(len(model)-header))
	}
	flip := func(bits, from, to int) {
		b := bytes.Clone(model)
		where := make([]string, bits)
		for i := range where {
			bit := 8*from + rng.IntN(8*(to-from))
			b[bit/8] ^= 1 << (bit % 8)
			where[i] = fmt.Sprintf("%d.%d", bit/8, bit%8)
		}
		all = append(all, corruption{"flipped " + strings.Join(where, " "), b})
	}
	for range 300 {
		flip(1, 0, header)
	}
	for range 60 {
		flip(8, 0, header)
		flip(1, header, len(model))
		flip(100, header, len(model))
	}
	return all
}

// No broken model takes the parent down. Each either is refused before the
// library sees it, or has a status for each of its tests and says why.
func TestFaultCorruptModels(t *testing.T) {
	model := tinyModel(t)
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path, model)
	whole, err := fetch.Local(path)
	if err != nil {
		t.Fatal(err)
	}
	outcomes, _, err := supervised(t, faultJob(bench.Model{Name: "tiny.gguf", Path: path, Weights: result.FileWeights}), bounded, nil)
	if err != nil || len(outcomes) != 2 || outcomes[0].Status != result.OK || outcomes[1].Status != result.OK {
		t.Fatalf("the whole model is not measured: %v, %+v", err, outcomes)
	}

	all := corruptions(model, int(whole.Header.DataOffset))
	t.Logf("%d broken copies of %d bytes, of which %d are the header", len(all), len(model), whole.Header.DataOffset)
	var refused, measured, failed, lost atomic.Int64
	t.Run("all", func(t *testing.T) {
		for worker := range 2 { // as many CPUs as everybody has
			t.Run(strconv.Itoa(worker), func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "broken.gguf")
				for i := worker; i < len(all); i += 2 {
					c := all[i]
					write(path, c.bytes)
					if _, err := fetch.Local(path); err != nil {
						refused.Add(1)
						oneLineOf(t, c.name, err.Error())
						continue
					}
					outcomes, events, err := supervised(t, faultJob(bench.Model{Name: "broken.gguf", Path: path, Weights: result.FileWeights}), bounded, nil)
					if err != nil || len(outcomes) != 2 {
						t.Errorf("%s: %v, %d outcomes", c.name, err, len(outcomes))
						continue
					}
					for _, o := range outcomes {
						switch o.Status {
						case result.OK:
							measured.Add(1)
						case result.Failed, result.Unsupported, result.OutOfMemory, result.Crashed:
							failed.Add(1)
							oneLineOf(t, c.name, o.Reason)
						default:
							t.Errorf("%s: %v is %s: %s", c.name, o.Test, o.Status, o.Reason)
						}
					}
					for _, e := range events {
						if e, ok := e.(bench.WorkerLost); ok {
							lost.Add(1)
							t.Logf("%s: %s", c.name, e.Reason)
						}
					}
				}
			})
		}
	})
	t.Logf("%d refused before the library saw them, %d tests measured, %d not, %d workers lost", refused.Load(), measured.Load(), failed.Load(), lost.Load())
	if refused.Load() == 0 || measured.Load() == 0 || failed.Load() == 0 {
		t.Error("the corruptions miss a case")
	}

	// Some through the whole program.
	for i := 0; i < len(all); i += len(all) / 24 {
		c := all[i]
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "broken.gguf")
			write(path, c.bytes)
			r := newFaulty(t, "-p", "8", "-n", "2", "-r", "1", "--weights", "file", "-m", path)
			r.throughShell(bounded)
			r.start()
			code := r.exitCode()
			if n := len(r.printed()); (n == 2) != (code == exitOK) || code != exitOK && code != exitNothing && code != exitModel {
				t.Errorf("exit code %d, %d records", code, n)
			}
			r.over(code)
		})
	}
}

// oneLineOf checks that a reason is a line of text.
func oneLineOf(t *testing.T, name, text string) {
	t.Helper()
	if text == "" || strings.ContainsFunc(text, func(c rune) bool { return c == '\n' || c == '\r' }) {
		t.Errorf("%s: not a line: %q", name, text)
	}
}

// The disk of the results directory is full sooner or later. The run goes on, because
// stdout takes the records, and says once that the directory does not. A directory that
// cannot even describe the run is an error before anything runs. What was printed and
// what was kept is whole.
func TestFaultDiskFull(t *testing.T) {
	t.Parallel()
	seen := make(map[int]int)
	full := 0
	for kib := 4; kib <= 40; kib += 4 {
		r := newFaulty(t, "-p", "8", "-n", "4", "-r", "3")
		err := syscall.Mount("none", r.results, "tmpfs", 0, fmt.Sprintf("size=%dk", kib))
		if err == nil {
			defer func() {
				if err := syscall.Unmount(r.results, 0); err != nil {
					t.Error(err)
				}
			}()
		} else {
			// Only root may mount. A limit on the size of files fails a write as well,
			// with another error.
			r.throughShell(fmt.Sprintf("ulimit -f %d", kib/4))
		}
		r.start()
		code := r.exitCode()
		printed := len(r.printed())
		seen[code]++
		r.over(code)
		if code == exitOutput && printed == 0 { // refused before anything ran
			if left, err := os.ReadDir(r.results); err != nil || len(left) > 0 {
				t.Errorf("%d KiB: %v are left, %v", kib, left, err)
			}
			continue
		}
		if code != exitOK || printed != 2 {
			t.Errorf("%d KiB: exit code %d with %d records; stderr:\n%s", kib, code, printed, r.stderr.String())
		}
		r.steps() // checks each line
		told := strings.Count(r.stderr.String(), "cannot write to the run's directory; the run continues") + strings.Count(r.stderr.String(), "cannot complete the run's directory")
		whole := strings.Contains(r.file("run.json"), `"ended"`) && r.file("report.md") != ""
		if told != 1 && !whole || told > 0 && whole {
			t.Errorf("%d KiB: told %d times; complete: %t:\n%s", kib, told, whole, r.stderr.String())
		}
		full += told
	}
	t.Logf("exit codes: %v, %d directories were full", seen, full)
	if seen[exitOutput] == 0 || seen[exitOK] == 0 || full == 0 {
		t.Errorf("the sizes tried miss a case: %v, %d full", seen, full)
	}
}

// A package upgrade replaces the program while it runs. Its later workers are still of
// the same program.
func TestFaultProgramReplaced(t *testing.T) {
	t.Parallel()
	r := newFaulty(t)
	program := filepath.Join(t.TempDir(), "benchmark-llm")
	content, err := os.ReadFile(r.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, content, 0o755); err != nil {
		t.Fatal(err)
	}
	second := program + "-new"
	if err := os.WriteFile(second, []byte("#!/bin/sh\necho 'the new program' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.Path = program
	r.Args = []string{
		program, "--model-urls", synth.Tiny + "," + embedded, "--weights", "synthetic", "-t", "1", "-p", "8", "-n", "0", "-r", "1", "--results-dir", r.results,
	}
	r.start()
	worker := r.worker()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", worker))
	if err != nil || string(comm) != "benchmark-llm\n" {
		t.Errorf("the worker is called %q, %v", comm, err)
	}
	if err := os.Rename(second, program); err != nil {
		t.Fatal(err)
	}
	r.over(exitOK)
	if got := r.printed(); len(got) != 2 {
		t.Errorf("%d records, want 2; stderr:\n%s", len(got), r.stderr.String())
	}
}

// Limits that are too low for Go's run time are one line and a hint, not a trace with the
// exit code of wrong usage.
func TestFaultLimits(t *testing.T) {
	for _, tc := range []struct{ limit, says string }{
		{"ulimit -v 200000", "the address space is limited to 195 MiB"},
		{"ulimit -v 1000000", "the address space is limited to 976 MiB"},
		{"ulimit -u 1", "only 0 more threads can be started"},
		{"ulimit -u 8", "more threads can be started"},
	} {
		t.Run(tc.limit, func(t *testing.T) {
			t.Parallel()
			bash, err := exec.LookPath("bash")
			if err != nil {
				t.Fatal(err)
			}
			r := newFaulty(t, "-p", "8", "-n", "0", "-r", "1")
			r.Args = append([]string{"bash", "-c", tc.limit + ` && exec "$0" "$@"`, r.Path}, r.Args[1:]...)
			r.Path = bash
			if os.Geteuid() == 0 && strings.Contains(tc.limit, "-u") { // root is not limited
				r.SysProcAttr = &syscall.SysProcAttr{
					Credential:  &syscall.Credential{Uid: 54321, Gid: 54321},
					AmbientCaps: []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH}, // it reads what root's tests have built
				}
			}
			r.start()
			r.over(exitNothing)
			text := r.stderr.String()
			if !strings.Contains(text, tc.says) || !strings.Contains(text, "\nhint: raise the limit") || strings.Count(text, "\n") != 2 {
				t.Errorf("stderr:\n%s", text)
			}
		})
	}
}

// A server that accepts and says nothing does not keep a run beyond its time limit: one
// of models, and one that computes.
func TestFaultSilentServer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	address := silent.Addr().String()
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"file":      {[]string{"-m", "http://" + address + "/m.gguf", "--weights", "file"}, "not started: the time limit of the run has ended"},
		"synthetic": {[]string{"-m", "http://" + address + "/m.gguf"}, "benchmark-llm: http://" + address + "/m.gguf: the time limit of the run has ended"},
		"rpc":       {[]string{"--rpc", address}, "benchmark-llm: list devices: the time limit of the run has ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, append([]string{"-p", "8", "-n", "0", "--time-limit", "1s", "--models-dir", t.TempDir()}, tc.args...)...)
			r.start()
			r.over(exitNothing)
			if text := r.stderr.String(); !strings.Contains(text, tc.says) || !strings.Contains(text, "\nhint: "+timeLimitHint) {
				t.Errorf("stderr:\n%s", text)
			}
		})
	}
}
