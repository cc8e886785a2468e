package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// runOptions are the flags of run.
type runOptions struct {
	global      *globalOptions
	model       string
	weights     string
	modelsDir   string
	prompt, gen lengthsFlag
	depth       lengthsFlag
	combined    pairsFlag
	repetitions int
	timeout     time.Duration
	timeoutSet  bool
	scale       float64
	format      string
	resultsDir  string
	noWarmup    bool
	allowCPU    bool
	seed        uint64
	settings    bench.Settings
	flashAttn   string
}

func newRunCommand(global *globalOptions) *cobra.Command {
	o := &runOptions{
		global: global,
		prompt: lengthsFlag{values: []int{512}}, gen: lengthsFlag{values: []int{128}}, depth: lengthsFlag{values: []int{0}},
		settings: bench.DefaultSettings(0),
	}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run tests of a model",
		Long: `Run tests of a model and print their records.

Where stdout is not a terminal it carries JSON lines that readers of llama-bench
understand, and nothing else; on a terminal it shows a table. Either way the
samples, events and records are in a directory of the run's own below
--results-dir.`,
		Example: `  benchmark-llm run -m SmolLM-135M.Q4_K_M.gguf --weights synthetic
  benchmark-llm run -m model.gguf -p 16,128,512 -n 0 -o md`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.timeoutSet = cmd.Flags().Changed("timeout")
			return o.run(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	s := &o.settings
	f.StringVarP(&o.model, "model", "m", "", "model: `path` or https URL of a GGUF file, hf:user/repository/file[@revision],\nor a default model's file name")
	f.StringVar(&o.weights, "weights", "file", "`source` of the weights: file, synthetic (a default model's shape, no file needed)")
	f.StringVar(&o.modelsDir, "models-dir", "", "`directory` of default models (default: /models, else the user's cache)")
	f.VarP(&o.prompt, "n-prompt", "p", "prompt lengths in tokens, a test each: 16,128 or 16-512*2; 0: none")
	f.VarP(&o.gen, "n-gen", "n", "generation lengths in tokens, a test each; 0: none")
	f.Var(&o.combined, "pg", "combined test of a prompt and a generation, as 512,128; may be repeated")
	f.VarP(&o.depth, "n-depth", "d", "tokens in the KV cache before each test, not timed (default 0)")
	f.IntVarP(&o.repetitions, "repetitions", "r", 5, "`number` of timed repetitions of each test, 1…10000")
	f.IntVarP(&s.Threads, "threads", "t", 0, "`number` of threads of the CPU back-end (default: physical cores allowed, here "+fmt.Sprint(host.DefaultThreads())+")")
	f.DurationVar(&o.timeout, "timeout", 0, "time limit of each test, as 90s or 5m; 0s: none (default: by size and length)")
	f.Float64Var(&o.scale, "benchmark-timeout-scale", 1, "`factor` on the default time limits, above 0")
	f.StringVarP(&o.format, "output", "o", "", "`form` of stdout: jsonl, json, csv, md, table (default: table on a terminal, else jsonl)")
	f.StringVar(&o.resultsDir, "results-dir", "", "`directory` below which the run's own is made (default: the user's state directory)")
	f.BoolVar(&o.noWarmup, "no-warmup", false, "no untimed pass before the repetitions")
	f.IntVarP(&s.Batch, "batch-size", "b", s.Batch, "most `tokens` of one decode")
	f.IntVar(&s.UBatch, "ubatch-size", s.UBatch, "most `tokens` of one pass through the graph")
	f.StringVar(&s.TypeK, "cache-type-k", s.TypeK, "`type` of the K cache: "+strings.Join(kvTypes, ", "))
	f.StringVar(&s.TypeV, "cache-type-v", s.TypeV, "`type` of the V cache: the same")
	f.StringVar(&o.flashAttn, "flash-attn", "on", "`mode` of flash attention: on, off, auto")
	f.IntVar(&s.GPULayers, "n-gpu-layers", s.GPULayers, "`layers` to offload; -1: all")
	f.IntVar(&s.CPUMoE, "n-cpu-moe", 0, "`layers` whose experts stay on the CPU (default 0)")
	f.StringVar(&s.SplitMode, "split-mode", s.SplitMode, "`how` to split over GPUs: "+strings.Join(splitModes, ", "))
	f.IntVar(&s.MainGPU, "main-gpu", 0, "`index` of the device of split mode none (default 0)")
	f.StringSliceVar(&s.Devices, "device", nil, "`devices` to use, as benchmark-llm devices names them (default: all)")
	f.BoolVar(&s.NoKVOffload, "no-kv-offload", false, "keep the KV cache in host memory")
	f.BoolVar(&s.NoOpOffload, "no-op-offload", false, "do not send operations on host tensors to a device")
	f.BoolVar(&s.NoHost, "no-host", false, "do not use the devices' pinned host memory")
	f.BoolVar(&s.NoRepack, "no-repack", false, "do not repack weights for the CPU")
	f.StringVar(&s.LoadMode, "load-mode", s.LoadMode, "`how` a file is loaded: "+strings.Join(loadModes, ", "))
	f.IntSliceVar(&s.CPUs, "cpus", nil, "logical `CPUs` to run on, as 0,1 (default: no affinity)")
	f.BoolVar(&s.CPUStrict, "cpu-strict", false, "one CPU of --cpus for each thread")
	f.IntVar(&s.Poll, "poll", s.Poll, "`level` of polling while threads wait, 0…100")
	f.IntVar(&s.Priority, "prio", 0, "`priority` of the threads: -1 low, 0 normal, 1 medium, 2 high, 3 realtime (default 0)")
	f.Uint64Var(&o.seed, "seed", 1, "`seed` of the tokens and of synthetic weights")
	f.BoolVar(&o.allowCPU, "allow-cpu", false, "in a cuda build: measure the CPU when there is no CUDA device")
	return cmd
}

// The values of flags that name one of a few things; llamacpp knows the same.
var (
	kvTypes    = []string{"f16", "f32", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}
	splitModes = []string{"layer", "none", "row", "tensor"}
	loadModes  = []string{"auto", "none", "mmap", "mlock", "mmap+mlock", "dio"}
	flashModes = []string{"auto", "off", "on"} // in the order of -1, 0, 1
)

const maxRepetitions = 10_000

// check refuses what cannot be meant, before anything starts.
func (o *runOptions) check() error {
	s := &o.settings
	for _, c := range []struct {
		flag, value string
		allowed     []string
	}{
		{"--weights", o.weights, []string{string(result.FileWeights), string(result.SyntheticWeights)}},
		{"--output", o.format, append([]string{""}, report.Formats()...)},
		{"--cache-type-k", s.TypeK, kvTypes},
		{"--cache-type-v", s.TypeV, kvTypes},
		{"--split-mode", s.SplitMode, splitModes},
		{"--load-mode", s.LoadMode, loadModes},
		{"--flash-attn", o.flashAttn, flashModes},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return usage("one of "+strings.Trim(strings.Join(c.allowed, ", "), ", "), "%s: unknown value %q", c.flag, c.value)
		}
	}
	if o.model == "" {
		if result.Weights(o.weights) != result.SyntheticWeights {
			return usage("-m FILE.gguf, or --weights synthetic for a default model without its file", "no model given")
		}
		o.model = suite.Models()[0].File
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
		{"--repetitions", o.repetitions, 1, maxRepetitions, "5 is what llama-bench does"},
		{"--threads", s.Threads, 1, cpus, fmt.Sprintf("this process may use %d CPUs; more threads than CPUs measure the scheduler", cpus)},
		{"--batch-size", s.Batch, 1, result.MaxTokens, "2048 is llama-bench's default"},
		{"--ubatch-size", s.UBatch, 1, result.MaxTokens, "512 is llama-bench's default"},
		{"--poll", s.Poll, 0, 100, "50 is llama-bench's default"},
		{"--prio", s.Priority, -1, 3, "0 is the normal priority"},
		{"--n-gpu-layers", s.GPULayers, -1, math.MaxInt32, "-1 offloads all layers"},
		{"--n-cpu-moe", s.CPUMoE, 0, 10_000, "0 keeps no experts on the CPU"},
		{"--main-gpu", s.MainGPU, 0, 1023, "benchmark-llm devices lists the devices"},
	} {
		if c.n < c.least || c.n > c.most {
			return usage(c.hint, "%s: %d is outside %d…%d", c.flag, c.n, c.least, c.most)
		}
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
	if result.Weights(o.weights) == result.SyntheticWeights && s.LoadMode != "auto" && s.LoadMode != "none" {
		return usage("leave --load-mode out", "--load-mode: %s is for files, synthetic weights are streamed", s.LoadMode)
	}
	if o.timeout < 0 {
		return usage("0s is no limit", "--timeout: %v is negative", o.timeout)
	}
	if !(o.scale > 0) || math.IsInf(o.scale, 0) {
		return usage("1 is the default, 2 gives twice the time", "--benchmark-timeout-scale: %v is not above 0", o.scale)
	}
	s.FlashAttn = slices.Index(flashModes, o.flashAttn) - 1
	return nil
}

func (o *runOptions) run(stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	tests, err := suite.Lengths{Prompt: o.prompt.values, Gen: o.gen.values, Combined: o.combined.values, Depth: o.depth.values}.Tests()
	if err != nil {
		return usage("-p 512 -n 128 is the default", "%w", err)
	}
	if len(tests) == 0 {
		return usage("-p 512 -n 128 is the default", "no test: every length is 0")
	}
	if _, err := llamacpp.Version(); err != nil {
		return libraryFailure(err)
	}
	model, size, err := o.findModel()
	if err != nil {
		return err
	}
	var timeout *time.Duration
	if o.timeoutSet {
		timeout = &o.timeout
	}
	return o.measure(jobOf(suite.New(model.Name, size, tests, o.repetitions, timeout, o.scale), model, o), stdout, stderr)
}

// findModel finds the model asked for and the bytes of its tensors.
func (o *runOptions) findModel() (bench.Model, uint64, error) {
	m := bench.Model{Name: o.model, Weights: result.Weights(o.weights), Seed: o.seed}
	if m.Weights == result.SyntheticWeights {
		shape, err := lookupShape(o.model)
		if err != nil {
			return m, 0, err
		}
		file, err := shape.File()
		if err != nil {
			return m, 0, fail(exitModel, err, "")
		}
		o.settings.LoadMode = "none" // a stream cannot be mapped: say so in the record
		return m, file.TensorBytes(), nil
	}
	dirs := []string{o.modelsDir}
	if o.modelsDir == "" {
		dirs = modelsDirs()
	}
	if !utf8.ValidString(o.model) {
		return m, 0, fail(exitModel, fmt.Errorf("the name %q is not UTF-8, which records need", o.model), "rename the file")
	}
	source, err := fetch.ParseSource(o.model)
	if err != nil {
		return m, 0, downloadFailure(context.Background(), err)
	}
	if !source.Local() {
		file, err := o.download(source)
		if err != nil {
			return m, 0, err
		}
		m.Name, m.Path = file.Path, file.Path
		return m, file.Header.TensorBytes(), nil
	}
	file, err := fetch.Local(o.model, dirs...)
	switch {
	case err == nil:
		m.Path = file.Path
		return m, file.Header.TensorBytes(), nil
	case errors.Is(err, fetch.ErrNotFound):
		hint := "give the path of a GGUF file"
		if d, ok := suite.LookupModel(o.model); ok {
			hint = fmt.Sprintf("--weights synthetic measures it without its file; -m hf:%s/%s@%s fetches it", d.Repository, d.File, d.Revision)
		}
		return m, 0, fail(exitModel, err, hint)
	case errors.Is(err, gguf.ErrTruncated):
		return m, 0, fail(exitModel, err, "the file is incomplete: fetch it again")
	case errors.Is(err, fs.ErrPermission):
		return m, 0, fail(exitModel, err, "the file must be readable")
	default:
		return m, 0, fail(exitModel, err, "give the path of a GGUF file")
	}
}

// modelsDirs are where default models may lie.
func modelsDirs() []string {
	dirs := []string{"/models"}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "benchmark-llm", "models"))
	}
	return dirs
}

