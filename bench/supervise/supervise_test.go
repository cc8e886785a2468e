package supervise_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// The workers of these tests are real processes: this test binary, run again
// with the name of a scenario and a directory that all processes of one test
// share.
const (
	scenarioEnv = "SUPERVISE_TEST_SCENARIO"
	dirEnv      = "SUPERVISE_TEST_DIR"
	parentEnv   = "SUPERVISE_TEST_PARENT" // run a parent of such a worker instead
)

func TestMain(m *testing.M) {
	// Set, not set to something: a worker that took itself for the tests would
	// start them again, and each of them workers.
	scenario, isWorker := os.LookupEnv(scenarioEnv)
	switch {
	case os.Getenv(parentEnv) != "":
		os.Exit(parentMain(scenario))
	case isWorker:
		os.Exit(workerMain(scenario))
	}
	// The workers of these tests sleep, they do not compute: many run beside one another.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// events is where a worker writes.
var events = os.NewFile(3, "events")

// workerMain is the worker command in small.
func workerMain(scenario string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	script := benchtest.Script(func(c benchtest.Call) benchtest.Step {
		note("%v", c)
		step := benchtest.Step{Takes: time.Millisecond}
		switch c {
		case load:
			step.Takes = 10 * time.Millisecond
		case second: // it ends a burst
			step.Takes = bench.BurstTime
		}
		return step
	})
	change, ok := scenarios[scenario]
	if !ok {
		panic("no scenario " + scenario)
	}
	n := attempt()
	note("worker %d", n)
	script = script.Except(func(c benchtest.Call) (benchtest.Step, bool) {
		step, ok := change(n, c)
		if ok {
			note("%v", c)
		}
		return step, ok
	})
	err := supervise.Serve(ctx, os.Stdin, events, func() { os.Exit(9) },
		func(ctx context.Context, job bench.Job, emit func(bench.Stamped) error) error {
			if scenario == noEngine {
				return emit(bench.Now(bench.EngineFailed{Reason: "no back-end"}))
			}
			model := bench.ModelFacts{Type: "llama"}
			if strings.HasPrefix(scenario, onGPU) {
				model.Placed = []bench.Placement{{Device: "CUDA0", Layers: 1, WeightsBytes: 1}}
			}
			e := benchtest.New(script, bench.EngineFacts{Backends: "CPU"}, model)
			if err := emit(bench.Now(bench.EngineReady{PID: os.Getpid(), Facts: e.Facts()})); err != nil {
				return err
			}
			err := bench.RunJob(ctx, e, job, nil, emit)
			if errors.Is(err, bench.ErrNoModel) {
				err = nil
			}
			return errors.Join(err, e.Close())
		})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// attempt is which worker of its test this is, from 1.
func attempt() int {
	for n := 1; ; n++ {
		f, err := os.OpenFile(filepath.Join(os.Getenv(dirEnv), "attempt-"+strconv.Itoa(n)), os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_ = f.Close() // empty
			return n
		}
	}
}

// note appends a line to the journal that all processes of a test share.
func note(format string, args ...any) { noteIn(os.Getenv(dirEnv), format, args...) }

func noteIn(dir, format string, args ...any) {
	f, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, format+"\n", args...); err != nil {
		panic(err)
	}
}

var (
	pp16 = result.Test{Prompt: 16}
	pp32 = result.Test{Prompt: 32}
	tg8  = result.Test{Gen: 8}
	// Where most workers come to grief: in the second of three tests, with two of
	// its three repetitions done and reported.
	third  = benchtest.Call{Method: benchtest.Repeat, Test: pp32, N: 3}
	second = benchtest.Call{Method: benchtest.Repeat, Test: pp32, N: 2}
	load   = benchtest.Call{Method: benchtest.Load}
	limits = benchtest.Call{Method: benchtest.Limits}
)

// at is a scenario that differs from an untroubled run in one call of the
// first workers.
func at(call benchtest.Call, workers int, s benchtest.Step) scenario {
	return func(attempt int, c benchtest.Call) (benchtest.Step, bool) {
		return s, c == call && attempt <= workers
	}
}

type scenario func(attempt int, c benchtest.Call) (benchtest.Step, bool)

const always = 1 << 30

// die ends or stops the worker by a signal, which the Go run time may turn into
// an exit code.
func die(s syscall.Signal) benchtest.Step {
	return benchtest.Step{Do: func() { _ = syscall.Kill(os.Getpid(), s) }, Takes: benchtest.Forever, Deaf: true}
}

func exit(code int) benchtest.Step { return benchtest.Step{Do: func() { os.Exit(code) }} }

func do(f func()) benchtest.Step { return benchtest.Step{Do: f} }

func write(s string) benchtest.Step {
	return benchtest.Step{Do: func() { _, _ = events.WriteString(s) }, Takes: benchtest.Forever, Deaf: true}
}

// say writes to stderr and crashes as ggml does.
func say(s string, code int) benchtest.Step {
	return do(func() {
		fmt.Fprintln(os.Stderr, s)
		os.Exit(code)
	})
}

// child starts a grandchild that holds all pipes of the worker open.
func child(setsid bool) func() {
	return func() {
		c := exec.Command("sleep", "60")
		c.Stdout, c.Stderr, c.ExtraFiles = os.Stdout, os.Stderr, []*os.File{events}
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: setsid}
		if err := c.Start(); err != nil {
			panic(err)
		}
		note("grandchild %d", c.Process.Pid)
	}
}

