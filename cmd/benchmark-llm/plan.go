package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// planOptions are the flags of plan.
type planOptions struct {
	selectOptions
	sweepOptions
	global *globalOptions
	format string
	like   string
}

func newPlanCommand(global *globalOptions) *cobra.Command {
	o := &planOptions{global: global}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what run would do, and whether it fits, without doing it",
		Long: `Show what run would do with the same flags: models and tests, and where each file
is or how much must be downloaded. It also shows whether the models fit the disk, the
memory and the devices, and how long the tests may take by their budgets. Nothing is
measured. Only the header of a model that is neither on this machine nor a default
model is downloaded.

"needs" predicts the memory of the longest test: weights, KV cache and compute
buffers. "fits" compares it with the memory that is free now. If a model does
not fit the devices, it may still run with only some of its layers on them.`,
		Example: `  benchmark-llm plan
  benchmark-llm plan --suite mine.yaml -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.selectOptions.register(f)
	o.sweepOptions.register(f)
	inGroup(f, groupOutput, func() {
		f.StringVarP(&o.format, "output", "o", "table", "output `format`: table, json")
		f.StringVar(&o.like, "like", "", "`directory` of an earlier run to estimate times from")
	})
	return cmd
}

func (o *planOptions) run(stdout io.Writer) error {
	if err := oneOf("--output", o.format, tableFormats); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	s, err := o.suite()
	if err != nil {
		return err
	}
	measured, err := o.measured()
	if err != nil {
		return err
	}
	settings := bench.DefaultSettings(0)
	if err := o.apply(&settings); err != nil {
		return err
	}
	cells, err := o.cells(s, settings)
	if err != nil {
		return err
	}
	if cells.Settings == nil {
		cells.Settings = map[string]bench.Settings{"": settings}
	}
	ctx, stop := interruptible(nil)
	defer stop()
	p, err := acquire.NewPlan(ctx, cells.Suite, acquire.PlanOptions{
		Finder: o.finder(acquire.Weights(o.weights), o.modelsDir), Timeout: o.timeout(), Scale: o.scale, TimeLimit: o.timeLimit, Measured: measured, Settings: cells.Settings,
	})
	if err = causeOf(ctx, "nothing was planned", err); err != nil {
		return err
	}
	if err := o.addDevices(ctx, p); err != nil {
		return err
	}
	if o.format == "json" {
		return printJSON(stdout, p)
	}
	return printed(p.Write(stdout, columns(stdout)))
}

// addDevices adds the devices to a plan, and whether its models fit them.
func (o *planOptions) addDevices(ctx context.Context, p *acquire.Plan) error {
	level, err := o.global.level()
	if err != nil {
		return err
	}
	var free *uint64
	found, err := findDevices(ctx, level, nil)
	if err != nil {
		p.DevicesUnknown = err.Error()
	} else {
		p.GPUNotUsed, p.GPUDoubts = cmp.Or(found.gpus.UnusedReason, found.gpus.LeftOutReason), found.gpus.Doubts
		p.Devices, free = found.plan()
	}
	p.Fit(free)
	return nil
}

// measured returns what the run of --like measured.
func (o *planOptions) measured() (acquire.Measured, error) {
	if o.like == "" {
		return nil, nil
	}
	f, err := os.Open(filepath.Join(o.like, "results.jsonl"))
	if err != nil {
		return nil, usage(causeHint(err, "give the directory of a run, the one with its report.md"), "--like: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	read, err := report.ReadRecords(f)
	if err != nil {
		return nil, usage(causeHint(err, "give the directory of a run"), "--like: %w", result.AtPath(f.Name(), err))
	}
	m := acquire.Measured{}
	for i := range read {
		m.Add(&read[i])
	}
	return m, nil
}
