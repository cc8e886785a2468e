package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/rundir"
)

func newRunsCommand() *cobra.Command {
	var parent, format string
	runs := &cobra.Command{
		Use: "runs", Short: "List earlier runs, show one, or remove some", Args: noArguments,
		Long: `List the runs below --results-dir, the newest first. Their names, last, last~1 and so
on, are those that run --resume and compare take. A run is complete, incomplete (run
--resume continues it), running, damaged, or unreadable.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("--output", format, report.RunFormats()); err != nil {
				return err
			}
			all, err := rundir.Runs(parent)
			if err != nil {
				return err
			}
			if len(all) == 0 {
				slog.Info("there is no run")
			}
			return printed(report.WriteRuns(format, cmd.OutOrStdout(), all, report.Options{Width: width(cmd.OutOrStdout())}))
		},
	}
	runs.Flags().StringVarP(&format, "output", "o", "table", "output `format`: table, json, csv, md")
	runs.PersistentFlags().StringVar(&parent, "results-dir", "", "`directory` of the runs; by default where run puts them")
	names := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return rundir.Names(parent), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
	show := &cobra.Command{
		Use: "show [RUN]", Short: "Show a run: how it was measured, its records and files", ValidArgsFunction: names,
		Long: `Show a run: its status, command, settings, machine, records and files, and how to
resume it. RUN is last (the default), last~1 and so on, or a directory.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("benchmark-llm runs lists the runs", "runs show takes one run, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := rundir.Find(append(args, rundir.Last)[0], parent)
			if err != nil {
				return err
			}
			d, err := rundir.Show(path)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			return printed(report.WriteRun(out, d, report.Options{Width: width(out), Color: color(out)}))
		},
	}
	rm := &cobra.Command{
		Use: "rm RUN...", Short: "Remove runs", ValidArgsFunction: names,
		Long: `Remove runs. RUN is last, last~1 and so on, or a directory. Only the files of a run
are removed: a directory with other files stays, with them. A run that is being
written is not removed.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("benchmark-llm runs lists the runs", "runs rm needs a run")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			removed, err := rundir.RemoveAll(args, parent)
			if err != nil {
				return err
			}
			return reportRemoved(cmd.OutOrStdout(), removed, false)
		},
	}
	var o rundir.PruneOptions
	var age commandline.Age
	prune := &cobra.Command{
		Use: "prune", Short: "Remove all but the newest runs", Args: noArguments,
		Long: `Remove all runs but the newest, or all old ones, or, with both flags, the old ones
among all but the newest. A run that is being written stays, and so does what is no
run. What was removed is printed, and how much space that freed.`,
		Example: `  benchmark-llm runs prune --keep 20 --older-than 30d --dry-run`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Keep < 0 {
				return usage("use 0 to keep none", "--keep: %d is negative", o.Keep)
			}
			if !cmd.Flags().Changed("keep") && age == 0 {
				return usage("--keep 20 keeps the newest twenty", "runs prune needs --keep or --older-than")
			}
			o.OlderThan = time.Duration(age)
			removed, err := rundir.Prune(parent, o)
			if err != nil {
				return err
			}
			return reportRemoved(cmd.OutOrStdout(), removed, o.DryRun, rundir.ErrRunning, rundir.ErrNotRun)
		},
	}
	prune.Flags().SortFlags = false
	prune.Flags().IntVar(&o.Keep, "keep", 0, "`number` of the newest runs that stay (default 0)")
	prune.Flags().Var(&age, "older-than", "`time` since the last event of runs that are removed, as 30d or 12h")
	prune.Flags().BoolVar(&o.DryRun, "dry-run", false, "only print what would be removed")
	runs.AddCommand(show, rm, prune)
	return runs
}

// reportRemoved prints what was removed, or with dry would be, and logs what stays. It returns
// the first error that is none of those that are fine.
func reportRemoved(w io.Writer, removed []rundir.Removed, dry bool, fine ...error) (first error) {
	did, freed := "removed", "freed"
	if dry {
		did, freed = "would remove", "would free"
	}
	var bytes int64
	n := 0
	for _, r := range removed {
		bytes += r.Bytes
		switch {
		case r.Err == nil:
			n++
			if _, err := fmt.Fprintf(w, "%s %s (%s)\n", did, oneLine(r.Path), humanize.IBytes(uint64(r.Bytes))); err != nil {
				return printed(err)
			}
		case first == nil && !is(fine...)(r.Err):
			first = r.Err
		default:
			slog.Warn("run not removed", "reason", r.Err)
		}
		for _, path := range r.Stay {
			slog.Warn("not a file of the run, so it stays", "file", path)
		}
	}
	if n > 0 || first == nil {
		_, err := fmt.Fprintf(w, "%s %s of %s\n", freed, humanize.IBytes(uint64(bytes)), result.Count(n, "run"))
		return cmp.Or(printed(err), first)
	}
	return first
}
