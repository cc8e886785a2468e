package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/rundir"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// runOptions are the flags of run.
type runOptions struct {
	selectOptions
	endToEndOptions
	global       *globalOptions
	format       string
	resultsDir   string
	resume       string
	strict       bool
	noWarmup     bool
	allowCPU     bool
	requireGPU   bool
	sampling     time.Duration
	waitQuiet    time.Duration // 0: do not wait
	requireQuiet bool
	settings     bench.Settings
	flashAttn    string

	host host.Facts // before anything runs
	gpus gpu.Usage
}

func newRunCommand(global *globalOptions) *cobra.Command {
	o := &runOptions{global: global, settings: bench.DefaultSettings(0)}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Measure the default suite, or tests of your own models",
		Long: `Measure the default suite, or tests of your own models, and print the records.

Without -m, --model-urls or --suite, run measures the default suite: six models
from 135 M to 70 B parameters, smallest first, eleven tests each, five repetitions.
Missing files are downloaded in the background. Each test has a time budget. A test
that cannot finish within its budget is skipped or stopped. After a model that was
too slow, larger models are skipped.

Records are printed as JSON lines in llama-bench's format, or on a terminal as a
table. Nothing else is printed to stdout. Each run also writes its samples, events
and records to a directory of its own below --results-dir.`,
		Example: `  benchmark-llm run
  benchmark-llm run --weights synthetic --time-limit 20m
  benchmark-llm run -m model.gguf -p 16,128,512 -n 0 -o md`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	s := &o.settings
	o.selectOptions.register(f)
	o.endToEndOptions.register(f)
	inGroup(f, groupHow, func() {
		f.BoolVar(&o.noWarmup, "no-warmup", false, "skip the untimed pass before the repetitions")
		f.DurationVar(&o.waitQuiet, "wait-quiet", 0, "wait until the machine is quiet, at most this `time` (default 0s)")
		f.BoolVar(&o.requireQuiet, "require-quiet", false, "exit with code 7 if the machine is busy")
		f.IntVarP(&s.Batch, "batch-size", "b", s.Batch, "logical batch size in `tokens`: the maximum of one decode")
		f.IntVar(&s.UBatch, "ubatch-size", s.UBatch, "physical batch size in `tokens`: the maximum of one computation")
		f.StringVar(&s.TypeK, "cache-type-k", s.TypeK, "`type` of the K cache: "+strings.Join(kvTypes, ", "))
		f.StringVar(&s.TypeV, "cache-type-v", s.TypeV, "`type` of the V cache: the same values")
		f.StringVar(&o.flashAttn, "flash-attn", "on", "flash attention `mode`: on, off, auto")
		f.StringVar(&s.LoadMode, "load-mode", s.LoadMode, "load `mode` of model files: "+strings.Join(loadModes, ", "))
	})
	inGroup(f, groupWhere, func() {
		f.IntVarP(&s.Threads, "threads", "t", 0, "`number` of CPU threads (default: allowed physical cores, here "+fmt.Sprint(host.DefaultThreads())+")")
		f.IntVar(&s.GPULayers, "n-gpu-layers", s.GPULayers, "`layers` to offload; -1: as many as fit beside the longest test's context")
		f.Var((*devicesFlag)(&s.Devices), "device", "`devices` to offload to, as benchmark-llm devices names them: CUDA0/CUDA1, or none (default: all)")
		f.StringVar(&s.SplitMode, "split-mode", s.SplitMode, "split `mode` across GPUs: "+strings.Join(splitModes, ", "))
		f.Var((*sharesFlag)(&s.TensorSplit), "tensor-split", "`shares` of the model for each device, as 3/1 (default: by free memory)")
		f.IntVar(&s.MainGPU, "main-gpu", 0, "`index` of the device for split mode none (default 0)")
		f.Var((*rpcFlag)(&s.RPC), "rpc", rpcUsage)
		f.BoolVar(&o.requireGPU, "require-gpu", false, "fail if no GPU is used, before any download where that is known")
		f.BoolVar(&o.allowCPU, "allow-cpu", false, "with a CUDA build: measure the CPU if there is no CUDA device")
	})
	inGroup(f, groupOutput, func() {
		f.StringVarP(&o.format, "output", "o", "", "output `format` of stdout: jsonl, json, csv, md, table (default: table on a terminal, else jsonl)")
		f.StringVar(&o.resultsDir, "results-dir", "", "`directory` in which each run makes its own (default: the user's state directory)")
		f.StringVar(&o.resume, "resume", "", "`directory` of an interrupted run to continue")
		f.BoolVar(&o.strict, "strict", false, "exit with code 6 if a test has no record")
	})
	inGroup(f, groupAdvanced, func() {
		f.IntVar(&s.CPUMoE, "n-cpu-moe", 0, "`layers` whose experts stay on the CPU (default 0)")
		f.BoolVar(&s.NoKVOffload, "no-kv-offload", false, "keep the KV cache in host memory")
		f.BoolVar(&s.NoOpOffload, "no-op-offload", false, "do not send operations on host tensors to a device")
		f.BoolVar(&s.NoHost, "no-host", false, "do not use the devices' pinned host memory")
		f.BoolVar(&s.NoRepack, "no-repack", false, "do not repack weights for the CPU")
		f.IntSliceVar(&s.CPUs, "cpus", nil, "logical `CPUs` to run on, as 0,1 (default: no affinity)")
		f.BoolVar(&s.CPUStrict, "cpu-strict", false, "pin each thread to one CPU of --cpus")
		f.IntVar(&s.Poll, "poll", s.Poll, "polling `level` of waiting threads, 0…100")
		f.IntVar(&s.Priority, "prio", 0, "thread `priority`: -1 low, 0 normal, 1 medium, 2 high, 3 realtime (default 0)")
		f.DurationVar(&o.sampling, "gpu-sampling", gpu.DefaultInterval, "`time` between readings of NVIDIA GPUs during tests; 0s: none")
	})
	return cmd
}

