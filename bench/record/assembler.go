// Package record reads the events of a run, as they arrive or from a file:
//
//   - Assembler turns the events of one job into outcomes and records.
//   - Worker and Remaining find out what is left to do after a worker was lost.
//   - History does the same for an interrupted run.
//   - Account counts where the wall time went.
//
// The parent of a run and a resumed run use the same code, so they decide alike. The
// page README.md beside this file describes every field of a record.
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

// Assembler turns the events of one job into outcomes. Events may come from a worker
// or from a file. It is used from one goroutine.
type Assembler struct {
	Version string // of this program
	Job     bench.Job

	engine     bench.EngineFacts
	limits     []result.DeviceLimits // measured by this worker
	model      bench.ModelFacts
	load       time.Duration
	precompile time.Duration

	test    *bench.TestStarted // the current test; nil between tests
	started time.Time
	context time.Duration
	made    bench.ContextFacts
	warmup  time.Duration
	warmups int // passes
	samples []result.Sample
	gpus    []bench.GPUObservation
	energy  *bench.EnergyObserved // nil: no part of the machine tells it
	memory  *result.Memory

	precision *result.Precision // nil: the number of repetitions was fixed
}

// Add takes the next event. It returns the outcome that the event completes, or nil.
func (a *Assembler) Add(s bench.Stamped) *result.Outcome {
	switch e := s.Event.(type) {
	case bench.EngineReady:
		a.engine = e.Facts
	case bench.LimitsDone:
		a.limits = e.Devices
	case bench.LoadStarted:
		a.Job.Adjusted, a.Job.Warnings = e.Settings, e.Warnings
		if e.Model.Weights != "" { // the fallback may be in use since the job was written
			a.Job.Model.Weights = e.Model.Weights
		}
	case bench.LoadDone:
		a.model, a.load, a.precompile = e.Facts, e.Elapsed, 0
	case bench.PrecompileDone:
		a.precompile = e.Elapsed
	case bench.TestStarted:
		a.test, a.started = &e, s.At
		a.context, a.warmup, a.warmups, a.samples, a.gpus, a.memory, a.precision = 0, 0, 0, slices.Clone(e.Done), nil, nil, nil
		a.made, a.energy = bench.ContextFacts{}, nil
	case bench.ContextReady:
		a.context, a.made = e.Elapsed, e.Facts
	case bench.WarmupDone:
		a.warmup += e.Elapsed
		a.warmups++
	case bench.RepetitionDone:
		a.samples = append(a.samples, e.Sample)
	case bench.GPUObserved:
		a.gpus = e.Devices
	case bench.EnergyObserved:
		a.energy = &e
	case bench.TestDone:
		a.precision, a.memory = e.Precision, e.Memory
		return a.finish(e.Status, e.Reason)
	case bench.TestSkipped:
		return &result.Outcome{Model: e.Model, Test: e.Test, Status: e.Status, Reason: e.Reason}
	}
	return nil
}

// Running returns the current test; ok is false between tests.
func (a *Assembler) Running() (t result.Test, ok bool) {
	if a.test == nil {
		return result.Test{}, false
	}
	return a.test.Test, true
}

// completed returns the completed repetitions of the current test; ok is false
// between tests.
func (a *Assembler) completed() (samples []result.Sample, ok bool) { return a.samples, a.test != nil }

// Lost ends the current test, because its worker was lost. It returns nil between
// tests.
func (a *Assembler) Lost(status result.Status, reason string) *result.Outcome {
	return a.finish(status, reason)
}

// finish makes the outcome of the current test; nil between tests.
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

