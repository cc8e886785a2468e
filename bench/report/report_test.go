package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// completed is an outcome whose record is like that of the default model.
func completed(test result.Test, rates ...float64) result.Outcome {
	o := result.Outcome{Model: "SmolLM-135M.Q4_K_M.gguf", Test: test, Status: result.OK}
	r := &result.Record{
		BuildCommit: "Debian", BuildNumber: 11669, CPUInfo: "AMD EPYC", Backends: "CPU",
		ModelFilename: o.Model, ModelType: "llama ?B Q4_K - Medium", ModelSizeBytes: 103668480, ModelParams: 134515008,
		Batch: 2048, UBatch: 512, Threads: 2, CPUMask: "0x0", Poll: 50, TypeK: "f16", TypeV: "f16",
		GPULayers: -1, SplitMode: "layer", FlashAttn: 1, Devices: "auto", TensorSplit: "0.00",
		TensorBuftOverrides: "none", LoadMode: "auto", LazyMode: "auto", Repack: true,
		PromptTokens: test.Prompt, GenTokens: test.Gen, DepthTokens: test.Depth,
		TestTime: "2026-11-23T15:19:41Z", AvgNs: 1398423000, StddevNs: 4699000, AvgTS: 366.124, StddevTS: 1.2302,
		SamplesTS: rates, UseMmap: true,
		Ext: result.Ext{Schema: result.SchemaVersion, Version: "0.1.0", Weights: result.SyntheticWeights, Seed: 42},
	}
	for i, rate := range rates {
		elapsed := time.Duration(float64(test.Tokens()) / rate * 1e9)
		r.SamplesNs = append(r.SamplesNs, elapsed.Nanoseconds())
		o.Samples = append(o.Samples, result.Sample{Repetition: i + 1, Elapsed: elapsed})
	}
	o.Record = r
	return o
}

// outcomes covers all cases: warnings of one and of two tests, a test without a
// record, a second model with other settings, and texts with escape sequences.
func outcomes() []result.Outcome {
	slow := result.Warning{Code: "slow_first_repetition", Message: "first repetition took 9.6 % longer than the median of the others, which can happen when the warm-up leaves work behind"}

	pp := completed(result.Test{Prompt: 512}, 366.12, 364.9, 367.3, 365.2, 366.8)
	pp.Record.Ext.Memory = &result.Memory{
		WeightsBytes: 103668480, CacheBytes: 11796480, ComputeBytes: 107300782,
		Devices:           []result.DeviceMemory{{Name: "CPU", WeightsBytes: 103668480, CacheBytes: 11796480, ComputeBytes: 107300782}},
		PeakResidentBytes: 700 << 20, PeakSince: result.SinceTest,
	}
	ppSlow := completed(result.Test{Prompt: 16384}, 333.1, 364.9, 367.3, 365.2, 366.8)
	ppSlow.Record.Ext.Memory = &result.Memory{WeightsBytes: 103668480, CacheBytes: 377487360, ComputeBytes: 123553710, PeakResidentBytes: 600 << 20}
	ppSlow.Warnings = []result.Warning{slow}
	ppSlow.Record.Ext.Warnings = []result.Warning{slow}
	tg := completed(result.Test{Gen: 128, Depth: 4096}, 0.0123)
	tg.Record.StddevTS = 0
	tg.Record.Ext.Warnings = []result.Warning{{Code: "few_samples", Message: "1 repetition: no spread"}, slow}
	timeout := result.Outcome{
		Model: pp.Model, Test: result.Test{Gen: 4096}, Status: result.PredictedTimeout,
		Reason: "needs 412 s of the 250 s it has", Samples: make([]result.Sample, 2),
	}
	other := completed(result.Test{Prompt: 512, Gen: 128}, 42935.12, 42800, 43010)
	other.Model = "a|b\x1b[31m.gguf"
	other.Record.ModelFilename = other.Model
	other.Record.ModelType = `odd "7B" <Q4|K> & co`
	other.Record.ModelSizeBytes, other.Record.ModelParams = 4080263168, 6738415616
	other.Record.Backends, other.Record.GPUInfo, other.Record.GPULayers = "CUDA", "NVIDIA H100", 99
	other.Record.AvgTS, other.Record.StddevTS = 42915.04, 106.4
	other.Record.Ext.Weights = result.FileWeights
	other.Record.Ext.Memory = &result.Memory{
		WeightsBytes: 3 << 30, CacheBytes: 1 << 30, ComputeBytes: 1 << 20,
		Devices: []result.DeviceMemory{{Name: "CUDA0", WeightsBytes: 3 << 30, CacheBytes: 1 << 30}, {Name: "CPU", ComputeBytes: 1 << 20}},
	}
	failed := result.Outcome{Model: "missing.gguf", Test: result.Test{Prompt: 16}, Status: result.Failed, Reason: "open model:\nno such file"}
	return []result.Outcome{pp, ppSlow, tg, timeout, other, failed}
}