var (
	hang        = benchtest.Step{Takes: benchtest.Forever, Deaf: true}
	obedient    = benchtest.Step{Takes: benchtest.Forever}
	ignoresTERM = benchtest.Step{Do: func() { signal.Ignore(syscall.SIGTERM) }, Takes: benchtest.Forever, Deaf: true}
)

// noEngine is the scenario of a worker whose engine cannot start.
const noEngine = "no engine"

// onGPU begins the scenarios of a model on a GPU, where passes are computed before
// the first test.
const onGPU = "on a GPU, "

// scenarios are the ways in which workers differ from one that does its work.
var scenarios = map[string]scenario{
	noEngine:     nil, // it comes before the first call
	"untroubled": func(int, benchtest.Call) (benchtest.Step, bool) { return benchtest.Step{}, false },
	"segv once":  at(third, 1, die(syscall.SIGSEGV)),
	"segv once, slow to load": func(attempt int, c benchtest.Call) (benchtest.Step, bool) {
		if c == load {
			return benchtest.Step{Takes: time.Second}, true
		}
		return die(syscall.SIGSEGV), c == third && attempt == 1
	},
	"abort twice":              at(third, 2, die(syscall.SIGABRT)),
	"kill twice":               at(third, 2, die(syscall.SIGKILL)),
	"exit 0":                   at(third, always, exit(0)),
	"exit 7 in load":           at(load, always, exit(7)),
	"exit 7 in the first load": at(load, 1, exit(7)),
	"too many layers": func(attempt int, c benchtest.Call) (benchtest.Step, bool) {
		step := exit(7)
		step.Offload = map[int]int{1: 31, 2: 15}[attempt]
		return step, c == load && attempt < 3
	},
	"too many layers, always": func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		step := exit(7)
		step.Offload = 31
		return step, c == load
	},
	"exit 7 in limits":     at(limits, always, exit(7)),
	"no memory for limits": at(limits, always, benchtest.Step{Err: bench.ErrOutOfMemory}),
	"obedient in limits":   at(limits, always, obedient),
	"assertion": at(third, always, say("x\nggml.c:1: GGML_ASSERT(ok) failed\n"+
		`{"level":"WARN","msg":"odd tensor","source":"llama"}`+"\nstack", 134)),
	"three crashes": func(attempt int, c benchtest.Call) (benchtest.Step, bool) {
		// pp16 once, pp32 once, pp32 again: the third of the model.
		return exit(2), attempt == 1 && c.Test == pp16 && c.N == 1 || attempt > 1 && c == third
	},
	"three tests crash once": func(attempt int, c benchtest.Call) (benchtest.Step, bool) {
		return exit(2), c.N == 2 && attempt == slices.Index([]result.Test{pp16, pp32, tg8}, c.Test)+1
	},
	"hang":             at(third, always, hang),
	"stop":             at(third, always, die(syscall.SIGSTOP)),
	"garbage":          at(third, always, write("GGML_ASSERT\n")),
	"endless line":     at(third, always, write(strings.Repeat("x", bench.MaxEventBytes+1))),
	"half a line":      at(third, always, do(func() { _, _ = events.WriteString(`{"event":"repetition_done","da`); os.Exit(3) })),
	"goes silent":      at(third, 1, benchtest.Step{Do: func() { _ = events.Close() }, Takes: benchtest.Forever, Deaf: true}),
	"grandchild":       at(third, 1, do(func() { child(false)(); os.Exit(3) })),
	"distant child":    at(third, 1, do(func() { child(true)(); os.Exit(3) })),
	"child at the end": at(benchtest.Call{Method: benchtest.End, Test: tg8}, 1, do(child(true))),
	"told by another":  at(third, 1, benchtest.Step{Do: func() { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) }, Takes: benchtest.Forever}),
	"obedient":         at(third, always, obedient),
	"obedient in load": at(load, always, obedient),
	"too slow": func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		return obedient, c.Method == benchtest.Warmup && c.Test == pp16
	},
	"too slow end to end": func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		return obedient, c.Method == benchtest.Warmup && c.Test.E2E
	},
	"no memory at first": at(load, 1, benchtest.Step{Err: bench.ErrOutOfMemory}),
	"deaf":               at(third, always, hang),
	"ignores SIGTERM":    at(third, always, ignoresTERM),
	"deaf in load":       at(load, always, hang),
	"no memory in load":  at(load, always, benchtest.Step{Err: bench.ErrOutOfMemory}),
	"error":              at(third, always, benchtest.Step{Err: errors.New("odd")}),
	onGPU + "a pass crashes": func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		return exit(2), c.Method == benchtest.Warmup && c.Test == pp32
	},
	onGPU + "two passes crash": func(attempt int, c benchtest.Call) (benchtest.Step, bool) {
		return exit(2), c.Method == benchtest.Warmup && attempt < 3
	},
	onGPU + "a test crashes": at(third, 1, exit(2)),
	"crash after the end": func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		return die(syscall.SIGSEGV), c.Method == benchtest.Close
	},
	"slower than a burst": func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		return benchtest.Step{Takes: bench.BurstTime + 10*time.Millisecond}, c.Method == benchtest.Repeat && c.Test == pp16
	},
	"slow": func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		return benchtest.Step{Takes: bench.BurstTime/2 + time.Millisecond}, c.Method == benchtest.Repeat
	},
}

