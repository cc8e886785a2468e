//go:build cgo && parity

package main

import (
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/llama"
)

// inProcessBound is the required range of the binding's paired ratio to plain C.
var inProcessBound = stats.Interval{Low: 0.995, High: 1.005}

// compareInProcess alternates the binding's repetition with llama-bench's sequence
// of calls in plain C, in one context. It reports whether the paired ratio lies
// within inProcessBound.
func compareInProcess(o options, file string) (bool, error) {
	t := newTable()
	t.AppendHeader(table.Row{"in process", "plain C t/s", "binding t/s", "paired ratio (95 %)", "noise floor", "verdict"})
	ok := true
	err := withModel(file, func(m *llama.Model) error {
		for _, test := range []result.Test{{Prompt: 16}, {Gen: 4}} { // short tests, so neighbours share the state of the machine
			var first, again, other []float64
			err := withContext(m, o.threads, test.Context(), func(c *llama.Context) (err error) {
				first, again, other, err = alternate(o.inProcess, c, test)
				return err
			})
			if err != nil {
				return err
			}
			ab, err := stats.PairedRatio(other, first, confidence)
			if err != nil {
				return err
			}
			aa, err := stats.PairedRatio(again, first, confidence)
			if err != nil {
				return err
			}
			verdict := "within 0.995…1.005"
			if !inProcessBound.Contains(ab.Value) {
				verdict, ok = "outside 0.995…1.005", false
			}
			t.AppendRow(table.Row{test, median(first), median(other), interval(ab), interval(aa), verdict})
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	fmt.Println(t.Render())
	return ok, nil
}

// alternate runs a test in plain C, a second time in plain C and through the
// binding, in every order. It returns the rates in tokens/second.
func alternate(rounds int, c *llama.Context, test result.Test) (first, again, other []float64, err error) {
	prompt, gen := tokens(test.Prompt), tokens(test.Gen)
	turns := []struct {
		run func(prompt, gen []llama.Token, batch int) (time.Duration, error)
		to  *[]float64
	}{{c.Timed().ReferenceRepetition, &first}, {c.Timed().ReferenceRepetition, &again}, {c.Timed().Repetition, &other}}
	for round := range rounds + 1 {
		for _, i := range order(len(turns), round) {
			if err := c.ClearMemory(); err != nil {
				return nil, nil, nil, err
			}
			elapsed, err := turns[i].run(prompt, gen, 2048)
			if err != nil {
				return nil, nil, nil, err
			}
			if round > 0 { // the first round is the warm-up
				*turns[i].to = append(*turns[i].to, test.TokensPerSecond(elapsed))
			}
		}
	}
	return first, again, other, nil
}

// withModel runs f with the model of a file, on a locked OS thread.
func withModel(path string, f func(*llama.Model) error) (err error) {
	return onThread(func() error {
		m, err := llama.LoadModel(path, llama.ModelParams{GPULayers: -1}, nil) // like llama-bench
		if err != nil {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
		return m.Close()
	})
}

// onThread runs f on a locked OS thread, with all back-ends loaded.
func onThread(f func() error) (err error) {
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		if err = llama.LoadBackends(llama.AllBackends); err == nil {
			err = f()
		}
	})
	return err
}

// withContext runs f with a context and a threadpool like the engine's.
func withContext(m *llama.Model, threads, length int, f func(*llama.Context) error) error {
	pool, err := llama.NewThreadpool(llama.ThreadpoolParams{Threads: threads, Poll: 50})
	if err != nil {
		return err
	}
	c, err := m.NewContext(llama.ContextParams{Context: length, Threads: threads, FlashAttention: llama.FlashOn})
	if err != nil {
		return err
	}
	if err := c.AttachThreadpool(pool); err != nil {
		return err
	}
	if err := f(c); err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	return pool.Close()
}

// tokens are n tokens that every vocabulary has, all different up to n = 8000.
func tokens(n int) []llama.Token {
	t := make([]llama.Token, n)
	for i := range t {
		t[i] = int32(i*7919) % 8000
	}
	return t
}
