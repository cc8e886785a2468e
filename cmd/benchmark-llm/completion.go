package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/rundir"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// flagWords are the values of flags that a shell offers. A flag with the name of its
// command before it belongs to that command only.
var flagWords = map[string][]string{
	"run output":      report.Formats(),
	"plan output":     tableFormats,
	"compare output":  report.ComparisonFormats(),
	"estimate output": estimate.Formats(),
	"runs output":     report.RunFormats(),
	"report output":   report.PageFormats(),
	"across":          compare.FactorNames(),
	"inspect output":  tableFormats,
	"weights":         acquire.AllWeights(),
	"cache-type-k":    bench.KVTypes,
	"cache-type-v":    bench.KVTypes,
	"split-mode":      bench.SplitModes,
	"load-mode":       bench.LoadModes,
	"flash-attn":      bench.FlashModes,
	"log-level":       logLevels,
	"log-format":      logFormats,
	"overhead":        {"recorded", "once"},
	"censored":        {string(policy.CensoredPredicted), string(policy.CensoredFast), string(policy.CensoredSlow)},
}

// completeValues has shells complete the values of all flags with a value, and models.
func completeValues(root *cobra.Command) {
	for _, c := range commandline.EveryCommand(root) {
		for _, f := range slices.Concat(flagsOf(c.LocalNonPersistentFlags()), flagsOf(c.PersistentFlags())) {
			if how := completionOf(c, f); how != nil {
				_ = c.RegisterFlagCompletionFunc(f.Name, how) // the root has the flags of run, which are registered once
			}
		}
		if c.Name() == "inspect" || c.Name() == "synth" {
			c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
				if len(args) > 0 {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return completeModel(c, args, begun)
			}
		}
	}
}

// completionOf is how a shell completes a flag of a command; nil: with any file.
func completionOf(c *cobra.Command, f *pflag.Flag) cobra.CompletionFunc {
	command := c.Name()
	if !c.HasParent() {
		command = "run"
	}
	words := flagWords[f.Name]
	if words == nil {
		words = flagWords[command+" "+f.Name]
	}
	placeholder, _ := pflag.UnquoteUsage(f)
	switch {
	case words != nil:
		return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	case f.Name == "model", f.Name == "model-urls":
		return completeModel
	case f.Name == "device":
		return completeDevice
	case f.Name == "resume":
		return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			parent, _ := c.Flags().GetString("results-dir")
			return append([]string{"last"}, rundir.List(parent)...), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		}
	case placeholder == "directory":
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
	case placeholder == "file":
		return nil
	}
	return cobra.NoFileCompletions
}

// completeModel offers the default models and model files.
func completeModel(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	var defaults []string
	for _, m := range suite.Models() {
		defaults = append(defaults, m.File)
	}
	return commandline.CompleteFile(begun, []string{".gguf"}, defaults)
}

// completeDevice offers the devices that layers can go to, after those named before.
func completeDevice(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	before := begun[:strings.LastIndexAny(begun, "/,")+1]
	var words []string
	found, err := findDevices(context.Background(), slog.LevelError, nil)
	if err == nil {
		for _, d := range found.devices {
			if d.Type != "cpu" && !strings.Contains(before, d.Name) {
				words = append(words, before+d.Name)
			}
		}
	}
	if before == "" {
		words = append(words, bench.NoDevice)
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
