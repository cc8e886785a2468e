package main

import (
	"context"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/quick"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/session"
)

func newQuickCommand(global *globalOptions) *cobra.Command {
	o := quick.Options{Settings: bench.DefaultSettings(0), Began: time.Now()}
	var price, format string
	cmd := &cobra.Command{
		Use: "quick", Args: noArguments,
		Short: "Tell in a minute how fast this machine runs the default models",
		Long: `Tell in a minute how fast this machine runs the default models, without a download.
Models that fit the time are measured with synthetic weights, as by run. The others are
estimated, as by estimate, and marked in every output. The results are no records.`,
		Example: "  benchmark-llm quick\n  benchmark-llm quick --within 30s --price 0.53/h -o md",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("--output", format, quick.Formats()); err != nil {
				return err
			}
			return runQuick(cmd.OutOrStdout(), cmd.ErrOrStderr(), global, o, price, format)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.DurationVar(&o.Within, "within", time.Minute, "`time` after which the program ends, at least 10s")
	f.StringSliceVarP(&o.Models, "model", "m", nil, "default `models`, instead of all")
	f.IntVarP(&o.Settings.Threads, "threads", "t", host.DefaultThreads(), "`number` of CPU threads")
	f.StringVar(&price, "price", "", "`price` of the machine per hour, as 0.53/h or €0.53/h: adds the cost of a million tokens")
	f.StringVarP(&format, "output", "o", "table", "output `format`: "+strings.Join(quick.Formats(), ", "))
	return cmd
}

func runQuick(stdout, stderr io.Writer, global *globalOptions, o quick.Options, price, format string) error {
	q, err := quick.New(&o)
	if err != nil {
		return usage("try --within 60s; benchmark-llm models lists the default models", "%w", err)
	}
	ctx, stop := interruptible(nil)
	defer stop()
	t, err := global.thinModels(ctx, &o.Settings, price)
	if err != nil {
		return err
	}
	defer os.RemoveAll(t.dir) //nolint:errcheck // the system clears it
	o.Context, o.Dir, o.Price, o.AvailableBytes, o.Run = t.context, t.dir, t.price, t.availableBytes, t.run
	o.Limits = func(ctx context.Context) ([]result.DeviceLimits, error) {
		return session.Limits(ctx, o.Settings, nil, []string{"q4_K"}, t.workers)
	}
	o.Busy = session.WarnBusy(ctx)
	hide := global.showLine(stderr, q.Line)
	err = q.Run(ctx)
	hide()
	if err != nil {
		return causeOf(ctx, "nothing was measured", fail(exitNothing, err, "give more time with --within"))
	}
	return printed(quick.Write(stdout, format, q.Result(), columns(stdout)))
}
