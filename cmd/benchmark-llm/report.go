package main

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/rundir"
)

func newReportCommand() *cobra.Command {
	var format, parent string
	var prices commandline.PriceFlags
	cmd := &cobra.Command{
		Use: "report [LABEL=]SOURCE...", Short: "Show the results of runs as a page with plots, or as tables", Long: commandline.ReportHelp,
		Example: "  benchmark-llm report last > report.html",
		ValidArgsFunction: func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return commandline.CompleteSource(begun, rundir.Names(parent))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("name one: benchmark-llm report last", "report needs a source")
			}
			out := cmd.OutOrStdout()
			if format == "" && isTerminal(out) {
				format = "table"
			}
			format = cmp.Or(format, report.PageFormats()[0])
			if err := oneOf("--output", format, report.PageFormats()); err != nil {
				return err
			}
			page, err := rundir.Page(args, parent, prices.Sides)
			if err != nil {
				return err
			}
			return printed(report.WritePageAs(format, out, page, report.Options{Color: color(out), Width: width(out)}))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&format, "output", "o", "", "output `format`: "+strings.Join(report.PageFormats(), ", ")+" (default: table on a terminal, else html)")
	prices.Register(f, true)
	f.StringVar(&parent, "results-dir", "", "`directory` of the runs that last names; by default where run puts them")
	return cmd
}