func render1(t *testing.T, format string, o Options, outcomes ...result.Outcome) string {
	t.Helper()
	var b bytes.Buffer
	w, err := New(format, &b, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, outcome := range outcomes {
		if err := w.Write(outcome); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for _, test := range []struct {
		file, format string
		options      Options
		outcomes     []result.Outcome
	}{
		{"all.jsonl", "jsonl", Options{}, outcomes()},
		{"all.json", "json", Options{}, outcomes()},
		{"all.csv", "csv", Options{}, outcomes()},
		{"all.sql", "sql", Options{}, outcomes()},
		{"all.md", "md", Options{}, outcomes()},
		{"suite.txt", "table", Options{}, outcomes()[:2]},
		{"narrow.txt", "table", Options{Width: 60}, outcomes()},
		{"default.txt", "table", Options{}, outcomes()},
		{"wide-color.txt", "table", Options{Width: 120, Color: true}, outcomes()},
		{"skipped.txt", "table", Options{}, skippedModel()},
		{"none.jsonl", "jsonl", Options{}, nil},
		{"none.json", "json", Options{}, nil},
		{"none.csv", "csv", Options{}, nil},
		{"none.sql", "sql", Options{}, nil},
		{"none.md", "md", Options{}, nil},
		{"none.txt", "table", Options{}, nil},
	} {
		t.Run(test.file, func(t *testing.T) {
			golden(t, test.file, render1(t, test.format, test.options, test.outcomes...))
		})
	}
}

// Every format for people marks the records that are doubtful or invalid and says why
// once. A warning that is a reason of the verdict is not repeated.
func TestVerdicts(t *testing.T) {
	valid := completed(result.Test{Prompt: 512}, 100, 101, 102)
	valid.Record.Ext.Verdict = &result.Verdict{Verdict: result.Valid, Unchecked: []string{"steal"}}
	doubtful := completed(result.Test{Gen: 16}, 6, 3, 9)
	doubtful.Record.Ext.Verdict = &result.Verdict{Verdict: result.Doubtful, Reasons: []result.Reason{
		{Code: "other_processes", Value: 0.2, Threshold: 0.03, Source: "/proc/stat", Message: "other processes used 0.28 of 2 CPUs"},
		{Code: "unsteady", Value: 0.5, Threshold: 0.1, Source: "samples_ts", Message: "the repetitions vary by 50 %"},
	}}
	doubtful.Record.Ext.Warnings = []result.Warning{{Code: "unsteady", Message: "from 3 to 9"}, {Code: "no_warmup", Message: "measured without a warm-up"}}
	var document strings.Builder
	if err := WriteDocument(&document, Document{Title: "Run", Outcomes: []result.Outcome{valid, doubtful}}); err != nil {
		t.Fatal(err)
	}
	const reasons = "doubtful: other processes used 0.28 of 2 CPUs; the repetitions vary by 50 %"
	for format, want := range map[string]struct {
		text string
		rows []string
	}{
		"md":       {render1(t, "md", Options{}, valid, doubtful), []string{"366.12 ± 1.23 |", "366.12 ± 1.23 (doubtful) |", "tg16: " + reasons + "\n", "tg16: measured without a warm-up\n"}},
		"table":    {render1(t, "table", Options{Width: 120}, valid, doubtful), []string{"3  ok\n", "3  doubtful [1] [2]\n", "[1] " + reasons + "\n", "[2] measured without"}},
		"colors":   {render1(t, "table", Options{Width: 120, Color: true}, valid, doubtful), []string{"3  ok\n", "3  \x1b[33mdoubtful\x1b[0m [1] [2]\n"}},
		"document": {document.String(), []string{"|    3 |                  |\n", "|    3 | doubtful [1] [2] |\n", "- [1] " + reasons + "\n"}},
	} {
		for _, row := range want.rows {
			if strings.Count(want.text, row) != 1 {
				t.Errorf("%s has %q %d times, not once:\n%s", format, row, strings.Count(want.text, row), want.text)
			}
		}
		if strings.Contains(want.text, "from 3 to 9") {
			t.Errorf("%s repeats a reason:\n%s", format, want.text)
		}
	}
}

// Every format for people has the latencies below the table.
func TestLatencies(t *testing.T) {
	o := completed(result.Test{Prompt: 512, Gen: 128, E2E: true}, 100, 101, 102)
	o.Record.Ext.E2E = &result.E2E{
		FirstToken: result.Latency{N: 3, Median: 1.25, P90: 1.5, P99: 1.55, Max: 1.6},
		InterToken: &result.Latency{N: 381, Median: 0.0089, P90: 0.0101, P99: 0.0205, Max: 0.3},
	}
	one := completed(result.Test{Prompt: 16, Gen: 1, E2E: true}, 100)
	one.Record.Ext.E2E = &result.E2E{FirstToken: result.Latency{N: 1, Median: 0.16, P90: 0.16, P99: 0.16, Max: 0.16}}
	const line = "e2e512+128: first token after 1250 ms (p90 1500, p99 1550, max 1600; n = 3); " +
		"between tokens 8.900 ms (p90 10.10, p99 20.50, max 300.0; n = 381)"
	const short = "e2e16+1: first token after 160.0 ms (p90 160.0, p99 160.0, max 160.0; n = 1)"
	got := map[string]string{
		"md":    render1(t, "md", Options{}, o, one),
		"table": render1(t, "table", Options{Width: 200}, o, one),
	}
	var b bytes.Buffer
	if err := WriteDocument(&b, Document{Title: "run", Outcomes: []result.Outcome{o, one}}); err != nil {
		t.Fatal(err)
	}
	got["document"] = b.String()
	for format, text := range got {
		if !strings.Contains(text, line+"\n") || !strings.Contains(text, short+"\n") {
			t.Errorf("%s has no such lines:\n%s", format, text)
		}
	}
	// llama-bench's table has the records of all models.
	if want := "\n- " + o.Model + ", " + line + "\n"; !strings.Contains(got["md"], want) {
		t.Errorf("md does not name the model:\n%s", got["md"])
	}
}

// A model has a single row only if no test of it was begun, all for the same
// reason.
func TestAllInOneRow(t *testing.T) {
	lost := result.Outcome{Model: "m.gguf", Test: result.Test{Gen: 16}, Status: result.DownloadFailed, Reason: "connection refused"}
	other, otherReason, begun := lost, lost, lost
	other.Status = result.NoDisk
	otherReason.Reason = "no such host"
	begun.Samples = make([]result.Sample, 1)
	done := completed(result.Test{Gen: 16}, 12)
	for name, test := range map[string]struct {
		outcomes []result.Outcome
		want     bool
	}{
		"two":            {[]result.Outcome{lost, lost}, true},
		"one":            {[]result.Outcome{lost}, false},
		"another status": {[]result.Outcome{lost, other}, false},
		"another reason": {[]result.Outcome{lost, otherReason}, false},
		"begun":          {[]result.Outcome{begun, begun}, false},
		"records":        {[]result.Outcome{done, done}, false},
	} {
		if got := render1(t, "table", Options{}, test.outcomes...); strings.Contains(got, "all ") != test.want {
			t.Errorf("%s: has a single row: %t, want %t:\n%s", name, !test.want, test.want, got)
		}
	}
}

// Every format for people shows properties that only one record has.
func TestOneOfTheRecords(t *testing.T) {
	first := func(change func(*result.Outcome)) []result.Outcome {
		outcomes := []result.Outcome{completed(result.Test{Prompt: 16}, 1, 2), completed(result.Test{Prompt: 32}, 1, 2)}
		change(&outcomes[0])
		return outcomes
	}
	document := func(outcomes []result.Outcome) string {
		var b bytes.Buffer
		if err := WriteDocument(&b, Document{Title: "run", Outcomes: outcomes}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	table := func(outcomes []result.Outcome) string { return render1(t, "table", Options{}, outcomes...) }
	md := func(outcomes []result.Outcome) string { return render1(t, "md", Options{}, outcomes...) }
	for name, test := range map[string]struct {
		change func(*result.Outcome)
		render func([]result.Outcome) string
		want   string // after a "!": must be absent
	}{
		"a setting":          {func(o *result.Outcome) { o.Record.Batch = 64 }, document, "settings: n_threads 2, n_batch 64/2048, flash_attn 1\n"},
		"a single note":      {func(o *result.Outcome) { o.Warnings = []result.Warning{{Message: "odd"}} }, document, "## Notes\n\n- [1] odd\n"},
		"no note":            {func(*result.Outcome) {}, document, "!## Notes"},
		"no reason":          {func(o *result.Outcome) { *o = result.Outcome{Model: o.Model, Status: result.Aborted} }, md, ": aborted\n"},
		"an older record":    {func(o *result.Outcome) { o.Record.LoadMode = "" }, md, "!| lm |"},
		"eight repetitions":  {func(o *result.Outcome) { *o = completed(result.Test{Gen: 16}, 1, 2, 3, 4, 5, 6, 7, 8) }, table, "1.000–8.000 (99 %)"},
		"of llama-bench":     {func(o *result.Outcome) { o.Record.Ext.Weights = "" }, table, "134.52 M parameters\n"},
		"beyond all numbers": {func(o *result.Outcome) { o.Record.SamplesTS[1] = 1e200 }, table, "sample value is not a number in ±1e+150"},
	} {
		want, absent := strings.CutPrefix(test.want, "!")
		if got := test.render(first(test.change)); strings.Contains(got, want) == absent {
			t.Errorf("%s: want %q in\n%s", name, test.want, got)
		}
	}
}

// Sizes and parameter counts look as in llama-bench; rates have four digits.
func TestNumbers(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{size(1<<30 - 1<<20), "1023.00 MiB"},
		{size(1 << 30), "1.00 GiB"},
		{params(999_900_000), "999.90 M"},
		{params(1e9), "1.00 B"},
		{result.FormatRate(12345.6), "12346"},
		{result.FormatRate(999.96), "1000.0"},
		{result.FormatRate(0.00001234), "0.000012"},
		{result.FormatRate(0), "0.000000"},
		{result.FormatDecimals(0.5, 1000), "0"},
	} {
		if test.got != test.want {
			t.Errorf("%s, want %s", test.got, test.want)
		}
	}
}

// golden compares got with the golden file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got; -update accepts)\n%s", diff)
	}
}

// skippedModel are the outcomes of a run in which one model was never begun.
func skippedModel() []result.Outcome {
	skipped := func(t result.Test) result.Outcome {
		return result.Outcome{Model: "llama-7b.Q4_K_M.gguf", Test: t, Status: result.DownloadFailed, Reason: "connection refused"}
	}
	once := completed(result.Test{Gen: 16}, 12)
	stopped := result.Outcome{Model: once.Model, Test: result.Test{Gen: 128}, Status: result.Timeout, Reason: "not completed within its budget of 26s", Samples: make([]result.Sample, 1)}
	after := result.Outcome{Model: once.Model, Test: result.Test{Gen: 512}, Status: result.PredictedTimeout, Reason: "not started: tg128 ended as timeout"}
	return []result.Outcome{once, stopped, after, skipped(result.Test{Prompt: 16}), skipped(result.Test{Prompt: 128}), skipped(result.Test{Gen: 16})}
}

func TestDocument(t *testing.T) {
	for _, test := range []struct {
		file string
		Document
	}{
		{"document.md", Document{
			Title: "Run 20261123T120000Z",
			Facts: []Fact{{"command", "benchmark-llm *"}, {"GPU", ""}, {"CPU", "AMD EPYC <virtual>"}}, Outcomes: outcomes(),
			Accounting: result.Accounting{
				Wall: 1000 * time.Second, Timed: 710 * time.Second, Warmup: 120 * time.Second, Load: 30 * time.Second, Context: 10 * time.Second,
				Wait: 40 * time.Millisecond, Lost: 90 * time.Second, Other: 40*time.Second - 40*time.Millisecond,
			},
		}},
		{"document-skipped.md", Document{Title: "Run", Outcomes: skippedModel()}},
		{"document-none.md", Document{Title: "Run"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteDocument(&b, test.Document); err != nil {
				t.Fatal(err)
			}
			golden(t, test.file, b.String())
		})
	}
}

func TestDocumentRefuses(t *testing.T) {
	o := completed(result.Test{Prompt: 512}, 1, 2)
	o.Record = nil
	if err := WriteDocument(io.Discard, Document{Outcomes: []result.Outcome{o}}); err == nil || !strings.Contains(err.Error(), "no record") {
		t.Errorf("error %v", err)
	}
	if err := WriteDocument(&calls{}, Document{}); !errors.Is(err, errClosed) {
		t.Errorf("error %v, want %v", err, errClosed)
	}
}

// Tests that were not started for one reason share a line, also if they are of several
// models.
func TestDocumentGroups(t *testing.T) {
	skipped := func(model string, status result.Status, reason string, n int) result.Outcome {
		return result.Outcome{Model: model, Test: result.Test{Prompt: n}, Status: status, Reason: reason}
	}
	var outcomes []result.Outcome
	for _, n := range []int{16, 128, 512} {
		outcomes = append(outcomes, skipped("a.gguf", result.PredictedTimeout, "why", n))
	}
	outcomes[0].Status, outcomes[0].Reason = result.Timeout, "slow"
	for _, model := range []string{"b.gguf", "c.gguf"} {
		for _, n := range []int{16, 128} {
			outcomes = append(outcomes, skipped(model, result.PredictedTimeout, "not started: pp16 of the smaller a.gguf ended as timeout", n))
		}
	}
	outcomes = append(outcomes, skipped("d.gguf", result.DownloadFailed, "gone", 16))
	var b strings.Builder
	if err := WriteDocument(&b, Document{Title: "run", Outcomes: outcomes}); err != nil {
		t.Fatal(err)
	}
	want := `# run

## a.gguf

Not completed:

- pp16: timeout: slow
- pp128, pp512: predicted timeout: why

## Models without a record

- b.gguf (2 tests), c.gguf (2 tests): predicted timeout: not started: pp16 of the smaller a.gguf ended as timeout
- d.gguf (pp16): download failed: gone
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestQuote(t *testing.T) {
	five := completed(result.Test{Prompt: 512}, 90, 100, 100, 100, 105)
	one := completed(result.Test{Gen: 128}, 45.678)
	other := five
	other.Model = "other.gguf"
	more := five
	more.Record = new(*five.Record)
	more.Record.Threads = 7
	unsteady := five
	unsteady.Warnings = []result.Warning{{Code: result.WarnUnsteady, Message: "varied"}}
	for _, test := range []struct {
		name    string
		records []result.Outcome
		want    string
	}{
		{"none", nil, ""},
		{"one", []result.Outcome{five}, "SmolLM-135M.Q4_K_M.gguf (synthetic weights): pp512 100.0 t/s ± 10 %; AMD EPYC, 2 threads, build Debian (11669)"},
		{"two", []result.Outcome{five, one}, "SmolLM-135M.Q4_K_M.gguf (synthetic weights): pp512 100.0 t/s ± 10 %, tg128 45.68 t/s; AMD EPYC, 2 threads, build Debian (11669)"},
		{"with a warning", []result.Outcome{unsteady}, "SmolLM-135M.Q4_K_M.gguf (synthetic weights): pp512 100.0 t/s ± 10 %; AMD EPYC, 2 threads, build Debian (11669); 1 warning"},
		{"of two threads", []result.Outcome{five, more}, "SmolLM-135M.Q4_K_M.gguf (synthetic weights): pp512 100.0 t/s ± 10 %, pp512 100.0 t/s ± 10 %; AMD EPYC, build Debian (11669)"},
		{"of two models", []result.Outcome{five, other}, ""},
		{"too many", []result.Outcome{five, one, five, one, five}, ""},
	} {
		if diff := cmp.Diff(test.want, Quote(test.records)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", test.name, diff)
		}
	}
}

// The lines below a model's name say what all its records have.
func TestFacts(t *testing.T) {
	one := completed(result.Test{Prompt: 512}, 100).Record
	two := new(*one)
	two.Threads = 7
	three := new(*two)
	three.Backends, three.GPUInfo = "CUDA", "NVIDIA H200"
	first := facts([]*result.Record{one})
	for name, test := range map[string]struct {
		records []*result.Record
		want    string
	}{
		"one":          {[]*result.Record{one}, "CPU, AMD EPYC, 2 threads; rates in tokens/second"},
		"the same":     {[]*result.Record{one, one}, "CPU, AMD EPYC, 2 threads; rates in tokens/second"},
		"threads vary": {[]*result.Record{one, two}, "CPU, AMD EPYC; rates in tokens/second"},
		"devices vary": {[]*result.Record{two, three}, "AMD EPYC, 7 threads; rates in tokens/second"},
	} {
		if diff := cmp.Diff([]string{first[0], test.want}, facts(test.records)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", name, diff)
		}
	}
	if got := facts(nil); got != nil {
		t.Errorf("of no records: %q", got)
	}
}

func TestUnknownFormat(t *testing.T) {
	_, err := New("xml", io.Discard, Options{})
	if want := `unknown output format "xml" (known: jsonl, json, csv, sql, md, table)`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Every format refuses an invalid record and writes nothing of it.
func TestRefuses(t *testing.T) {
	nan := math.NaN()
	for name, test := range map[string]struct {
		change func(*result.Outcome)
		want   string
	}{
		"no record":         {func(o *result.Outcome) { o.Record = nil }, "no record"},
		"no samples":        {func(o *result.Outcome) { o.Record.SamplesNs, o.Record.SamplesTS = nil, nil }, "samples"},
		"samples disagree":  {func(o *result.Outcome) { o.Record.SamplesTS = o.Record.SamplesTS[1:] }, "samples"},
		"mean not a number": {func(o *result.Outcome) { o.Record.AvgTS = nan }, "avg_ts is NaN"},
		"infinite sample":   {func(o *result.Outcome) { o.Record.SamplesTS[1] = math.Inf(1) }, "samples_ts[1] is +Inf"},
		"nested":            {func(o *result.Outcome) { o.Record.Ext.Statistics.CV = &nan }, "ext.statistics.cv is NaN"},
		"nested deeper":     {func(o *result.Outcome) { o.Record.Ext.Statistics.CI = &result.Interval{Low: nan} }, "ext.statistics.ci.low is NaN"},
	} {
		for _, format := range Formats() {
			t.Run(name+"/"+format, func(t *testing.T) {
				var b bytes.Buffer
				w, err := New(format, &b, Options{})
				if err != nil {
					t.Fatal(err)
				}
				o := completed(result.Test{Prompt: 512}, 1, 2)
				test.change(&o)
				err = w.Write(o)
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "pp512 of "+o.Model) {
					t.Errorf("error %v does not contain %q and the test", err, test.want)
				}
				if b.Len() > 0 {
					t.Errorf("wrote %q", b.String())
				}
			})
		}
	}
}

// calls counts the writes and lets those after the first failAfter fail.
type calls struct {
	bytes.Buffer
	count, failAfter int
}

var errClosed = errors.New("pipe closed")

func (c *calls) Write(b []byte) (int, error) {
	c.count++
	if c.count > c.failAfter {
		return 0, errClosed
	}
	return c.Buffer.Write(b)
}

// A record reaches the destination in one call. The caller gets the error of a
// destination that fails.
func TestOneWritePerRecord(t *testing.T) {
	o := completed(result.Test{Prompt: 512}, 1, 2)
	for _, format := range []string{"jsonl", "json", "csv"} {
		c := calls{failAfter: 2}
		w, err := New(format, &c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if err := w.Write(o); err != nil || c.count != i+1 {
				t.Errorf("%s: record %d: %v, %d calls", format, i, err, c.count)
			}
		}
		if err := w.Write(result.Outcome{Status: result.Timeout}); err != nil || c.count != 2 {
			t.Errorf("%s: test without a record: %v, %d calls", format, err, c.count)
		}
		if err := w.Write(o); !errors.Is(err, errClosed) {
			t.Errorf("%s: error %v, want %v", format, err, errClosed)
		}
	}
	for _, format := range []string{"json", "csv", "md", "table"} {
		w, err := New(format, &calls{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(o); err != nil && !errors.Is(err, errClosed) {
			t.Fatal(err)
		}
		if err := w.Close(); !errors.Is(err, errClosed) {
			t.Errorf("%s: error %v, want %v", format, err, errClosed)
		}
	}
	w, err := New("json", &calls{failAfter: 1}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(o); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, errClosed) {
		t.Errorf("end of json: error %v, want %v", err, errClosed)
	}
}

// llama-bench 0.7.0 -o csv prints this line.
const llamaBenchHeader = "build_commit,build_number,cpu_info,gpu_info,backends,model_filename,model_type,model_size,model_n_params,n_batch,n_ubatch,n_threads,cpu_mask,cpu_strict,poll,type_k,type_v,n_gpu_layers,n_cpu_moe,split_mode,main_gpu,no_kv_offload,flash_attn,devices,tensor_split,tensor_buft_overrides,load_mode,lazy_mode,embeddings,no_op_offload,no_host,repack,fit_target,fit_min_ctx,n_prompt,n_gen,n_depth,test_time,avg_ns,stddev_ns,avg_ts,stddev_ts"

func TestKeyOrder(t *testing.T) {
	header, _, _ := strings.Cut(render1(t, "csv", Options{}), "\n")
	if diff := cmp.Diff(llamaBenchHeader+",use_mmap", header); diff != "" {
		t.Errorf("csv (-want +got)\n%s", diff)
	}
	line := render1(t, "jsonl", Options{}, completed(result.Test{Prompt: 512}, 1, 2))
	var keys []string
	d := json.NewDecoder(strings.NewReader(line))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				depth++
			} else {
				depth--
			}
		case string:
			if depth != 1 {
				continue
			}
			keys = append(keys, token)
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := append(strings.Split(llamaBenchHeader, ","), "samples_ns", "samples_ts", "use_mmap", "ext")
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("jsonl (-want +got)\n%s", diff)
	}
}

// A table fits the terminal unless the columns that are never dropped do not.
func TestTableWidth(t *testing.T) {
	for _, width := range []int{40, 60, 79, 80, 100, 120, 300} {
		for _, line := range strings.Split(render1(t, "table", Options{Width: width}, outcomes()...), "\n") {
			if n := len([]rune(line)); n > max(width, 53) {
				t.Errorf("width %d: line of %d columns: %s", width, n, line)
			}
			if strings.ContainsRune(line, '\x1b') {
				t.Errorf("escape sequence without color: %q", line)
			}
		}
	}
	const width = 72 // of a table of these two outcomes without min and max
	for w, fits := range map[int]bool{width - 1: false, width: true} {
		if got := render1(t, "table", Options{Width: w}, outcomes()[:2]...); strings.Contains(got, "mean ± sd") != fits {
			t.Errorf("width %d: has a column for the mean: %t, want %t:\n%s", w, !fits, fits, got)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	var want []result.Record
	for _, o := range outcomes() {
		if o.Record != nil {
			want = append(want, *o.Record)
		}
	}
	got, err := ReadRecords(strings.NewReader(render1(t, "jsonl", Options{}, outcomes()...)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("jsonl (-want +got)\n%s", diff)
	}
	got = nil
	if err := json.Unmarshal([]byte(render1(t, "json", Options{}, outcomes()...)), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("json (-want +got)\n%s", diff)
	}
}

func TestReadLlamaBench(t *testing.T) {
	type summary struct {
		Build     int
		Test      string
		FlashAttn int
		LoadMode  string
		Mmap      bool
		AvgTS     float64
		SamplesNs []int64
	}
	for file, want := range map[string][]summary{
		"llama-bench-4753.jsonl": {
			{4753, "pp16", 1, "", true, 80133.667502, []int64{190000, 200000, 210000}},
			{4753, "tg4", 0, "", true, 20000, []int64{200000}},
		},
		"llama-bench-11669.jsonl": {
			{11669, "pp16", -1, "auto", false, 72937.471510, []int64{304261, 192946, 192074}},
		},
	} {
		t.Run(file, func(t *testing.T) {
			f, err := os.Open(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			records, err := ReadRecords(f)
			if err != nil {
				t.Fatal(err)
			}
			var got []summary
			for _, r := range records {
				got = append(got, summary{r.BuildNumber, r.Test().String(), r.FlashAttn, r.LoadMode, r.UseMmap, r.AvgTS, r.SamplesNs})
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	good := `{"n_prompt": 16, "cpu_info": "` + strings.Repeat("x", MaxLineBytes/2) + `"}`
	for name, test := range map[string]struct {
		line string
		want string
	}{
		"not JSON":      {"llama_model_load: done", "line 2"},
		"half a line":   {`{"n_prompt": 1`, "line 2"},
		"not a number":  {`{"n_prompt": 16, "avg_ts": nan}`, "line 2"},
		"no test":       {`{}`, "length above 0"},
		"null":          {`null`, "length above 0"},
		"absurd length": {`{"n_prompt": -5}`, "outside"},
		"another type":  {`{"n_prompt": "16"}`, "line 2"},
		"not a flag":    {`{"n_prompt": 16, "flash_attn": "on"}`, "line 2"},
		"too long":      {`{"n_prompt": 16, "cpu_info": "` + strings.Repeat("x", MaxLineBytes) + `"}`, "line 2: longer than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadRecords(strings.NewReader(good + "\n" + test.line + "\n" + good + "\n"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not contain %q", err, test.want)
			}
			if len(got) != 1 {
				t.Errorf("%d records before the error, want 1", len(got))
			}
		})
	}
}

// A record that was read and written is the same when it is read again.
func FuzzReadRecords(f *testing.F) {
	for _, file := range []string{"llama-bench-4753.jsonl", "llama-bench-11669.jsonl", "all.jsonl"} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"n_gen": 1, "samples_ns": [1], "samples_ts": [1e308], "ext": {"library": {}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _ := ReadRecords(bytes.NewReader(b))
		for _, r := range records {
			var line bytes.Buffer
			if err := (&jsonLines{&line}).Write(result.Outcome{Status: result.OK, Record: &r}); err != nil || line.Len() > MaxLineBytes {
				continue // a record without samples is read but not written
			}
			again, err := ReadRecords(&line)
			if diff := cmp.Diff([]result.Record{r}, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Fatalf("err = %v (-want +got)\n%s", err, diff)
			}
		}
	})
}

// A table is as wide as the terminal at most, and tells which columns are missing.
func TestTable(t *testing.T) {
	header := table.Row{"model", "tests", "size", "file", "disk", "memory", "devices"}
	rows := []table.Row{{"Llama-3.3-70B-Instruct-Q4_K_M.gguf", 11, "40 GiB", "synthetic", "-", "does not fit", "-"}}
	whole := "model                               tests    size  file       disk  memory        devices\n" +
		"Llama-3.3-70B-Instruct-Q4_K_M.gguf     11  40 GiB  synthetic  -     does not fit  -\n"
	for columns, want := range map[int]string{
		0:  whole,
		90: whole,
		80: "model                                 size  file       memory        devices\n" +
			"Llama-3.3-70B-Instruct-Q4_K_M.gguf  40 GiB  synthetic  does not fit  -\n" +
			"(a wider terminal also shows: disk, tests)\n",
		20: "model                               memory        devices\n" +
			"Llama-3.3-70B-Instruct-Q4_K_M.gguf  does not fit  -\n" +
			"(a wider terminal also shows: disk, tests, size, file)\n",
	} {
		o := TableOptions{Width: columns, Right: []string{"tests", "size"}, Expendable: []string{"disk", "tests", "size", "file", "repository"}}
		if diff := cmp.Diff(want, Table(header, rows, o)); diff != "" {
			t.Errorf("%d columns (-want +got):\n%s", columns, diff)
		}
	}
}
