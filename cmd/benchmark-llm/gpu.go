package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// gpuFacts is what is known of GPUs before a model is fetched.
type gpuFacts struct {
	host    host.Facts
	node    bool     // /dev/nvidia0 is there, or another one
	hidden  bool     // the environment hides all of NVIDIA's from CUDA
	visible []string // what CUDA sees, as CUDA_VISIBLE_DEVICES names it; nil: all, by their index
	limited string   // why that is less than there is; empty: it is not
	named   bool     // the settings count devices, or name some
	engine  bench.EngineFacts
	cuda    *host.CUDACode // of the CUDA back-end; nil: not known
	cublas  *host.CUDACode // of cuBLAS; nil: not known
}

// How a GPU gets the kernels of the CUDA back-end.
const (
	nativeKernels = "native" // they are in the library
	ptxKernels    = "ptx"    // the driver compiles them at first use
)

// gpuVerdict is what those facts mean.
type gpuVerdict struct {
	unused  string            // why a GPU that is there is not used; empty: it is, or there is none
	left    []string          // names of devices on which nothing can run, and which the engine must not use
	visible string            // what CUDA_VISIBLE_DEVICES must be for that; empty: what it is
	kernels map[string]string // PCI address → nativeKernels or ptxKernels, where known
	doubts  []string          // of devices that are used beside others
	without string            // why some are left out beside others; empty: none is
	limited string            // why not all are used that are as good; empty: they are
}

// nvidia are the NVIDIA GPUs of the machine, whatever shows them.
func (f gpuFacts) nvidia() []host.GPU {
	return slices.DeleteFunc(slices.Clone(f.host.GPUs), func(g host.GPU) bool { return g.PCIVendor != "10de" })
}

// present tells whether there is an NVIDIA GPU, or a sign of one.
func (f gpuFacts) present() bool {
	return len(f.nvidia()) > 0 || f.node || f.host.NVMLProblem != ""
}

// judgeGPU tells whether the engine uses the machine's NVIDIA GPUs, and if not,
// why.
func judgeGPU(f gpuFacts) gpuVerdict {
	v := gpuVerdict{kernels: map[string]string{}, limited: f.limited}
	if f.limited != "" {
		v.visible = strings.Join(f.visible, ",")
	}
	here := slices.DeleteFunc(slices.Clone(f.engine.GPUs), func(g bench.EngineGPU) bool { return g.Backend == "RPC" })
	switch {
	case !f.present():
		return v
	case len(here) == 0:
		v.unused = strings.Join(f.absent(), "; ")
		return v
	}
	cuda := slices.DeleteFunc(slices.Clone(here), func(g bench.EngineGPU) bool { return g.Backend != "CUDA" })
	var unusable, usable []string
	for i, g := range cuda {
		kernels, problem, doubt := f.kernels(g)
		if g.Problem != "" {
			problem = "it gives no memory: " + g.Problem
		}
		if kernels != "" {
			v.kernels[g.PCIAddress] = kernels
		}
		switch {
		case problem != "":
			unusable = append(unusable, fmt.Sprintf("%s (%s): %s", g.Name, g.Model, problem))
			v.left = append(v.left, g.Name)
			continue
		case doubt != "":
			v.doubts = append(v.doubts, fmt.Sprintf("%s (%s): %s", g.Name, g.Model, doubt))
		}
		if f.visible == nil {
			usable = append(usable, strconv.Itoa(i))
		} else if i < len(f.visible) {
			usable = append(usable, f.visible[i])
		}
	}
	switch {
	case len(unusable) == 0:
	case len(unusable) == len(here):
		v.unused, v.visible = strings.Join(unusable, "; "), hiddenCUDA
	case f.named: // to leave one out would give the others new names
		v.left, v.doubts = nil, append(unusable, v.doubts...)
	default:
		v.visible, v.without = cmp.Or(strings.Join(usable, ","), hiddenCUDA), strings.Join(unusable, "; ")
	}
	return v
}