// The allowed values of flags. bench/llamacpp maps the same names to the library's values.
var (
	kvTypes    = []string{"f16", "f32", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}
	splitModes = []string{"layer", "none", "row", "tensor"}
	loadModes  = []string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}
	flashModes = []string{"auto", "off", "on"} // in the order of -1, 0, 1
)

// changeable are the flags that may be given with --resume. None of them changes what
// is measured.
var changeable = []string{"resume", "output", "strict", "token-times", "wait-quiet", "require-quiet", "log-level", "log-format", "quiet"}

// check refuses invalid values, before anything starts.
func (o *runOptions) check() error {
	if err := o.selectOptions.check(); err != nil {
		return err
	}
	if err := o.endToEndOptions.check(); err != nil {
		return err
	}
	if o.resume != "" {
		var others []string
		o.flags.VisitAll(func(f *pflag.Flag) {
			if f.Changed && !slices.Contains(changeable, f.Name) {
				others = append(others, "--"+f.Name)
			}
		})
		if len(others) > 0 {
			return usage("leave them out: a resumed run keeps its settings", "--resume: %s cannot be changed", strings.Join(others, ", "))
		}
	}
	s := &o.settings
	for _, c := range []struct {
		flag, value string
		allowed     []string
	}{
		{"--output", cmp.Or(o.format, report.Formats()[0]), report.Formats()},
		{"--cache-type-k", s.TypeK, kvTypes},
		{"--cache-type-v", s.TypeV, kvTypes},
		{"--split-mode", s.SplitMode, splitModes},
		{"--load-mode", s.LoadMode, loadModes},
		{"--flash-attn", flashMode(o.flashAttn), flashModes},
	} {
		if err := oneOf(c.flag, c.value, c.allowed); err != nil {
			return err
		}
	}
	cpus := runtime.NumCPU()
	if s.Threads == 0 {
		s.Threads = host.DefaultThreads()
	}
	for _, c := range []struct {
		flag        string
		n           int
		least, most int
		hint        string
	}{
		// More threads than CPUs would measure the scheduler. llama-bench allows them.
		{"--threads", s.Threads, 1, cpus, "use at most the " + count(cpus, "CPU") + " of this process"},
		{"--batch-size", s.Batch, 1, result.MaxTokens, "try 2048, llama-bench's default"},
		{"--ubatch-size", s.UBatch, 1, result.MaxTokens, "try 512, llama-bench's default"},
		{"--poll", s.Poll, 0, 100, "try 50, llama-bench's default"},
		{"--prio", s.Priority, -1, 3, "try 0, the normal priority"},
		{"--n-gpu-layers", s.GPULayers, -1, math.MaxInt32, "use -1 for as many as fit"},
		{"--n-cpu-moe", s.CPUMoE, 0, 10_000, "use 0 to keep no experts on the CPU"},
		{"--main-gpu", s.MainGPU, 0, 1023, devicesHint},
	} {
		if c.n < c.least || c.n > c.most {
			return usage(c.hint, "%s: %d is outside %d…%d", c.flag, c.n, c.least, c.most)
		}
	}
	if o.waitQuiet < 0 {
		return usage("use 0s not to wait", "--wait-quiet: %v is negative", o.waitQuiet)
	}
	if o.requireGPU && !s.Offloads() {
		return usage("leave one of the two out", "--require-gpu: --n-gpu-layers 0 and --device none offload nothing")
	}
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fail(exitNothing, fmt.Errorf("get the CPU affinity: %w", err), "")
	}
	for _, cpu := range s.CPUs {
		if !allowed.IsSet(cpu) {
			return usage("taskset -cp $$ lists the CPUs that may be used", "--cpus: there is no CPU %d for this process", cpu)
		}
	}
	if acquire.Weights(o.weights) == acquire.Synthetic {
		if s.LoadMode != "auto" && s.LoadMode != "none" {
			return usage("leave --load-mode out", "--load-mode: %s needs a file, and synthetic weights have none", s.LoadMode)
		}
		s.LoadMode = "none" // a stream cannot be mapped, and the record must say so
	}
	s.FlashAttn = slices.Index(flashModes, flashMode(o.flashAttn)) - 1
	s.Devices = strings.FieldsFunc(strings.Join(s.Devices, "/"), func(r rune) bool { return r == '/' }) // as llama-bench separates them
	return nil
}

