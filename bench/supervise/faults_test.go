package supervise_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// outputEnv is what a worker of the scenario "last words" writes to stderr
// before it ends as ggml ends a process.
const outputEnv = "SUPERVISE_TEST_OUTPUT"

func init() {
	scenarios["earlier words"] = func(_ int, c benchtest.Call) (benchtest.Step, bool) {
		if c.Method == benchtest.Begin {
			return benchtest.Step{Do: func() { fmt.Fprintln(os.Stderr, "ggml_aligned_malloc: insufficient memory") }}, c.Test == pp16
		}
		return benchtest.Step{Do: func() { _ = syscall.Kill(os.Getpid(), syscall.SIGABRT); select {} }}, c == third
	}
	scenarios["last words"] = at(third, always, do(func() {
		fmt.Fprint(os.Stderr, os.Getenv(outputEnv))
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	}))
}

// A worker that was killed is out of memory when the kernel says so, or says
// nothing; not when it says that it killed nobody.
func TestKilledForMemory(t *testing.T) {
	const (
		kernel  = "the kernel killed the worker because memory ran out"
		another = "the worker was killed (SIGKILL), but not because memory ran out"
		perhaps = "the worker was killed (SIGKILL), most likely by the kernel because memory ran out"
	)
	counts := func(known bool, counts ...uint64) func() (uint64, bool) {
		i := -1
		return func() (uint64, bool) {
			i++
			return counts[min(i, len(counts)-1)], known
		}
	}
	for _, tt := range []struct {
		name     string
		scenario string
		budget   time.Duration
		oomKills func() (uint64, bool)
		want     outcome // of pp32
	}{
		{"nobody counts", "kill twice", 0, nil, outcome{"pp32 out_of_memory 2", perhaps}},
		{"nothing is counted", "kill twice", 0, counts(false, 0), outcome{"pp32 out_of_memory 2", perhaps}},
		{"counted", "kill twice", 0, counts(true, 7, 8, 8, 9), outcome{"pp32 out_of_memory 2", kernel}},
		{"the first time alone", "kill twice", 0, counts(true, 7, 8, 8), outcome{"pp32 crashed 2", another}},
		{"not counted", "kill twice", 0, counts(true, 7), outcome{"pp32 crashed 2", another}},
		{"another process was killed", "abort twice", 0, counts(true, 7, 8, 8, 9), outcome{"pp32 crashed 2", "the worker crashed (exit code 2): SIGABRT"}},
		{"ended by us", "hang", time.Second, counts(true, 7, 8), outcome{"pp32 timeout 2", "the worker did not abort within 2."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := history{dir: t.TempDir()}
			o := h.options(tt.scenario)
			o.OOMKills = tt.oomKills
			if err := supervise.Run(t.Context(), jobOf(tt.budget), o); err != nil {
				t.Fatal(err)
			}
			checkPP32(t, h, tt.want)
		})
	}
}

