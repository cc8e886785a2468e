package rundir_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/rundir"
)

// recorded are the records of one machine.
type recorded struct {
	name    string
	records []result.Record
}

// machines are the recorded runs of the file that FLEET names, in the format of the command
// replay, or made-up ones: 1,000 machines with the default suite of 66 tests.
func machines(b *testing.B) (all []recorded) {
	b.Helper()
	if name := os.Getenv("FLEET"); name != "" {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		servers, err := policy.ReadRecorded(f)
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range servers {
			m := recorded{name: s.Name}
			for _, model := range s.Models {
				for _, test := range model.Tests {
					if len(test.SamplesNs) > 0 {
						m.records = append(m.records, recordOf(s.Name, model.Model, test.Kind, test.Tokens, test.SamplesNs))
					}
				}
			}
			if len(m.records) > 0 {
				all = append(all, m)
			}
		}
		return all
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 1000 {
		m := recorded{name: fmt.Sprintf("machine %d", i)}
		for model := range 6 {
			for _, test := range []result.Test{
				{Prompt: 16}, {Prompt: 128}, {Prompt: 512}, {Prompt: 1024}, {Prompt: 4096}, {Prompt: 16384},
				{Gen: 16}, {Gen: 128}, {Gen: 512}, {Gen: 1024}, {Gen: 4096},
			} {
				samples := make([]int64, 5)
				for j := range samples {
					samples[j] = int64(1e6 * float64(test.Tokens()) * (1 + 0.02*random.Float64()))
				}
				m.records = append(m.records, recordOf(m.name, fmt.Sprintf("model%d.gguf", model), test.Kind(), test.Tokens(), samples))
			}
		}
		all = append(all, m)
	}
	return all
}

// recordOf is a record with the fields that a real one has.
func recordOf(machine, model string, kind result.Kind, tokens int, ns []int64) result.Record {
	r := result.Record{
		BuildCommit: "Debian", BuildNumber: 11669, CPUInfo: machine, Backends: "CPU", ModelFilename: model, ModelType: model,
		ModelSizeBytes: 1 << 30, ModelParams: 1 << 30, Batch: 2048, UBatch: 512, Threads: 4, CPUMask: "0x0", Poll: 50, TypeK: "f16", TypeV: "f16",
		SplitMode: "layer", FlashAttn: 1, Devices: "auto", TensorSplit: "0.00", TensorBuftOverrides: "none", LoadMode: "auto", LazyMode: "auto",
		Repack: true, SamplesNs: ns, UseMmap: true,
		Ext: result.Ext{
			Schema: result.SchemaVersion, Weights: result.FileWeights, CPUVariant: "zen4",
			Library:    map[string]string{"libllama0": "1:0.7.0+dfsg-2", "libggml0": "0.27.0-1", "source": "pin"},
			Conditions: &result.Conditions{Seconds: 1, CPUs: 4}, Verdict: &result.Verdict{Verdict: result.Valid},
		},
	}
	if kind == result.PromptProcessing {
		r.PromptTokens = tokens
	} else {
		r.GenTokens = tokens
	}
	for _, n := range ns {
		speed := float64(tokens) * 1e9 / float64(n)
		r.SamplesTS = append(r.SamplesTS, speed)
		r.AvgTS += speed / float64(len(ns))
	}
	return r
}

// write writes the records as JSON lines, as of another machine or with the times of another run.
func write(b *testing.B, path, machine, time string, records []result.Record) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w, err := report.New("jsonl", f, report.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range records {
		r.CPUInfo, r.TestTime = machine, time
		if err := w.Write(result.Outcome{Model: r.ModelFilename, Test: r.Test(), Status: result.OK, Record: &r}); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}

// comparing compares sides and writes the table.
func comparing(b *testing.B, args []string, o compare.Options) {
	b.Helper()
	rows := 0
	for b.Loop() {
		c, err := rundir.Compare(args, "", o, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := report.WriteComparison("table", io.Discard, c, report.Options{}); err != nil {
			b.Fatal(err)
		}
		rows = len(c.Rows)
	}
	b.ReportMetric(float64(rows), "rows")
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used.Maxrss)/1024, "peak-MiB") // of this process so far
}

// BenchmarkCompareSuites compares two runs of the suite on the machine with the most records.
func BenchmarkCompareSuites(b *testing.B) {
	all := machines(b)
	m := slices.MaxFunc(all, func(a, b recorded) int { return len(a.records) - len(b.records) })
	dir := b.TempDir()
	var args []string
	for _, name := range []string{"old", "new"} {
		path := filepath.Join(dir, name+".jsonl")
		write(b, path, m.name, name, m.records)
		args = append(args, path)
	}
	comparing(b, args, compare.DefaultOptions())
}

// BenchmarkCompareFiles compares 1,000 results files: two sides of 500 runs on one machine
// (sides=2), a side for each machine (sides=1000), and two sides of which each run is of a
// machine of its own: most records have no partner (apart).
func BenchmarkCompareFiles(b *testing.B) {
	all := machines(b)
	all = all[:min(len(all), 1000)]
	paths := func(machine func(i int) string) (names []string) {
		dir := b.TempDir()
		for i, m := range all {
			name := filepath.Join(dir, fmt.Sprintf("%d.jsonl", i))
			write(b, name, machine(i), fmt.Sprint(i), m.records)
			names = append(names, name)
		}
		return names
	}
	two := func(names []string) []string {
		return []string{"old=" + strings.Join(names[:len(names)/2], ","), "new=" + strings.Join(names[len(names)/2:], ",")}
	}
	b.Run("sides=2", func(b *testing.B) {
		comparing(b, two(paths(func(int) string { return "one machine" })), compare.DefaultOptions())
	})
	b.Run("sides=1000", func(b *testing.B) {
		o := compare.DefaultOptions()
		o.Across = []string{"machine"}
		comparing(b, paths(func(i int) string { return all[i].name }), o)
	})
	b.Run("apart", func(b *testing.B) {
		names := paths(func(i int) string {
			if i < 2 { // else there is no row
				return "one machine"
			}
			return all[i].name
		})
		names[1], names[len(names)-1] = names[len(names)-1], names[1]
		comparing(b, two(names), compare.DefaultOptions())
	})
}
