//go:build cgo && parity

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/llama"
)

// peersLegend says what each rate includes. It is printed below the table.
const peersLegend = `llama-bench    only decoding; pp decodes a prompt in batches, tg one random token after another
benchmark-llm  the same calls, through this program's binding
go-llama.cpp   pp is Eval, which includes passing the text to C and tokenising it; tg is Predict, measured between
               token callbacks, which includes sampling (penalties, top-k 40, top-p 0.95, temperature 0.8), the
               token's text (three times) and the callback to Go. It runs on a locked OS thread; without one, its
               speed would be a third.`

// parts are the parts of a repetition of cmd/gollama-peer, per token.
type parts struct {
	TokenizeUS float64 `json:"tokenize_us"`
	EvalUS     float64 `json:"eval_us"`
	SampleUS   float64 `json:"sample_us"`
	PieceUS    float64 `json:"piece_us"`
	CallbackUS float64 `json:"callback_us"`
	RestUS     float64 `json:"rest_us"`

	Allocations    float64 `json:"allocs"`
	AllocatedBytes float64 `json:"alloc_bytes"`
}

// fromGollama reads the samples that cmd/gollama-peer printed, which must be of test
// t.
func fromGollama(printed io.Reader, t result.Test) ([]sample, error) {
	var output struct {
		Prompt      int `json:"n_prompt"`
		Gen         int `json:"n_gen"`
		Repetitions []struct {
			NS int64 `json:"ns"`
			parts
		} `json:"repetitions"`
	}
	if err := json.NewDecoder(printed).Decode(&output); err != nil {
		return nil, err
	}
	if (result.Test{Prompt: output.Prompt, Gen: output.Gen}) != t {
		return nil, fmt.Errorf("the result is of pp%d, tg%d, expected %v", output.Prompt, output.Gen, t)
	}
	samples := make([]sample, len(output.Repetitions))
	for i, r := range output.Repetitions {
		samples[i] = sample{rate: t.TokensPerSecond(time.Duration(r.NS)), parts: r.parts}
	}
	return samples, nil
}

func (o options) goLlama(model string) program {
	return program{name: "go-llama.cpp", read: fromGollama, args: []string{
		o.gollama, "-m", model, "-t", strconv.Itoa(o.threads),
	}}
}

// comparePeers lets llama-bench, a second llama-bench, this program and go-llama.cpp
// take turns on a file with a tokenizer. It reports whether this program, and
// go-llama.cpp's evaluation alone, are within the noise.
func comparePeers(o options) (bool, error) {
	setDefault(&o.prompts, "128,512")
	setDefault(&o.gens, "32,128")
	tests, err := o.tests()
	if err != nil {
		return false, err
	}
	if o.gate, err = o.buildGate(); err != nil {
		return false, err
	}
	model, err := o.file(1, "--tokenizer")
	if err != nil {
		return false, err
	}
	o.loads = cmp.Or(o.loads, 15)
	bench := o.llamaBench(model)
	programs := []program{bench, bench, o.ours(model, "file"), o.goLlama(model)}
	fmt.Printf("%s, %d threads, %d loads of each program\n", o.model, o.threads, o.loads)

	t := newTable()
	header, rows := table.Row{""}, make([]table.Row, len(peerRows))
	for i, name := range peerRows {
		rows[i] = table.Row{name}
	}
	ok := true
	for _, test := range tests {
		pass, err := o.passOf(bench, test)
		if err != nil {
			return false, err
		}
		n := passesOfTurn(pass)
		sides := []side{{0, n}, {1, n}, {2, n}, {3, n}}
		turns := o.turnsOfLoad(pass, sides)
		samples, err := o.loadsOf(test, programs, sides, turns)
		if err != nil {
			return false, err
		}
		figures, alike, err := peerFigures(samples)
		if err != nil {
			return false, fmt.Errorf("%v: %w", test, err)
		}
		ok = ok && alike
		allocations, size, err := heapOf(o, model, test)
		if err != nil {
			return false, err
		}
		header = append(header, test)
		for i, figure := range append(figures, turns, fmt.Sprintf("%.2f, %.0f B", allocations, size)) {
			rows[i] = append(rows[i], figure)
		}
	}
	t.AppendHeader(header)
	t.AppendRows(rows)
	fmt.Println(t.Render())
	fmt.Println()
	fmt.Println(peersLegend)
	return ok, nil
}

