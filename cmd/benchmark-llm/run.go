package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// runOptions are the flags of run.
type runOptions struct {
	selectOptions
	endToEndOptions
	global     *globalOptions
	format     string
	resultsDir string
	resume     string
	strict     bool
	noWarmup   bool
	allowCPU   bool
	requireGPU bool
	sampling   time.Duration
	settings   bench.Settings
	flashAttn  string

	host host.Facts // before anything runs
	gpus gpuVerdict
}

func newRunCommand(global *globalOptions) *cobra.Command {
	o := &runOptions{global: global, settings: bench.DefaultSettings(0)}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the default suite, or tests of one's own models",
		Long: `Run the default suite, or tests of one's own models, and print their records.

Without -m, --model-urls or --suite it is the default suite: six models from 135 M
to 70 B parameters, smallest first, eleven tests each, five repetitions. Files that
are not here are fetched in the background. A test gets a time budget by its length
and the model's size; tests that the measurements so far show to be hopeless are
not started, and larger models are not run after one that was too slow.

Where stdout is not a terminal it carries JSON lines that readers of llama-bench
understand, and nothing else; on a terminal it shows a table. Either way the
samples, events and records are in a directory of the run's own below
--results-dir.`,
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
	f.IntVarP(&s.Threads, "threads", "t", 0, "`number` of threads of the CPU back-end (default: physical cores allowed, here "+fmt.Sprint(host.DefaultThreads())+")")
	f.StringVarP(&o.format, "output", "o", "", "`form` of stdout: jsonl, json, csv, md, table (default: table on a terminal, else jsonl)")
	f.StringVar(&o.resultsDir, "results-dir", "", "`directory` below which the run's own is made (default: the user's state directory)")
	f.StringVar(&o.resume, "resume", "", "`directory` of a run that was interrupted: continue it where it stopped")
	f.BoolVar(&o.strict, "strict", false, "exit with 6 when a test has no record")
	f.BoolVar(&o.noWarmup, "no-warmup", false, "no untimed pass before the repetitions")
	f.IntVarP(&s.Batch, "batch-size", "b", s.Batch, "most `tokens` of one decode")
	f.IntVar(&s.UBatch, "ubatch-size", s.UBatch, "most `tokens` of one pass through the graph")
	f.StringVar(&s.TypeK, "cache-type-k", s.TypeK, "`type` of the K cache: "+strings.Join(kvTypes, ", "))
	f.StringVar(&s.TypeV, "cache-type-v", s.TypeV, "`type` of the V cache: the same")
	f.StringVar(&o.flashAttn, "flash-attn", "on", "`mode` of flash attention: on, off, auto")
	f.IntVar(&s.GPULayers, "n-gpu-layers", s.GPULayers, "`layers` to offload; -1: as many as fit beside the longest test's context")
	f.IntVar(&s.CPUMoE, "n-cpu-moe", 0, "`layers` whose experts stay on the CPU (default 0)")
	f.StringVar(&s.SplitMode, "split-mode", s.SplitMode, "`how` to split over GPUs: "+strings.Join(splitModes, ", "))
	f.IntVar(&s.MainGPU, "main-gpu", 0, "`index` of the device of split mode none (default 0)")
	f.Var((*sharesFlag)(&s.TensorSplit), "tensor-split", "`shares` of the model for the devices, as 3/1 (default: by their free memory)")
	f.Var((*devicesFlag)(&s.Devices), "device", "`devices` to offload to, as benchmark-llm devices names them: CUDA0/CUDA1, or none (default: all)")
	f.Var((*rpcFlag)(&s.RPC), "rpc", rpcUsage)
	f.BoolVar(&s.NoKVOffload, "no-kv-offload", false, "keep the KV cache in host memory")
	f.BoolVar(&s.NoOpOffload, "no-op-offload", false, "do not send operations on host tensors to a device")
	f.BoolVar(&s.NoHost, "no-host", false, "do not use the devices' pinned host memory")
	f.BoolVar(&s.NoRepack, "no-repack", false, "do not repack weights for the CPU")
	f.StringVar(&s.LoadMode, "load-mode", s.LoadMode, "`how` a file is loaded: "+strings.Join(loadModes, ", "))
	f.IntSliceVar(&s.CPUs, "cpus", nil, "logical `CPUs` to run on, as 0,1 (default: no affinity)")
	f.BoolVar(&s.CPUStrict, "cpu-strict", false, "one CPU of --cpus for each thread")
	f.IntVar(&s.Poll, "poll", s.Poll, "`level` of polling while threads wait, 0…100")
	f.IntVar(&s.Priority, "prio", 0, "`priority` of the threads: -1 low, 0 normal, 1 medium, 2 high, 3 realtime (default 0)")
	f.BoolVar(&o.allowCPU, "allow-cpu", false, "in a cuda build: measure the CPU when there is no CUDA device")
	f.DurationVar(&o.sampling, "gpu-sampling", gpuSampling, "`time` between readings of NVIDIA GPUs beside the tests; 0: none")
	f.BoolVar(&o.requireGPU, "require-gpu", false, "an error, before anything is fetched, when no GPU is used")
	return cmd
}

