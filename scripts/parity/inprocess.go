//go:build cgo && parity

package main

import (
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/llama"
)

// inProcessBound is where the paired median of our path and plain C must lie.
var inProcessBound = stats.Interval{Low: 0.995, High: 1.005}

// compareInProcess alternates, in one context, the binding's repetition and
// llama-bench's sequence in plain C.
func compareInProcess(o options, path string) (bool, error) {
	t := newTable()
	t.AppendHeader(table.Row{"in process", "plain C t/s", "binding t/s", "paired ratio", "C with itself", "verdict"})
	ok := true
	err := withModel(path, func(m *llama.Model) error {
		for _, test := range []struct {
			name        string
			prompt, gen int
		}{{"pp32", 32, 0}, {"tg8", 0, 8}} {
			ours, plain, again, err := alternate(m, o, test.prompt, test.gen)
			if err != nil {
				return err
			}
			ab, err := stats.PairedRatio(ours, plain, confidence)
			if err != nil {
				return err
			}
			aa, err := stats.PairedRatio(again, plain, confidence)
			if err != nil {
				return err
			}
			verdict := "within 0.995…1.005"
			if !inProcessBound.Contains(ab.Value) {
				verdict, ok = "outside 0.995…1.005", false
			}
			t.AppendRow(table.Row{test.name, median(plain), median(ours), interval(ab), interval(aa), verdict})
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	fmt.Println(t.Render())
	return ok, nil
}

// alternate runs binding, C and C again in turning order; rates in
// tokens/second.
func alternate(m *llama.Model, o options, prompt, gen int) (ours, plain, again []float64, err error) {
	err = withContext(m, o.threads, prompt+gen, func(c *llama.Context) error {
		p, g := tokens(prompt), tokens(gen)
		paths := []struct {
			run func([]llama.Token, []llama.Token, int) (time.Duration, error)
			to  *[]float64
		}{{c.Repetition, &ours}, {c.ReferenceRepetition, &plain}, {c.ReferenceRepetition, &again}}
		for round := range o.inProcess + 1 {
			for i := range paths {
				path := paths[(round+i)%len(paths)]
				if err := c.ClearMemory(); err != nil {
					return err
				}
				elapsed, err := path.run(p, g, 2048)
				if err != nil {
					return err
				}
				if round > 0 {
					*path.to = append(*path.to, float64(prompt+gen)/elapsed.Seconds())
				}
			}
		}
		return nil
	})
	return ours, plain, again, err
}

// withModel runs f on a thread of its own with the model of a file.
func withModel(path string, f func(*llama.Model) error) (err error) {
	return onThread(func() error {
		m, err := llama.LoadModel(path, llama.ModelParams{}, nil)
		if err != nil {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
		return m.Close()
	})
}

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

// withContext runs f with a context and threadpool as the engine makes them.
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

// tokens are n tokens that are not all equal and that every vocabulary has.
func tokens(n int) []llama.Token {
	t := make([]llama.Token, n)
	for i := range t {
		t[i] = int32(i*7919) % 30000
	}
	return t
}
