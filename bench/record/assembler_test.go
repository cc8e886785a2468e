package record_test

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// assemble feeds the events of one test with these samples, 0.1 s of context
// and 0.2 s of warm-up.
func assemble(job bench.Job, test result.Test, elapsed ...time.Duration) *result.Outcome {
	events := []bench.Event{
		bench.EngineReady{Facts: engineFacts},
		bench.LoadDone{Status: result.OK, Facts: modelFacts, Elapsed: 1500 * ms},
		bench.TestStarted{Test: test, Repetitions: len(elapsed)},
		bench.ContextReady{Elapsed: 100 * ms},
	}
	if !job.NoWarmup {
		events = append(events, bench.WarmupDone{Elapsed: 200 * ms})
	}
	for i, e := range elapsed {
		events = append(events, bench.RepetitionDone{Sample: result.Sample{Repetition: i + 1, Elapsed: e}})
	}
	events = append(events, bench.TestDone{Test: test, Status: result.OK, Memory: memory})
	a := record.Assembler{Version: "1.2.3", Job: job}
	var o *result.Outcome
	for _, e := range events {
		// 0.9 s: the time of a test is in whole seconds, cut off as llama-bench does.
		o = a.Add(bench.Stamped{At: time.Date(2026, 11, 23, 16, 19, 41, 900e6, time.FixedZone("CET", 3600)), Event: e})
	}
	return o
}

// memory is what every test of assemble takes.
var memory = &result.Memory{WeightsBytes: 1000, CacheBytes: 100, ComputeBytes: 10, PeakResidentBytes: 1200, PeakSince: result.SinceTest}

func ptr(f float64) *float64 { return &f }

// near compares numbers that rounding may shift.
var near = cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-12*max(math.Abs(a), math.Abs(b)) })

func TestRecord(t *testing.T) {
	job := jobOf()
	job.Model = bench.Model{Name: "dir/m.gguf", Path: "/dir/m.gguf", Weights: result.FileWeights}
	job.Seed = 42
	got := assemble(job, result.Test{Prompt: 100, Depth: 7}, 1*s, 2*s, 4*s)
	// Three values as far apart as these have no outlier; the first is fast.
	unsteady := []result.Warning{{Code: "unsteady", Message: "the repetitions varied from 25.00 to 100.0 tokens/second, with a coefficient of variation of 65 %"}}
	want := &result.Outcome{
		Model:  "dir/m.gguf",
		Test:   result.Test{Prompt: 100, Depth: 7},
		Status: result.OK,
		Samples: []result.Sample{
			{Repetition: 1, Elapsed: 1 * s}, {Repetition: 2, Elapsed: 2 * s}, {Repetition: 3, Elapsed: 4 * s},
		},
		Record: &result.Record{
			BuildCommit: "Debian", BuildNumber: 11669, CPUInfo: "a CPU", GPUInfo: "", Backends: "CPU",
			ModelFilename: "dir/m.gguf", ModelType: "llama 1B Q4_K - Medium", ModelSizeBytes: 1000, ModelParams: 2000,
			Batch: 2048, UBatch: 512, Threads: 4, CPUMask: "0x0", CPUStrict: false, Poll: 50,
			TypeK: "f16", TypeV: "f16", GPULayers: -1, CPUMoE: 0, SplitMode: "layer", MainGPU: 0,
			NoKVOffload: false, FlashAttn: 1, Devices: "auto", TensorSplit: "0.00", TensorBuftOverrides: "none",
			LoadMode: "auto", LazyMode: "auto", Embeddings: false, NoOpOffload: 0, NoHost: false, Repack: true,
			FitTargetMiB: 0, FitMinCtx: 0,
			PromptTokens: 100, GenTokens: 0, DepthTokens: 7, TestTime: "2026-11-23T15:19:41Z",
			// Means 7/3 s and (100+50+25)/3 per second; deviations with n-1.
			AvgNs: 2333333333, StddevNs: 1527525232, AvgTS: 175. / 3, StddevTS: 38.188130791298666,
			SamplesNs: []int64{1e9, 2e9, 4e9}, SamplesTS: []float64{100, 50, 25},
			UseMmap: true,
			Ext: result.Ext{
				Schema: 1, Version: "1.2.3", Weights: result.FileWeights, Seed: 42,
				Statistics: result.Statistics{
					Median: 50, Min: 25, Max: 100, CV: ptr(38.188130791298666 / (175. / 3)),
					CI: &result.Interval{Low: 25, High: 100, Confidence: 0.75}, // 1 - 2·(1/2)³
					// no Again: it would reach from 0.03 to 74,354
				},
				LoadSeconds: 1.5, ContextSeconds: 0.1, WarmupSeconds: 0.2,
				Verdict: &result.Verdict{
					Verdict: result.Invalid,
					Reasons: []result.Reason{{Code: "unsteady", Value: 38.188130791298666 / (175. / 3), Threshold: 0.1, Source: "samples_ts", Message: "the repetitions vary by 65 %"}},
					Unchecked: []string{
						"throttled", "steal", "other_processes", "cpu_wait", "thermal_throttled", "frequency_low",
						"swap", "major_faults", "memory_pressure", "suspended", "clock_step",
					},
				},
				Memory:   memory,
				Warnings: unsteady,
			},
		},
		Warnings: unsteady,
	}
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Error(diff)
	}
}

