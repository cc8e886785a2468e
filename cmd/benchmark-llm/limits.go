package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/roofline"
	"github.com/sparecores/benchmark-llm/bench/session"
)

func newLimitsCommand(global *globalOptions) *cobra.Command {
	var devices, types []string
	var format string
	settings := bench.DefaultSettings(0)
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Measure the limits of memory and arithmetic",
		Long: `Measure how fast llama.cpp reads weights from each device's memory and computes with
them: the product of weights with a vector, which a generated token needs, and with a
matrix of 512 columns, which a prompt needs. For the CPU also a plain read of memory.
No model is needed. It takes about two seconds a device.

"run" measures the same for its models' weights: ext.limits of a record says what share
of these limits a test reached.`,
		Example: "  benchmark-llm limits\n  benchmark-llm limits --type q4_0,q8_0 --device CPU -t 1 -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("--output", format, roofline.Formats()); err != nil {
				return err
			}
			if err := settings.Validate(); err != nil {
				return settingFailure(err)
			}
			level, err := global.level()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(nil)
			defer stop()
			session.WarnBusy(ctx)
			limits, err := session.Limits(ctx, settings, devices, types, workersOf(level))
			if err != nil {
				return causeOf(ctx, "no limits were measured", err)
			}
			return printed(roofline.Write(cmd.OutOrStdout(), format, limits, columns(cmd.OutOrStdout())))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&types, "type", nil, "`types` of weights (default "+strings.Join(roofline.CommonTypes, ",")+")")
	f.StringSliceVar(&devices, "device", nil, "`devices` to measure: CPU,CUDA0 (default: the CPU and all GPUs)")
	f.IntVarP(&settings.Threads, "threads", "t", host.DefaultThreads(), "`number` of CPU threads")
	f.StringVarP(&format, "output", "o", "table", "output `format`: "+strings.Join(roofline.Formats(), ", "))
	return cmd
}
