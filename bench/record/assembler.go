package record

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// Assembler turns the events of one job into outcomes. It works on events as
// they arrive and on those of a file alike.
type Assembler struct {
	Version string // of this program
	Job     bench.Job

	engine bench.EngineFacts
	model  bench.ModelFacts
	load   time.Duration
	jit    time.Duration // passes before the first test

	test    *bench.TestStarted // the test under way
	started time.Time
	context time.Duration
	warmup  time.Duration
	samples []result.Sample
	gpus    []bench.GPUObservation
}

// Add takes the next event. It returns the outcome that the event completes, or
// nil.
func (a *Assembler) Add(s bench.Stamped) *result.Outcome {
	switch e := s.Event.(type) {
	case bench.EngineReady:
		a.engine = e.Facts
	case bench.LoadStarted:
		a.Job.Adjusted, a.Job.Warnings = e.Settings, e.Warnings
		if e.Model.Weights != "" { // they may have been generated since the job was written down
			a.Job.Model.Weights = e.Model.Weights
		}
	case bench.LoadDone:
		a.model, a.load, a.jit = e.Facts, e.Elapsed, 0
	case bench.PrecompileDone:
		a.jit = e.Elapsed
	case bench.TestStarted:
		a.test, a.started = &e, s.At
		a.context, a.warmup, a.samples, a.gpus = 0, 0, slices.Clone(e.Done), nil
	case bench.ContextReady:
		a.context = e.Elapsed
	case bench.WarmupDone:
		a.warmup = e.Elapsed
	case bench.RepetitionDone:
		a.samples = append(a.samples, e.Sample)
	case bench.GPUObserved:
		a.gpus = e.Devices
	case bench.TestDone:
		return a.finish(e.Status, e.Reason)
	case bench.TestSkipped:
		return &result.Outcome{Model: e.Model, Test: e.Test, Status: e.Status, Reason: e.Reason}
	}
	return nil
}

// Running is the test under way; ok is false between tests.
func (a *Assembler) Running() (t result.Test, ok bool) {
	if a.test == nil {
		return result.Test{}, false
	}
	return a.test.Test, true
}

// Begun is the test under way with its completed repetitions; ok is false between
// tests.
func (a *Assembler) Begun() (samples []result.Sample, ok bool) { return a.samples, a.test != nil }

// Lost ends the test under way when its worker was lost; nil when none was.
func (a *Assembler) Lost(status result.Status, reason string) *result.Outcome {
	if a.test == nil {
		return nil
	}
	return a.finish(status, reason)
}

// finish makes the outcome of the test under way.
func (a *Assembler) finish(status result.Status, reason string) *result.Outcome {
	if a.test == nil {
		return nil
	}
	o := &result.Outcome{
		Model:   a.Job.Model.Name,
		Test:    a.test.Test,
		Status:  status,
		Reason:  reason,
		Samples: a.samples,
	}
	if status == result.OK {
		rec, err := a.record()
		if err != nil {
			o.Status, o.Reason = result.Failed, err.Error()
		} else {
			o.Record, o.Warnings = rec, rec.Ext.Warnings
		}
	}
	a.test = nil
	return o
}

// record makes the record of a completed test: llama-bench's figures by its
// definitions, ours in Ext.
func (a *Assembler) record() (*result.Record, error) {
	t := a.test.Test
	if want := a.test.Repetitions; len(a.samples) != want {
		return nil, fmt.Errorf("%d of %d repetitions were reported", len(a.samples), want)
	}
	ns := make([]float64, len(a.samples))
	ts := make([]float64, len(a.samples))
	samplesNs := make([]int64, len(a.samples))
	for i, s := range a.samples {
		if s.Elapsed <= 0 {
			return nil, fmt.Errorf("repetition %d took %v: the clock did not move", s.Repetition, s.Elapsed)
		}
		samplesNs[i] = s.Elapsed.Nanoseconds()
		ns[i] = float64(samplesNs[i])
		ts[i] = t.TokensPerSecond(s.Elapsed)
	}
	times, err := stats.New(ns)
	if err != nil {
		return nil, fmt.Errorf("times: %w", err)
	}
	rates, err := stats.New(ts)
	if err != nil {
		return nil, fmt.Errorf("rates: %w", err)
	}
	// One repetition has no deviation; llama-bench prints 0 for it.
	sdNs, _ := times.SD()
	sdTS, _ := rates.SD()

	e2e, err := a.e2e()
	if err != nil {
		return nil, err
	}
	set := a.Job.Effective()
	if o := a.model.Offload; o != nil && set.GPULayers < 0 && o.Layers < o.Of {
		set.GPULayers = o.Layers // all of them are llama-bench's -1
	}
	if used := a.engine.Limited; len(used) > 0 {
		set.Devices, set.TensorSplit = used, set.TensorSplit[:min(len(used), len(set.TensorSplit))]
	}
	r := &result.Record{
		BuildCommit: a.engine.BuildCommit, BuildNumber: a.engine.BuildNumber,
		CPUInfo: a.engine.CPUInfo, GPUInfo: a.engine.GPUInfo, Backends: a.engine.Backends,
		ModelFilename: a.Job.Model.Name, ModelType: a.model.Type,
		ModelSizeBytes: a.model.SizeBytes, ModelParams: a.model.Params,
		Batch: set.Batch, UBatch: set.UBatch, Threads: set.Threads,
		CPUMask: cpuMask(set.CPUs), CPUStrict: set.CPUStrict, Poll: set.Poll,
		TypeK: set.TypeK, TypeV: set.TypeV,
		GPULayers: set.GPULayers, CPUMoE: set.CPUMoE, SplitMode: set.SplitMode, MainGPU: set.MainGPU,
		NoKVOffload: set.NoKVOffload, FlashAttn: set.FlashAttn,
		Devices: cmp.Or(strings.Join(set.Devices, "/"), "auto"), TensorSplit: tensorSplit(set.TensorSplit),
		TensorBuftOverrides: "none", LoadMode: set.LoadMode, LazyMode: set.LazyMode,
		Embeddings: set.Embeddings, NoOpOffload: asInt(set.NoOpOffload), NoHost: set.NoHost, Repack: !set.NoRepack,
		PromptTokens: t.Prompt, GenTokens: t.Gen, DepthTokens: t.Depth,
		TestTime: a.started.UTC().Format(time.RFC3339),
		AvgNs:    int64(math.Round(times.Mean())), StddevNs: int64(math.Round(sdNs)),
		AvgTS: rates.Mean(), StddevTS: sdTS,
		SamplesNs: samplesNs, SamplesTS: ts,
		// A stream is read, not mapped; auto maps files.
		UseMmap: a.Job.Model.Weights == result.FileWeights && (set.LoadMode == "auto" || strings.HasPrefix(set.LoadMode, "mmap")),
	}
	r.Ext = result.Ext{
		Schema: result.SchemaVersion, Version: a.Version, Library: a.engine.Library,
		Weights: a.Job.Model.Weights, Seed: a.Job.Seed, CPUVariant: a.engine.CPUVariant,
		Statistics:  statistics(rates),
		E2E:         e2e,
		LoadSeconds: a.load.Seconds(), ContextSeconds: a.context.Seconds(), WarmupSeconds: a.warmup.Seconds(),
		PrecompileSeconds: a.jit.Seconds(),
		Offload:           a.model.Offload,
		Warnings:          append(slices.Concat(a.Job.Warnings, a.engine.Warnings, a.model.Warnings), warnings(a.samples, ts, rates, a.warmup > 0 || len(a.test.Done) == len(a.samples))...),
	}
	a.claimGPU(r)
	return r, nil
}