// prepared is a run that is ready to measure.
type prepared struct {
	dir     *rundir.Dir
	models  *acquire.Models
	account record.Account   // of earlier processes of this run
	earlier []result.Outcome // final outcomes of earlier processes
	format  string           // of stdout in the first process; empty: not given
}

func (o *runOptions) run(stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	var s suite.Suite
	var err error
	if o.resume == "" {
		if s, err = o.suite(); err != nil {
			return err
		}
	}
	if err := o.readPrompt(); err != nil {
		return err
	}
	if _, err := llamacpp.Version(); err != nil {
		return err
	}
	out, err := newOutput(o.format, stdout)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(out.exitNow)
	defer stop()
	o.host = host.Collect("/")

	var p prepared
	if o.resume != "" {
		p, err = o.goOn(ctx)
	} else {
		p, err = o.begin(ctx, s)
	}
	if p.dir != nil {
		defer p.dir.Close()
	}
	if p.models != nil {
		defer p.models.Close()
	}
	if err != nil {
		return causeOf(ctx, "nothing was measured", err)
	}
	if o.format == "" && p.format != "" {
		if err := out.use(p.format, stdout); err != nil { // the same output: signals ask it for the exit code
			return err
		}
	}
	return o.measure(ctx, p, out, stdout, stderr)
}

// span describes this process, one of those of a run.
func span() rundir.Span {
	return rundir.Span{Version: versionLine(), Program: version, Command: os.Args, Started: started.UTC()}
}

// acquireOptions returns how models are acquired with these flags.
func (o *runOptions) acquireOptions() acquire.Options {
	var deadline time.Time
	if o.timeLimit > 0 {
		deadline = started.Add(o.timeLimit)
	}
	e2e := o.endToEnd
	return acquire.Options{
		Finder: o.finder(),
		Job: bench.Job{
			NoWarmup: o.noWarmup, Seed: o.seed, Settings: o.settings, AllowCPU: o.allowCPU, RequireGPU: o.requireGPU,
			Warnings: o.gpus.Warnings(), E2E: &e2e,
		},
		Timeout: o.timeout(), Scale: o.scale, DownloadTime: o.downloadTime, Deadline: deadline,
		SpareCPUs: runtime.NumCPU() > o.settings.Threads,
		OnDevices: o.settings.Offloads() && (len(o.settings.RPC) > 0 || machineGPUs(o.host).MayHold(o.gpus.UnusedReason)),
	}
}

// begin prepares a new run.
func (o *runOptions) begin(ctx context.Context, s suite.Suite) (p prepared, err error) {
	if err := o.askDevices(ctx); err != nil {
		return p, err
	}
	a := o.acquireOptions()
	a.Job.Repetitions = s.Repetitions
	if p.models, err = acquire.New(ctx, s, a); err != nil {
		return p, err
	}
	if err := o.checkQuiet(ctx); err != nil {
		return p, err
	}
	if p.dir, err = rundir.Create(o.resultsDir); err != nil {
		return p, err
	}
	about := rundir.Description{
		Span: span(), TimeLimit: o.timeLimit, Output: o.format, Jobs: p.models.Jobs(), Host: o.host,
		Selection: rundir.Selection{
			Suite: s, Weights: o.weights, ModelsDir: a.Dirs.Download, Scale: o.scale, Timeout: a.Timeout, DownloadTimeout: o.downloadTime,
			GPUSampling: &o.sampling,
		},
	}
	var from []string
	about.Selection.Suite.Models, from = p.models.Wanted()
	for i, m := range about.Selection.Suite.Models {
		about.Sources = append(about.Sources, rundir.Source{Source: from[i], SHA256: m.Source.SHA256})
	}
	return p, p.dir.Describe(about)
}

