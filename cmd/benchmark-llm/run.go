package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/database"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/rundir"
	"github.com/sparecores/benchmark-llm/bench/session"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/sweep"
)

// runOptions are the flags of run.
type runOptions struct {
	selectOptions
	endToEndOptions
	repeatOptions
	sweepOptions
	global       *globalOptions
	format       string
	formatErr    string // of stderr; empty: nothing
	db           string
	resultsDir   string
	resume       string
	strict       bool
	allowCPU     bool
	requireGPU   bool
	sampling     time.Duration
	waitQuiet    time.Duration // 0: do not wait
	requireQuiet bool
	prices       commandline.PriceFlags
	limits       bool
	settings     bench.Settings
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
	o.repeatOptions.register(f)
	o.sweepOptions.register(f)
	inGroup(f, groupHow, func() {
		f.DurationVar(&o.waitQuiet, "wait-quiet", 0, "wait until the machine is quiet, at most this `time` (default 0s)")
		f.BoolVar(&o.limits, "limits", false, "measure the machine's limits first (default: for a suite, not with -m)")
		f.BoolVar(&o.requireQuiet, "require-quiet", false, "exit with code 7 if the machine is busy")
	})
	inGroup(f, groupWhere, func() {
		f.Var((*rpcFlag)(&s.RPC), "rpc", rpcUsage)
		f.BoolVar(&o.requireGPU, "require-gpu", false, "fail if no GPU is used")
		f.BoolVar(&o.allowCPU, "allow-cpu", false, "with a CUDA build: measure the CPU if there is no CUDA device")
	})
	inGroup(f, groupOutput, func() {
		f.StringVarP(&o.format, "output", "o", "", "output `format` of stdout: jsonl, json, csv, sql, md, table (default: table on a terminal, else jsonl)")
		f.StringVar(&o.formatErr, "output-err", "", "also print the results on stderr, in this `format`")
		o.prices.Register(f, false)
		f.StringVar(&o.db, "db", "", "`file` of a SQLite database to add the records to")
		f.StringVar(&o.resultsDir, "results-dir", "", "`directory` in which each run makes its own; none: no directory (default: the user's state directory)")
		f.StringVar(&o.resume, "resume", "", "`directory` of an interrupted run to continue; last: the newest in --results-dir")
		f.BoolVar(&o.strict, "strict", false, "exit with code 6 if a test has no record")
	})
	inGroup(f, groupAdvanced, func() {
		f.IntSliceVar(&s.CPUs, "cpus", nil, "logical `CPUs` to run on, as 0,1 (default: no affinity)")
		f.IntVar(&s.Priority, "prio", 0, "thread `priority`: -1 low, 0 normal, 1 medium, 2 high, 3 realtime (default 0)")
		f.DurationVar(&o.sampling, "gpu-sampling", gpu.DefaultInterval, "`time` between readings of NVIDIA GPUs during tests; 0s: none")
	})
	return cmd
}

// noResults is the value of --results-dir for a run without a directory.
const noResults = "none"

// changeable are the flags that may be given with --resume. None of them changes what
// is measured.
var changeable = []string{"resume", "results-dir", "disk-reserve", "output", "output-err", "db", "strict", "token-times", "wait-quiet", "require-quiet", "log-level", "log-format", "quiet"}

// check refuses invalid values, before anything starts.
func (o *runOptions) check() error {
	if err := o.selectOptions.check(); err != nil {
		return err
	}
	if err := o.endToEndOptions.check(); err != nil {
		return err
	}
	if err := o.job(new(bench.Job)); err != nil {
		return err
	}
	if o.resume != "" {
		if o.resultsDir == noResults {
			return usage("leave --results-dir out", "--resume: a run continues in its directory")
		}
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
	for flag, format := range map[string]string{"--output": o.format, "--output-err": o.formatErr} {
		if err := oneOf(flag, cmp.Or(format, report.Formats()[0]), report.Formats()); err != nil {
			return err
		}
	}
	s := &o.settings
	cpus := s.CPUs
	s.CPUs = nil
	if err := o.apply(s); err != nil {
		return err
	}
	if len(cpus) > 0 {
		if o.flags.Changed("cpu-mask") {
			return usage("leave one of the two out", "--cpus and --cpu-mask cannot be given together")
		}
		s.CPUs = cpus
		if err := checkCPUs("--cpus", *s); err != nil {
			return err
		}
	}
	if o.waitQuiet < 0 {
		return usage("use 0s not to wait", "--wait-quiet: %v is negative", o.waitQuiet)
	}
	if o.requireGPU && !s.Offloads() {
		return usage("leave one of the two out", "--require-gpu: --n-gpu-layers 0 and --device none offload nothing")
	}
	if acquire.Weights(o.weights) == acquire.Synthetic {
		if modes := o.parameters.List("load-mode"); s.LoadMode != "auto" && s.LoadMode != "none" || modes.Values() > 1 {
			return usage("leave --load-mode out", "--load-mode: %s needs a file, and synthetic weights have none", modes)
		}
		s.LoadMode = "none" // a stream cannot be mapped, and the record must say so
	}
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
		return err
	}
	out, err := newOutput(o.format, stdout)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(out.exitNow)
	defer stop()
	stops := supervise.WatchStops()
	defer stops.Close()

	how, err := o.session(stops)
	if err != nil {
		return err
	}
	var r *session.Session
	if o.resume != "" {
		r, err = session.Resume(ctx, o.resume, how)
	} else if err = o.generated(s, &how.Job); err == nil {
		var cells sweep.Sweep
		if cells, err = o.cells(s, o.settings); err != nil {
			return err
		}
		how.TestSettings = cells.Settings
		r, err = session.New(ctx, cells.Suite, how)
	}
	if err != nil {
		return causeOf(ctx, "nothing was measured", err)
	}
	defer r.Close()
	if o.format == "" && r.Output != "" {
		if err := out.use(r.Output, stdout); err != nil { // the same output: signals ask it for the exit code
			return err
		}
	}
	return o.measure(ctx, r, out, stdout, stderr)
}

