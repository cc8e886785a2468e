package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/suite"
)

// replayOptions are the flags of "replay".
type replayOptions struct {
	overhead string
	censored string
	halves   bool
}

func newReplayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Judge the stop policy by recorded runs",
		Long: `Replay recorded runs of the suite (JSON lines, plain or gzipped; one object per
server and model) under the stop policy and under simpler rules, and print for
each the hours it takes, the hours lost in tests that were killed or given up,
the records it keeps, and those it loses wrongly: recorded, but not under the
rule. Wall is that of a server with at least one record, waits for downloads
left out.`,
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
	f.StringVar(&o.overhead, "overhead", "recorded", "`when` loading is charged: recorded (in every test), once (per model)")
	f.StringVar(&o.censored, "censored", string(suite.CensoredPredicted),
		"how long a pass of a killed test is taken to last, a `mode`: pred (as shorter tests\npredict), fast (just too long), slow (for ever)")
	f.BoolVar(&o.halves, "halves", false, "also each half of the servers on its own, split by a hash of the name")
	return cmd
}

func runReplay(cmd *cobra.Command, o replayOptions, path string) error {
	overheads := []string{"recorded", "once"}
	censored := []string{string(suite.CensoredPredicted), string(suite.CensoredFast), string(suite.CensoredSlow)}
	for _, f := range []struct {
		flag, value string
		allowed     []string
	}{{"overhead", o.overhead, overheads}, {"censored", o.censored, censored}} {
		if !slices.Contains(f.allowed, f.value) {
			return usage(strings.Join(f.allowed, ", "), "--%s: %q is not known", f.flag, f.value)
		}
	}
	servers, err := readRecorded(path)
	if err != nil {
		return fail(exitUsage, err, "give a file of recorded runs, one JSON object per server and model")
	}
	var rows []table.Row
	add := func(of string, servers []suite.RecordedServer) {
		for _, rule := range suite.Rules() {
			as := suite.ReplayOptions{LoadOnce: o.overhead == "once", Censored: suite.Censored(o.censored)}
			rows = append(rows, replayRow(rule.Name, of, suite.Replay(servers, rule, as), wall(servers, rule, as)))
		}
	}
	add("all", servers)
	if o.halves {
		for half := range 2 {
			add(fmt.Sprintf("half %d", half+1), slices.DeleteFunc(slices.Clone(servers),
				func(s suite.RecordedServer) bool { return s.Half() != half }))
		}
	}
	header := table.Row{"rule", "servers", "n", "total h", "lost h", "lost %", "records", "wrong", "wrong %", "wall median s", "wall p95 s"}
	return printTable(cmd.OutOrStdout(), header, rows,
		"n", "total h", "lost h", "lost %", "records", "wrong", "wrong %", "wall median s", "wall p95 s")
}

// wall is the replay that the wall times are taken from: one process per model,
// as this program runs, whatever the overhead of the other columns.
func wall(servers []suite.RecordedServer, rule suite.Rule, o suite.ReplayOptions) suite.Replayed {
	o.LoadOnce = true
	return suite.Replay(servers, rule, o)
}

func replayRow(name, of string, r, wall suite.Replayed) table.Row {
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

func readRecorded(path string) ([]suite.RecordedServer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	servers, err := suite.ReadRecorded(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return servers, nil
}