// record makes the record of a completed test. Its figures follow llama-bench's
// definitions; Ext has those of this program.
func (a *Assembler) record() (*result.Record, error) {
	t := a.test.Test
	if n, want := len(a.samples), a.test.Repetitions; n < want || n > max(want, a.test.Most) {
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
	// One repetition has no standard deviation; llama-bench prints 0.
	sdNs, _ := times.SD()
	sdTS, _ := rates.SD()

	e2e, err := a.e2e()
	if err != nil {
		return nil, err
	}
	settings, changed := a.used()
	r := &result.Record{
		BuildCommit: a.engine.BuildCommit, BuildNumber: a.engine.BuildNumber,
		CPUInfo: a.engine.CPUInfo, GPUInfo: a.engine.GPUInfo, Backends: a.engine.Backends,
		ModelFilename: cmp.Or(a.Job.Model.Filename, a.Job.Model.Name), ModelType: a.model.Type,
		ModelSizeBytes: a.model.SizeBytes, ModelParams: a.model.Params,
		Batch: settings.Batch, UBatch: settings.UBatch, Threads: settings.Threads,
		CPUMask: cpuMask(settings.CPUs), CPUStrict: settings.CPUStrict, Poll: settings.Poll,
		TypeK: settings.TypeK, TypeV: settings.TypeV,
		GPULayers: settings.GPULayers, CPUMoE: settings.CPUMoE, SplitMode: settings.SplitMode, MainGPU: settings.MainGPU,
		NoKVOffload: settings.NoKVOffload, FlashAttn: settings.FlashAttn,
		Devices: cmp.Or(strings.Join(settings.Devices, "/"), "auto"), TensorSplit: tensorSplit(settings.TensorSplit),
		TensorBuftOverrides: overrides(settings.TensorOverrides), LoadMode: settings.LoadMode, LazyMode: settings.LazyMode,
		Embeddings: settings.Embeddings, NoOpOffload: asInt(settings.NoOpOffload), NoHost: settings.NoHost, Repack: !settings.NoRepack,
		FitTargetMiB: settings.FitTargetMiB, FitMinCtx: settings.FitMinCtx,
		PromptTokens: t.Prompt, GenTokens: t.Gen, DepthTokens: t.Depth,
		TestTime: a.started.UTC().Format(time.RFC3339),
		AvgNs:    int64(math.Round(times.Mean())), StddevNs: int64(math.Round(sdNs)),
		AvgTS: rates.Mean(), StddevTS: sdTS,
		SamplesNs: samplesNs, SamplesTS: ts,
		UseMmap: a.mapped(settings),
	}
	r.Ext = result.Ext{
		Schema: result.SchemaVersion, Version: a.Version, Library: a.engine.Library,
		Weights: a.Job.Model.Weights, Seed: a.Job.Seed, CPUVariant: a.engine.CPUVariant,
		Statistics: statistics(rates),
		E2E:        e2e,
		Settings:   t.Settings, ThreadsBatch: settings.ThreadsBatch, NUMA: settings.NUMA,
		LoadSeconds: a.load.Seconds(), ContextSeconds: a.context.Seconds(), WarmupSeconds: a.warmup.Seconds(),
		PrecompileSeconds: a.precompile.Seconds(),
		UnusedDevices:     a.engine.Unused,
		IdleBackends:      a.engine.Idle,
		NamedBackend:      a.engine.Named,
		Offload:           a.model.Offload,
		Memory:            a.memory,
		Warnings:          append(slices.Concat(a.Job.Warnings, a.engine.Warnings, a.model.Warnings, a.made.Warnings, changed), warnings(a.samples, ts, rates, a.warmup > 0 || len(a.test.Done) == len(a.samples))...),
	}
	r.Ext.Precision = a.precision
	r.Ext.Limits = a.limitsOf(settings, time.Duration(float64(t.Tokens())/rates.Median()*float64(time.Second)))
	if a.warmups > 1 {
		r.Ext.Warmups = a.warmups
	}
	a.claimGPU(r)
	a.addEnergy(r, rates.Median())
	c, bursts := result.SumConditions(a.samples)
	r.Ext.Conditions = c
	r.Ext.Warnings = append(r.Ext.Warnings, readFromDisk(c)...)
	r.Ext.Verdict = judge(evidence{Conditions: c, bursts: bursts, rates: rates, threads: r.Threads, gpu: r.Ext.GPU != nil, warnings: r.Ext.Warnings})
	return r, nil
}

// used returns the settings that were used. The engine does not use all of them as they
// were requested. changed are warnings about those that it does not report itself.
func (a *Assembler) used() (s bench.Settings, changed []result.Warning) {
	s = a.Job.For(a.test.Test)
	if o := a.model.Offload; o != nil && s.GPULayers < 0 && o.Layers < o.Of {
		s.GPULayers = o.Layers // llama-bench's -1 means all
	}
	if used := a.engine.Limited; len(used) > 0 {
		s.Devices, s.TensorSplit = used, s.TensorSplit[:min(len(used), len(s.TensorSplit))]
	}
	if limit := a.engine.Threads; limit > 0 {
		s.Threads = min(limit, s.Threads)
	}
	s.LoadMode = cmp.Or(a.model.LoadMode, s.LoadMode)
	if fa := a.made.FlashAttn; fa != nil {
		s.FlashAttn = *fa
	}
	if s.UBatch > s.Batch { // llama_context lowers it
		changed = append(changed, result.Warning{
			Code:    result.WarnUBatch,
			Message: fmt.Sprintf("micro-batches have %d tokens instead of %d, because a batch has no more", s.Batch, s.UBatch),
		})
		s.UBatch = s.Batch
	}
	return s, changed
}

// mapped tells whether weights are in a mapped file. Synthetic weights are streamed, not
// mapped. If the engine does not tell, load mode auto maps files.
func (a *Assembler) mapped(s bench.Settings) bool {
	if a.model.Mapped != nil {
		return *a.model.Mapped
	}
	return a.Job.Model.Weights == result.FileWeights && (s.LoadMode == "auto" || strings.HasPrefix(s.LoadMode, "mmap"))
}

// wantConfidence is the wanted confidence of an interval. The record says which
// confidence was achieved.
const wantConfidence = 0.95

func statistics(rates stats.Sample) result.Statistics {
	s := result.Statistics{Median: rates.Median(), Min: rates.Min(), Max: rates.Max()}
	if cv, ok := rates.CV(); ok {
		s.CV = &cv
	}
	if ci, ok := rates.MedianCI(wantConfidence); ok {
		s.CI = &result.Interval{Low: ci.Low, High: ci.High, Confidence: ci.Confidence}
	}
	if again, ok := rates.Again(wantConfidence, stats.LoadSpread); ok {
		s.Again = &result.Interval{Low: again.Low, High: again.High, Confidence: again.Confidence}
	}
	return s
}

// fewRepetitions is the number of repetitions below which no outlier can be found.
const fewRepetitions = 3

// warnings are the reasons to read a record with care. ts has the rates of the samples
// in the order in which they were measured, rates the same as a stats.Sample, both in
// tokens/second. warm tells whether there was a warm-up.
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
	if n, rate := downloadBeside(samples); n > 0 {
		add(result.WarnDownloadBeside, "%d of %d repetitions ran beside a download of %.1f MB/s", n, len(samples), rate/1e6)
	}
	if !warm {
		add(result.WarnNoWarmup, "measured without a warm-up")
	}
	return append(w, unevenness(ts, rates)...)
}

