package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/rundir"
)

func newCompareCommand() *cobra.Command {
	o := commandline.NewCompareFlags(report.ComparisonFormats())
	cmd := &cobra.Command{
		Use: "compare [LABEL=]SOURCE...", Short: "Compare the results of runs, and tell how sure the differences are", Long: commandline.CompareHelp,
		ValidArgsFunction: func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return commandline.CompleteSource(begun, rundir.Names(o.ResultsDir))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			gate, err := o.Gate()
			if err != nil {
				return err
			}
			c, err := rundir.Compare(args, o.ResultsDir, o.Options(), o.Prices.Sides)
			if err != nil {
				return err
			}
			err = report.WriteComparison(o.Format, cmd.OutOrStdout(), c, report.Options{Width: width(cmd.OutOrStdout())})
			return cmp.Or(printed(err), gate.Pass(c))
		},
	}
	o.Register(cmd.Flags())
	return cmd
}