// wantConfidence is the confidence one would like; the interval says what it
// achieved.
const wantConfidence = 0.95

func statistics(rates stats.Sample) result.Statistics {
	s := result.Statistics{Median: rates.Median(), Min: rates.Min(), Max: rates.Max()}
	if cv, ok := rates.CV(); ok {
		s.CV = &cv
	}
	if ci, ok := rates.MedianCI(wantConfidence); ok {
		s.CI = &result.Interval{Low: ci.Low, High: ci.High, Confidence: ci.Confidence}
	}
	return s
}

// fewRepetitions is the number below which no outlier can be told from the rest.
const fewRepetitions = 3

// warnings are the reasons to read the record with care; rates are ts, in
// tokens/second, in the order measured.
func warnings(samples []result.Sample, ts []float64, rates stats.Sample, warm bool) []result.Warning {
	var w []result.Warning
	add := func(code, format string, args ...any) {
		w = append(w, result.Warning{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	switch n := rates.N(); {
	case n == 1:
		add(result.WarnFewRepetitions, "one repetition does not show how much the speed varies")
	case n < fewRepetitions:
		add(result.WarnFewRepetitions, "%d repetitions do not show how much the speed varies", n)
	}
	if w := beside(samples); w != "" {
		add(result.WarnDownloadBeside, "%s", w)
	}
	if !warm {
		add(result.WarnNoWarmup, "measured without a warm-up")
	}
	by, slow := rates.SlowFirst()
	if slow {
		add(result.WarnSlowFirstRepetition, "the first repetition took %.1f %% longer than the median of the others", by*100)
	}
	outliers := rates.Outliers()
	for _, i := range outliers {
		if i == 0 && slow {
			continue // said already
		}
		add(result.WarnOutlier, "repetition %d is %+.1f %% off the median speed", i+1, (ts[i]/rates.Median()-1)*100)
	}
	if rates.Unsteady() && !slow && len(outliers) == 0 {
		add(result.WarnUnsteady, "the repetitions varied from %.4g to %.4g tokens/second", rates.Min(), rates.Max())
	}
	return w
}

// beside tells of repetitions that ran beside a download; empty when none did.
func beside(samples []result.Sample) string {
	n, bytes, time := 0, int64(0), 0.0
	for _, s := range samples {
		if s.DownloadedBytes > 0 {
			n, bytes, time = n+1, bytes+s.DownloadedBytes, time+s.Elapsed.Seconds()
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d repetitions ran beside a download of %.1f MB/s", n, len(samples), float64(bytes)/1e6/time)
}

// cpuMask is the mask of logical CPUs as llama-bench prints it.
func cpuMask(cpus []int) string {
	top := 0
	for _, c := range cpus {
		top = max(top, c)
	}
	digits := make([]int, top/4+1)
	for _, c := range cpus {
		digits[c/4] |= 1 << (c % 4)
	}
	var b strings.Builder
	b.WriteString("0x")
	for i := len(digits) - 1; i >= 0; i-- {
		b.WriteString(strconv.FormatInt(int64(digits[i]), 16))
	}
	return b.String()
}

// tensorSplit is the split as llama-bench prints it: "0.00", "3.00/1.00".
func tensorSplit(split []float32) string {
	parts := make([]string, len(split))
	for i, s := range split {
		parts[i] = strconv.FormatFloat(float64(s), 'f', 2, 32)
	}
	return cmp.Or(strings.Join(parts, "/"), "0.00")
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
