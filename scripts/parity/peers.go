//go:build cgo && parity

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/llama"
)

// whatPeersInclude is printed below the ratios.
const whatPeersInclude = `llama-bench    decoding alone: pp until the last batch is done, tg one random token after the other
benchmark-llm  the same sequence, through this program's binding
go-llama.cpp   pp: Eval, so also the text's way into C and its tokens; tg: Predict, from one token callback to the
               next, so also sampling (penalties, top-k 40, top-p 0.95, temperature 0.8), the token's text, thrice, and
               the callback in Go; on a locked OS thread, without which it would generate at a third of the speed`

// gollama is what one process of cmd/gollama-peer prints.
type gollama struct {
	Prompt     int     `json:"n_prompt"`
	Gen        int     `json:"n_gen"`
	SamplesNS  []int64 `json:"samples_ns"`
	TokenizeUS float64 `json:"tokenize_us"`
	EvalUS     float64 `json:"eval_us"`
	SampleUS   float64 `json:"sample_us"`
	PieceUS    float64 `json:"piece_us"`
	CallbackUS float64 `json:"callback_us"`
	RestUS     float64 `json:"rest_us"`

	Allocations    float64 `json:"allocs"`
	AllocatedBytes float64 `json:"alloc_bytes"`
}

// rates are those of the repetitions, in tokens/second.
func (g gollama) rates() []float64 {
	rates := make([]float64, len(g.SamplesNS))
	for i, ns := range g.SamplesNS {
		rates[i] = float64(g.Prompt+g.Gen) / time.Duration(ns).Seconds()
	}
	return rates
}

// peersRepetitions is how many repetitions each process measures, after its
// warm-up; its rate is their median.
const peersRepetitions = 3

// output is what a program printed about a test, in a process of its own.
func (p program) output(t result.Test) (*bytes.Buffer, error) {
	cmd := p.command(t, peersRepetitions)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", p.name, err, stderr.Bytes())
	}
	return &stdout, nil
}

// peer measures one test in a process of its own: the rates of its repetitions.
type peer func(result.Test) ([]float64, error)

