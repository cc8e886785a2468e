package fetch_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/fetch"
)

// Downloads run on a thread that gives way to all others, and its priority ends
// with it.
func TestBackgroundPriority(t *testing.T) {
	var policy *unix.SchedAttr
	var thread int
	var err error
	fetch.OnBackground(func() {
		thread = unix.Gettid()
		policy, err = unix.SchedGetAttr(0, 0)
		var started sync.WaitGroup
		started.Add(8)
		for range 8 { // each needs a thread of its own, and none may come from this one
			go func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				started.Done()
				started.Wait()
			}()
		}
		started.Wait()
	})
	if err != nil {
		t.Fatalf("sched_getattr, which Linux has since 3.14: %v", err)
	}
	if policy.Policy != unix.SCHED_IDLE && policy.Nice != 19 {
		t.Errorf("policy %d, nice %d", policy.Policy, policy.Nice)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := idleThreads(t)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads %v are left at low priority, the download's was %d", left, thread)
		}
	}
}

// idleThreads are the threads of this process with SCHED_IDLE.
func idleThreads(t *testing.T) (all []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("%v, %d threads", err, len(tasks))
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) > 38 && f[38] == "5" { // policy, the 41st of proc_pid_stat(5)
			all = append(all, path)
		}
	}
	return all
}
