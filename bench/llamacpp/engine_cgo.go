//go:build cgo

package llamacpp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// Engine runs one model with libllama. It implements bench.Engine. It makes all
// calls into the library on one OS thread of its own, whatever goroutine calls it.
type Engine struct {
	job    bench.Job
	facts  bench.EngineFacts
	thread *llama.Thread
	model  *llama.Model

	devices   []llama.Device   // all that there are, as Load found them
	peakSince result.PeakSince // of the process's resident memory

	oneProcessor bool // Options.OneProcessor

	// Of the current test.
	test    result.Test
	now     bench.Settings // of the test
	pool    *llama.Threadpool
	prefill *llama.Threadpool // that computes prompts; nil: pool does
	depth   *llama.State      // the KV cache at the test's depth; nil until computed
	pcg     rand.PCG
	rng     *rand.Rand    // over pcg
	last    time.Duration // time of the test's last pass; 0 before the first
	priming time.Duration // time of the untimed pass before it; 0: none
	prompt  []llama.Token
	gen     []llama.Token // tokens to decode; in an end-to-end test, tokens that were sampled
	e2e     endToEnd

	// mu protects ctx and aborting: Abort comes from any goroutine, and also while
	// there is no context.
	mu       sync.Mutex
	ctx      *llama.Context
	aborting bool
}

var _ bench.Engine = (*Engine)(nil)

// Version is the release of the library, such as "0.7.0".
func Version() (string, error) { return llama.Version(), nil }

