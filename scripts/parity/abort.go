//go:build cgo && parity

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// abortWithin is the latest moment of an abort in a repetition. Repetitions of large
// models take minutes, and their later passes do not differ from the earlier ones.
const abortWithin = 4 * time.Second

// aborts measures the time from an abort to its return. It also measures the longest
// node of the graph, because an abort must wait for its end. It checks that the
// context works after each abort.
func aborts(o options, model string) (bool, error) {
	prompt, gen, err := abortLengths(o)
	if err != nil {
		return false, err
	}
	shape, err := synth.Lookup(model)
	if err != nil {
		return false, err
	}
	weights, err := synth.New(shape, 1, llamacpp.Quantizer{})
	if err != nil {
		return false, err
	}
	figures := make(map[string]float64)
	t := newTable()
	t.AppendHeader(table.Row{"test", "aborts", "p50 ms", "p99 ms", "max ms", "longest node ms"})
	err = onThread(func() error {
		if o.rpc != "" {
			if err := llama.AddRPCServer(context.Background(), o.rpc, 0); err != nil {
				return err
			}
		}
		params := llama.ModelParams{LoadMode: llama.LoadNone, GPULayers: o.gpuLayers}
		if o.device != "" {
			params.Devices = []string{o.device}
		}
		m, err := llama.LoadModelStream(model, weights, params, nil)
		if err != nil {
			return err
		}
		some := func(n int) []llama.Token { // the vocabulary of a tiny model is smaller than that of others
			t := tokens(n)
			for i := range t {
				t[i] %= int32(m.Facts().Vocab)
			}
			return t
		}
		for _, test := range []struct {
			name                string
			prompt, gen, window int // window is the tokens per pass
		}{{fmt.Sprintf("pp%d", prompt), prompt, 0, prompt}, {fmt.Sprintf("tg%d", gen), 0, gen, 1}} {
			longest := "–" // nodes can be timed on the CPU only
			if o.gpuLayers == 0 {
				node, err := m.LongestNode(some(test.window), o.threads)
				if err != nil {
					return err
				}
				longest = ms(node.Seconds() * 1e3)
			}
			var latencies []float64
			err = withContext(m, o.threads, test.prompt+test.gen, func(c *llama.Context) error {
				latencies, err = abortsOf(c, o.aborts, some(test.prompt), some(test.gen))
				return err
			})
			if err != nil {
				return err
			}
			s, err := stats.New(latencies)
			if err != nil {
				return err
			}
			t.AppendRow(table.Row{test.name, s.N(), ms(s.Median()), ms(s.Quantile(0.99)), ms(s.Max()), longest})
			for name, x := range map[string]float64{"p50": s.Median(), "p99": s.Quantile(0.99), "max": s.Max()} {
				figures[fmt.Sprintf("%s %s ms", test.name, name)] = x
			}
		}
		return m.Close()
	})
	if err != nil {
		return false, err
	}
	if o.json != "" {
		data, err := json.Marshal(figures)
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(o.json, data, 0o644); err != nil {
			return false, err
		}
	}
	fmt.Printf("%s, %d threads\n%s\n", model, o.threads, t.Render())
	return true, nil
}

// abortLengths are the lengths of the tests to abort, by default 512 and 128 tokens.
func abortLengths(o options) (prompt, gen int, err error) {
	if prompt, err = strconv.Atoi(cmp.Or(o.prompts, "512")); err != nil {
		return 0, 0, fmt.Errorf("-p: %w", err)
	}
	if gen, err = strconv.Atoi(cmp.Or(o.gens, "128")); err != nil {
		return 0, 0, fmt.Errorf("-n: %w", err)
	}
	return prompt, gen, nil
}

// ms is a number of milliseconds as a text.
func ms(x float64) string { return fmt.Sprintf("%.1f", x) }

// abortsOf returns the latencies of count aborts at random moments, in
// milliseconds.
func abortsOf(c *llama.Context, count int, prompt, gen []llama.Token) ([]float64, error) {
	whole, err := c.Timed().Repetition(prompt, gen, 2048)
	if err != nil {
		return nil, err
	}
	var latencies []float64
	for len(latencies) < count {
		if err := c.ClearMemory(); err != nil {
			return nil, err
		}
		aborted := make(chan time.Time, 1)
		timer := time.AfterFunc(rand.N(min(whole*9/10, abortWithin)), func() {
			aborted <- time.Now()
			c.Abort()
		})
		_, err := c.Timed().Repetition(prompt, gen, 2048)
		returned := time.Now()
		stopped := timer.Stop()
		if !stopped {
			// A device that does not check the flag first ends its pass. That counts as
			// latency, too.
			if latency := returned.Sub(<-aborted); latency > 0 {
				latencies = append(latencies, latency.Seconds()*1e3)
			}
		}
		if err != nil && !errors.Is(err, llama.ErrAborted) {
			return nil, err
		}
		// The context must work again: decode one token.
		c.ClearAbort()
		if err := c.ClearMemory(); err != nil {
			return nil, err
		}
		if err := c.Decode([]llama.Token{1}); err != nil {
			return nil, fmt.Errorf("after an abort: %w", err)
		}
	}
	return latencies, nil
}