// jobOf is the plan as a worker's job.
func jobOf(p suite.Plan, m bench.Model, o *runOptions) bench.Job {
	job := bench.Job{
		Model: m, LoadBudget: p.LoadBudget, Repetitions: p.Repetitions, NoWarmup: o.noWarmup, Seed: o.seed,
		Settings: o.settings, AllowCPU: o.allowCPU,
	}
	for _, t := range p.Tests {
		job.Tests = append(job.Tests, bench.TestBudget{Test: t.Test, Budget: t.Budget})
	}
	return job
}

// measure runs the job in a worker and writes what comes of it.
func (o *runOptions) measure(job bench.Job, stdout, stderr io.Writer) error {
	level, err := o.global.level()
	if err != nil {
		return err
	}
	dir, err := createRunDir(o.resultsDir)
	if err != nil {
		return fail(exitOutput, fmt.Errorf("results directory: %w", err), elsewhere)
	}
	defer dir.close()
	if err := dir.describe(versionLine(), os.Args, host.Collect("/"), job); err != nil {
		return notKept(err)
	}
	out, err := newOutput(o.format, stdout)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer catchSignals(cancel, out.exitNow)()

	show := newProgress(stderr, job, o.global)
	defer show.close()
	worker, err := os.Executable()
	if err != nil {
		return fail(exitNothing, err, "")
	}
	end := ending{dir: dir.path, model: job.Model.Name}
	end.err = supervise.Run(ctx, job, supervise.Options{
		Command: []string{worker, "worker", "--log-level", level.String()},
		// ggml's own backtrace starts gdb, if there is one, in a process that is
		// about to end.
		Env:     []string{"GGML_NO_BACKTRACE=1"},
		Version: version,
		Log:     slog.Default(),
		Event: func(e bench.Stamped) error {
			end.event(e.Event)
			show.event(e)
			return notKept(dir.event(e))
		},
		Outcome: func(r *result.Outcome) error {
			end.outcome(r)
			show.outcome(r)
			if err := dir.outcome(r); err != nil {
				return notKept(err)
			}
			out.write(r)
			return nil
		},
	})
	show.close()
	if end.err == nil {
		end.err = notKept(dir.finish())
	}
	if isTerminal(stdout) && isTerminal(stderr) && !o.global.quiet {
		fmt.Fprintln(stderr) // between the log and the table
	}
	out.close()
	errors.As(context.Cause(ctx), &end.signal)
	return end.verdict(out)
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
	dir    string          // of the run
	model  string          //
	load   *bench.LoadDone // the load that failed
	first  *result.Outcome // that was not measured
	signal *signalError    // that stopped the run
	err    error           // that ended it early
}