// outcome is what is compared of an outcome.
type outcome struct {
	Line   string // "pp32 crashed 2": test, status, samples
	Reason string
}

// ok are the outcomes of an untroubled run.
func ok(tests ...result.Test) []outcome {
	var all []outcome
	for _, t := range tests {
		all = append(all, outcome{Line: fmt.Sprintf("%v ok 3", t)})
	}
	return all
}

// history is all that a run told its caller.
type history struct {
	dir      string // of the journal
	outcomes []outcome
	events   []bench.Stamped
	log      bytes.Buffer
	// Both may be nil.
	onEvent   func(bench.Stamped) error
	onOutcome func(*result.Outcome) error
}

func (h *history) Event(s bench.Stamped) error {
	h.events = append(h.events, s)
	if h.onEvent != nil {
		return h.onEvent(s)
	}
	return nil
}

func (h *history) Outcome(o *result.Outcome) error {
	if h.onOutcome != nil {
		if err := h.onOutcome(o); err != nil {
			return err
		}
	}
	if (o.Record != nil) != (o.Status == result.OK) {
		return fmt.Errorf("%v is %s with record %v", o.Test, o.Status, o.Record)
	}
	h.outcomes = append(h.outcomes, outcome{fmt.Sprintf("%v %s %d", o.Test, o.Status, len(o.Samples)), o.Reason})
	return nil
}

// workers are the process ids of all workers.
func (h *history) workers() []int {
	var pids []int
	for _, e := range h.events {
		if e, ok := e.Event.(bench.EngineReady); ok {
			pids = append(pids, e.PID)
		}
	}
	return pids
}

// lost are the reasons of all losses.
func (h *history) lost() []string {
	var reasons []string
	for _, e := range h.events {
		if e, ok := e.Event.(bench.WorkerLost); ok {
			reasons = append(reasons, e.Reason)
		}
	}
	return reasons
}