// New starts the engine's thread and opens the back-ends. Load then loads the
// job's model. Close ends the thread.
func New(job bench.Job, o Options) (*Engine, error) {
	job.Settings = job.Effective()
	e := &Engine{job: job, thread: llama.StartThread(), oneProcessor: o.OneProcessor}
	if o.AnyThread {
		e.thread.Stop()
		e.thread = nil
	}
	llama.SetLog(o.Log, o.LogLevel)
	var err error
	e.do(func() {
		if err = llama.LoadBackends(backends); err != nil {
			return
		}
		if mode := job.Settings.NUMA; mode != "" {
			var strategy llama.NUMAStrategy
			if strategy, err = lookup("NUMA mode", numa, mode); err != nil {
				return
			}
			llama.InitNUMA(strategy)
		}
		if err = addRPC(job); err != nil {
			return
		}
		if e.facts, err = facts(job.Settings, o); err != nil {
			return
		}
		if err = checkDevices(job.Settings); err == nil {
			e.job.Settings.Devices = chosen(job.Settings)
			e.facts.Limited, e.facts.Warnings = limitDevices(&e.job.Settings)
			e.facts.Warnings = append(e.facts.Warnings, softwareDevices(job.Settings)...)
			if threads, w := teamSize(e.mostThreads(), os.Getenv); w != nil {
				e.facts.Threads, e.facts.Warnings = threads, append(e.facts.Warnings, *w)
			}
		}
	})
	if err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

// Devices lists the devices that the library can compute on, including those of
// the RPC servers in o, and the engine's facts.
func Devices(o Options) ([]Device, bench.EngineFacts, error) {
	e, err := New(bench.Job{Settings: bench.Settings{RPC: o.RPC}}, o)
	if err != nil {
		return nil, bench.EngineFacts{}, err
	}
	defer e.stop()
	var devices []Device
	e.do(func() { devices = llama.Devices() })
	return devices, e.facts, nil
}

// do runs f on the engine's thread, or with AnyThread on the caller's.
func (e *Engine) do(f func()) {
	if e.thread == nil {
		f()
		return
	}
	e.thread.Do(f)
}

func (e *Engine) stop() {
	if e.thread != nil {
		e.thread.Stop()
	}
}

// facts describes the engine as llama-bench does: CPUInfo and GPUInfo are the
// descriptions of the devices. Backends are the back-ends that have a device; CPU
// is among them only if it is the only one. Devices that are not used by default count
// in neither. Like llama-bench's, they have devices beside those that the settings name,
// but not a GPU's second name, and no software. A wanted device that does not exist is an error.
func facts(s bench.Settings, o Options) (bench.EngineFacts, error) {
	commit, number := Build()
	f := bench.EngineFacts{BuildCommit: commit, BuildNumber: number, Library: Library(), CPUVariant: llama.CPUVariant(), Problems: llama.BackendProblems(), Idle: llama.IdleBackends()}
	if n := llama.Named(); n.Path != "" {
		f.Named = &result.NamedBackend{Path: n.Path, Problem: n.Problem}
	}
	if backends == llama.AllBackends {
		f.HIPModule = llama.HIPModule()
		f.CUDAModule, f.CUBLASModule = cmp.Or(llama.CUDAModule(), loadedLibrary("libggml-cuda")), loadedLibrary("libcublas.so")
	}
	var used []llama.Device
	used, f.Unused = choose(s)
	var cpus, gpus, names, known []string
	cuda := false
	for _, d := range llama.Devices() {
		known = append(known, d.Name)
		unused := slices.ContainsFunc(f.Unused, func(u result.UnusedDevice) bool { return u.Name == d.Name }) &&
			(len(s.Devices) == 0 || software(d) || slices.ContainsFunc(used, func(u llama.Device) bool { return sameGPU(u, d) }))
		switch d.Type {
		case llama.CPUDevice, llama.AcceleratorDevice:
			cpus = append(cpus, d.Description)
		case llama.GPUDevice, llama.IntegratedDevice:
			if !unused {
				gpus = append(gpus, d.Description)
			}
			f.GPUs = append(f.GPUs, bench.EngineGPU{
				Name: d.Name, Model: d.Description, Backend: d.Backend, PCIAddress: strings.ToLower(d.ID), Problem: problem(d), Software: software(d),
			})
		}
		cuda = cuda || d.Backend == "CUDA"
		if d.Backend != "CPU" && !unused && (len(names) == 0 || names[len(names)-1] != d.Backend) {
			names = append(names, d.Backend)
		}
	}
	if len(names) == 0 {
		names = []string{"CPU"}
	}
	f.CPUInfo, f.GPUInfo, f.Backends = strings.Join(cpus, ", "), strings.Join(gpus, ", "), strings.Join(names, ",")
	for _, name := range s.Devices {
		if name == bench.NoDevice && len(s.Devices) == 1 {
			break
		}
		if !slices.Contains(known, name) {
			return f, fmt.Errorf("%w called %q; there are: %s", ErrNoDevice, name, strings.Join(known, ", "))
		}
	}
	if requireCUDA && !cuda && !o.AllowCPU {
		opened := "back-ends opened: " + strings.Join(llama.BackendNames(), ", ")
		return f, fmt.Errorf("%w: %s", ErrNoCUDA, cmp.Or(f.WithoutCUDA(), opened))
	}
	return f, nil
}

// aLittle is an amount of memory in bytes that every usable device can give.
const aLittle = 1 << 20

// problem says why a device of CUDA, HIP or Vulkan cannot be used; it is empty if the
// device can be. The library also lists a device that another process has for itself,
// and ends this process at the first use of it. For other back-ends problem is empty.
func problem(d llama.Device) string {
	if !slices.Contains([]string{"CUDA", "ROCm", "Vulkan"}, d.Backend) || software(d) {
		return ""
	}
	r, err := llama.Reserve(d.Name, aLittle)
	var refused *llama.LoadError
	switch {
	case errors.As(err, &refused):
		return cmp.Or(refused.Cause(), err.Error())
	case err != nil:
		return err.Error()
	}
	r.Release()
	return ""
}

// loadedLibrary is the path of a shared library that this process has loaded; empty if
// it has not.
func loadedLibrary(name string) string {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(maps)) {
		if _, path, ok := strings.Cut(line, " /"); ok && strings.HasPrefix(filepath.Base(path), name) {
			return "/" + strings.TrimSpace(path)
		}
	}
	return ""
}

// Facts is what the engine knows before a model is loaded.
func (e *Engine) Facts() bench.EngineFacts { return e.facts }

