//go:build cgo

// Command memory compares the memory that this program predicts for the default
// models with the memory that the library reports, for all lengths of the default
// suite. It reads no weights, so it needs seconds. The exit code is 1 if a prediction
// is more than 1 % off.
//
// Usage:
//
//	memory [-fa 0|1] [-ctk TYPE] [-ctv TYPE] [-ub N] [-no-repack] [MODEL …]
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// lengths are those of the default suite, in tokens. A prompt and a generation of one
// length need the same memory.
var lengths = []int{16, 128, 512, 1024, 4096, 16384}

const bound = 0.01

func main() {
	log.SetFlags(0)
	log.SetPrefix("memory: ")
	s := bench.DefaultSettings(1)
	s.LoadMode = "none"
	flag.IntVar(&s.FlashAttn, "fa", s.FlashAttn, "flash attention: 0, 1")
	flag.StringVar(&s.TypeK, "ctk", s.TypeK, "`type` of the cached keys")
	flag.StringVar(&s.TypeV, "ctv", s.TypeV, "`type` of the cached values")
	flag.IntVar(&s.UBatch, "ub", s.UBatch, "`tokens` of a pass")
	flag.BoolVar(&s.NoRepack, "no-repack", false, "do not repack weights")
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 {
		names = synth.Names()
	}
	w := table.NewWriter()
	w.AppendHeader(table.Row{"model", "test", "part", "predicted", "reported", "ratio"})
	w.SetColumnConfigs([]table.ColumnConfig{{Number: 4, Align: text.AlignRight}, {Number: 5, Align: text.AlignRight}, {Number: 6, Align: text.AlignRight}})
	worst := 0.
	for _, name := range names {
		off, err := compare(w, name, s)
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		worst = max(worst, off)
	}
	fmt.Println(w.RenderMarkdown())
	fmt.Printf("largest difference: %.2f %%\n", 100*worst)
	if worst > bound {
		os.Exit(1)
	}
}

// compare adds a model's rows and returns the largest difference of its parts, as a
// share of what is reported.
func compare(w table.Writer, name string, s bench.Settings) (worst float64, err error) {
	shape, err := synth.Lookup(name)
	if err != nil {
		return 0, err
	}
	header, err := shape.File()
	if err != nil {
		return 0, err
	}
	var tests []result.Test
	for _, n := range lengths {
		tests = append(tests, result.Test{Prompt: n})
	}
	reported, err := llamacpp.Report(bench.Job{Model: bench.Model{Name: name, Weights: result.SyntheticWeights, Seed: 1}, Settings: s}, tests)
	if err != nil {
		return 0, err
	}
	add := func(test, part string, predicted, reported uint64) {
		ratio := "not allocated"
		if reported > 0 {
			r := float64(predicted) / float64(reported)
			ratio = fmt.Sprintf("%.4f", r)
			worst = max(worst, math.Abs(r-1))
		}
		w.AppendRow(table.Row{name, test, part, predicted, reported, ratio})
	}
	c := acquire.ContextOf(s)
	var parts []gguf.Memory
	for _, t := range tests {
		c.Tokens = t.Context()
		parts = append(parts, header.Memory(c))
	}
	add("all", "weights", parts[0].Weights, reported[0].WeightsBytes)
	for i, t := range tests {
		what := t.String()
		if gen := (result.Test{Gen: t.Prompt}); slices.Contains(lengths[:len(lengths)-1], gen.Gen) {
			what += ", " + gen.String()
		}
		add(what, "KV cache", parts[i].Cache, reported[i].CacheBytes)
		add(what, "compute", parts[i].Compute, reported[i].ComputeBytes)
	}
	return worst, nil
}
