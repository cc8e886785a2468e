//go:build cgo && !cpu

package llamacpp

import (
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// alone reports whether the test runs in its own process. If not, it starts that
// process. The devices of an RPC server stay registered in a process, and the
// process ends when it needs a server that is gone.
func alone(t *testing.T) bool {
	t.Helper()
	const mark = "BENCHMARK_LLM_TEST_ALONE"
	if os.Getenv(mark) != "" {
		return true
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
	c.Env = append(os.Environ(), mark+"=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// A device does not look at the abort flag. With all layers on it, an aborted
// prompt ends between two ubatches, an aborted generation between two tokens, and
// the context stays usable. The test counts the graphs at the device, which waits
// until the deadline has passed.
func TestAbortOnDevice(t *testing.T) {
	if !alone(t) {
		return
	}
	server, _ := benchtest.StartRPC(t, benchtest.RPC{})
	proxy := benchtest.StartRPCProxy(t, server)
	job := smolJob()
	job.Model.Name = "tiny.Q4_K_M.gguf"
	job.Repetitions, job.NoWarmup = 1, true
	job.Settings.RPC, job.Settings.Threads = []string{proxy.Endpoint}, 1
	// A pass of 1 MiB does not fit the sockets' buffers, and each batch has several.
	job.Settings.UBatch, job.Settings.Batch = 1024, 5120
	e, err := New(job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	facts, err := e.Load(t.Context(), func(bench.Event) {})
	if err != nil || facts.Offload == nil || facts.Offload.Layers != facts.Offload.Of {
		t.Fatalf("not all layers on the device: %+v, %v", facts, err)
	}
	// run runs a test. It returns how the test ended and how many graphs it took.
	run := func(test bench.TestBudget, told func()) (status result.Status, graphs int) {
		t.Helper()
		before := proxy.Graphs()
		err := runTest(t, e, test, func(ev bench.Event) error {
			switch ev := ev.(type) {
			case bench.AbortRequested:
				told()
			case bench.TestDone:
				status = ev.Status
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return status, proxy.Graphs() - before
	}
	for _, tt := range []struct {
		test   result.Test
		graphs int // of all of it
		hold   int // the graph under way at the deadline
		more   int // that may follow
	}{
		{result.Test{Prompt: 5120}, 5, 1, 2},
		{result.Test{Gen: 64}, 64, 5, 0},
	} {
		t.Run(tt.test.String(), func(t *testing.T) {
			if status, graphs := run(bench.TestBudget{Test: tt.test}, nil); status != result.OK || graphs != tt.graphs {
				t.Fatalf("%s after %d graphs, want %d", status, graphs, tt.graphs)
			}
			after := bench.TestBudget{Test: result.Test{Prompt: 16, Gen: 2}}
			const afterGraphs = 3
			held := false
			for budget := 250 * time.Millisecond; !held; budget *= 2 { // until it is late enough
				aborted := make(chan struct{})
				release := sync.OnceFunc(func() { close(aborted) })
				first := proxy.Graphs()
				proxy.Before(func(n int) {
					if n == first+tt.hold {
						held = true
						<-aborted
					}
				})
				status, _ := run(bench.TestBudget{Test: tt.test, Budget: budget}, release)
				release()
				if status != result.Timeout {
					t.Fatalf("%s, want %s", status, result.Timeout)
				}
				if status, _ := run(after, nil); status != result.OK {
					t.Fatalf("the test after an aborted one: %s", status)
				}
				// The device computes all that was sent.
				if graphs := proxy.Graphs() - first - afterGraphs; graphs < 0 || graphs > tt.hold+tt.more {
					t.Errorf("aborted in graph %d of %d, and %d were computed", tt.hold, tt.graphs, graphs)
				}
			}
			proxy.Before(func(int) {})
			if status, graphs := run(after, nil); status != result.OK || graphs != afterGraphs {
				t.Errorf("%s after %d graphs, want %d", status, graphs, afterGraphs)
			}
		})
	}
}
