//go:build cgo && linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// huge is a prompt whose KV cache does not fit the address space of the runs below.
const huge = 16_000_000

// never is the number of a strike that does not come.
const never = 1 << 30

// Sweeps of real workers with real faults: workers are killed, crash and hang in random
// cells, one length runs out of memory, and the program itself is killed in the middle.
// The resumed run completes the sweep. Each cell has its row once, and only those that
// were struck are not measured.
func TestFaultSweep(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, seed))
			first := newFaulty(t, "-m", "tiny.Q4_K_M.gguf", "-p", fmt.Sprint(huge, ",16"), "-n", "8", "-ub", "8,16", "-fa", "0,1", "-r", "12", "--timeout", "4s")
			first.throughShell(bounded + "; ulimit -v 4194304")
			first.start()
			strikes := first.strike(rng, 7, int(seed))
			first.kill(first.Process.Pid, syscall.SIGKILL)
			_ = first.Wait() // it was killed
			first.until("the workers' end", func() bool { return len(first.processes()) == 0 })

			dirs, err := filepath.Glob(filepath.Join(first.results, "*", "run.json"))
			if err != nil || len(dirs) != 1 {
				t.Fatal(dirs, err)
			}
			second := faulty{&run{t: t, results: first.results, Cmd: exec.CommandContext(t.Context(), "benchmark-llm", "run", "--resume", filepath.Dir(dirs[0]))}, first.mark}
			second.Env, second.Stdout, second.Stderr = first.Env, &second.stdout, &second.stderr
			second.throughShell(bounded + "; ulimit -v 4194304")
			second.start()
			strikes += second.strike(rng, 12, never)
			second.over(exitOK)

			struck, lost := struckCells(second.steps())
			if lost > strikes || lost < 3 {
				t.Errorf("%d workers were lost by %d strikes", lost, strikes)
			}
			measured, missing := second.rows()
			var want []string
			for _, settings := range []string{"-ub 8 -fa off", "-ub 8 -fa on", "-ub 16 -fa off", "-ub 16 -fa on"} {
				for _, test := range []string{"pp16", fmt.Sprint("pp", huge), "tg8"} {
					want = append(want, test+" "+settings)
				}
			}
			got := slices.Concat(measured, slices.Collect(maps.Keys(missing)))
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			for cell, reason := range missing {
				if full := strings.HasPrefix(cell, fmt.Sprint("pp", huge)); full && !strings.HasPrefix(reason, "out of memory") || !full && !slices.Contains(struck, cell) {
					t.Errorf("%s was not struck, but there is no record: %s", cell, reason)
				}
			}
			records := second.file("results.jsonl")
			if n := strings.Count(records, "\n"); n != len(measured) {
				t.Errorf("%d records of %d measured cells", n, len(measured))
			}
			for line := range strings.Lines(records) {
				var r printedRecord
				if err := json.Unmarshal([]byte(line), &r); err != nil || len(r.SamplesNs) != 12 {
					t.Errorf("%v: %d repetitions, %v", r.test(), len(r.SamplesNs), err)
				}
			}
			for _, e := range second.steps() {
				if lost, ok := e.(bench.WorkerLost); ok && strings.Contains(lost.Reason, "insufficient memory") {
					t.Errorf("what another cell lacked is the reason: %s", lost.Reason)
				}
			}
		})
	}
}

// rows are the cells of the report: those measured, and why the others are not.
func (r *faulty) rows() (measured []string, missing map[string]string) {
	r.t.Helper()
	text := r.file("report.md")
	for _, row := range regexp.MustCompile(`(?m)^\| ((?:pp|tg)\d+ -ub .*?) +\|`).FindAllStringSubmatch(text, -1) {
		measured = append(measured, row[1])
	}
	missing = map[string]string{}
	_, list, _ := strings.Cut(text, "Not completed:")
	for _, row := range regexp.MustCompile(`(?m)^- ((?:pp|tg)\d+ -ub [^:]*): (.*)$`).FindAllStringSubmatch(list, -1) {
		for cell := range strings.SplitSeq(row[1], ", ") {
			if missing[cell] != "" {
				r.t.Errorf("%s is there twice: %s, %s", cell, missing[cell], row[2])
			}
			missing[cell] = row[2]
		}
	}
	return measured, missing
}

// strike sends a signal to the worker in about two of three cells, until so many were
// started or the run ends. It returns the number of signals. The hang-th signal stops
// the worker.
func (r *faulty) strike(rng *rand.Rand, cells, hang int) (strikes int) {
	r.t.Helper()
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGABRT, syscall.SIGSEGV}
	perSettings := map[string]int{}
	starts := func() (n int, last result.Test) {
		for _, e := range r.steps() {
			if e, ok := e.(bench.TestStarted); ok {
				n, last = n+1, e.Test
			}
		}
		return n, last
	}
	seen, _ := starts()
	for range cells {
		var now result.Test
		r.until("the next cell", func() bool {
			n, last := starts()
			if n > seen {
				seen, now = n, last
				return true
			}
			return gone(r.Process.Pid)
		})
		if gone(r.Process.Pid) {
			return strikes
		}
		if now.Prompt == huge || rng.IntN(3) == 0 || perSettings[now.Settings] == 2 { // after the third crash, the settings are given up
			continue
		}
		time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
		signal := signals[rng.IntN(len(signals))]
		if strikes >= hang && now.Gen > 0 {
			signal, hang = syscall.SIGSTOP, never
		}
		if pid := r.worker(); syscall.Kill(pid, signal) == nil { // otherwise it has done its work
			perSettings[now.Settings]++
			strikes++
		}
	}
	return strikes
}

// struckCells are the cells that were running when a worker was lost, or came next.
func struckCells(steps []bench.Event) (struck []string, lost int) {
	current, next := "", false
	for _, e := range steps {
		switch e := e.(type) {
		case bench.TestStarted:
			if current = e.Test.String(); next {
				struck, next = append(struck, current), false
			}
		case bench.TestDone:
			current = ""
		case bench.WorkerLost:
			lost++
			if next = current == ""; !next {
				struck = append(struck, current)
			}
		}
	}
	return struck, lost
}