// session returns the options of the run with these flags.
func (o *runOptions) session(stops *supervise.Stops) (how session.Options, err error) {
	level, err := o.global.level()
	if err != nil {
		return how, err
	}
	prices, err := o.prices.Prices()
	if err != nil {
		return how, err
	}
	e2e := o.endToEnd
	how = session.Options{
		Job:      bench.Job{Seed: o.seed, Settings: o.settings, AllowCPU: o.allowCPU, RequireGPU: o.requireGPU, E2E: &e2e, Prices: prices},
		CoolDown: o.coolDown, Sampling: o.sampling,
		Weights: o.weights, ModelsDir: o.modelsDir, Finder: o.finder,
		Timeout: o.timeout(), Scale: o.scale, TimeLimit: o.timeLimit, DownloadTime: o.downloadTime,
		WaitQuiet: o.waitQuiet, RequireQuiet: o.requireQuiet,
		ResultsDir: o.resultsDir, NoResults: o.resultsDir == noResults, Limits: o.limits || len(o.models) == 0 && !o.flags.Changed("limits"), Output: o.format,
		Span: rundir.Span{Version: versionLine(), Program: version, Command: os.Args, Started: started.UTC()},
		Host: host.Collect("/"), Workers: workersOf(level), CheckRPC: llamacpp.CheckRPC,
	}
	how.Workers.Stops = stops
	return how, o.job(&how.Job)
}

// workersOf returns how workers are run that log from level on and have this
// process's environment.
func workersOf(level slog.Level) supervise.Options {
	name, err := os.Executable()
	program := "/proc/self/exe" // this program, even if its file was replaced
	if err != nil {             // there is no /proc
		name, program = os.Args[0], ""
	}
	return supervise.Options{
		Command:  []string{name, "worker", "--log-level", level.String()},
		Program:  program,
		Version:  version,
		OOMKills: func() (uint64, bool) { return host.OOMKills("/") },
		Log:      slog.Default(),
	}
}

// measure prints what the session measures, and returns why no record was printed.
func (o *runOptions) measure(ctx context.Context, r *session.Session, out *output, stdout, stderr io.Writer) error {
	times, err := session.CreateTokenTimes(o.tokenTimes)
	if err != nil {
		return err
	}
	defer times.Close() //nolint:errcheck // its error is checked below
	db, err := database.Open(o.db, r.Name())
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // its error is checked below
	destinations := supervise.Destinations{
		{Name: "stdout", Records: true, Consumer: out, End: out.close},
		{Name: "--db", Records: o.db != "", Consumer: db, End: db.Close},
		{Name: "--token-times", Consumer: times, End: times.Close},
	}
	if o.formatErr != "" {
		beside, err := newOutput(o.formatErr, stderr)
		if err != nil {
			return err
		}
		destinations = append(destinations, &supervise.Destination{Name: "stderr", Consumer: beside, End: beside.close})
		o.global.still = true
	}
	outlook := r.Outlook()
	show := newProgress(stderr, r.Job.Settings.Threads, outlook, r.Models.Downloading, o.global)
	show.several = len(r.Models.Jobs()) > 1
	defer show.close()
	end := new(summary)
	ended := r.Measure(ctx, session.Watchers{
		Summary: end, Outlook: outlook, Progress: show,
		Destinations: destinations,
		Bad: func(model string, err error) {
			hint := ""
			if f, ok := lookup(err); ok {
				hint = f.hint
			}
			slog.Warn("model cannot be run, going on without it", "model", model, "reason", err, "hint", hint)
		},
		Ended: func() {
			show.close()
			if isTerminal(stdout) && isTerminal(stderr) && !o.global.quiet {
				fmt.Fprintln(stderr) // between the log and the table
			}
		},
	})
	end.err, end.accounting, end.missing, end.unwritten = ended.Err, ended.Accounting, ended.Missing, ended.Unwritten
	end.locate(r.Dir)
	end.stopped(ctx)
	return end.result(out, o.strict)
}