// Load loads the job's model from its file, or streams synthetic weights. If the
// settings leave the number of layers on devices open, as many as fit go there.
func (e *Engine) Load(ctx context.Context, tell func(bench.Event)) (bench.ModelFacts, error) {
	params, err := modelParams(e.job.Settings)
	if err != nil {
		return bench.ModelFacts{}, err
	}
	progress := func(share float32) bool {
		tell(bench.LoadProgress{Share: float64(share)})
		return ctx.Err() == nil
	}
	var m *llama.Model
	var why string
	var devices []llama.Device
	e.do(func() {
		e.devices = llama.Devices()
		var open func(llama.ModelParams) (*llama.Model, error)
		if open, err = e.opener(progress); err != nil {
			return
		}
		if devices = offloadDevices(e.job.Settings); len(devices) == 0 || params.GPULayers >= 0 {
			m, err = open(params)
			return
		}
		o := offload{
			settings: e.settingsOf(e.longest()), longest: e.longest(), largest: e.job.Model.LargestBytes, limit: e.job.Offload,
			devices: devices, open: open, tell: tell,
		}
		m, why, err = o.load(params)
	})
	if err != nil {
		if l, ok := errors.AsType[*llama.LoadError](err); ok && (l.Source == e.job.Model.Path || l.Source == e.job.Model.Name) {
			l.Source = "" // LoadStarted has it
		}
		return bench.ModelFacts{}, translate(err)
	}
	e.model = m
	f := m.Facts()
	facts := bench.ModelFacts{
		Type: f.Description, SizeBytes: f.SizeBytes, Params: f.Params, Layers: f.Layers,
		Mapped: mapped(m.Allocation()),
		Placed: placed(m.Allocation().Spread(devices, e.job.Settings.TensorSplit), devices),
	}
	if len(devices) > 0 {
		facts.Offload = offloaded(m.Allocation(), devices)
	}
	facts.LoadMode, facts.Warnings = loadMode(e.job.Settings.LoadMode, m.Changes())
	if why != "" {
		facts.Warnings = append(facts.Warnings, result.Warning{
			Code:    result.WarnPartialOffload,
			Message: fmt.Sprintf("%d of %d layers on devices: %s", facts.Offload.Layers, facts.Offload.Of, why),
		})
	}
	return facts, nil
}

// mapped tells whether the library put weights into a mapped file.
func mapped(a llama.Allocation) *bool {
	is := slices.ContainsFunc(a.Buffers, func(b llama.Buffer) bool { return strings.HasSuffix(b.Type, "_Mapped") })
	return &is
}

// opener returns the function that loads the job's model. It may be called more
// than once, on the engine's thread.
func (e *Engine) opener(tell llama.Progress) (func(llama.ModelParams) (*llama.Model, error), error) {
	if e.job.Model.Weights != result.SyntheticWeights {
		return func(p llama.ModelParams) (*llama.Model, error) { return llama.LoadModel(e.job.Model.Path, p, tell) }, nil
	}
	stream, err := e.stream()
	if err != nil {
		return nil, err
	}
	return func(p llama.ModelParams) (*llama.Model, error) {
		return llama.LoadModelStream(e.job.Model.Name, stream, p, tell)
	}, nil
}

// longest is the job's test with the longest context. Tests that an earlier worker
// ran count too. So every worker chooses the same settings.
func (e *Engine) longest() (t result.Test) {
	longest := func(other result.Test) {
		switch a, b := other.Context(), t.Context(); {
		case a > b, a == b && e.cacheBits(other) > e.cacheBits(t):
			t = other
		}
	}
	for _, b := range e.job.Tests {
		longest(b.Test)
	}
	for _, p := range e.job.Past {
		if p.Status != result.Unsupported {
			longest(p.Test)
		}
	}
	return t
}

// cacheBits is the size of the KV cache of a test for each of its values, in bits.
func (e *Engine) cacheBits(t result.Test) (bits float64) {
	s := e.settingsOf(t)
	for _, name := range []string{s.TypeK, s.TypeV} {
		if typ, err := gguf.ParseType(name); err == nil {
			bits += 8 * float64(typ.BlockBytes()) / float64(typ.BlockSize())
		}
	}
	return bits
}

// settingsOf returns the settings of a test, with the devices that are in use.
func (e *Engine) settingsOf(t result.Test) bench.Settings {
	return e.job.Settings.WithContext(e.job.For(t))
}

// mostThreads is the largest number of threads of a test.
func (e *Engine) mostThreads() int {
	n := e.job.Settings.Threads
	for _, t := range e.job.Tests {
		n = max(n, e.job.For(t.Test).Threads)
	}
	return n
}