// warn tells of devices beside others that are used.
func (v gpuVerdict) warn() {
	if v.without != "" {
		slog.Warn("a GPU is there and is left out", "reason", v.without)
	}
	for _, d := range v.doubts {
		slog.Warn("a GPU may not work", "reason", d)
	}
}

// mostCUDA is how many NVIDIA GPUs are made visible to the engine: a context takes
// 15 devices beside the CPU (llama.MaxOffloadDevices), and more than 16 end the
// process that opens ggml's CUDA back-end (GGML_CUDA_MAX_DEVICES of ggml-cuda.h).
const mostCUDA = 15

// limit leaves out devices beyond those that the CUDA back-end takes.
func (f *gpuFacts) limit() {
	n := len(f.nvidia())
	if n <= mostCUDA || f.hidden || f.visible != nil {
		return
	}
	for i := range mostCUDA {
		f.visible = append(f.visible, strconv.Itoa(i))
	}
	f.limited = fmt.Sprintf("%d of %d NVIDIA GPUs used, the most that the library takes; CUDA_VISIBLE_DEVICES chooses others", mostCUDA, n)
}

// absent are the reasons why the engine lists no GPU of this machine.
func (f gpuFacts) absent() []string {
	var reasons []string
	driver := slices.ContainsFunc(f.nvidia(), func(g host.GPU) bool { return g.Driver == "nvidia" && g.DriverVersion != "" })
	switch {
	case f.host.NVMLProblem != "":
		reasons = append(reasons, "the driver's library does not work: "+f.host.NVMLProblem)
	case !driver && !f.node:
		reasons = append(reasons, "no NVIDIA driver is loaded, or none reaches this container")
	}
	if f.hidden {
		reasons = append(reasons, "CUDA_VISIBLE_DEVICES names none")
	}
	if f.engine.CUDAModule == "" {
		reasons = append(reasons, "the CUDA back-end (libggml-cuda.so) is not installed, or not opened by this build")
	}
	for _, p := range f.engine.Problems {
		if strings.Contains(strings.ToLower(p), "cuda") {
			reasons = append(reasons, p)
		}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, "the CUDA back-end lists no device")
	}
	return reasons
}

// kernels tells how a device gets its kernels, and why it cannot or may not, as
// far as that is known.
func (f gpuFacts) kernels(device bench.EngineGPU) (kernels, problem, doubt string) {
	i := slices.IndexFunc(f.host.GPUs, func(g host.GPU) bool { return g.PCIAddress == device.PCIAddress && g.PCIAddress != "" })
	if i < 0 || f.cuda == nil {
		return "", "", ""
	}
	g := f.host.GPUs[i]
	capability, known := host.ParseCapability(g.ComputeCapability)
	if !known {
		return "", "", ""
	}
	switch {
	case f.cuda.Native(capability):
		kernels = nativeKernels
	case f.cuda.Compiles(capability):
		kernels = ptxKernels
		needs, known := f.cuda.Driver()
		knows, told := host.ParseCapability(g.CUDAVersion)
		if known && told && knows.Compare(needs) < 0 {
			return kernels, fmt.Sprintf("its driver %s knows CUDA %v, and kernels for compute capability %v must be compiled by one for CUDA %v or newer",
				g.DriverVersion, knows, capability, needs), ""
		}
	default:
		return "", fmt.Sprintf("the CUDA back-end has no kernels for compute capability %v", capability), ""
	}
	switch {
	case f.cublas == nil || f.cublas.Native(capability):
		return kernels, "", ""
	case f.cublas.Compiles(capability):
		return kernels, "", fmt.Sprintf("the cuBLAS at hand is older than compute capability %v and has no machine code for it", capability)
	default:
		return kernels, fmt.Sprintf("the cuBLAS at hand does not know compute capability %v", capability), ""
	}
}

// nvidiaNodes are the nodes of NVIDIA's devices. A container has those of its own,
// which need not be the first.
const nvidiaNodes = "/dev/nvidia[0-9]*"

