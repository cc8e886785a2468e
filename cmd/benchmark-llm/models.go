package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
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

func newSynthCommand() *cobra.Command {
	var output string
	var seed uint64
	var tokenizer bool
	cmd := &cobra.Command{
		Use:   "synth NAME|URL|FILE",
		Short: "Write a model with synthetic weights to a GGUF file",
		Long: `Write a model with synthetic weights to a GGUF file: the exact shape and
quantisation of a default model, or of any model by its header, with generated
numbers. llama-bench and any other program on llama.cpp load it; what it says
makes no sense. With --tokenizer it has words: a byte-level vocabulary, generated
too, of as many tokens as the model has. ` + synth.Tiny + ` is a model of two layers
for tests of programs.`,
		Args: oneModel("synth"),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			defer catchSignals(cancel, nil)()
			if _, err := llamacpp.Version(); err != nil {
				return libraryFailure(err)
			}
			found, err := findHeader(ctx, newClient(false), args[0])
			if err != nil {
				return err
			}
			header, err := found.outline()
			if err != nil {
				return err
			}
			if tokenizer {
				if header, err = synth.WithVocabulary(found.name, header); err != nil {
					return fail(exitModel, err, "leave --tokenizer out")
				}
			}
			model, err := synth.FromHeader(found.name, header, seed, llamacpp.Quantizer{})
			if err != nil {
				return fail(exitModel, err, "")
			}
			if output == "" {
				output = found.name
			}
			err = writeFile(ctx, output, model)
			var s *signalError
			switch {
			case errors.As(err, &s):
				return s.failure("nothing was written", "")
			case err != nil:
				return fail(exitOutput, fmt.Errorf("write %s: %w", output, err), "choose another place with -o")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: the model's name, here)")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "seed of the weights")
	cmd.Flags().BoolVar(&tokenizer, "tokenizer", false, "with a generated tokenizer")
	return cmd
}

// writeFile writes to a temporary file beside path and renames it, so that path
// is whole or not there. What is there and no file, a pipe or a device, is
// written as it is. The error is ctx's cause when ctx ended first.
func writeFile(ctx context.Context, path string, from io.WriterTo) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = from.WriteTo(interruptible{ctx, f})
		return errors.Join(err, f.Close())
	}
	f, err := pendingFile(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // after the rename it does nothing
	if _, err := from.WriteTo(interruptible{ctx, f}); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// interruptible is a writer that fails when ctx ends.
type interruptible struct {
	ctx context.Context
	io.Writer
}

func (w interruptible) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.Writer.Write(p)
}

func lookupShape(name string) (*synth.Shape, error) {
	shape, err := synth.Lookup(filepath.Base(name))
	if err != nil {
		return nil, fail(exitModel, err, "benchmark-llm models lists the names")
	}
	return shape, nil
}