// offloaded counts the model's layers, and those of them on devices.
func offloaded(a llama.Allocation, devices []llama.Device) *result.Offload {
	o := result.Offload{Layers: a.Together()}
	for name, n := range a.Layers {
		o.Of += n
		if slices.ContainsFunc(devices, func(d llama.Device) bool { return d.Name == name }) {
			o.Layers += n
		}
	}
	return &o
}

// placed lists the GPUs that hold a part of the model.
func placed(a llama.Allocation, devices []llama.Device) []bench.Placement {
	var on []bench.Placement
	for _, d := range devices {
		if d.Type != llama.GPUDevice && d.Type != llama.IntegratedDevice {
			continue
		}
		p := bench.Placement{Device: d.Name, Layers: a.Layers[d.Name], WeightsBytes: a.SizeOn(d, "model")}
		if p.Layers > 0 || p.WeightsBytes > 0 {
			on = append(on, p)
		}
	}
	return on
}

// stream is the job's model with synthetic weights. Its header is the file at the
// model's path or, without a path, that of the default model of its name.
func (e *Engine) stream() (llama.Stream, error) {
	m := e.job.Model
	header, err := headerOf(m)
	if err == nil && m.Words {
		header, err = synth.WithVocabulary(m.Name, header)
	}
	if err != nil {
		return nil, err
	}
	return synth.FromHeader(m.Name, header, m.Seed, Quantizer{})
}

// headerOf is the header of a model with synthetic weights.
func headerOf(m bench.Model) (*gguf.File, error) {
	if m.Path != "" {
		return synth.ReadHeaderFile(m.Path)
	}
	shape, err := synth.Lookup(filepath.Base(m.Name))
	if err != nil {
		return nil, err
	}
	return shape.File()
}

// Begin creates the context and the threads of a test.
func (e *Engine) Begin(t result.Test) error {
	if e.oneProcessor {
		runtime.GOMAXPROCS(1)
	}
	if err := e.End(); err != nil {
		return err
	}
	if err := t.Validate(); err != nil {
		return err
	}
	if err := e.fits(t); err != nil {
		return err
	}
	e.now = e.settingsOf(t)
	cp, tp, err := contextParams(e.now, t)
	if err != nil {
		return err
	}
	cp.AnyThread = e.thread == nil
	e.test, e.rng, e.last = t, rand.New(&e.pcg), 0
	e.prompt = make([]llama.Token, t.Prompt)
	e.gen = make([]llama.Token, t.Gen)
	e.peakSince = resetPeak()

	e.do(func() {
		var ctx *llama.Context
		if e.pool, err = llama.NewThreadpool(tp); err != nil {
			return
		}
		if n := e.now.ThreadsBatch; n > 0 && n != e.now.Threads {
			tp.Threads = n
			if e.prefill, err = llama.NewThreadpool(tp); err != nil {
				return
			}
		}
		if ctx, err = e.model.NewContext(cp); err != nil {
			return
		}
		e.adopt(ctx)
		if err = e.suits(ctx, t); err != nil {
			return
		}
		if err = ctx.AttachThreadpools(e.pool, e.prefill); err == nil && t.E2E {
			err = e.beginText()
		}
	})
	return translate(err)
}

// suits refuses a test for which the library would end the process, or that is not
// what its name says. Package gguf refuses most of them by the model's header; the
// library also knows the architectures that package gguf does not.
func (e *Engine) suits(ctx *llama.Context, t result.Test) error {
	most := min(e.now.Batch, e.now.UBatch)
	err := ctx.Autoregressive()
	switch {
	case !errors.Is(err, llama.ErrNotAutoregressive):
		return err
	case t.Gen > 0 || t.Depth > 0:
		return &translated{gguf.ErrEncoder, bench.ErrUnsupported}
	case t.Prompt > most:
		return &translated{gguf.TooLong(t.Prompt, most), bench.ErrUnsupported}
	}
	return nil
}

// Context tells what the library made of the settings of the current test's context.
func (e *Engine) Context() bench.ContextFacts {
	if e.ctx == nil {
		return bench.ContextFacts{}
	}
	return contextFacts(e.now, e.ctx.Changes())
}

// adopt makes ctx the context that Abort acts on.
func (e *Engine) adopt(ctx *llama.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ctx = ctx
	if ctx != nil && e.aborting {
		ctx.Abort()
	}
}