// gpuFactsHere are those that need no engine.
func gpuFactsHere(facts host.Facts) gpuFacts {
	f := gpuFacts{host: facts}
	nodes, err := filepath.Glob(nvidiaNodes)
	f.node = err == nil && len(nodes) > 0
	visible, set := os.LookupEnv("CUDA_VISIBLE_DEVICES")
	f.hidden = set && (visible == "" || visible[0] == '-') // an index that is none ends the list
	if set && !f.hidden {
		f.visible = strings.Split(visible, ",")
	}
	return f
}

// with adds what the engine and the files of its libraries tell.
func (f gpuFacts) with(engine bench.EngineFacts) gpuFacts {
	f.engine = engine
	read := func(path string) *host.CUDACode {
		if path == "" {
			return nil
		}
		code, err := host.ReadCUDACode(path)
		if err != nil {
			slog.Debug("which GPUs a library has kernels for is not known", "error", err)
			return nil
		}
		return &code
	}
	if len(engine.GPUs) > 0 {
		f.cuda, f.cublas = read(engine.CUDAModule), read(engine.CUBLASModule)
	}
	return f
}

// look asks a worker about its engine, with a job's settings, and judges the
// machine's GPUs by it. A back-end ends the process where it cannot open a device:
// where there is a GPU, a worker that was lost is asked again with the GPU hidden.
// opened is CUDA_VISIBLE_DEVICES as the worker had it; empty: as it is.
func (f gpuFacts) look(ctx context.Context, job bench.Job, workers supervise.Options) (engine bench.EngineFacts, opened string, v gpuVerdict, err error) {
	if f.limit(); f.limited != "" {
		opened = strings.Join(f.visible, ",")
	}
	ask := func() (bench.EngineFacts, error) {
		with := workers
		if opened != "" {
			with.Env = append(slices.Clone(workers.Env), visibleCUDA+"="+opened)
		}
		return supervise.Probe(ctx, job, with)
	}
	if engine, err = ask(); err == nil {
		return engine, opened, judgeGPU(f.with(engine)), nil
	}
	if errors.Is(err, supervise.ErrEngine) || errors.Is(err, supervise.ErrStart) || ctx.Err() != nil || !f.present() {
		return engine, opened, v, err
	}
	v = gpuVerdict{unused: "it cannot be opened: " + err.Error(), visible: hiddenCUDA}
	opened = hiddenCUDA
	if engine, err = ask(); err != nil {
		err = fmt.Errorf("%w; a GPU is left out: %s", err, v.unused)
	}
	return engine, opened, v, err
}

// How CUDA is told which devices there are; none by an index that is none.
const (
	visibleCUDA = "CUDA_VISIBLE_DEVICES"
	hiddenCUDA  = "-1"
)

// errNoGPU is a run that was to be on a GPU and cannot.
var errNoGPU = errors.New("no GPU is used")