// What a worker says before it ends tells whether it was memory that it lacked.
func TestLastWords(t *testing.T) {
	const without = "the worker ran out of memory: "
	stacks := strings.Repeat("goroutine 1 [running]:\nmain.main()\n", 200)
	chatter := strings.Repeat(`{"level":"DEBUG","msg":"load_tensors: layer 1 assigned to device CPU","source":"llama"}`+"\n", 500)
	for _, tt := range []struct {
		name, output string
		want         outcome // of pp32
	}{
		{
			"an exception", "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
			outcome{"pp32 out_of_memory 2", without + "terminate called after throwing an instance of 'std::bad_alloc'"},
		},
		{
			"ggml", "ggml_aligned_malloc: insufficient memory (attempted to allocate 4096.00 MB)\n" +
				"ggml.c:1600: GGML_ASSERT(ctx->mem_buffer != NULL) failed\n",
			outcome{"pp32 out_of_memory 2", without + "ggml_aligned_malloc: insufficient memory (attempted to allocate 4096.00 MB)"},
		},
		{
			"CUDA", "CUDA error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:500\n  cuMemCreate(&handle, reserve_size, &prop, 0)\nggml-cuda.cu:100: CUDA error\n",
			outcome{"pp32 out_of_memory 2", without + "CUDA error: out of memory"},
		},
		{
			"libgomp", "\nlibgomp: Out of memory allocating 64 bytes\n",
			outcome{"pp32 out_of_memory 2", without + "libgomp: Out of memory allocating 64 bytes"},
		},
		{
			"long logs and stacks", chatter + "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 64\nggml-alloc.c:1: GGML_ASSERT(buffer) failed\nSIGABRT: abort\n" + stacks,
			outcome{"pp32 out_of_memory 2", without + "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 64"},
		},
		{
			"Go", "runtime: out of memory: cannot allocate 4194304-byte block (8388608 in use)\nfatal error: out of memory\n" + stacks,
			outcome{"pp32 out_of_memory 2", without + "runtime: out of memory: cannot allocate 4194304-byte block"},
		},
		{
			"got over", "ggml_cuda_host_malloc: failed to allocate 100.00 MiB of pinned memory: out of memory\n" + chatter + "ggml.c:9: GGML_ASSERT(n > 0) failed\n",
			outcome{"pp32 crashed 2", "the worker crashed (exit code 2): ggml.c:9: GGML_ASSERT(n > 0) failed"},
		},
		{
			"a server over RPC", "ggml-rpc.cpp:450: Remote RPC server crashed or returned malformed response\n",
			outcome{"pp32 crashed 2", "the worker crashed (exit code 2): ggml-rpc.cpp:450: Remote RPC server crashed or returned malformed response"},
		},
		{
			"too little for Go", "fatal error: failed to reserve page summary memory\n" + stacks,
			outcome{"pp32 out_of_memory 2", without + "fatal error: failed to reserve page summary memory"},
		},
		{
			"a limit before Go runs", "benchmark-llm: only 3 more threads can be started, and 16 are needed\nhint: raise the limit\n",
			outcome{"pp32 crashed 2", "the worker crashed (exit code 2): only 3 more threads can be started, and 16 are needed"},
		},
		{
			"no thread for Go", "runtime: failed to create new OS thread (have 2 already; errno=11)\nruntime: may need to increase max user processes (ulimit -u)\nfatal error: newosproc\n" + stacks,
			outcome{"pp32 crashed 2", "the worker crashed (exit code 2): runtime: failed to create new OS thread (have 2 already; errno=11)"},
		},
		{"nothing", "", outcome{"pp32 crashed 2", "the worker crashed (exit code 2): SIGABRT"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := history{dir: t.TempDir()}
			o := h.options("last words")
			o.Env = append(o.Env, outputEnv+"="+tt.output)
			if err := supervise.Run(t.Context(), jobOf(0), o); err != nil {
				t.Fatal(err)
			}
			checkPP32(t, h, tt.want)
			for _, e := range h.events {
				lost, ok := e.Event.(bench.WorkerLost)
				if want := strings.Contains(tt.want.Reason, "thread"); ok && (lost.Code == bench.ProcessLimit) != want {
					t.Errorf("code %q of %s", lost.Code, lost.Reason)
				}
			}
		})
	}
}

// What a worker says in a test that it survives does not explain its end in a later one.
func TestEarlierWords(t *testing.T) {
	t.Parallel()
	h := history{dir: t.TempDir()}
	if err := supervise.Run(t.Context(), jobOf(0), h.options("earlier words")); err != nil {
		t.Fatal(err)
	}
	checkPP32(t, h, outcome{"pp32 crashed 2", "the worker crashed (exit code 2): SIGABRT"})
	i := slices.IndexFunc(h.events, func(e bench.Stamped) bool { _, ok := e.Event.(bench.WorkerLost); return ok })
	if i < 0 {
		t.Fatal("no worker was lost")
	}
	if lost := h.events[i].Event.(bench.WorkerLost); !strings.Contains(lost.Output[0], "insufficient memory") { // the first worker ran pp16, too
		t.Errorf("the output does not have all that the worker said: %q", lost.Output)
	}
}

// checkPP32 compares the one test that comes to grief; the others do not.
func checkPP32(t *testing.T, h history, want outcome) {
	t.Helper()
	wanted := append(ok(pp16), want)
	wanted = append(wanted, ok(tg8)...)
	if diff := cmp.Diff(wanted, h.outcomes, cmp.Comparer(func(a, b outcome) bool {
		return a.Line == b.Line && (a.Reason == "") == (b.Reason == "") &&
			(strings.HasPrefix(a.Reason, b.Reason) || strings.HasPrefix(b.Reason, a.Reason))
	})); diff != "" {
		t.Error(diff)
	}
}
