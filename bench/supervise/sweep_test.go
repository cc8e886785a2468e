package supervise_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// sweeps is the number of sweeps with faults, each with other faults.
const sweeps = 5

// fault is what happens to a cell.
type fault string

const (
	none   fault = "none"
	killed fault = "killed"
	aborts fault = "aborts"
	full   fault = "out of memory"
	hangs  fault = "hangs"
	deaf   fault = "hangs and does not abort"
)

// statusOf are the statuses that a cell with a fault may have.
var statusOf = map[fault][]result.Status{
	none: {result.OK}, killed: {result.OutOfMemory, result.Crashed}, aborts: {result.Crashed}, full: {result.OutOfMemory},
	hangs: {result.Timeout}, deaf: {result.Timeout},
}

// faultOf draws the fault of a cell of a sweep: about every second cell has one.
func faultOf(sweep int, t result.Test) fault {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %v", sweep, t)
	switch n := h.Sum64() / 7 % 1000; {
	case n < 150:
		return killed
	case n < 300:
		return aborts
	case n < 495:
		return full
	case n < 515:
		return hangs
	case n < 518:
		return deaf
	}
	return none
}

func init() {
	for sweep := range sweeps {
		scenarios[fmt.Sprint("sweep ", sweep)] = func(_ int, c benchtest.Call) (benchtest.Step, bool) {
			if c.Method != benchtest.Repeat || c.N != 2 {
				return benchtest.Step{}, false
			}
			switch faultOf(sweep, c.Test) {
			case killed:
				return die(syscall.SIGKILL), true
			case aborts:
				return exit(134), true
			case full:
				return benchtest.Step{Err: bench.ErrOutOfMemory}, true
			case hangs:
				return obedient, true
			case deaf:
				return hang, true
			}
			return benchtest.Step{}, false
		}
	}
}

// sweepJobs are the jobs of a sweep: three loads of a model, each with 24 settings of two
// tests.
func sweepJobs() (jobs []bench.Job) {
	for ngl := range 3 {
		job := jobOf(0)
		job.Tests, job.Model.Load, job.Settings.GPULayers = nil, fmt.Sprint("-ngl ", ngl), ngl
		job.Sweep = map[string]bench.Settings{}
		for ub := range 24 {
			s := job.Settings
			s.UBatch = 1 + ub
			name := fmt.Sprintf("%s -ub %d", job.Model.Load, s.UBatch)
			job.Sweep[name] = s
			for _, t := range []result.Test{pp16, tg8} {
				t.Settings = name
				job.Tests = append(job.Tests, bench.TestBudget{Test: t, Budget: 2 * time.Second})
			}
		}
		jobs = append(jobs, job)
	}
	return jobs
}

// runSweep runs jobs until ctx ends, or until a number of outcomes have come; 0: all.
func (h *history) runSweep(t *testing.T, sweep int, jobs []bench.Job, until int) (statuses map[result.Test]result.Status) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	statuses = map[result.Test]result.Status{}
	h.onOutcome = func(o *result.Outcome) error {
		if _, twice := statuses[o.Test]; twice {
			t.Errorf("sweep %d: %v has two outcomes", sweep, o.Test)
		}
		statuses[o.Test] = o.Status
		if o.Record != nil && o.Record.UBatch != ubatchOf(o.Test) {
			t.Errorf("%v has n_ubatch %d", o.Test, o.Record.UBatch)
		}
		if len(statuses) == until {
			cancel()
		}
		return nil
	}
	o := h.options(fmt.Sprint("sweep ", sweep))
	o.Apart = true
	ready := func(_ context.Context, i int) (bench.Job, error) { return jobs[i], nil }
	if err := supervise.RunModels(ctx, jobs, ready, o); err != nil {
		t.Fatal(err)
	}
	return statuses
}

// ubatchOf is the micro-batch of a cell.
func ubatchOf(t result.Test) (n int) {
	var ngl int
	_, _ = fmt.Sscanf(t.Settings, "-ngl %d -ub %d", &ngl, &n)
	return n
}

// A cell that is killed, aborts, runs out of memory or hangs costs its row alone: each
// cell has one outcome, which says what happened. The cells that an interrupted sweep has not
// completed are measured when it is resumed.
func TestSweepSurvivesFaults(t *testing.T) {
	faults := 0
	for sweep := range sweeps {
		for _, job := range sweepJobs() {
			for _, b := range job.Tests {
				if faultOf(sweep, b.Test) != none {
					faults++
				}
			}
		}
		t.Run(fmt.Sprint(sweep), func(t *testing.T) {
			t.Parallel()
			jobs := sweepJobs()
			first := history{dir: t.TempDir()}
			statuses := first.runSweep(t, sweep, jobs, 20+17*sweep)
			past := record.NewHistory(jobs, []record.Span{{Program: "test", Started: time.Now()}})
			for i, e := range first.events {
				if err := past.Add(i+1, e); err != nil {
					t.Fatal(err)
				}
			}
			left := past.End()
			final := map[result.Test]result.Status{}
			for _, o := range left.Outcomes {
				if statuses[o.Test] != o.Status {
					t.Errorf("%v was %s, and is %s after the interruption", o.Test, statuses[o.Test], o.Status)
				}
				final[o.Test] = o.Status
			}
			second := history{dir: t.TempDir()}
			for test, status := range second.runSweep(t, sweep, left.Jobs, 0) {
				if _, twice := final[test]; twice {
					t.Errorf("%v was measured again", test)
				}
				final[test] = status
			}
			for _, job := range jobs {
				for _, b := range job.Tests {
					f := faultOf(sweep, b.Test)
					status, has := final[b.Test]
					good := false
					for _, may := range statusOf[f] {
						good = good || status == may
					}
					if !has || !good {
						t.Errorf("%v, fault %q: outcome %t, %q", b.Test, f, has, status)
					}
					delete(final, b.Test)
				}
			}
			if diff := cmp.Diff(map[result.Test]result.Status{}, final); diff != "" {
				t.Errorf("cells that do not exist: %s", diff)
			}
		})
	}
	if faults < 200 {
		t.Errorf("only %d faults", faults)
	}
}