// journal is what the processes of the test noted.
func (h *history) journal(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func jobOf(budget time.Duration) bench.Job {
	return bench.Job{
		Model:       bench.Model{Name: "m.gguf", Weights: result.FileWeights},
		Tests:       []bench.TestBudget{{Test: pp16, Budget: budget}, {Test: pp32, Budget: budget}, {Test: tg8, Budget: budget}},
		Repetitions: 3,
		Settings:    bench.DefaultSettings(1),
	}
}

func (h *history) options(scenario string) supervise.Options {
	return supervise.Options{
		Command: []string{os.Args[0]},
		// The race detector makes every process sleep for a second at its end.
		Env:       []string{scenarioEnv + "=" + scenario, dirEnv + "=" + h.dir, "GORACE=atexit_sleep_ms=0"},
		Version:   "test",
		Log:       slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Consumers: supervise.Consumers{h},
	}
}

// run runs a job in workers that play a scenario, and checks that none is left.
func run(ctx context.Context, t *testing.T, h *history, scenario string, job bench.Job) error {
	t.Helper()
	h.dir = t.TempDir()
	err := supervise.Run(ctx, job, h.options(scenario))
	for _, pid := range h.workers() {
		if left := inGroup(t, pid); len(left) > 0 {
			t.Errorf("worker %d left %v behind", pid, left)
		}
	}
	for _, e := range h.events {
		line, err := e.MarshalLine()
		if err != nil {
			t.Fatal(err)
		}
		var back bench.Stamped
		if err := back.UnmarshalLine(line); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	return err
}

// inGroup are the processes of a process group that still run. A killed
// grandchild may wait for init to collect it, which takes as long as it takes.
func inGroup(t *testing.T, pgid int) []string {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-o", "pgid=", "-o", "pid=", "-o", "stat=", "-o", "args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		// What was killed but not collected: the worker itself must be, its
		// children are for init.
		zombie := strings.HasPrefix(f[2], "Z") && f[1] != strconv.Itoa(pgid)
		if f[0] == strconv.Itoa(pgid) && !zombie {
			left = append(left, strings.TrimSpace(line))
		}
	}
	return left
}

func TestRun(t *testing.T) {
	const (
		late      = "the worker did not abort within "
		killed    = "the worker was killed (SIGKILL), most likely by the kernel because memory ran out"
		asserted  = "the worker crashed (exit code 134): ggml.c:1: GGML_ASSERT(ok) failed"
		quit      = "the worker ended before its work was done"
		exited2   = "the worker crashed (exit code 2)"
		exited3   = "the worker crashed (exit code 3)"
		exited7   = "the worker crashed (exit code 7)"
		noEvent   = "the worker wrote something that is not an event"
		foreigner = "another process sent SIGTERM to the worker"
	)
	for _, tt := range []struct {
		scenario string
		budget   time.Duration // of each test; 0: none
		want     []outcome     // reasons are prefixes
		lost     []string      // prefixes
	}{
		{"untroubled", 0, ok(pp16, pp32, tg8), nil},
		{"untroubled", time.Hour, ok(pp16, pp32, tg8), nil},
		{"error", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 failed 2", "repetition 3: odd"}, {Line: "tg8 ok 3"}}, nil},

		// A crash costs the test it happened in, and that only when it comes twice.
		{"segv once", 0, ok(pp16, pp32, tg8), []string{"the worker crashed (exit code 2): SIGSEGV"}},
		{
			"abort twice", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 2", "the worker crashed (exit code 2): SIGABRT"}, {Line: "tg8 ok 3"}},
			[]string{"the worker crashed (exit code 2): SIGABRT", "the worker crashed (exit code 2): SIGABRT"},
		},
		{"kill twice", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 out_of_memory 2", killed}, {Line: "tg8 ok 3"}}, []string{killed, killed}},
		{"assertion", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 2", asserted}, {Line: "tg8 ok 3"}}, []string{asserted, asserted}},
		{"exit 0", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 2", quit}, {Line: "tg8 ok 3"}}, []string{quit, quit}},
		{"exit 7 in the first load", 0, ok(pp16, pp32, tg8), []string{exited7}},
		{
			"exit 7 in load", 0, []outcome{{"pp16 crashed 0", exited7}, {"pp32 crashed 0", exited7}, {"tg8 crashed 0", exited7}},
			[]string{exited7, exited7},
		},
		{"too many layers", 0, ok(pp16, pp32, tg8), []string{exited7, exited7}},
		{
			"too many layers, always", 0, []outcome{{"pp16 crashed 0", exited7}, {"pp32 crashed 0", exited7}, {"tg8 crashed 0", exited7}},
			[]string{exited7, exited7, exited7},
		},
		{"three tests crash once", 0, []outcome{
			{Line: "pp16 ok 3"}, {Line: "pp32 ok 3"}, {"tg8 crashed 0", exited2}, // its burst is lost
		}, []string{exited2, exited2, exited2}},
		{
			"three crashes", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 2", exited2}, {"tg8 crashed 0", "not run after 3 crashes: " + exited2}},
			[]string{exited2, exited2, exited2},
		},
		{"crash after the end", 0, ok(pp16, pp32, tg8), nil}, // nothing was lost

		// What crashes in a pass before the first test costs the test that is made of
		// such passes, and no other.
		{onGPU + "a pass crashes", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 0", exited2}, {Line: "tg8 ok 3"}}, []string{exited2, exited2, exited2}},
		{onGPU + "two passes crash", 0, ok(pp16, pp32, tg8), []string{exited2, exited2}},
		{onGPU + "a test crashes", 0, ok(pp16, pp32, tg8), []string{exited2}},

		// A worker that hangs is ended after its grace, once.
		{"hang", time.Second, []outcome{{Line: "pp16 ok 3"}, {"pp32 timeout 2", late + "2."}, {Line: "tg8 ok 3"}}, []string{late + "2."}},
		{"stop", time.Second, []outcome{
			{Line: "pp16 ok 3"}, {"pp32 timeout 2", "the worker exceeded the test's budget and 2."}, {Line: "tg8 ok 3"},
		}, []string{"the worker exceeded the test's budget and 2."}},

		// A worker that does not speak the protocol.
		{"garbage", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 2", noEvent}, {Line: "tg8 ok 3"}}, []string{noEvent, noEvent}},
		{"endless line", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 2", noEvent}, {Line: "tg8 ok 3"}}, []string{noEvent, noEvent}},
		{"half a line", 0, []outcome{{Line: "pp16 ok 3"}, {"pp32 crashed 2", exited3}, {Line: "tg8 ok 3"}}, []string{exited3, exited3}},
		{"goes silent", 0, ok(pp16, pp32, tg8), []string{"the worker closed its events but did not exit and was killed"}},
		{"told by another", 0, []outcome{
			{Line: "pp16 ok 3"}, {"pp32 aborted 2", "stopped: terminated signal received"}, {"tg8 aborted 0", foreigner},
		}, nil},

		// What a worker leaves behind holds nobody up.
		{"grandchild", 0, ok(pp16, pp32, tg8), []string{exited3}},
		{"distant child", 0, ok(pp16, pp32, tg8), []string{exited3}},
		{"child at the end", 0, ok(pp16, pp32, tg8), nil},

		{"no memory in load", 0, []outcome{
			{"pp16 out_of_memory 0", "out of memory"}, {"pp32 out_of_memory 0", "out of memory"}, {"tg8 out_of_memory 0", "out of memory"},
		}, nil},
	} {
		t.Run(tt.scenario, func(t *testing.T) {
			t.Parallel()
			var h history
			if err := run(t.Context(), t, &h, tt.scenario, jobOf(tt.budget)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, h.outcomes, cmp.Comparer(func(a, b outcome) bool {
				return a.Line == b.Line && (a.Reason == "") == (b.Reason == "") &&
					(strings.HasPrefix(a.Reason, b.Reason) || strings.HasPrefix(b.Reason, a.Reason))
			})); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.lost, h.lost(), cmp.Comparer(func(a, b string) bool {
				return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
			})); diff != "" {
				t.Error(diff)
			}
			for _, line := range h.journal(t) { // those that no group holds
				if pid, found := strings.CutPrefix(line, "grandchild "); found {
					n, err := strconv.Atoi(pid)
					if err != nil {
						t.Fatal(err)
					}
					_ = syscall.Kill(n, syscall.SIGKILL)
				}
			}
		})
	}
}

// A load that ends its worker is tried with half of the layers on devices, then
// with none.
func TestFewerLayers(t *testing.T) {
	t.Parallel()
	var h history
	if err := run(t.Context(), t, &h, "too many layers", jobOf(0)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"15 layers", "0 layers"} {
		if n := strings.Count(h.log.String(), `remedy="with at most `+want); n != 1 {
			t.Errorf("%d times %q in\n%s", n, want, h.log.String())
		}
	}
}

// What a worker says on stderr reaches the log, and what tells why it crashed
// is kept with the loss.
func TestOutput(t *testing.T) {
	t.Parallel()
	var h history
	if err := run(t.Context(), t, &h, "assertion", jobOf(0)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`level=WARN msg="odd tensor" source=llama`, `level=DEBUG msg=stack source=worker`, `level=WARN msg="trying again" model=m.gguf test=pp32 remedy="once more"`} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, h.log.String())
		}
	}
	for _, e := range h.events {
		if lost, ok := e.Event.(bench.WorkerLost); ok {
			if diff := cmp.Diff([]string{"x", "ggml.c:1: GGML_ASSERT(ok) failed", "odd tensor", "stack"}, lost.Output); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// A crash between two tests is one of the test that would have come next.
func TestCrashBetweenTests(t *testing.T) {
	t.Parallel()
	var h history
	pid, workers := 0, 0
	h.onEvent = func(s bench.Stamped) error {
		between := false
		switch e := s.Event.(type) {
		case bench.EngineReady:
			pid = e.PID
			workers++
		case bench.TestDone:
			between = workers == 1
		case bench.LoadDone:
			between = workers == 2
		}
		if between { // before it is acknowledged
			return syscall.Kill(pid, syscall.SIGKILL)
		}
		return nil
	}
	if err := run(t.Context(), t, &h, "untroubled", jobOf(0)); err != nil {
		t.Fatal(err)
	}
	const killed = "the worker was killed (SIGKILL), most likely by the kernel because memory ran out"
	if diff := cmp.Diff([]outcome{{Line: "pp16 ok 3"}, {"pp32 out_of_memory 0", killed}, {Line: "tg8 ok 3"}}, h.outcomes); diff != "" {
		t.Error(diff)
	}
}

func TestStop(t *testing.T) {
	const reason = "stopped: interrupt"
	stopped := "stopped: terminated signal received" // as the worker says it
	for _, tt := range []struct {
		scenario string
		after    string // the last thing that happens before: a note of the worker
		want     []outcome
		lost     []string
	}{
		{"obedient", "repeat 3 pp32", []outcome{{Line: "pp16 ok 3"}, {"pp32 aborted 2", stopped}, {"tg8 aborted 0", reason}}, nil},
		{
			"deaf", "repeat 3 pp32", []outcome{{Line: "pp16 ok 3"}, {"pp32 aborted 2", reason}, {"tg8 aborted 0", reason}},
			[]string{"the worker did not stop when told to and was killed"},
		},
		{
			"ignores SIGTERM", "repeat 3 pp32", []outcome{{Line: "pp16 ok 3"}, {"pp32 aborted 2", reason}, {"tg8 aborted 0", reason}},
			[]string{"the worker did not stop when told to and was killed"},
		},
		{
			"stop", "repeat 3 pp32", []outcome{{Line: "pp16 ok 3"}, {"pp32 aborted 2", reason}, {"tg8 aborted 0", reason}},
			[]string{"the worker did not stop when told to and was killed"},
		},
		{"obedient in load", "load", []outcome{{"pp16 aborted 0", reason}, {"pp32 aborted 0", reason}, {"tg8 aborted 0", reason}}, nil},
		{
			"deaf in load", "load", []outcome{{"pp16 aborted 0", reason}, {"pp32 aborted 0", reason}, {"tg8 aborted 0", reason}},
			[]string{"the worker did not stop when told to and was killed"},
		},
	} {
		t.Run(tt.scenario, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			var h history
			h.dir = t.TempDir()
			go func() {
				waitForNote(h.dir, tt.after)
				time.Sleep(50 * time.Millisecond) // into the step
				cancel(errors.New("interrupt"))
			}()
			err := supervise.Run(ctx, jobOf(0), h.options(tt.scenario))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, h.outcomes); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.lost, h.lost()); diff != "" {
				t.Error(diff)
			}
			for _, pid := range h.workers() {
				if left := inGroup(t, pid); len(left) > 0 {
					t.Errorf("worker %d left %v behind", pid, left)
				}
			}
		})
	}
}

// waitForNote waits until a process has noted the line.
func waitForNote(dir, line string) {
	for {
		data, _ := os.ReadFile(filepath.Join(dir, "journal")) // not there yet
		if slices.Contains(strings.Split(string(data), "\n"), line) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// An engine that cannot start is no crash: no other worker is tried.
func TestNoEngine(t *testing.T) {
	t.Parallel()
	var h history
	err := run(t.Context(), t, &h, noEngine, jobOf(0))
	if !errors.Is(err, supervise.ErrEngine) || !strings.Contains(err.Error(), "no back-end") {
		t.Errorf("got %v", err)
	}
	if len(h.outcomes) > 0 || len(h.workers()) > 0 {
		t.Errorf("outcomes %v of workers %v", h.outcomes, h.workers())
	}
}

func TestStopBeforeTheStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt"))
	var h history
	if err := run(ctx, t, &h, "untroubled", jobOf(0)); err != nil {
		t.Fatal(err)
	}
	const reason = "stopped: interrupt"
	if diff := cmp.Diff([]outcome{{"pp16 aborted 0", reason}, {"pp32 aborted 0", reason}, {"tg8 aborted 0", reason}}, h.outcomes); diff != "" {
		t.Error(diff)
	}
	for _, e := range h.events {
		if _, skipped := e.Event.(bench.TestSkipped); !skipped {
			t.Errorf("a worker was started: %v", e)
		}
	}
}

// A full disk ends the run with that error, at whatever event.
func TestEventFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, at := range []int{1, 2, 6, 9, 12} {
		t.Run(strconv.Itoa(at), func(t *testing.T) {
			t.Parallel()
			var h history
			h.onEvent = func(bench.Stamped) error {
				if len(h.events) == at {
					return full
				}
				return nil
			}
			if err := run(t.Context(), t, &h, "hang", jobOf(0)); !errors.Is(err, full) {
				t.Errorf("error %v, want %v", err, full)
			}
			if len(h.events) != at {
				t.Errorf("%d events, want %d", len(h.events), at)
			}
		})
	}
}

// What was downloaded beside a burst is in the events of its repetitions, in equal parts.
func TestDownloaded(t *testing.T) {
	t.Parallel()
	var h history
	h.dir = t.TempDir()
	o := h.options("untroubled")
	bursts := []int64{11, 20, 5, 7} // of pp16, of pp32, which has two, and of tg8
	o.Downloaded = func() int64 {
		bytes := bursts[0]
		bursts = bursts[1:]
		return bytes
	}
	if err := supervise.Run(t.Context(), jobOf(0), o); err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, e := range h.events {
		if e, ok := e.Event.(bench.RepetitionDone); ok {
			got = append(got, e.Sample.DownloadedBytes)
		}
	}
	if diff := cmp.Diff([]int64{3, 4, 4, 10, 10, 5, 2, 2, 3}, got); diff != "" || len(bursts) > 0 {
		t.Errorf("%d bursts were not asked for; bytes (-want +got):\n%s", len(bursts), diff)
	}
}

// fakeMeter counts its calls.
type fakeMeter struct {
	calls []string
	pid   int
}

func (m *fakeMeter) Worker(pid int)         { m.calls, m.pid = append(m.calls, "worker"), pid }
func (m *fakeMeter) Begin(kind result.Kind) { m.calls = append(m.calls, "begin "+string(kind)) }
func (m *fakeMeter) Burst() *result.Conditions {
	m.calls = append(m.calls, "burst")
	return &result.Conditions{CPUs: len(m.calls)}
}

// The conditions are read before the first burst and after each, while the worker waits.
// They are in the event of the first repetition of the burst.
func TestMeter(t *testing.T) {
	t.Parallel()
	var h history
	h.dir = t.TempDir()
	o := h.options("untroubled")
	meter := &fakeMeter{}
	o.Meter = meter
	job := jobOf(0)
	job.Tests = job.Tests[1:2] // pp32, whose second repetition ends a burst
	if err := supervise.Run(t.Context(), job, o); err != nil {
		t.Fatal(err)
	}
	kind := string(job.Tests[0].Test.Kind())
	want := []string{"worker", "begin " + kind, "burst", "burst"}
	if diff := cmp.Diff(want, meter.calls); diff != "" || meter.pid == 0 {
		t.Errorf("worker %d, calls (-want +got):\n%s", meter.pid, diff)
	}
	var got []*result.Conditions
	for _, e := range h.events {
		if e, ok := e.Event.(bench.RepetitionDone); ok {
			got = append(got, e.Sample.Conditions)
		}
	}
	if diff := cmp.Diff([]*result.Conditions{{CPUs: 3, Repetitions: 2}, nil, {CPUs: 4}}, got); diff != "" {
		t.Errorf("conditions of the repetitions (-want +got):\n%s", diff)
	}
}

func TestOutcomeFails(t *testing.T) {
	full := errors.New("no space left on device")
	for _, scenario := range []string{"untroubled", "exit 7 in load", "no memory in load"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			var h history
			h.dir = t.TempDir()
			o := h.options(scenario)
			h.onOutcome = func(*result.Outcome) error { return full }
			if err := supervise.Run(t.Context(), jobOf(0), o); !errors.Is(err, full) {
				t.Errorf("error %v, want %v", err, full)
			}
		})
	}
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	h := history{dir: t.TempDir()}
	o := h.options("untroubled")
	o.Command = []string{filepath.Join(h.dir, "none")}
	err := supervise.Run(t.Context(), jobOf(0), o)
	if !errors.Is(err, supervise.ErrStart) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// No burst starts before the one before it is safe.
func TestAcknowledgement(t *testing.T) {
	t.Parallel()
	var h history
	h.onEvent = func(s bench.Stamped) error {
		if r, ok := s.Event.(bench.RepetitionDone); ok {
			time.Sleep(10 * time.Millisecond) // a slow disk
			noteIn(h.dir, "safe %d", r.Sample.Repetition)
		}
		return nil
	}
	job := jobOf(0)
	job.Tests = job.Tests[1:2]
	job.Repetitions = 4
	if err := run(t.Context(), t, &h, "untroubled", job); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"worker 1", "load", "begin pp32", "warmup pp32",
		"repeat 1 pp32", "repeat 2 pp32", "safe 1", "safe 2", "repeat 3 pp32", "repeat 4 pp32", "safe 3", "safe 4",
		"end pp32", "close",
	}
	if diff := cmp.Diff(want, h.journal(t)); diff != "" {
		t.Error(diff)
	}
}

// A worker is killed at any moment: no repetition is lost that was followed by two others,
// since two of them last longer than a burst. Another worker does the rest.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, seed))
	for i := range 30 {
		after := time.Duration(rng.Int64N(int64(4 * time.Second)))
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			var once sync.Once
			var killer *time.Timer
			var h history
			h.onEvent = func(s bench.Stamped) error {
				if ready, ok := s.Event.(bench.EngineReady); ok {
					once.Do(func() {
						killer = time.AfterFunc(after, func() { _ = syscall.Kill(ready.PID, syscall.SIGKILL) })
					})
				}
				return nil
			}
			job := jobOf(0)
			job.Repetitions = 5
			err := run(t.Context(), t, &h, "slow", job)
			killer.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]outcome{{Line: "pp16 ok 5"}, {Line: "pp32 ok 5"}, {Line: "tg8 ok 5"}}, h.outcomes); diff != "" {
				t.Errorf("killed after %v: %s", after, diff)
			}
			// A repetition that started proves that all but the one before it are in
			// the events, of this worker or handed on to it.
			done := make(map[string]bool)
			test, worker := "", 0
			for _, e := range h.events {
				switch e := e.Event.(type) {
				case bench.EngineReady:
					worker++
				case bench.TestStarted:
					test = e.Test.String()
					for _, s := range e.Done {
						done[fmt.Sprintf("%d: repeat %d %s", worker, s.Repetition, test)] = true
					}
				case bench.RepetitionDone:
					done[fmt.Sprintf("%d: repeat %d %s", worker, e.Sample.Repetition, test)] = true
				}
			}
			for _, line := range h.journal(t) {
				var n int
				if _, err := fmt.Sscanf(line, "worker %d", &worker); err == nil {
					continue
				}
				if _, err := fmt.Sscanf(line, "repeat %d %s", &n, &test); err != nil || n < 3 {
					continue
				}
				if before := fmt.Sprintf("%d: repeat %d %s", worker, n-2, test); !done[before] {
					t.Errorf("killed after %v: %q is not in the events", after, before)
				}
			}
		})
	}
}

// parentMain runs a worker that hangs, and says its process id.
func parentMain(scenario string) int {
	h := history{dir: os.Getenv(dirEnv)}
	h.onEvent = func(s bench.Stamped) error {
		if ready, ok := s.Event.(bench.EngineReady); ok {
			fmt.Println(ready.PID)
		}
		return nil
	}
	o := h.options(scenario)
	o.Env = append(o.Env, parentEnv+"=")
	if err := supervise.Run(context.Background(), jobOf(0), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A worker whose parent is gone ends itself, also when its engine hears nothing.
func TestParentGone(t *testing.T) {
	t.Parallel()
	h := history{dir: t.TempDir()}
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), append(h.options("deaf").Env, parentEnv+"=1")...)
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var worker int
	if _, err := fmt.Fscanln(bufio.NewReader(out), &worker); err != nil {
		t.Fatal(err)
	}
	waitForNote(h.dir, third.String())
	if len(inGroup(t, worker)) != 1 {
		t.Errorf("worker %d does not run", worker)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed
	for len(inGroup(t, worker)) > 0 {
		if t.Context().Err() != nil {
			t.Fatalf("worker %d outlives its parent", worker)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