// goOn prepares to continue an earlier run with its settings.
func (o *runOptions) goOn(ctx context.Context) (p prepared, err error) {
	dir, about, left, err := rundir.Open(o.resume, span())
	if err != nil {
		return p, err
	}
	p = prepared{dir: dir, account: left.Account, earlier: left.Outcomes, format: about.Output}
	o.weights = about.Selection.Weights
	o.modelsDir, o.scale, o.downloadTime = about.Selection.ModelsDir, about.Selection.Scale, about.Selection.DownloadTimeout
	o.timeLimit = about.TimeLimit
	o.settings = about.Jobs[0].Settings
	o.noWarmup, o.allowCPU, o.requireGPU = about.Jobs[0].NoWarmup, about.Jobs[0].AllowCPU, about.Jobs[0].RequireGPU
	if s := about.Selection.GPUSampling; s != nil {
		o.sampling = *s
	}
	if left.Unfinished() > 0 {
		if err := o.askDevices(ctx); err != nil {
			return p, err
		}
		if err := o.checkQuiet(ctx); err != nil {
			return p, err
		}
	}
	a := o.acquireOptions()
	a.Timeout = about.Selection.Timeout
	var models []acquire.Interrupted
	for i, job := range left.Jobs {
		m := acquire.Interrupted{Wanted: about.Selection.Suite.Models[i], Job: job}
		if i < len(about.Sources) {
			m.Source = about.Sources[i].Source
		}
		m.Job.RequireGPU, m.Job.Warnings = o.requireGPU, o.gpus.Replace(job.Warnings)
		models = append(models, m)
	}
	p.models, err = acquire.Resume(ctx, about.Selection.Suite, models, a)
	return p, err
}

// workers returns how workers are run.
func (o *runOptions) workers() (supervise.Options, error) {
	level, err := o.global.level()
	if err != nil {
		return supervise.Options{}, err
	}
	workers, err := workersOf(level)
	workers.Env = o.workerEnv()
	return workers, err
}

// workersOf returns how workers are run that log from level on and have this
// process's environment.
func workersOf(level slog.Level) (supervise.Options, error) {
	worker, err := os.Executable()
	if err != nil {
		return supervise.Options{}, fail(exitNothing, err, "")
	}
	return supervise.Options{
		Command:  []string{worker, "worker", "--log-level", level.String()},
		Version:  version,
		OOMKills: func() (uint64, bool) { return host.OOMKills("/") },
		Log:      slog.Default(),
	}, nil
}

// measure runs the models' jobs in workers and passes events and outcomes to the
// consumers.
func (o *runOptions) measure(ctx context.Context, p prepared, out *output, stdout, stderr io.Writer) error {
	workers, err := o.workers()
	if err != nil {
		return err
	}
	times, err := o.createTokenTimes()
	if err != nil {
		return err
	}
	defer times.close() //nolint:errcheck // its error is checked below
	if o.timeLimit > 0 {
		workers.Deadline = started.Add(o.timeLimit)
	}
	jobs := p.models.Jobs()
	show := newProgress(stderr, o.settings.Threads, workers.Deadline, p.models.Downloading, o.global)
	show.several = len(jobs) > 1
	defer show.close()
	end := newSummary(p.dir)
	account := &p.account
	account.Begin(started)

	// stdout comes after the directory, and gets a record even if the directory failed.
	workers.Consumers = supervise.Consumers{account, end, p.models, show, p.dir, out, times}
	p.models.Emit = func(e bench.Event) error { return workers.Consumers.Event(bench.Stamped{At: time.Now(), Event: e}) }
	p.models.Start()
	for i := range p.earlier { // the reader of stdout gets earlier records too
		if err := (supervise.Consumers{end, out, times}).Outcome(&p.earlier[i]); err != nil && end.err == nil {
			end.err = err
		}
	}
	if end.err == nil {
		watch := gpu.Watch(gpu.NVMLName, o.sampling, o.gpus.Kernels)
		defer watch.Close()
		meter := host.NewMeter("/", o.settings.CPUs)
		defer meter.Close()
		workers.Meter = meter
		workers.Observe, workers.Downloaded = watch.Observe, p.models.Downloaded
		end.err = supervise.RunModels(ctx, jobs, p.models.Ready, workers)
	}
	p.models.Close()
	show.close()
	end.accounting, end.missing = account.Accounting(time.Now()), p.models.Missing()
	for _, err := range []error{p.dir.Finish(end.accounting), times.close()} {
		if end.err == nil {
			end.err = err
		}
	}
	if isTerminal(stdout) && isTerminal(stderr) && !o.global.quiet {
		fmt.Fprintln(stderr) // between the log and the table
	}
	out.close()
	end.stopped(ctx)
	return end.result(out, o.strict)
}
