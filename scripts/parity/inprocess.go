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

// path is one way to compute a repetition.
type path struct {
	context *llama.Context
	run     func(prompt, gen []llama.Token, batch int) (time.Duration, error)
}

// compareInProcess alternates, in one context, the binding's repetition and
// llama-bench's sequence in plain C. Its paired median must lie within
// inProcessBound.
func compareInProcess(o options, file string) (bool, error) {
	return compareIn(o, "plain C", "binding", func(do func(func(length int, f func(a, b path) error) error) error) error {
		return withModel(file, func(m *llama.Model) error {
			return do(func(length int, f func(a, b path) error) error {
				return withContext(m, o.threads, length, func(c *llama.Context) error {
					return f(path{c, c.ReferenceRepetition}, path{c, c.Repetition})
				})
			})
		})
	})
}

// compareIn prints the paired ratios of two paths for a prompt and a generation
// test, short ones, so that neighbours share the state of the machine. with
// makes the models and calls its argument with what makes the paths for tests of
// a length.
func compareIn(o options, nameA, nameB string, with func(do func(func(length int, f func(a, b path) error) error) error) error) (bool, error) {
	t := newTable()
	t.AppendHeader(table.Row{"in process", nameA + " t/s", nameB + " t/s", "paired ratio", nameA + " with itself", "verdict"})
	ok := true
	err := with(func(paths func(length int, f func(a, b path) error) error) error {
		for _, test := range []struct {
			name        string
			prompt, gen int
		}{{"pp16", 16, 0}, {"tg4", 0, 4}} {
			err := paths(test.prompt+test.gen, func(a, b path) error {
				first, again, other, err := alternate(o.inProcess, a, b, tokens(test.prompt), tokens(test.gen))
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
				t.AppendRow(table.Row{test.name, median(first), median(other), interval(ab), interval(aa), verdict})
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	fmt.Println(t.Render())
	return ok, nil
}

// alternate runs a, a again and b in turns, each time in another order; rates in
// tokens/second.
func alternate(rounds int, a, b path, prompt, gen []llama.Token) (first, again, other []float64, err error) {
	turns := []struct {
		path
		to *[]float64
	}{{a, &first}, {a, &again}, {b, &other}}
	for round := range rounds + 1 {
		for _, which := range order(len(turns), round) {
			turn := turns[which]
			if err := turn.context.ClearMemory(); err != nil {
				return nil, nil, nil, err
			}
			elapsed, err := turn.run(prompt, gen, 2048)
			if err != nil {
				return nil, nil, nil, err
			}
			if round > 0 { // the first one warms up
				*turn.to = append(*turn.to, float64(len(prompt)+len(gen))/elapsed.Seconds())
			}
		}
	}
	return first, again, other, nil
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