// recorded is a program that prints records.
func recorded(p program) peer {
	return func(t result.Test) ([]float64, error) {
		out, err := p.output(t)
		if err != nil {
			return nil, err
		}
		rates, err := ratesOf(out, t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		return rates, nil
	}
}

// gollamaPeer is go-llama.cpp; runs gets what each of its processes says.
func (o options) gollamaPeer(model string, runs *[]gollama) peer {
	p := program{name: "go-llama.cpp", env: o.environment(), args: []string{o.gollama, "-m", model, "-t", strconv.Itoa(o.threads)}}
	return func(t result.Test) ([]float64, error) {
		out, err := p.output(t)
		if err != nil {
			return nil, err
		}
		var g gollama
		if err := json.Unmarshal(out.Bytes(), &g); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if (result.Test{Prompt: g.Prompt, Gen: g.Gen}) != t {
			return nil, fmt.Errorf("%s: not of %v: %s", p.name, t, out)
		}
		*runs = append(*runs, g)
		return g.rates(), nil
	}
}

// rounds are the rates of one test by each of the peers, in turning order; the
// first round warms caches and clocks up and does not count.
func (o options) rounds(t result.Test, peers ...peer) ([][]float64, error) {
	series := make([][]float64, len(peers))
	for round := range o.loads + 1 {
		for i := range peers {
			turn := (round + i) % len(peers)
			rates, err := peers[turn](t)
			if err != nil {
				return nil, err
			}
			s, err := stats.New(rates)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				series[turn] = append(series[turn], s.Median())
			}
		}
		fmt.Fprintf(os.Stderr, "\r%v: %d of %d rounds   ", t, round, o.loads)
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return series, nil
}

// comparePeers alternates llama-bench, this program and go-llama.cpp on one file
// with a tokenizer. It tells whether this program is within the noise floor, and
// go-llama.cpp without its parts, too.
func comparePeers(o options) (bool, error) {
	setDefault(&o.prompts, "128,512")
	setDefault(&o.gens, "32,128")
	tests, err := o.tests()
	if err != nil {
		return false, err
	}
	model, err := o.file(1, "--tokenizer")
	if err != nil {
		return false, err
	}
	o.loads = cmp.Or(o.loads, 20)
	ours := o.ours(model, "file")
	ours.args = append(ours.args, "--results-dir", o.dir)
	fmt.Printf("%s, %d threads, %d processes of each program for each test, %d repetitions in each\n", o.model, o.threads, o.loads, peersRepetitions)

	ratios, parts, heap := newTable(), newTable(), newTable()
	ratios.AppendHeader(table.Row{"test", "llama-bench t/s", "benchmark-llm t/s", "ratio (95 %)", "go-llama.cpp t/s", "ratio (95 %)", "noise floor", "benchmark-llm"})
	parts.AppendHeader(table.Row{"go-llama.cpp, µs/token", "evaluation", "tokens", "sampling", "text", "callback", "rest", "evaluation alone / llama-bench", "verdict"})
	heap.AppendHeader(table.Row{"Go's heap, for each token", "benchmark-llm", "go-llama.cpp"})
	ok := true
	for _, test := range tests {
		var runs []gollama
		bench := recorded(o.llamaBench(model))
		series, err := o.rounds(test, bench, bench, recorded(ours), o.gollamaPeer(model, &runs))
		if err != nil {
			return false, err
		}
		runs = runs[1:] // the first round does not count
		first, again, ours, theirs := series[0], series[1], series[2], series[3]
		alone := make([]float64, len(runs))
		for i, g := range runs {
			alone[i] = 1e6 / g.EvalUS
		}
		var estimates [4]stats.Estimate
		for i, other := range [][]float64{again, ours, theirs, alone} {
			if estimates[i], err = stats.PairedRatioOfMedians(other, first, confidence); err != nil {
				return false, err
			}
		}
		floor := estimates[0]
		verdict := stats.Within(estimates[1].Interval, floor.Interval)
		explained := stats.Within(estimates[3].Interval, floor.Interval)
		ok = ok && verdict == stats.WithinNoise && explained == stats.WithinNoise
		ratios.AppendRow(table.Row{test, median(first), median(ours), interval(estimates[1]), median(theirs), interval(estimates[2]), interval(floor), verdict})

		part := func(f func(gollama) float64) string {
			x := make([]float64, len(runs))
			for i, g := range runs {
				x[i] = f(g)
			}
			return middle(x)
		}
		parts.AppendRow(table.Row{test,
			part(func(g gollama) float64 { return g.EvalUS }),
			part(func(g gollama) float64 { return g.TokenizeUS }),
			part(func(g gollama) float64 { return g.SampleUS }),
			part(func(g gollama) float64 { return g.PieceUS }),
			part(func(g gollama) float64 { return g.CallbackUS }),
			part(func(g gollama) float64 { return g.RestUS }),
			interval(estimates[3]), explained,
		})
		allocations, size, err := heapOf(o, model, test)
		if err != nil {
			return false, err
		}
		heap.AppendRow(table.Row{test,
			fmt.Sprintf("%.2f, %.0f B", allocations, size),
			fmt.Sprintf("%s, %s B", part(func(g gollama) float64 { return g.Allocations }), part(func(g gollama) float64 { return g.AllocatedBytes })),
		})
	}
	fmt.Println(ratios.Render())
	fmt.Println()
	fmt.Println(whatPeersInclude)
	fmt.Println()
	fmt.Println(parts.Render())
	fmt.Println()
	fmt.Println(heap.Render())
	return ok, nil
}

// middle is the median of values that may be 0.
func middle(x []float64) string {
	s, err := stats.New(x)
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", s.Median())
}

// heapOf is what this program's repetitions allocate on Go's heap for each token,
// by runtime.MemStats of this process: objects and bytes.
func heapOf(o options, file string, t result.Test) (allocations, size float64, err error) {
	err = withModel(file, func(m *llama.Model) error {
		return withContext(m, o.threads, t.Prompt+t.Gen, func(c *llama.Context) error {
			prompt, gen := make([]llama.Token, t.Prompt), make([]llama.Token, t.Gen) // whichever they are
			var before, after runtime.MemStats
			for i := range peersRepetitions + 1 {
				if i == 1 { // the first one warms up
					runtime.ReadMemStats(&before)
				}
				if err := c.ClearMemory(); err != nil {
					return err
				}
				if _, err := c.Repetition(prompt, gen, 2048); err != nil {
					return err
				}
			}
			runtime.ReadMemStats(&after)
			n := float64(peersRepetitions * (t.Prompt + t.Gen))
			allocations = float64(after.Mallocs-before.Mallocs) / n
			size = float64(after.TotalAlloc-before.TotalAlloc) / n
			return nil
		})
	})
	return allocations, size, err
}
