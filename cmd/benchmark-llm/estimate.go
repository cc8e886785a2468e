package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// estimateOptions are the flags of estimate.
type estimateOptions struct {
	global             *globalOptions
	prompt, gen, depth commandline.Lengths
	repetitions        int
	rounds             int
	format             string
	price              string
	settings           bench.Settings
}

func newEstimateCommand(global *globalOptions) *cobra.Command {
	o := &estimateOptions{global: global, settings: bench.DefaultSettings(0)}
	o.settings.LoadMode = "none"
	o.prompt.Values, o.gen.Values, o.depth.Values = []int{512}, []int{128}, []int{0}
	cmd := &cobra.Command{
		Use:   "estimate MODEL|URL…",
		Short: "Estimate the speed of models that are too large or too slow to run",
		Long: `Estimate the speed of models, also of those that are too large for this machine or
too slow to run. Models with the same layers, but fewer of them, are measured with
synthetic weights. The time of a test grows with the number of layers, so theirs tell
that of the full model. Only the header of a model is read. Tests of more than 1024
tokens are computed from shorter ones by the work of the attention.

Estimates are no records: every output marks them.`,
		Example: `  benchmark-llm estimate Llama-3.3-70B-Instruct-Q4_K_M.gguf
  benchmark-llm estimate -p 512,16384 -n 128 hf:user/repository/file.gguf`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("benchmark-llm models lists the default models", "estimate needs a model")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.OutOrStdout(), args) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.VarP(&o.prompt, "n-prompt", "p", "prompt lengths in `tokens`, one test each: 16,128 or 16-512*2; 0: none")
	f.VarP(&o.gen, "n-gen", "n", "generation lengths in `tokens`, one test each; 0: none")
	f.VarP(&o.depth, "n-depth", "d", "`tokens` in the KV cache before each test (default 0)")
	f.IntVarP(&o.repetitions, "repetitions", "r", 3, "`number` of timed repetitions of each test of each model, 1…10000")
	f.IntVar(&o.rounds, "rounds", 3, "`number` of times that the models take turns, 1…100")
	f.IntVarP(&o.settings.Threads, "threads", "t", host.DefaultThreads(), "`number` of CPU threads")
	f.StringVar(&o.price, "price", "", "`price` of the machine per hour, as 0.53/h or €0.53/h: adds the cost of a million tokens")
	f.StringVarP(&o.format, "output", "o", "table", "output `format`: "+strings.Join(estimate.Formats(), ", "))
	return cmd
}

func (o *estimateOptions) run(stdout io.Writer, models []string) error {
	if err := oneOf("--output", o.format, estimate.Formats()); err != nil {
		return err
	}
	if o.repetitions < 1 || o.repetitions > suite.MaxRepetitions {
		return usage("try 3, the default", "--repetitions: %d is outside 1…%d", o.repetitions, suite.MaxRepetitions)
	}
	if o.rounds < 1 || o.rounds > 100 {
		return usage("try 3, the default", "--rounds: %d is outside 1…100", o.rounds)
	}
	if err := o.settings.Validate(); err != nil {
		return settingFailure(err)
	}
	tests, err := suite.Lengths{Prompt: o.prompt.Values, Gen: o.gen.Values, Depth: o.depth.Values}.Tests()
	if err != nil || len(tests) == 0 {
		return usage("try -p 512 -n 128, the default", "no test that can be estimated")
	}
	price, err := result.ParsePrice(o.price)
	if err != nil && o.price != "" {
		return usage("try 0.53/h, €0.53/h or \"0.53 USD/h\"", "--price: %w", err)
	}
	if _, err := llamacpp.Version(); err != nil {
		return err
	}
	ctx, stop := interruptible(nil)
	defer stop()
	dir, err := host.OwnTempDir()
	if err == nil {
		dir, err = os.MkdirTemp(dir, "estimate-")
	}
	if err != nil {
		return fail(exitNothing, fmt.Errorf("directory for headers: %w", err), causeHint(err, "choose another place with TMPDIR"))
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system clears it
	options := estimate.Options{
		Tests: tests, Rounds: o.rounds, Context: acquire.ContextOf(o.settings), Dir: dir,
		Job: bench.Job{Repetitions: o.repetitions, Seed: 1, Settings: o.settings, AllowCPU: true},
	}
	if o.price != "" {
		options.Price = &price
	}
	options.CacheBytes = host.Collect("/").CPU.LargestCacheBytes()
	if free := host.Observe("/").MemoryAvailableBytes; free != nil {
		options.AvailableBytes = *free
	}
	level, err := o.global.level()
	if err != nil {
		return err
	}
	if found, err := findDevices(ctx, level, nil); err == nil {
		if _, free := found.plan(); free != nil { // thin models must fit the GPUs, as the full one is estimated there
			options.AvailableBytes = *free
		}
	}
	var plans []*estimate.Plan
	for _, model := range models {
		p, err := planEstimate(ctx, model, options)
		if err != nil {
			return causeOf(ctx, "nothing was estimated", err)
		}
		plans = append(plans, p)
	}
	var rows []estimate.Row
	for _, p := range plans {
		if err := o.measure(ctx, level, p); err != nil {
			return causeOf(ctx, "nothing was estimated", err)
		}
		rows = append(rows, p.Rows()...)
	}
	if err := printed(estimate.Write(stdout, o.format, rows, columns(stdout))); err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(r estimate.Row) bool { return r.Speed > 0 }) {
		return causeOf(ctx, "nothing was estimated", fail(exitNothing, fmt.Errorf("nothing was estimated: %s", rows[0].Reason), "try again on a quiet machine, or with more --rounds"))
	}
	return nil
}

// planEstimate plans the estimate of a model by its header.
func planEstimate(ctx context.Context, model string, o estimate.Options) (*estimate.Plan, error) {
	src, err := acquire.Named(ctx, newClient(false), model)
	if err != nil {
		return nil, err
	}
	found, err := acquire.ReadHeader(ctx, newClient(false), src)
	if err != nil {
		return nil, err
	}
	outline, err := found.Outline()
	if err != nil {
		return nil, err
	}
	return estimate.New(found.Name, outline, o)
}

// measure runs the thin models of a plan.
func (o *estimateOptions) measure(ctx context.Context, level slog.Level, p *estimate.Plan) error {
	jobs, err := p.Jobs()
	if err != nil {
		return err
	}
	workers := workersOf(level)
	workers.Env, workers.Apart, workers.Consumers = []string{"GGML_NO_BACKTRACE=1"}, true, supervise.Consumers{p}
	return supervise.RunModels(ctx, jobs, func(_ context.Context, i int) (bench.Job, error) {
		slog.Info("measuring a thin model", "model", jobs[i].Model.Name)
		return jobs[i], ctx.Err()
	}, workers)
}
