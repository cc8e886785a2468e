//go:build cgo

package llamacpp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
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

// loaded is an engine that has loaded SmolLM.
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

// runTest runs one test on an engine that has its model.
func runTest(t *testing.T, e *Engine, test bench.TestBudget, emit func(bench.Event) error) error {
	t.Helper()
	job := e.job
	job.Tests, job.NoPrecompile = []bench.TestBudget{test}, true
	return bench.RunJob(t.Context(), loadedEngine{e}, job, nil, func(s bench.Stamped) error { return emit(s.Event) })
}

// loadedEngine does not load its model again.
type loadedEngine struct{ *Engine }

func (loadedEngine) Load(context.Context, func(bench.Event)) (bench.ModelFacts, error) {
	return bench.ModelFacts{}, nil
}

// Before a repetition that generates, tokens are decoded until the CPUs are awake.
// After a single token the first tokens of a tg16 would be a sixth slower.
func TestGenerationIsPrimed(t *testing.T) {
	e := loaded(t, smolJob())
	for _, test := range []result.Test{{Gen: 64}, {Gen: 64, Depth: 8}} {
		if err := e.Begin(test); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Repeat(1, true); err != nil { // which fills the cache to the depth
			t.Fatal(err)
		}
		e.last = 0 // short, however slow this machine is
		start := time.Now()
		elapsed, err := e.Repeat(2, true)
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

// One OS thread owns the engine, and libgomp has one team of threads. With a second
// team generation would be three times slower without any error.
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
		// Each call comes from another goroutine.
		done := make(chan error)
		go func() {
			if err := e.Begin(result.Test{Gen: 4}); err != nil {
				done <- err
				return
			}
			_, err := e.Warmup()
			_, err2 := e.Repeat(1, true)
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
	// The number of Go's own threads may change by one or two. A second team would
	// add as many as the settings say, for each call.
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
	if err := runTest(t, e, long, emit); err != nil {
		t.Fatal(err)
	}
	if done.Status != result.Timeout || returned == nil {
		t.Fatalf("%+v, %+v", done, returned)
	}
	// The engine stays usable after an abort.
	if err := runTest(t, e, bench.TestBudget{Test: result.Test{Prompt: 16}}, emit); err != nil {
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

// Package gguf does not know every architecture whose attention is not causal. The
// engine asks the library, which would end the process ("non-causal attention requires
// n_ubatch >= n_tokens").
func TestNotAutoregressive(t *testing.T) {
	header := small(t, "llama")
	header, err := gguf.New(append(header.KV, gguf.KeyValue{Key: "llama.attention.causal", Value: false}), header.Tensors)
	if err != nil {
		t.Fatal(err)
	}
	job := tinyJob(false, nil)
	job.Model.Path = filepath.Join(t.TempDir(), "header")
	if err := synth.WriteHeaderFile(job.Model.Path, header); err != nil {
		t.Fatal(err)
	}
	job.Settings.Batch, job.Settings.UBatch = 64, 32
	e := tinyEngine(t, job)
	for _, tt := range []struct {
		test result.Test
		want error // of package gguf
	}{
		{result.Test{Prompt: 33}, gguf.ErrUBatch},
		{result.Test{Gen: 1}, gguf.ErrEncoder},
		{result.Test{Prompt: 8, Depth: 8}, gguf.ErrEncoder},
		{result.Test{Prompt: 32}, nil},
	} {
		err := e.Begin(tt.test)
		if err == nil {
			_, err = e.Repeat(1, true)
		}
		if !errors.Is(err, tt.want) || (tt.want != nil) != errors.Is(err, bench.ErrUnsupported) {
			t.Errorf("%v: %v, want %v", tt.test, err, tt.want)
		}
	}
}
