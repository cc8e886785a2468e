package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/session"
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
	check              bool
	price              string
	settings           bench.Settings
}

func newEstimateCommand(global *globalOptions) *cobra.Command {
	o := &estimateOptions{global: global, settings: bench.DefaultSettings(0)}
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
	f.BoolVar(&o.check, "check", false, "measure the full model, too, in turn with those with fewer layers, and show how far the estimate is off")
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
	tests, err := suite.Lengths{Prompt: o.prompt.Values, Gen: o.gen.Values, Depth: o.depth.Values}.Tests()
	if err != nil || len(tests) == 0 {
		return usage("try -p 512 -n 128, the default", "no test that can be estimated")
	}
	ctx, stop := interruptible(nil)
	defer stop()
	t, err := o.global.thinModels(ctx, &o.settings, o.price)
	if err != nil {
		return err
	}
	defer os.RemoveAll(t.dir) //nolint:errcheck // the system clears it
	options := estimate.Options{
		Tests: tests, Rounds: o.rounds, Check: o.check, Context: t.context, Dir: t.dir, Price: t.price,
		AvailableBytes: t.availableBytes, GPUs: t.gpus, CacheBytes: host.Collect("/").CPU.LargestCacheBytes(),
		Job: bench.Job{Repetitions: o.repetitions, Seed: 1, Settings: o.settings, AllowCPU: true},
	}
	var plans []*estimate.Plan
	for _, model := range models {
		p, err := planEstimate(ctx, model, options)
		if err != nil {
			return causeOf(ctx, "nothing was estimated", err)
		}
		plans = append(plans, p)
	}
	session.WarnBusy(ctx)
	var rows []estimate.Row
	for _, p := range plans {
		if err := p.Measure(ctx, t.workers); err != nil {
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

// thinModels is what commands need that run thin models.
type thinModels struct {
	dir            string        // for headers; the caller removes it
	price          *result.Price // nil: none was given
	context        gguf.Context
	availableBytes uint64   // of the memory that must hold them: the GPUs', if there are any; 0: not known
	gpus           []string // these GPUs
	workers        supervise.Options
}

// thinModels checks settings and a price, and prepares to run thin models.
func (g *globalOptions) thinModels(ctx context.Context, s *bench.Settings, price string) (t thinModels, err error) {
	s.LoadMode = "none"
	if err := s.Validate(); err != nil {
		return t, settingFailure(err)
	}
	if price != "" {
		p, err := result.ParsePrice(price)
		if err != nil {
			return t, usage("try 0.53/h, €0.53/h or \"0.53 USD/h\"", "--price: %w", err)
		}
		t.price = &p
	}
	level, err := g.level()
	if err != nil {
		return t, err
	}
	if _, err := llamacpp.Version(); err != nil {
		return t, err
	}
	if t.dir, err = host.OwnTempDir(); err == nil {
		t.dir, err = os.MkdirTemp(t.dir, "thin-")
	}
	if err != nil {
		return t, fail(exitNothing, fmt.Errorf("directory for headers: %w", err), causeHint(err, "choose another place with TMPDIR"))
	}
	t.context, t.workers = acquire.ContextOf(*s), workersOf(level)
	t.workers.Env = []string{"GGML_NO_BACKTRACE=1"}
	if free := host.Observe("/").MemoryAvailableBytes; free != nil {
		t.availableBytes = *free
	}
	if found, err := findDevices(ctx, level, nil); err == nil {
		if devices, free := found.plan(); free != nil { // thin models must fit the GPUs, as the full one is estimated there
			t.availableBytes = *free
			for _, d := range devices {
				if d.Type == "gpu" && d.NotUsed == "" {
					t.gpus = append(t.gpus, d.Name)
				}
			}
		}
	}
	return t, nil
}

// run runs jobs in turn.
func (t *thinModels) run(ctx context.Context, jobs []bench.Job, consumers func(int) supervise.Consumers) error {
	return supervise.RunInTurns(ctx, jobs, consumers, t.workers)
}
