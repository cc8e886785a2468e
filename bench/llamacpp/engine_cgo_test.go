//go:build cgo

package llamacpp

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

const smolLM = "SmolLM-135M.Q4_K_M.gguf"

func smolJob(tests ...bench.TestBudget) bench.Job {
	return bench.Job{
		Model:       bench.Model{Name: smolLM, Weights: result.SyntheticWeights, Seed: 1},
		Tests:       tests,
		Repetitions: 2,
		Seed:        1,
		Settings:    testSettings(),
	}
}

func testSettings() bench.Settings {
	s := bench.DefaultSettings(2)
	s.LoadMode = "none"
	return s
}

// loaded is an engine with SmolLM in it.
func loaded(t *testing.T, job bench.Job) *Engine {
	t.Helper()
	e, err := New(job, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	facts, err := e.Load(t.Context(), func(bench.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	// As published: contract of the default suite.
	if facts.SizeBytes != 103_668_480 || facts.Params != 134_515_008 {
		t.Fatalf("SmolLM has %d bytes and %d parameters", facts.SizeBytes, facts.Params)
	}
	return e
}

func TestRunJob(t *testing.T) {
	tests := []bench.TestBudget{
		{Test: result.Test{Prompt: 16}},
		{Test: result.Test{Gen: 4}},
		{Test: result.Test{Prompt: 8, Gen: 2}},
		{Test: result.Test{Gen: 2, Depth: 32}},
	}
	e := loaded(t, smolJob(tests...))
	a := bench.Assembler{Job: e.job}
	a.Add(bench.Stamped{At: time.Now(), Event: bench.EngineReady{Facts: e.Facts()}})
	var got []*result.Outcome
	for _, test := range tests {
		err := bench.Run(t.Context(), e, e.job, test, func(ev bench.Event) error {
			if o := a.Add(bench.Stamped{At: time.Now(), Event: ev}); o != nil {
				got = append(got, o)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != len(tests) {
		t.Fatalf("%d outcomes of %d tests", len(got), len(tests))
	}
	for i, o := range got {
		if o.Status != result.OK || o.Test != tests[i].Test || o.Record.AvgTS <= 0 || len(o.Record.SamplesNs) != 2 {
			t.Errorf("%v: %+v", tests[i].Test, o)
		}
	}
	if got[0].Record.Backends == "" || got[0].Record.CPUInfo == "" {
		t.Errorf("the record does not say what it ran on: %+v", got[0].Record)
	}
}

// Before a repetition that generates, tokens are decoded for as long as CPUs that
// slept take to wake: one alone would leave the first of a tg16 a sixth slower.
func TestGenerationIsPrimed(t *testing.T) {
	e := loaded(t, smolJob())
	for _, test := range []result.Test{{Gen: 64}, {Gen: 64, Depth: 8}} {
		if err := e.Begin(test); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Repeat(1); err != nil { // which fills the cache to the depth
			t.Fatal(err)
		}
		e.last = 0 // short, however slow this machine is
		start := time.Now()
		elapsed, err := e.Repeat(2)
		if err != nil {
			t.Fatal(err)
		}
		const want = 50 * time.Millisecond
		if primed := time.Since(start) - elapsed; primed < want {
			t.Errorf("%v: primed for %v at most, want %v", test, primed, want)
		}
		if got := e.Tokens(); got != test.Gen {
			t.Errorf("%v: %d tokens done, want %d", test, got, test.Gen)
		}
	}
}

// One OS thread owns the engine, and libgomp's team does not grow: a second
// team would make generation three times slower without any error.
func TestOneThreadAndOneTeam(t *testing.T) {
	e := loaded(t, smolJob())
	threads := func() int {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "\nThreads:\t")
		count, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.Atoi(count)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var after []int
	for range 4 {
		// Each from a goroutine of its own, as a careless caller would.
		done := make(chan error)
		go func() {
			if err := e.Begin(result.Test{Gen: 4}); err != nil {
				done <- err
				return
			}
			_, err := e.Warmup()
			_, err2 := e.Repeat(1)
			done <- errors.Join(err, err2)
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		e.do(func() {
			if got := unix.Gettid(); got != e.thread.ID() {
				t.Errorf("the engine runs on thread %d, not on its own, %d", got, e.thread.ID())
			}
		})
		after = append(after, threads())
	}
	// Go's own threads may come and go by one or two; a team is as many as the
	// settings say, for each of the calls.
	if grown := after[len(after)-1] - after[0]; grown >= e.job.Settings.Threads {
		t.Errorf("the process grew from %d to %d threads over %d tests: %v", after[0], after[len(after)-1], len(after), after)
	}
}

func TestAbortAtDeadline(t *testing.T) {
	e := loaded(t, smolJob())
	var done bench.TestDone
	var returned *bench.AbortReturned
	emit := func(ev bench.Event) error {
		switch ev := ev.(type) {
		case bench.TestDone:
			done = ev
		case bench.AbortReturned:
			returned = &ev
		}
		return nil
	}
	long := bench.TestBudget{Test: result.Test{Gen: 4096}, Budget: 200 * time.Millisecond}
	if err := bench.Run(t.Context(), e, e.job, long, emit); err != nil {
		t.Fatal(err)
	}
	if done.Status != result.Timeout || returned == nil {
		t.Fatalf("%+v, %+v", done, returned)
	}
	// The engine is usable after an abort.
	if err := bench.Run(t.Context(), e, e.job, bench.TestBudget{Test: result.Test{Prompt: 16}}, emit); err != nil {
		t.Fatal(err)
	}
	if done.Status != result.OK {
		t.Errorf("the test after an aborted one ended as %+v", done)
	}
}

func TestLoadIsCancelled(t *testing.T) {
	e, err := New(smolJob(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := e.Load(ctx, func(bench.Event) { cancel() }); !errors.Is(err, bench.ErrAborted) {
		t.Fatalf("a cancelled load returned %v", err)
	}
	if _, err := e.Load(t.Context(), func(bench.Event) {}); err != nil {
		t.Fatalf("the load after a cancelled one: %v", err)
	}
}

func TestUnknownSettings(t *testing.T) {
	for name, change := range map[string]func(*bench.Settings){
		"split mode":      func(s *bench.Settings) { s.SplitMode = "diagonal" },
		"load mode":       func(s *bench.Settings) { s.LoadMode = "telepathy" },
		"lazy mode":       func(s *bench.Settings) { s.LazyMode = "very" },
		"device":          func(s *bench.Settings) { s.Devices = []string{"CUDA99"} },
		"flash attention": func(s *bench.Settings) { s.FlashAttn = 7 },
		"KV cache type":   func(s *bench.Settings) { s.TypeK = "q9" },
		"priority":        func(s *bench.Settings) { s.Priority = 9 },
	} {
		t.Run(name, func(t *testing.T) {
			job := smolJob()
			change(&job.Settings)
			e, err := New(job, Options{})
			if err == nil {
				defer e.Close()
				_, err = e.Load(t.Context(), func(bench.Event) {})
			}
			if err == nil {
				err = e.Begin(result.Test{Prompt: 1})
			}
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want an error that names the %s", err, name)
			}
		})
	}
}