// The record says how many layers were on devices: all of them in llama-bench's
// word for it, fewer with their number and the reason.
func TestRecordOffload(t *testing.T) {
	part := bench.ModelFacts{
		Offload:  &result.Offload{Layers: 20, Of: 33},
		Warnings: []result.Warning{{Code: "partial_offload", Message: "20 of 33"}},
	}
	for _, tt := range []struct {
		name  string
		asked int
		facts bench.ModelFacts
		want  int
		codes []string
	}{
		{"no device", -1, bench.ModelFacts{}, -1, nil},
		{"all", -1, bench.ModelFacts{Offload: &result.Offload{Layers: 33, Of: 33}}, -1, nil},
		{"as many as fit", -1, part, 20, []string{"partial_offload"}},
		{"none fits", -1, bench.ModelFacts{Offload: &result.Offload{Of: 33}}, 0, nil},
		{"fewer than asked", 99, bench.ModelFacts{Offload: &result.Offload{Layers: 20, Of: 33}}, 99, nil},
		{"as asked", 99, bench.ModelFacts{Offload: &result.Offload{Layers: 33, Of: 33}}, 99, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := jobOf()
			job.Settings.GPULayers = tt.asked
			a := record.Assembler{Job: job}
			var o *result.Outcome
			for _, e := range []bench.Event{
				bench.LoadDone{Status: result.OK, Facts: tt.facts},
				bench.TestStarted{Test: pp512, Repetitions: 3},
				bench.WarmupDone{Elapsed: s},
				bench.RepetitionDone{Sample: sample(1, 0, s)}, bench.RepetitionDone{Sample: sample(2, s, s)}, bench.RepetitionDone{Sample: sample(3, s, s)},
				bench.TestDone{Test: pp512, Status: result.OK},
			} {
				o = a.Add(bench.Stamped{At: at, Event: e})
			}
			var codes []string
			for _, w := range o.Warnings {
				codes = append(codes, w.Code)
			}
			if o.Record.GPULayers != tt.want {
				t.Errorf("n_gpu_layers %d, want %d", o.Record.GPULayers, tt.want)
			}
			if diff := cmp.Diff(tt.facts.Offload, o.Record.Ext.Offload); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.codes, codes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The load of a worker says what its records were measured with.
func TestRecordOfGentlerSettings(t *testing.T) {
	adjusted := bench.DefaultSettings(4)
	adjusted.NoRepack = true
	warning := result.Warning{Code: "no_repack", Message: "no memory"}
	a := record.Assembler{Job: jobOf()}
	of := func(load bench.LoadStarted) *result.Record {
		var o *result.Outcome
		for _, e := range []bench.Event{
			load, bench.LoadDone{Status: result.OK}, bench.TestStarted{Test: pp512, Repetitions: 3}, bench.WarmupDone{Elapsed: s},
			bench.RepetitionDone{Sample: sample(1, 0, s)}, bench.RepetitionDone{Sample: sample(2, s, s)}, bench.RepetitionDone{Sample: sample(3, s, s)},
			bench.TestDone{Test: pp512, Status: result.OK},
		} {
			o = a.Add(bench.Stamped{At: at, Event: e})
		}
		return o.Record
	}
	r := of(bench.LoadStarted{Model: bench.Model{Weights: result.SyntheticWeights}, Settings: &adjusted, Warnings: []result.Warning{warning}})
	if r.Repack || r.Ext.Weights != result.SyntheticWeights || len(r.Ext.Warnings) != 1 || r.Ext.Warnings[0] != warning {
		t.Errorf("repack %v, weights %s, warnings %+v", r.Repack, r.Ext.Weights, r.Ext.Warnings)
	}
	r = of(bench.LoadStarted{}) // of an older program
	if !r.Repack || r.Ext.Weights != result.SyntheticWeights || len(r.Ext.Warnings) != 0 {
		t.Errorf("repack %v, weights %s, warnings %+v", r.Repack, r.Ext.Weights, r.Ext.Warnings)
	}
}

// Devices that the library does not take are not in the record.
func TestRecordOfLimitedDevices(t *testing.T) {
	a := record.Assembler{Job: jobOf()}
	a.Job.Settings.TensorSplit = []float32{3, 1, 1}
	var o *result.Outcome
	for _, e := range []bench.Event{
		bench.EngineReady{Facts: bench.EngineFacts{Limited: []string{"RPC0", "RPC1"}}},
		bench.TestStarted{Test: pp512, Repetitions: 3, Done: []result.Sample{sample(1, 0, s), sample(2, s, s), sample(3, s, s)}},
		bench.TestDone{Test: pp512, Status: result.OK},
	} {
		o = a.Add(bench.Stamped{At: at, Event: e})
	}
	if r := o.Record; r.Devices != "RPC0/RPC1" || r.TensorSplit != "3.00/1.00" {
		t.Errorf("devices %s, split %s", r.Devices, r.TensorSplit)
	}
	if len(o.Warnings) > 0 { // an earlier worker had warmed up
		t.Errorf("%+v", o.Warnings)
	}
}

// A repetition beside a download is no secret.
func TestDownloadBeside(t *testing.T) {
	a := record.Assembler{Job: jobOf()}
	var o *result.Outcome
	beside := func(n int, bytes int64) bench.Event {
		return bench.RepetitionDone{Sample: result.Sample{Repetition: n, Elapsed: 2 * s, DownloadedBytes: bytes}}
	}
	for _, e := range []bench.Event{
		bench.TestStarted{Test: pp512, Repetitions: 4, Done: []result.Sample{{Repetition: 1, Elapsed: 2 * s, DownloadedBytes: 3e6}}},
		bench.WarmupDone{Elapsed: s}, beside(2, 0), beside(3, 5e6), beside(4, 0),
		bench.TestDone{Test: pp512, Status: result.OK},
	} {
		o = a.Add(bench.Stamped{At: at, Event: e})
	}
	want := []result.Warning{{Code: "download_beside", Message: "2 of 4 repetitions ran beside a download of 2.0 MB/s"}}
	if diff := cmp.Diff(want, o.Record.Ext.Warnings); diff != "" {
		t.Error(diff)
	}
}

// Each setting in the words of llama-bench.
func TestRecordSettings(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*bench.Job)
		want func(*result.Record)
	}{
		{"one CPU", func(j *bench.Job) { j.Settings.CPUs = []int{0} }, func(r *result.Record) { r.CPUMask = "0x1" }},
		{"two CPUs", func(j *bench.Job) { j.Settings.CPUs = []int{2, 0} }, func(r *result.Record) { r.CPUMask = "0x5" }},
		{"the same CPU twice", func(j *bench.Job) { j.Settings.CPUs = []int{4, 4} }, func(r *result.Record) { r.CPUMask = "0x10" }},
		{"more CPUs than bits", func(j *bench.Job) { j.Settings.CPUs = []int{0, 130} }, func(r *result.Record) { r.CPUMask = "0x400000000000000000000000000000001" }},
		{"one device", func(j *bench.Job) { j.Settings.Devices = []string{"CUDA0"} }, func(r *result.Record) { r.Devices = "CUDA0" }},
		{"devices", func(j *bench.Job) { j.Settings.Devices = []string{"CUDA0", "CUDA1"} }, func(r *result.Record) { r.Devices = "CUDA0/CUDA1" }},
		{"split", func(j *bench.Job) { j.Settings.TensorSplit = []float32{3, 1} }, func(r *result.Record) { r.TensorSplit = "3.00/1.00" }},
		{"odd split", func(j *bench.Job) { j.Settings.TensorSplit = []float32{0.1} }, func(r *result.Record) { r.TensorSplit = "0.10" }},
		{"no repacking", func(j *bench.Job) { j.Settings.NoRepack = true }, func(r *result.Record) { r.Repack = false }},
		{"no offload of operations", func(j *bench.Job) { j.Settings.NoOpOffload = true }, func(r *result.Record) { r.NoOpOffload = 1 }},
		{"no mmap", func(j *bench.Job) { j.Settings.LoadMode = "none" }, func(r *result.Record) { r.LoadMode, r.UseMmap = "none", false }},
		{"mlock without mmap", func(j *bench.Job) { j.Settings.LoadMode = "mlock" }, func(r *result.Record) { r.LoadMode, r.UseMmap = "mlock", false }},
		{"mmap and mlock", func(j *bench.Job) { j.Settings.LoadMode = "mmap+mlock" }, func(r *result.Record) { r.LoadMode = "mmap+mlock" }},
		{"a stream is not mapped", func(j *bench.Job) { j.Model.Weights = result.SyntheticWeights }, func(r *result.Record) {
			r.Ext.Weights, r.UseMmap = result.SyntheticWeights, false
		}},
		{"the rest", func(j *bench.Job) {
			j.Settings = bench.Settings{
				Threads: 1, Batch: 3, UBatch: 2, CPUStrict: true, Poll: 4, TypeK: "q8_0", TypeV: "q4_0", GPULayers: 5, CPUMoE: 6,
				SplitMode: "row", MainGPU: 7, NoKVOffload: true, FlashAttn: -1, LoadMode: "dio", LazyMode: "on", Embeddings: true, NoHost: true,
			}
		}, func(r *result.Record) {
			r.Threads, r.Batch, r.UBatch, r.CPUStrict, r.Poll, r.TypeK, r.TypeV, r.GPULayers, r.CPUMoE = 1, 3, 2, true, 4, "q8_0", "q4_0", 5, 6
			r.SplitMode, r.MainGPU, r.NoKVOffload, r.FlashAttn, r.LoadMode, r.LazyMode = "row", 7, true, -1, "dio", "on"
			r.Embeddings, r.NoHost, r.UseMmap = true, true, false
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := assemble(jobOf(), pp512, s, s, s).Record
			tt.want(want)
			job := jobOf()
			tt.set(&job)
			if diff := cmp.Diff(want, assemble(job, pp512, s, s, s).Record); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What the engine made of the settings is in the record, not what was asked for.
func TestRecordOfUsedSettings(t *testing.T) {
	off, mapped := 0, true
	note := func(code string) []result.Warning { return []result.Warning{{Code: code, Message: "why"}} }
	job := jobOf()
	job.Model.Weights = result.FileWeights
	job.Settings.LoadMode, job.Settings.Batch = "mmap+mlock", 256
	a := record.Assembler{Job: job}
	engine, model := engineFacts, modelFacts
	engine.Threads, engine.Warnings = 3, note("n_threads")
	model.LoadMode, model.Mapped, model.Warnings = "none", &mapped, note("load_mode")
	var o *result.Outcome
	for _, e := range []bench.Event{
		bench.EngineReady{Facts: engine},
		bench.LoadDone{Status: result.OK, Facts: model},
		bench.TestStarted{Test: pp512, Repetitions: 1},
		bench.ContextReady{Facts: bench.ContextFacts{FlashAttn: &off, Warnings: note("flash_attn")}},
		bench.WarmupDone{Elapsed: ms},
		bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: s}},
		bench.TestDone{Test: pp512, Status: result.OK},
	} {
		o = a.Add(bench.Stamped{Event: e})
	}
	if o == nil || o.Record == nil {
		t.Fatal("no record")
	}
	r := o.Record
	if r.Threads != 3 || r.LoadMode != "none" || !r.UseMmap || r.FlashAttn != 0 || r.UBatch != 256 || r.Batch != 256 {
		t.Errorf("threads %d, load mode %s, mapped %v, flash attention %d, micro-batch %d, batch %d", r.Threads, r.LoadMode, r.UseMmap, r.FlashAttn, r.UBatch, r.Batch)
	}
	var codes []string
	for _, w := range o.Warnings {
		codes = append(codes, w.Code)
	}
	if diff := cmp.Diff([]string{"n_threads", "load_mode", "flash_attn", "n_ubatch", "few_repetitions"}, codes); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	// The next test has a context of its own.
	for _, e := range []bench.Event{
		bench.TestStarted{Test: pp512, Repetitions: 1}, bench.ContextReady{}, bench.WarmupDone{Elapsed: ms},
		bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: s}}, bench.TestDone{Test: pp512, Status: result.OK},
	} {
		o = a.Add(bench.Stamped{Event: e})
	}
	if o.Record.FlashAttn != job.Settings.FlashAttn {
		t.Errorf("flash attention %d in the next test, want %d", o.Record.FlashAttn, job.Settings.FlashAttn)
	}
}

// No warning hides a worse one: if the repetitions vary too much, the record says so,
// unless the others do not vary without those that have a warning of their own. Such a
// warning says how far its repetition is off.
func TestNoWarningHidesUnsteady(t *testing.T) {
	number := regexp.MustCompile(`^(the first repetition|repetition (\d+)) (took|was|is) \+?(-?[0-9.]+) (%|times)`)
	rapid.Check(t, func(t *rapid.T) {
		spread := rapid.Float64Range(0, 1).Draw(t, "spread")
		each := rapid.Custom(func(t *rapid.T) time.Duration {
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0: // far off
				return time.Duration(float64(s) * math.Exp(rapid.Float64Range(-6, 6).Draw(t, "far")))
			default:
				return time.Duration(float64(s) * math.Exp(spread*rapid.Float64Range(-1, 1).Draw(t, "off")))
			}
		})
		elapsed := rapid.SliceOfN(each, 2, 12).Draw(t, "elapsed")
		o := assemble(jobOf(), pp512, elapsed...)
		if o.Record == nil {
			t.Fatalf("no record: %s", o.Reason)
		}
		rates, err := stats.New(o.Record.SamplesTS)
		if err != nil {
			t.Fatal(err)
		}
		unsteady := false
		var named []int
		for _, w := range o.Warnings {
			m := number.FindStringSubmatch(w.Message)
			switch w.Code {
			case result.WarnUnsteady:
				unsteady = true
			case result.WarnOutlier, result.WarnSlowFirstRepetition:
				if m == nil {
					t.Fatalf("%q has no size", w.Message)
				}
				i := 1
				if m[2] != "" {
					if i, err = strconv.Atoi(m[2]); err != nil {
						t.Fatal(err)
					}
				}
				named = append(named, i-1)
			}
		}
		rest, ok := rates.Without(named)
		explained := ok && rest.N() > 1 && !rest.Unsteady()
		if want := rates.Unsteady() && !explained; unsteady != want {
			t.Errorf("unsteady %v, want %v: rates %v, without %d: %v", unsteady, want, o.Record.SamplesTS, named, o.Warnings)
		}
	})
}