// lookAtDevices finds out, before anything is fetched, whether the devices that
// the settings speak of are there, and whether the engine uses the machine's
// GPUs. Where the settings name none, no GPU shows and none is required, it costs
// nothing: the engine is not asked. A GPU that ends the engine's process is hidden
// from workers, also from those that need none.
func (o *runOptions) lookAtDevices(ctx context.Context) error {
	s := o.settings
	refused := func(err error) error {
		var stopped *signalError
		if errors.As(context.Cause(ctx), &stopped) {
			return stopped.failure("nothing was measured", "")
		}
		return libraryFailure(err)
	}
	if err := llamacpp.CheckRPC(ctx, s.RPC); err != nil { // without the cost of a worker
		return refused(err)
	}
	facts := gpuFactsHere(o.host)
	facts.named = len(s.Devices) > 0 || len(s.TensorSplit) > 0 || s.MainGPU > 0
	offloads := s.Offloads()
	if len(s.RPC) == 0 && !facts.named && !facts.present() && !(offloads && o.requireGPU) {
		return nil
	}
	workers, err := o.workers()
	if err != nil {
		return err
	}
	engine, _, verdict, err := facts.look(ctx, bench.Job{Settings: s, AllowCPU: o.allowCPU}, workers)
	switch {
	case errors.Is(err, supervise.ErrEngine) || ctx.Err() != nil:
		return refused(err)
	case err != nil:
		return fail(exitLibrary, fmt.Errorf("ask for the devices: %w", err), "benchmark-llm devices lists the devices")
	case !offloads: // single operations may go there all the same
		o.gpus.visible = verdict.visible
		return nil
	}
	o.gpus = verdict
	reason := o.gpus.unused
	if reason == "" && len(engine.GPUs) == 0 {
		reason = "the library lists none"
		if without := engine.WithoutCUDA(); without != "" {
			reason = "the CUDA back-end has no device: " + without
		}
	}
	switch {
	case o.requireGPU && reason != "":
		hint := "leave --require-gpu out to measure the CPU"
		if engine.CUDAModule == "" {
			hint = "`make cuda build` builds it with the CUDA back-end; " + hint
		}
		return fail(exitLibrary, fmt.Errorf("%w: %s", errNoGPU, reason), hint)
	case o.gpus.unused != "":
		slog.Warn("a GPU is there and is NOT used: this measures the CPU", "reason", o.gpus.unused)
	}
	o.gpus.warn()
	if o.gpus.limited != "" {
		slog.Warn(o.gpus.limited, "warning", bench.DevicesLimited)
	}
	return nil
}

// warnOfGPU puts the verdict into the jobs, whose records will carry it, and
// takes away that of an earlier run.
func (o *runOptions) warnOfGPU(m *models) {
	for i := range m.all {
		job := &m.all[i].job
		job.RequireGPU = o.requireGPU
		job.Warnings = slices.DeleteFunc(slices.Clone(job.Warnings), func(w result.Warning) bool {
			return w.Code == bench.GPUNotUsed || w.Code == bench.DevicesLimited
		})
		if o.gpus.limited != "" {
			job.Warnings = append(job.Warnings, result.Warning{Code: bench.DevicesLimited, Message: o.gpus.limited})
		}
		if o.gpus.without != "" {
			job.Warnings = append(job.Warnings, result.Warning{Code: bench.GPUNotUsed, Message: "measured without a GPU that is there: " + o.gpus.without})
		}
		if o.gpus.unused != "" {
			job.Warnings = append(job.Warnings, result.Warning{Code: bench.GPUNotUsed, Message: "measured on the CPU, though there is a GPU: " + o.gpus.unused})
		}
	}
}

// The driver's cache of compiled kernels: beside the models, which outlive a
// container, and as large as the driver allows, because kernels that do not fit
// are compiled again in every process.
const (
	cudaCacheDir   = "cuda-cache"
	cudaCacheBytes = 4 << 30
)

// workerEnv is what workers find in their environment beside this process's, the
// directory of the driver's cache among it, which it makes.
func (o *runOptions) workerEnv() []string {
	// ggml's own backtrace starts gdb, if there is one, in a process that is about
	// to end.
	env := []string{"GGML_NO_BACKTRACE=1"}
	if o.gpus.visible != "" {
		env = append(env, visibleCUDA+"="+o.gpus.visible)
	}
	if !(gpuFacts{host: o.host}).present() {
		return env
	}
	cache, set := os.LookupEnv("CUDA_CACHE_PATH")
	if !set {
		cache = filepath.Join(o.downloadDir(), cudaCacheDir)
		env = append(env, "CUDA_CACHE_PATH="+cache)
	}
	if _, set := os.LookupEnv("CUDA_CACHE_MAXSIZE"); !set {
		env = append(env, "CUDA_CACHE_MAXSIZE="+strconv.FormatInt(cudaCacheBytes, 10))
	}
	// What the driver makes of a path that is not there is not documented.
	if err := os.MkdirAll(cache, 0o755); err != nil {
		slog.Debug("kernels that the driver compiles are not kept", "error", err)
	}
	return env
}
