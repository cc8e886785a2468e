package main

import (
	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/suite"
)

func newModelsCommand() *cobra.Command {
	models := &cobra.Command{
		Use:   "models",
		Short: "List the default models, inspect a model, or write one",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []table.Row
			for _, m := range suite.Models() {
				rows = append(rows, table.Row{m.File, humanize.IBytes(m.SizeBytes), humanize.Comma(int64(m.Params)), m.Repository})
			}
			return printTable(cmd.OutOrStdout(), table.Row{"model", "size", "parameters", "repository"}, rows, "size", "parameters")
		},
	}
	models.AddCommand(newInspectCommand(), newSynthCommand())
	return models
}

// oneModel refuses anything but one argument.
func oneModel(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("benchmark-llm models lists the default models", "%s needs one model, got %d", command, len(args))
		}
		return nil
	}
}