func TestRecordWarnings(t *testing.T) {
	for _, tt := range []struct {
		name    string
		noWarm  bool
		elapsed []time.Duration
		want    []result.Warning
	}{
		{"none", false, []time.Duration{s, s, s, s, 1010 * ms}, nil},
		{"one repetition", false, []time.Duration{s}, []result.Warning{{Code: "few_repetitions", Message: "one repetition does not show how much the speed varies"}}},
		{"two repetitions", false, []time.Duration{s, s}, []result.Warning{{Code: "few_repetitions", Message: "2 repetitions do not show how much the speed varies"}}},
		{"no warm-up", true, []time.Duration{s, s, s}, []result.Warning{{Code: "no_warmup", Message: "measured without a warm-up"}}},
		{"slow first", false, []time.Duration{1300 * ms, s, s, s, s}, []result.Warning{
			{Code: "slow_first_repetition", Message: "the first repetition took 30.0 % longer than the median of the others"},
		}},
		{"slow first, which is the smaller fault", false, []time.Duration{2 * s, s, 1500 * ms, s, 1600 * ms}, []result.Warning{
			{Code: "slow_first_repetition", Message: "the first repetition took 66.7 % longer than the median of the others"},
			{Code: "unsteady", Message: "the repetitions varied from 256.0 to 512.0 tokens/second, with a coefficient of variation of 30 %"},
		}},
		{"slow first by a little, and unsteady", false, []time.Duration{1102 * ms, s, 3 * s, 700 * ms, 1 * s}, []result.Warning{
			{Code: "slow_first_repetition", Message: "the first repetition took 10.2 % longer than the median of the others"},
			{Code: "unsteady", Message: "the repetitions varied from 170.7 to 731.4 tokens/second, with a coefficient of variation of 42 %"},
		}},
		{"very slow first", false, []time.Duration{425 * s, s, s, s, s}, []result.Warning{
			{Code: "slow_first_repetition", Message: "the first repetition took 425 times as long as the median of the others"},
		}},
		{"far outliers", false, []time.Duration{s, 90 * s, s, s, s, 250 * ms, s}, []result.Warning{
			{Code: "outlier", Message: "repetition 2 took 90 times as long as the median"},
			{Code: "outlier", Message: "repetition 6 was 4.0 times as fast as the median"},
		}},
		{"two that differ", false, []time.Duration{s, 2 * s}, []result.Warning{
			{Code: "few_repetitions", Message: "2 repetitions do not show how much the speed varies"},
			{Code: "unsteady", Message: "the repetitions varied from 256.0 to 512.0 tokens/second, with a coefficient of variation of 47 %"},
		}},
		{"fast", false, []time.Duration{10 * ms, 8 * ms, 4 * ms, 9 * ms, 7 * ms}, []result.Warning{
			{Code: "slow_first_repetition", Message: "the first repetition took 33.9 % longer than the median of the others"},
			{Code: "unsteady", Message: "the repetitions varied from 51200 to 128000 tokens/second, with a coefficient of variation of 41 %"},
		}},
		{"fast first", false, []time.Duration{500 * ms, s, s, s, s}, []result.Warning{{Code: "outlier", Message: "repetition 1 was 2.0 times as fast as the median"}}},
		{"outlier", false, []time.Duration{s, s, 2 * s, s, s}, []result.Warning{{Code: "outlier", Message: "repetition 3 took 2.0 times as long as the median"}}},
		{"unsteady", false, []time.Duration{800 * ms, s, 800 * ms, 2500 * ms, 4 * s}, []result.Warning{
			{Code: "unsteady", Message: "the repetitions varied from 128.0 to 640.0 tokens/second, with a coefficient of variation of 57 %"},
		}},
		{"steady enough", false, []time.Duration{s, 1100 * ms, s, 1200 * ms, 1150 * ms}, nil},
		{"slow first, outlier and no warm-up", true, []time.Duration{2 * s, s, s, s, s, s, 500 * ms}, []result.Warning{
			{Code: "no_warmup", Message: "measured without a warm-up"},
			{Code: "slow_first_repetition", Message: "the first repetition took 2.0 times as long as the median of the others"},
			{Code: "outlier", Message: "repetition 7 was 2.0 times as fast as the median"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := jobOf()
			job.NoWarmup = tt.noWarm
			o := assemble(job, pp512, tt.elapsed...)
			if o.Record == nil {
				t.Fatalf("no record: %s", o.Reason)
			}
			if diff := cmp.Diff(tt.want, o.Warnings); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(o.Warnings, o.Record.Ext.Warnings); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A value that cannot be known is absent.
func TestRecordOfOneRepetition(t *testing.T) {
	job := jobOf()
	job.NoWarmup = true
	r := assemble(job, tg128, s).Record
	if r.AvgTS != 128 || r.StddevTS != 0 || r.StddevNs != 0 {
		t.Errorf("%v ± %v, ± %v ns", r.AvgTS, r.StddevTS, r.StddevNs)
	}
	if diff := cmp.Diff(result.Statistics{Median: 128, Min: 128, Max: 128}, r.Ext.Statistics); diff != "" {
		t.Error(diff)
	}
	data, err := json.Marshal(r.Ext)
	if err != nil {
		t.Fatal(err)
	}
	var ext map[string]any
	if err := json.Unmarshal(data, &ext); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"warmup_s", "cpu_variant", "library"} {
		if v, ok := ext[key]; ok {
			t.Errorf("%s is %v, want it absent", key, v)
		}
	}
}

// Of eight repetitions the interval of 95 % is the whole range, that of 90 % is
// not.
func TestRecordInterval(t *testing.T) {
	r := assemble(jobOf(), pp512, s, 1001*ms, 1002*ms, 1003*ms, 1004*ms, 1005*ms, 1006*ms, 1007*ms).Record
	want := &result.Interval{Low: r.SamplesTS[7], High: 512, Confidence: 1 - 2./256}
	if diff := cmp.Diff(want, r.Ext.Statistics.CI, near); diff != "" {
		t.Error(diff)
	}
}

func TestAssembler(t *testing.T) {
	started := bench.TestStarted{Test: pp512, Repetitions: 2}
	one := bench.RepetitionDone{Sample: sample(1, 0, s)}
	two := bench.RepetitionDone{Sample: sample(2, s, s)}
	done := bench.TestDone{Test: pp512, Status: result.OK}
	timeout := bench.TestDone{Test: pp512, Status: result.Timeout, Reason: "late"}
	for _, tt := range []struct {
		name   string
		events []bench.Event
		want   *result.Outcome // of the last event; the record is only looked for
		record bool
	}{
		{"complete", []bench.Event{started, one, two, done}, &result.Outcome{Status: result.OK, Samples: []result.Sample{one.Sample, two.Sample}}, true},
		{"under way", []bench.Event{started, one}, nil, false},
		{"not OK keeps its samples", []bench.Event{started, one, timeout}, &result.Outcome{Status: result.Timeout, Reason: "late", Samples: []result.Sample{one.Sample}}, false},
		{
			"one repetition was not reported", []bench.Event{started, one, done},
			&result.Outcome{Status: result.Failed, Reason: "1 of 2 repetitions were reported", Samples: []result.Sample{one.Sample}}, false,
		},
		{
			"the clock stood still", []bench.Event{started, one, bench.RepetitionDone{Sample: sample(2, s, 0)}, done},
			&result.Outcome{Status: result.Failed, Reason: "repetition 2 took 0s: the clock did not move", Samples: []result.Sample{one.Sample, sample(2, s, 0)}}, false,
		},
		{"begun again after a crash", []bench.Event{started, one, started, one, two, done}, &result.Outcome{Status: result.OK, Samples: []result.Sample{one.Sample, two.Sample}}, true},
		{"an end without a start", []bench.Event{done}, nil, false},
		{"a second end", []bench.Event{started, timeout, timeout}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := record.Assembler{Job: jobOf()}
			var got *result.Outcome
			for _, e := range tt.events {
				got = a.Add(bench.Stamped{At: at, Event: e})
			}
			if tt.want != nil {
				tt.want.Model, tt.want.Test = "m.gguf", pp512
			}
			if got != nil {
				if (got.Record != nil) != tt.record {
					t.Errorf("record is %v", got.Record)
				}
				got.Record, got.Warnings = nil, nil
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAssemblerLost(t *testing.T) {
	a := record.Assembler{Job: jobOf()}
	if o := a.Lost(result.Crashed, "gone"); o != nil {
		t.Errorf("nothing was under way, lost %+v", o)
	}
	a.Add(bench.Stamped{At: at, Event: bench.TestStarted{Test: tg128, Repetitions: 5}})
	a.Add(bench.Stamped{At: at, Event: bench.RepetitionDone{Sample: sample(1, 0, s)}})
	if running, ok := a.Running(); !ok || running != tg128 {
		t.Errorf("running %v, %v", running, ok)
	}
	want := &result.Outcome{Model: "m.gguf", Test: tg128, Status: result.Crashed, Reason: "gone", Samples: []result.Sample{sample(1, 0, s)}}
	if diff := cmp.Diff(want, a.Lost(result.Crashed, "gone")); diff != "" {
		t.Error(diff)
	}
	if running, ok := a.Running(); ok {
		t.Errorf("%v is running after it was lost", running)
	}
}

// Whatever was measured can be written: no number is NaN, none is negative, and
// the mean lies among the samples.
func TestRecordProperties(t *testing.T) {
	lengths := rapid.IntRange(0, result.MaxTokens)
	elapsed := rapid.SliceOfN(rapid.Int64Range(1, 1<<62), 1, 40)
	rapid.Check(t, func(t *rapid.T) {
		test := result.Test{Prompt: lengths.Draw(t, "prompt"), Gen: lengths.Draw(t, "gen"), Depth: lengths.Draw(t, "depth")}
		var times []time.Duration
		for _, ns := range elapsed.Draw(t, "elapsed") {
			times = append(times, time.Duration(ns))
		}
		o := assemble(jobOf(), test, times...)
		if o.Record == nil {
			t.Fatalf("no record: %s", o.Reason)
		}
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var back result.Outcome
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o, &back); diff != "" {
			t.Fatal(diff)
		}
		r, st := o.Record, o.Record.Ext.Statistics
		const rounding = 1e-9
		if st.Min > st.Median || st.Median > st.Max || r.AvgTS < st.Min*(1-rounding) || r.AvgTS > st.Max*(1+rounding) {
			t.Fatalf("mean %g, median %g in %g…%g", r.AvgTS, st.Median, st.Min, st.Max)
		}
		if r.StddevTS < 0 || r.StddevNs < 0 || r.AvgNs <= 0 {
			t.Fatalf("deviation %g, of times %d, mean time %d", r.StddevTS, r.StddevNs, r.AvgNs)
		}
		if st.CI != nil && (st.CI.Low > st.Median || st.CI.High < st.Median || st.CI.Confidence <= 0 || st.CI.Confidence >= 1) {
			t.Fatalf("interval %+v around %g", *st.CI, st.Median)
		}
	})
}
