package main

import (
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/commandline"
)

// globalOptions are the flags of every command.
type globalOptions struct {
	logLevel  string
	logFormat string
	quiet     bool
	still     bool // stderr has results, so no line of it is drawn again
}

// The values of global flags.
var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

// moreCommands are commands that files with build tags add.
var moreCommands []func(root *cobra.Command) *cobra.Command

func newRootCommand() *cobra.Command {
	var global globalOptions
	var showVersion bool
	run := newRunCommand(&global)
	root := &cobra.Command{
		Use:   "benchmark-llm",
		Short: "Measure LLM inference speed through llama.cpp",
		Long: `benchmark-llm measures how fast this machine runs large language models: prompt
processing (pp) and text generation (tg), in tokens per second. The numbers are those
of llama-bench. Without a command it runs "run", which measures the default suite.

` + exitCodes,
		Example: `  benchmark-llm run -m SmolLM-135M.Q4_K_M.gguf --weights synthetic  # no file
  benchmark-llm run -m model.gguf -p 512 -n 128  # as llama-bench
  benchmark-llm plan                             # what a run would do
  benchmark-llm                                  # the default suite`,
		Args:          noArguments,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return global.apply(cmd.ErrOrStderr())
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if showVersion {
				return onlyVersion(cmd)
			}
			return run.RunE(cmd, args)
		},
	}
	root.Flags().SortFlags = false
	root.PersistentFlags().SortFlags = false
	root.Flags().AddFlagSet(run.Flags())
	root.Flags().BoolVarP(&showVersion, "version", "v", false, "print the versions of llama.cpp and benchmark-llm on one line")
	root.PersistentFlags().StringVar(&global.logLevel, "log-level", "info", "lowest `level` that is logged on stderr: "+strings.Join(logLevels, ", "))
	root.PersistentFlags().StringVar(&global.logFormat, "log-format", "text", "`format` of the log on stderr: "+strings.Join(logFormats, ", "))
	root.PersistentFlags().BoolVarP(&global.quiet, "quiet", "q", false, "log only warnings and errors on stderr")
	root.SetFlagErrorFunc(commandline.FlagError)
	root.AddCommand(run, newQuickCommand(&global), newPlanCommand(&global), newEstimateCommand(&global), newLimitsCommand(&global), newDevicesCommand(&global), newModelsCommand(), newCompareCommand(), newReportCommand(), newRunsCommand(), newReplayCommand(),
		newVersionCommand(), newWorkerCommand())
	root.SetHelpCommand(commandline.NewHelpCommand())
	for _, more := range moreCommands {
		root.AddCommand(more(root))
	}
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" { // cobra's has no RunE, and so takes any word
			c.Args, c.RunE = noArguments, func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
	commandline.SetHelp(root)
	commandline.CheckValues(root)
	completeValues(root)
	return root
}

// level returns the lowest level that is logged.
func (g *globalOptions) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(g.logLevel)); err != nil {
		return l, oneOf("--log-level", g.logLevel, logLevels)
	}
	if g.quiet {
		l = max(l, slog.LevelWarn)
	}
	return l, nil
}

func (g *globalOptions) apply(stderr io.Writer) error {
	level, err := g.level()
	if err != nil {
		return err
	}
	if err := oneOf("--log-format", g.logFormat, logFormats); err != nil {
		return err
	}
	slog.SetDefault(newLogger(stderr, g.logFormat, level, stderr))
	return nil
}
