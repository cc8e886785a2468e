package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	overhead string
	censored string
	halves   bool
	prices   commandline.PriceFlags
}

func newReplayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Try the stop policy on recorded runs",
		Long: `Replay recorded runs of the suite under the stop policy and under simpler rules.
FILE has JSON lines, plain or gzipped, one object per server and model. For each
rule, replay prints the hours that the runs take, the hours lost in tests that were
killed or given up, the number of records, and the number of tests that completed in
the recording but that the rule would have stopped ("wrong"). Wall time counts only
servers with at least one record. It leaves out waits for downloads.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(cmd.CommandPath()+" FILE", "replay needs one file of recorded runs, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runReplay(cmd, o, args[0]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.overhead, "overhead", "recorded", "count load `time`: recorded (in every test) or once (per model)")
	f.StringVar(&o.censored, "censored", string(policy.CensoredPredicted),
		"assumed `time` of a pass in a killed test: pred (as shorter tests say), fast, slow")
	o.prices.RegisterMachine(f, ": adds what the hours cost")
	f.BoolVar(&o.halves, "halves", false, "also replay each half of the servers, split by a hash of the name")
	return cmd
}

func runReplay(cmd *cobra.Command, o replayOptions, path string) error {
	censored := []string{string(policy.CensoredPredicted), string(policy.CensoredFast), string(policy.CensoredSlow)}
	if err := cmp.Or(oneOf("--overhead", o.overhead, []string{"recorded", "once"}), oneOf("--censored", o.censored, censored)); err != nil {
		return err
	}
	const hint = "give a file of recorded runs, one JSON object per server and model"
	f, err := os.Open(path)
	if err != nil {
		return usage(causeHint(err, hint), "%w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	servers, err := policy.ReadRecorded(f)
	if err != nil {
		return usage(causeHint(err, hint), "%w", result.AtPath(path, err))
	}
	prices, err := o.prices.Prices()
	if err != nil {
		return err
	}
	var rows []table.Row
	add := func(of string, servers []policy.RecordedServer) {
		for _, rule := range policy.Rules() {
			as := policy.ReplayOptions{LoadOnce: o.overhead == "once", Censored: policy.Censored(o.censored)}
			r := policy.Replay(servers, rule, as)
			rows = append(rows, append(replayRow(rule.Name, of, r, wall(servers, rule, as)), prices.CostOf(r.Total, r.Lost)...))
		}
	}
	add("all", servers)
	if o.halves {
		for half := range 2 {
			add(fmt.Sprintf("half %d", half+1), slices.DeleteFunc(slices.Clone(servers),
				func(s policy.RecordedServer) bool { return s.Half() != half }))
		}
	}
	header := table.Row{"rule", "servers", "n", "total h", "lost h", "lost %", "records", "wrong", "wrong %", "wall median s", "wall p95 s"}
	if prices != nil {
		header = append(header, "cost", "lost cost")
	}
	return printTable(cmd.OutOrStdout(), header, rows,
		"n", "total h", "lost h", "lost %", "records", "wrong", "wrong %", "wall median s", "wall p95 s", "cost", "lost cost")
}

// wall is the replay that gives the wall times: a model is loaded once, as this
// program does, whatever --overhead says.
func wall(servers []policy.RecordedServer, rule policy.Rule, o policy.ReplayOptions) policy.Replayed {
	o.LoadOnce = true
	return policy.Replay(servers, rule, o)
}

func replayRow(name, of string, r, wall policy.Replayed) table.Row {
	return table.Row{
		name, of, r.Servers,
		fmt.Sprintf("%.1f", r.Total.Hours()),
		fmt.Sprintf("%.1f", r.Lost.Hours()),
		fmt.Sprintf("%.1f", 100*r.LostShare()),
		r.Rows, r.Wrong,
		fmt.Sprintf("%.3f", 100*r.WrongShare()),
		fmt.Sprintf("%.0f", wall.WallMedian.Seconds()),
		fmt.Sprintf("%.0f", wall.WallP95.Seconds()),
	}
}