// unevenness are the warnings about repetitions that differ. Each repetition that
// stands out has one, with its size. If the others differ, too, or if too few are left
// to tell, the whole sample is unsteady.
func unevenness(ts []float64, rates stats.Sample) []result.Warning {
	var w []result.Warning
	var named []int // repetitions that have a warning
	if by, slow := rates.SlowFirst(); slow {
		named = append(named, 0)
		w = append(w, result.Warning{Code: result.WarnSlowFirstRepetition, Message: "the first repetition took " + longer(by) + " the median of the others"})
	}
	for _, i := range rates.Outliers() {
		if !slices.Contains(named, i) {
			named = append(named, i)
			w = append(w, result.Warning{Code: result.WarnOutlier, Message: fmt.Sprintf("repetition %d %s", i+1, off(ts[i], rates.Median()))})
		}
	}
	rest, ok := rates.Without(named)
	if cv, _ := rates.CV(); rates.Unsteady() && (!ok || rest.N() < 2 || rest.Unsteady()) {
		w = append(w, result.Warning{Code: result.WarnUnsteady, Message: fmt.Sprintf("the repetitions varied from %s to %s tokens/second, with a coefficient of variation of %.0f %%",
			result.FormatRate(rates.Min()), result.FormatRate(rates.Max()), cv*100)})
	}
	return w
}

// manyTimes is the factor from which on a difference is given as a factor, not in
// percent.
const manyTimes = 2

// longer says by how much a time is longer than another: "9.6 % longer than", "425
// times as long as". by is the additional share, 0.096 for 9.6 %.
func longer(by float64) string {
	if 1+by < manyTimes {
		return fmt.Sprintf("%.1f %% longer than", by*100)
	}
	return times(1+by) + " times as long as"
}

// off says how far a rate is from the median.
func off(rate, median float64) string {
	switch {
	case rate >= manyTimes*median:
		return "was " + times(rate/median) + " times as fast as the median"
	case rate*manyTimes <= median:
		return "took " + times(median/rate) + " times as long as the median"
	case rate < median:
		return fmt.Sprintf("is %.1f %% slower than the median", (1-rate/median)*100)
	default:
		return fmt.Sprintf("is %.1f %% faster than the median", (rate/median-1)*100)
	}
}

// times is a factor in two or more digits.
func times(factor float64) string {
	if factor < 10 {
		return fmt.Sprintf("%.1f", factor)
	}
	return fmt.Sprintf("%.0f", factor)
}

// downloadBeside counts the repetitions that ran beside a download. rate is the mean
// rate of the download during them, in bytes/second.
func downloadBeside(samples []result.Sample) (n int, rate float64) {
	var bytes int64
	var elapsed time.Duration
	for _, s := range samples {
		if s.DownloadedBytes > 0 {
			n, bytes, elapsed = n+1, bytes+s.DownloadedBytes, elapsed+s.Elapsed
		}
	}
	if n == 0 {
		return 0, 0
	}
	return n, float64(bytes) / elapsed.Seconds()
}

// cpuMask is the mask of logical CPUs in llama-bench's format.
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

// tensorSplit is the split in llama-bench's format: "0.00", "3.00/1.00".
func tensorSplit(split []float32) string {
	parts := make([]string, len(split))
	for i, s := range split {
		parts[i] = strconv.FormatFloat(float64(s), 'f', 2, 32)
	}
	return cmp.Or(strings.Join(parts, "/"), "0.00")
}

// overrides are the overrides of tensors in llama-bench's format: "none", "exps=CPU;output=CPU".
func overrides(o []bench.TensorOverride) string {
	parts := make([]string, len(o))
	for i, each := range o {
		parts[i] = each.Pattern + "=" + each.Buffer
	}
	return cmp.Or(strings.Join(parts, ";"), "none")
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