// Warmup runs the warm-up of llama-bench: the whole prompt and one token. Its time
// is no sample.
func (e *Engine) Warmup() (time.Duration, error) {
	e.drawFor(warmup)
	var elapsed time.Duration
	var err error
	e.do(func() {
		if err = e.ctx.ClearMemory(); err != nil {
			return
		}
		elapsed, err = e.pass(e.short())
		e.last = elapsed
	})
	return elapsed, translate(err)
}

// Repeat draws the tokens of repetition n, counted from 1, empties the KV cache, fills it
// to the test's depth, and times the repetition. A short one that follows a rest is primed.
func (e *Engine) Repeat(n int, rested bool) (time.Duration, error) {
	e.drawFor(n)
	var elapsed time.Duration
	var err error
	e.priming = 0
	e.do(func() {
		elapsed, err = e.repeat(rested && e.last < primedBelow && (n > 1 || !e.job.NoWarmup))
		e.last = elapsed
	})
	return elapsed, translate(err)
}

// Priming returns the time of the untimed pass that primed the last repetition.
func (e *Engine) Priming() time.Duration { return e.priming }

// repeat times one repetition, primed or not. It runs on the engine's thread.
func (e *Engine) repeat(primed bool) (elapsed time.Duration, err error) {
	if err := e.ctx.ClearMemory(); err != nil {
		return 0, err
	}
	start := time.Now()
	if primed && e.test.Depth == 0 && !e.test.E2E {
		elapsed, err = e.ctx.Timed().PrimedRepetition(primedFor, e.prompt, e.gen, e.now.Batch)
		e.priming = time.Since(start) - elapsed
		return elapsed, err
	}
	if primed {
		if err := errors.Join(e.prime(), e.ctx.ClearMemory()); err != nil {
			return 0, err
		}
		e.priming = time.Since(start)
	}
	if err := e.fill(); err != nil {
		return 0, err
	}
	return e.pass(len(e.gen))
}

// In llama-bench a repetition follows the previous one directly. Here it does so within a
// burst (bench.BurstTime). After a burst the parent writes to disk. Meanwhile the pool's
// threads fall asleep and the clocks go down, which costs the next repetition about 1 ms.
// So an untimed pass primes it. The pass has the repetition's shape (the prompt, or single
// tokens), because the library then keeps its graph.
const (
	// primedBelow is the time from which on a repetition is not primed: 1 ms does not
	// matter to it.
	primedBelow = 500 * time.Millisecond
	// primedFor is how long priming generates tokens. After a rest, tokens of the
	// first 10 ms take up to a sixth longer.
	primedFor = 50 * time.Millisecond
)

// prime runs the untimed pass for the tests that PrimedRepetition does not cover:
// those with a depth, and end-to-end tests.
func (e *Engine) prime() error {
	if e.test.E2E {
		_, err := e.generate(e.short())
		return err
	}
	return e.ctx.Timed().Prime(primedFor, e.prompt, e.gen, e.now.Batch)
}

// pass runs the timed calls of the current test, generating n tokens.
func (e *Engine) pass(n int) (time.Duration, error) {
	if e.test.E2E {
		return e.generate(n)
	}
	return e.ctx.Timed().Repetition(e.prompt, e.gen[:n], e.now.Batch)
}

// short is the number of tokens to generate so that a pass does everything once.
// It is one, as in llama-bench's warm-up, and two in an end-to-end test, where the
// first token is only sampled if no other follows.
func (e *Engine) short() int {
	if e.test.E2E {
		return min(2, len(e.gen))
	}
	return min(1, len(e.gen))
}

// fill brings the KV cache to the test's depth. It is computed the first time, and
// restored afterwards.
func (e *Engine) fill() error {
	if e.test.Depth == 0 {
		return nil
	}
	if e.depth != nil {
		return e.ctx.RestoreState(e.depth)
	}
	tokens := make([]llama.Token, e.test.Depth)
	e.seed(depth)
	e.draw(tokens)
	if _, err := e.ctx.Timed().Repetition(tokens, nil, e.now.Batch); err != nil {
		return fmt.Errorf("prefill of %d tokens: %w", e.test.Depth, err)
	}
	var err error
	e.depth, err = e.ctx.SaveState()
	return err
}