func (n *ending) event(e bench.Event) {
	if e, ok := e.(bench.LoadDone); ok && e.Status != result.OK {
		n.load = &e
	}
}

func (n *ending) outcome(o *result.Outcome) {
	if o.Status != result.OK && n.first == nil {
		n.first = o
	}
}

// verdict is the error that says why nothing was printed; nil when a record
// was, for then only the log tells what went wrong.
func (n *ending) verdict(out *output) error {
	if out.printed > 0 {
		if n.err != nil {
			slog.Error("the run ended early", "error", n.err)
		}
		if n.load != nil {
			slog.Error("the model could not be loaded again", "reason", n.load.Reason)
		}
		slog.Info("done", "records", out.printed, "directory", n.dir)
		return nil
	}
	var f *failure
	trace := "each step is in " + filepath.Join(n.dir, "events.jsonl")
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
		return n.signal.failure("nothing was measured", trace)
	case n.load != nil:
		code := exitNothing
		if n.load.Status == result.Unsupported || n.load.Status == result.Failed {
			code = exitModel
		}
		return fail(code, fmt.Errorf("%s not loaded: %s", n.model, strings.TrimPrefix(n.load.Reason, n.model+": ")), advice(n.load.Status, trace))
	case n.first != nil:
		return fail(exitNothing, fmt.Errorf("nothing was measured: %s of %s: %s", n.first.Test, n.first.Model, n.first.Reason),
			advice(n.first.Status, trace))
	default:
		return fail(exitNothing, errors.New("nothing was measured"), trace)
	}
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