// The values of flags that name one of a few things; llamacpp knows the same.
var (
	kvTypes    = []string{"f16", "f32", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}
	splitModes = []string{"layer", "none", "row", "tensor"}
	loadModes  = []string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}
	flashModes = []string{"auto", "off", "on"} // in the order of -1, 0, 1
)

// check refuses what cannot be meant, before anything starts.
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
			if f.Changed && !slices.Contains([]string{"resume", "output", "strict", "token-times"}, f.Name) {
				others = append(others, "--"+f.Name)
			}
		})
		if len(others) > 0 {
			return usage("a run goes on as it was begun", "--resume: %s cannot be changed", strings.Join(others, ", "))
		}
	}
	s := &o.settings
	for _, c := range []struct {
		flag, value string
		allowed     []string
	}{
		{"--output", o.format, append([]string{""}, report.Formats()...)},
		{"--cache-type-k", s.TypeK, kvTypes},
		{"--cache-type-v", s.TypeV, kvTypes},
		{"--split-mode", s.SplitMode, splitModes},
		{"--load-mode", s.LoadMode, loadModes},
		{"--flash-attn", flashMode(o.flashAttn), flashModes},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return usage("one of "+strings.Trim(strings.Join(c.allowed, ", "), ", "), "%s: unknown value %q", c.flag, c.value)
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
		{"--threads", s.Threads, 1, cpus, fmt.Sprintf("this process may use %d CPUs; more threads than CPUs measure the scheduler", cpus)},
		{"--batch-size", s.Batch, 1, result.MaxTokens, "2048 is llama-bench's default"},
		{"--ubatch-size", s.UBatch, 1, result.MaxTokens, "512 is llama-bench's default"},
		{"--poll", s.Poll, 0, 100, "50 is llama-bench's default"},
		{"--prio", s.Priority, -1, 3, "0 is the normal priority"},
		{"--n-gpu-layers", s.GPULayers, -1, math.MaxInt32, "-1 offloads as many as fit"},
		{"--n-cpu-moe", s.CPUMoE, 0, 10_000, "0 keeps no experts on the CPU"},
		{"--main-gpu", s.MainGPU, 0, 1023, "benchmark-llm devices lists the devices"},
	} {
		if c.n < c.least || c.n > c.most {
			return usage(c.hint, "%s: %d is outside %d…%d", c.flag, c.n, c.least, c.most)
		}
	}
	if o.requireGPU && !s.Offloads() {
		return usage("leave one of the two out", "--require-gpu: --n-gpu-layers 0 and --device none offload nothing")
	}
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fail(exitNothing, fmt.Errorf("ask which CPUs may be used: %w", err), "")
	}
	for _, cpu := range s.CPUs {
		if !allowed.IsSet(cpu) {
			return usage(fmt.Sprintf("CPUs are numbered from 0; this process may use %d", cpus), "--cpus: there is no CPU %d for this process", cpu)
		}
	}
	if result.Weights(o.weights) == result.SyntheticWeights {
		if s.LoadMode != "auto" && s.LoadMode != "none" {
			return usage("leave --load-mode out", "--load-mode: %s is for files, synthetic weights are streamed", s.LoadMode)
		}
		s.LoadMode = "none" // a stream cannot be mapped: say so in the record
	}
	s.FlashAttn = slices.Index(flashModes, flashMode(o.flashAttn)) - 1
	s.Devices = strings.FieldsFunc(strings.Join(s.Devices, "/"), func(r rune) bool { return r == '/' }) // as llama-bench separates them
	return nil
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
		return libraryFailure(err)
	}
	out, err := newOutput(o.format, stdout)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer catchSignals(cancel, out.exitNow)()
	o.host = host.Collect("/")

	var models *models
	var dir *runDir
	var before resumed
	if o.resume != "" {
		models, dir, before, err = o.goOn(ctx)
	} else {
		models, dir, err = o.begin(ctx, s)
	}
	if dir != nil {
		defer dir.close()
	}
	if err != nil {
		return err
	}
	defer models.close()
	if format := before.about.Output; o.format == "" && format != "" {
		if out, err = newOutput(format, stdout); err != nil {
			return err
		}
	}
	times, err := o.create()
	if err != nil {
		return err
	}
	defer times.close() //nolint:errcheck // measure closes it, and looks
	return o.measure(ctx, models, dir, before, out, times, stdout, stderr)
}