// What tokens are drawn for. Repetitions have numbers from 1 on.
const (
	warmup = 0
	depth  = -1
)

// seed seeds the random numbers for one pass of the current test. Every pass has
// its own seed, so its tokens do not depend on what ran before.
func (e *Engine) seed(pass int) {
	t := e.test
	e.pcg.Seed(e.job.Seed+uint64(pass)<<32, uint64(t.Prompt)<<40|uint64(t.Gen)<<20|uint64(t.Depth))
}

// Tokens is the number of tokens done of the running repetition. It may be called
// from any goroutine.
func (e *Engine) Tokens() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil {
		return 0
	}
	return e.ctx.Timed().TokensDone()
}

// drawFor draws the tokens of one pass. An end-to-end test has its text instead.
func (e *Engine) drawFor(pass int) {
	if e.test.E2E {
		return
	}
	e.seed(pass)
	e.draw(e.prompt)
	e.draw(e.gen)
}

// draw fills tokens as llama-bench does: BOS first if the vocabulary adds it, the
// others at random, uniform over the vocabulary. It allocates nothing.
func (e *Engine) draw(tokens []llama.Token) {
	f := e.model.Facts()
	for i := range tokens {
		tokens[i] = e.rng.Int32N(int32(f.Vocab))
	}
	if len(tokens) > 0 && f.AddBOS {
		tokens[0] = f.BOS
	}
}

// End frees the context and the threads of the current test, if there is one.
func (e *Engine) End() error {
	var errs []error
	e.mu.Lock()
	ctx := e.ctx
	e.ctx = nil
	e.mu.Unlock()
	e.do(func() {
		if e.depth != nil {
			e.depth.Close()
			e.depth = nil
		}
		e.endText()
		if ctx != nil {
			errs = append(errs, ctx.Close())
		}
		if e.pool != nil {
			errs = append(errs, e.pool.Close())
			e.pool = nil
		}
		if e.prefill != nil {
			errs = append(errs, e.prefill.Close())
			e.prefill = nil
		}
	})
	return errors.Join(errs...)
}

// Abort makes the running decode and all later ones return soon, until ClearAbort.
// It may be called from any goroutine.
func (e *Engine) Abort() { e.setAbort(true) }

// ClearAbort takes Abort back. It may be called from any goroutine.
func (e *Engine) ClearAbort() { e.setAbort(false) }

func (e *Engine) setAbort(abort bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.aborting = abort
	switch {
	case e.ctx == nil:
	case abort:
		e.ctx.Abort()
	default:
		e.ctx.ClearAbort()
	}
}

// Close frees everything and ends the engine's thread.
func (e *Engine) Close() error {
	errs := []error{e.End()}
	if e.model != nil {
		e.do(func() { errs = append(errs, e.model.Close()) })
		e.model = nil
	}
	e.stop()
	e.thread = nil
	return errors.Join(errs...)
}

// translate makes errors of the library match those of package bench.
func translate(err error) error {
	for _, m := range []struct{ from, to error }{
		{llama.ErrAborted, bench.ErrAborted},
		{llama.ErrCancelled, bench.ErrAborted},
		{llama.ErrOutOfMemory, bench.ErrOutOfMemory},
		{llama.ErrAllocCompute, bench.ErrOutOfMemory},
		{llama.ErrUnsupportedArchitecture, bench.ErrUnsupported},
		{llama.ErrDeviceLost, bench.ErrDeviceLost},
		{llama.ErrNoTokenizer, bench.ErrUnsupported},
	} {
		if errors.Is(err, m.from) {
			return &translated{err, m.to}
		}
	}
	return err
}

// translated is an error of the library that also matches one of package bench. Its
// text is the library's.
type translated struct{ error, class error }

func (t *translated) Error() string   { return t.error.Error() }
func (t *translated) Unwrap() []error { return []error{t.error, t.class} }

// Quantizer implements synth.Quantizer with ggml_quantize_chunk.
type Quantizer struct{}

var _ synth.Quantizer = Quantizer{}

// Quantize encodes rows of n values each as a ggml type.
func (Quantizer) Quantize(t gguf.Type, values []float32, n int) ([]byte, error) {
	return llama.Quantize(int32(t), values, n)
}
