package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// globalOptions are the flags of every command.
type globalOptions struct {
	logLevel  string
	logFormat string
	quiet     bool
}

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
				return printVersion(cmd.OutOrStdout())
			}
			return run.RunE(cmd, args)
		},
	}
	root.Flags().SortFlags = false
	root.PersistentFlags().SortFlags = false
	root.Flags().AddFlagSet(run.Flags())
	root.Flags().BoolVar(&showVersion, "version", false, "print the versions of llama.cpp and benchmark-llm on one line")
	root.PersistentFlags().StringVar(&global.logLevel, "log-level", "info", "lowest `level` that is logged on stderr: debug, info, warn, error")
	root.PersistentFlags().StringVar(&global.logFormat, "log-format", "text", "`format` of the log on stderr: text, json")
	root.PersistentFlags().BoolVarP(&global.quiet, "quiet", "q", false, "log only warnings and errors on stderr")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		hint := cmd.CommandPath() + " --help"
		var invalid *pflag.InvalidValueError
		if errors.As(err, &invalid) {
			_, hint = pflag.UnquoteUsage(invalid.GetFlag())
			err = flagError(invalid)
		}
		return fail(exitUsage, err, hint)
	})
	root.AddCommand(run, newPlanCommand(&global), newDevicesCommand(&global), newModelsCommand(), newReplayCommand(), newWorkerCommand())
	for _, more := range moreCommands {
		root.AddCommand(more(root))
	}
	setHelp(root)
	root.SuggestionsMinimumDistance = 2
	return root
}

// flagError words an error of the flag parser like this program's own checks: the
// flag, then what is wrong.
func flagError(invalid *pflag.InvalidValueError) error {
	cause := invalid.Unwrap()
	var number *strconv.NumError
	if errors.As(cause, &number) {
		cause = number.Err
	}
	what := cause.Error()
	switch typ := invalid.GetFlag().Value.Type(); {
	case errors.Is(cause, strconv.ErrRange):
		what = fmt.Sprintf("%q is too large", invalid.GetValue())
	case typ == "int", typ == "uint64", typ == "intSlice":
		what = fmt.Sprintf("%q is not a whole number", invalid.GetValue())
	case typ == "float64":
		what = fmt.Sprintf("%q is not a number", invalid.GetValue())
	case typ == "duration":
		what = fmt.Sprintf("%q is not a time such as 90s or 5m", invalid.GetValue())
	}
	return fmt.Errorf("--%s: %s", invalid.GetFlag().Name, what)
}

// noArguments refuses words that are neither flag nor command, with a
// suggestion.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := cmd.CommandPath() + " --help"
	if near := cmd.Root().SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	}
	return usage(hint, "unknown command %q", args[0])
}

// level returns the lowest level that is logged.
func (g *globalOptions) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(g.logLevel)); err != nil {
		return l, usage("use --log-level debug, info, warn or error", "--log-level: unknown level %q", g.logLevel)
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
	if g.logFormat != "text" && g.logFormat != "json" {
		return usage("use --log-format text or json", "--log-format: unknown format %q", g.logFormat)
	}
	slog.SetDefault(newLogger(stderr, g.logFormat, level, stderr))
	return nil
}

// printVersion prints one line that begins with the library's version and build. It
// is the same with and without a GPU.
func printVersion(w io.Writer) error {
	_, err := fmt.Fprintln(w, versionLine())
	return printed(err)
}