// begin makes a new run ready.
func (o *runOptions) begin(ctx context.Context, s suite.Suite) (*models, *runDir, error) {
	if err := o.lookAtDevices(ctx); err != nil {
		return nil, nil, err
	}
	m, err := o.prepare(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	o.warnOfGPU(m)
	dir, err := createRunDir(o.resultsDir)
	if err != nil {
		m.close()
		return nil, nil, fail(exitOutput, fmt.Errorf("results directory: %w", err), elsewhere)
	}
	about := runDescription{
		runSpan: newSpan(os.Args), TimeLimit: o.timeLimit, Output: o.format, Jobs: m.jobs(), Host: o.host,
	}
	about.Selection, about.Sources = m.describe()
	if err := dir.describe(about); err != nil {
		m.close()
		return nil, dir, notKept(err)
	}
	return m, dir, nil
}

// goOn takes up an earlier run. What it measures is what that run was to.
func (o *runOptions) goOn(ctx context.Context) (*models, *runDir, resumed, error) {
	dir, before, err := openRunDir(o.resume)
	if err != nil {
		return nil, nil, before, err
	}
	about := before.about
	o.weights = about.Selection.Weights
	o.modelsDir, o.scale, o.timeout, o.downloadTime = about.Selection.ModelsDir, about.Selection.Scale, about.Selection.Timeout, about.Selection.DownloadTimeout
	o.timeLimit = about.TimeLimit
	o.settings = about.Jobs[0].Settings
	o.noWarmup, o.requireGPU = about.Jobs[0].NoWarmup, about.Jobs[0].RequireGPU
	if before.unfinished() > 0 {
		if err := o.lookAtDevices(ctx); err != nil {
			return nil, dir, before, err
		}
	}
	m, err := o.resumeModels(ctx, before)
	if err == nil {
		o.warnOfGPU(m)
	}
	return m, dir, before, err
}

// workers is how workers are run.
func (o *runOptions) workers() (supervise.Options, error) {
	level, err := o.global.level()
	if err != nil {
		return supervise.Options{}, err
	}
	workers, err := workersOf(level)
	workers.Env = o.workerEnv()
	return workers, err
}

// workersOf is how workers are run that log from a level on, in this process's
// environment.
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

// measure runs the models' jobs in workers and writes what comes of it.
func (o *runOptions) measure(ctx context.Context, models *models, dir *runDir, before resumed, out *output, times *tokenTimes, stdout, stderr io.Writer) error {
	workers, err := o.workers()
	if err != nil {
		return err
	}
	var deadline time.Time
	if o.timeLimit > 0 {
		deadline = started.Add(o.timeLimit)
	}

	show := newProgress(stderr, o.settings.Threads, deadline, models.fetching, o.global)
	show.several = len(models.all) > 1
	defer show.close()
	end := ending{dir: dir.path}
	account := &before.account
	account.Begin(started)
	event := func(e bench.Stamped) error {
		account.Add(e)
		end.event(e.Event)
		models.event(e.Event)
		show.event(e)
		return notKept(dir.event(e))
	}
	outcome := func(r *result.Outcome) error {
		end.outcome(r)
		models.outcome(r)
		show.outcome(r)
		kept := notKept(dir.outcome(r))
		out.write(r) // whatever the disk says: it was measured
		if kept != nil {
			return kept
		}
		return times.write(r)
	}
	models.emit = func(e bench.Event) error { return event(bench.Stamped{At: time.Now(), Event: e}) }
	models.deadline = deadline
	models.start()
	for i := range before.outcomes { // what is here already, for the reader of this run's stdout
		end.outcome(&before.outcomes[i])
		out.write(&before.outcomes[i])
		if err := times.write(&before.outcomes[i]); end.err == nil {
			end.err = err
		}
	}
	if end.err == nil {
		watch := watchGPUs(host.NVMLName, o.sampling, o.gpus.kernels)
		defer watch.close()
		workers.Deadline, workers.Observe, workers.Event, workers.Outcome = deadline, watch.observe, event, outcome
		workers.Downloaded = models.downloaded
		end.err = supervise.RunModels(ctx, models.jobs(), models.ready, workers)
	}
	models.close()
	show.close()
	accounting := account.Accounting(time.Now())
	for _, err := range []error{notKept(dir.finish(accounting)), times.close()} {
		if end.err == nil {
			end.err = err
		}
	}
	if isTerminal(stdout) && isTerminal(stderr) && !o.global.quiet {
		fmt.Fprintln(stderr) // between the log and the table
	}
	out.close()
	errors.As(context.Cause(ctx), &end.signal)
	end.accounting, end.missing = accounting, models.err
	return end.verdict(out, o.strict)
}

const elsewhere = "free disk space, or choose another place with --results-dir"

// notKept is a failure to write to the run's directory; nil when err is.
func notKept(err error) error {
	if err == nil {
		return nil
	}
	return fail(exitOutput, fmt.Errorf("results could not be kept: %w", err), elsewhere)
}

// ending is what decides how a run ended.
type ending struct {
	dir        string          // of the run
	model      string          // under way
	load       *bench.LoadDone // the last load that failed
	unloaded   string          // its model
	first      *result.Outcome // that was not measured
	incomplete int             // tests without a record
	missing    error           // why the last model without a file has none
	noGPU      string          // why the last record of a model was measured without the GPU that is there
	signal     *signalError    // that stopped the run
	accounting bench.Accounting
	err        error // that ended it early
}

func (n *ending) event(e bench.Event) {
	switch e := e.(type) {
	case bench.LoadStarted:
		n.model = e.Model.Name
	case bench.LoadDone:
		if e.Status != result.OK {
			n.load, n.unloaded = &e, n.model
		}
	}
}

func (n *ending) outcome(o *result.Outcome) {
	for _, w := range o.Warnings {
		if w.Code == bench.GPUNotUsed || w.Code == bench.NoGPU {
			n.noGPU = w.Message
		}
	}
	if o.Status == result.OK {
		return
	}
	n.incomplete++
	if n.first == nil {
		n.first = o
	}
}

// verdict is the error that says why nothing was printed; nil when a record
// was, for then only the log tells what went wrong. Strict makes an error of
// every test without a record.
func (n *ending) verdict(out *output, strict bool) error {
	trace := "each step is in " + filepath.Join(n.dir, "events.jsonl")
	if out.printed > 0 {
		if n.err != nil {
			slog.Error("the run ended early", "error", n.err)
		}
		if n.load != nil {
			slog.Error("not loaded", "model", n.unloaded, "reason", n.load.Reason)
		}
		if n.noGPU != "" {
			slog.Warn(n.noGPU)
		}
		done := []any{"records", out.printed}
		if n.incomplete > 0 {
			done = append(done, "tests_without", n.incomplete)
		}
		slog.Info("done", append(done, "directory", n.dir)...)
		slog.Info("wall time " + report.AccountingLine(n.accounting))
		if n.signal != nil && n.incomplete > 0 {
			slog.Info(n.goesOn())
		}
		switch {
		case !strict:
		case n.signal != nil:
			return n.signal.failure(fmt.Sprintf("%d tests have no record", n.incomplete), n.goesOn())
		case n.incomplete > 0 || n.err != nil:
			return fail(exitIncomplete, fmt.Errorf("%d tests have no record", n.incomplete), trace)
		}
		return nil
	}
	var f *failure
	switch {
	case errors.As(n.err, &f):
		return n.err
	case errors.Is(n.err, supervise.ErrEngine):
		return libraryFailure(n.err)
	case n.err != nil:
		return fail(exitNothing, n.err, trace)
	case out.err != nil:
		return fail(exitOutput, fmt.Errorf("stdout: %w", out.err), "the records are in "+filepath.Join(n.dir, "results.jsonl"))
	case n.signal != nil:
		return n.signal.failure("nothing was measured", n.goesOn())
	case n.load != nil:
		code := exitNothing
		if n.load.Reason == bench.NotOnGPU {
			return fail(exitLibrary, fmt.Errorf("%w: %s: %s", errNoGPU, n.unloaded, n.load.Reason), trace)
		}
		if n.load.Status == result.Unsupported || n.load.Status == result.Failed {
			code = exitModel
		}
		return fail(code, fmt.Errorf("%s not loaded: %s", n.unloaded, strings.TrimPrefix(n.load.Reason, n.unloaded+": ")), advice(n.load.Status, trace))
	case n.missing != nil:
		return downloadFailure(context.Background(), n.missing)
	case n.first != nil && n.first.Test.E2E && n.first.Status == result.Unsupported:
		return fail(exitModel, fmt.Errorf("%s of %s: %s", n.first.Test, n.first.Model, n.first.Reason),
			"--e2e needs a tokenizer and a context that is long enough; -p and -n need neither")
	case n.first != nil:
		return fail(exitNothing, fmt.Errorf("nothing was measured: %s of %s: %s", n.first.Test, n.first.Model, n.first.Reason),
			advice(n.first.Status, trace))
	default:
		return fail(exitNothing, errors.New("nothing was measured"), trace)
	}
}

// goesOn is how to continue a run that was interrupted.
func (n *ending) goesOn() string {
	return "benchmark-llm run --resume " + n.dir + " goes on where it stopped"
}

// advice is what may help against a status, and where to read more.
func advice(s result.Status, trace string) string {
	switch s {
	case result.Unsupported:
		return "a newer llama.cpp may know it; " + trace
	case result.OutOfMemory:
		return "shorter lengths or a smaller model need less memory; " + trace
	case result.Timeout:
		return "--timeout or --benchmark-timeout-scale give more time; " + trace
	default:
		return trace
	}
}

// signalError is the signal that ended the run.
type signalError struct{ signal syscall.Signal }

func (s *signalError) Error() string { return s.signal.String() }

// failure is the end of a command that had nothing to show when the signal came.
func (s *signalError) failure(what, hint string) error {
	return fail(exitSignal+int(s.signal), fmt.Errorf("%s: %w", what, s), hint)
}

// catchSignals ends the command on SIGINT, SIGTERM and SIGHUP, unless whoever
// started it has them ignored, as nohup does. A second one ends the process at
// once, and with it the worker, which notices; exitNow, if any, is the exit code
// then.
func catchSignals(cancel context.CancelCauseFunc, exitNow func(syscall.Signal) int) (stop func()) {
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	done := make(chan struct{})
	go func() {
		stopping := false
		for {
			select {
			case s := <-signals:
				sig := s.(syscall.Signal)
				if stopping {
					code := exitSignal + int(sig)
					if exitNow != nil {
						code = exitNow(sig)
					}
					os.Exit(code)
				}
				stopping = true
				slog.Warn("stopping; once more to stop at once", "signal", sig)
				cancel(&signalError{sig})
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}