// peerRows are the rows of the table: those of peerFigures, and two more.
var peerRows = []string{
	"llama-bench, t/s",
	"  noise floor: ratio to itself (95 %)",
	"benchmark-llm, t/s",
	"  ratio to llama-bench (95 %)",
	"  verdict",
	"go-llama.cpp, t/s",
	"  ratio to llama-bench (95 %)",
	"  ratio of its evaluation alone (95 %)",
	"  verdict on its evaluation",
	"  evaluation, µs/token",
	"  tokenisation, µs/token",
	"  sampling, µs/token",
	"  text, µs/token",
	"  callback, µs/token",
	"  rest, µs/token",
	"  Go heap per token: objects, bytes",
	"turns per load",
	"benchmark-llm, Go heap per token: objects, bytes",
}

// peerFigures are the figures of a test in the order of peerRows. samples are by
// side, load and turn. alike reports whether both verdicts are within the noise.
func peerFigures(samples [][][]sample) (figures []any, alike bool, err error) {
	bench, again, ours, theirs := ratesOf(samples[0]), ratesOf(samples[1]), ratesOf(samples[2]), ratesOf(samples[3])
	alone := make([][]float64, len(theirs))
	for load, ofLoad := range samples[3] {
		for _, s := range ofLoad {
			alone[load] = append(alone[load], 1e6/s.parts.EvalUS)
		}
	}
	var judgements [3]judgement
	for i, other := range [][][]float64{ours, theirs, alone} {
		if judgements[i], err = judge([3][][]float64{bench, again, other}); err != nil {
			return nil, false, err
		}
	}
	us, them, evaluation := judgements[0], judgements[1], judgements[2]
	part := func(f func(parts) float64) string {
		var x []float64
		for _, s := range slices.Concat(samples[3]...) {
			x = append(x, f(s.parts))
		}
		return median(x)
	}
	figures = []any{
		median(us.alike), interval(us.aa),
		median(us.other), interval(us.ab), us.verdict,
		median(them.other), interval(them.ab), interval(evaluation.ab), evaluation.verdict,
		part(func(p parts) float64 { return p.EvalUS }),
		part(func(p parts) float64 { return p.TokenizeUS }),
		part(func(p parts) float64 { return p.SampleUS }),
		part(func(p parts) float64 { return p.PieceUS }),
		part(func(p parts) float64 { return p.CallbackUS }),
		part(func(p parts) float64 { return p.RestUS }),
		part(func(p parts) float64 { return p.Allocations }) + ", " + part(func(p parts) float64 { return p.AllocatedBytes }) + " B",
	}
	return figures, us.verdict == stats.WithinNoise && evaluation.verdict == stats.WithinNoise, nil
}

// heapRepetitions is the number of repetitions that heapOf measures.
const heapRepetitions = 3

// heapOf measures what the binding's repetitions allocate on the Go heap: objects
// and bytes per token, by runtime.MemStats.
func heapOf(o options, file string, t result.Test) (allocations, size float64, err error) {
	err = withModel(file, func(m *llama.Model) error {
		return withContext(m, o.threads, t.Prompt+t.Gen, func(c *llama.Context) error {
			prompt, gen := make([]llama.Token, t.Prompt), make([]llama.Token, t.Gen) // any tokens do
			var before, after runtime.MemStats
			for i := range heapRepetitions + 1 {
				if i == 1 { // the first one warms up
					runtime.ReadMemStats(&before)
				}
				if err := c.ClearMemory(); err != nil {
					return err
				}
				if _, err := c.Timed().Repetition(prompt, gen, 2048); err != nil {
					return err
				}
			}
			runtime.ReadMemStats(&after)
			n := float64(heapRepetitions * (t.Prompt + t.Gen))
			allocations = float64(after.Mallocs-before.Mallocs) / n
			size = float64(after.TotalAlloc-before.TotalAlloc) / n
			return nil
		})
	})
	return allocations, size, err
}
