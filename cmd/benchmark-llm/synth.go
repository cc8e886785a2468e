package main

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

func newSynthCommand() *cobra.Command {
	var output string
	var seed uint64
	var tokenizer bool
	cmd := &cobra.Command{
		Use:   "synth NAME|URL|FILE",
		Short: "Write a model with synthetic weights to a GGUF file",
		Long: `Write a model with synthetic weights to a GGUF file. The model has the exact shape
and quantisation of NAME, a default model, or of any model by its header. Programs
that use llama.cpp, such as llama-bench, can load it. The text that it generates
makes no sense. --tokenizer adds a made-up byte-level vocabulary of the model's size.
` + synth.Tiny + ` is a model of two layers for tests of programs.`,
		Args: oneModel("synth"),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := interruptible(nil)
			defer stop()
			if _, err := llamacpp.Version(); err != nil {
				return err
			}
			found, header, err := synthHeader(ctx, args[0], tokenizer)
			if err != nil {
				return err
			}
			model, err := synth.FromHeader(found.Name, header, seed, llamacpp.Quantizer{})
			if err != nil {
				return &acquire.Error{Kind: acquire.NoShape, Model: found.Name, Err: err}
			}
			output = cmp.Or(output, found.Name)
			if err := synth.WriteFile(ctx, output, model); err != nil {
				return causeOf(ctx, "nothing was written", fail(exitOutput, result.AtPath(output, err), causeHint(err, "choose another place with -o")))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: the model's name, in the working directory)")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "`seed` of the weights")
	cmd.Flags().BoolVar(&tokenizer, "tokenizer", false, "add a made-up tokenizer")
	return cmd
}

// synthHeader is the header of the model to write.
func synthHeader(ctx context.Context, model string, tokenizer bool) (acquire.Header, *gguf.File, error) {
	src, err := acquire.Named(ctx, newClient(false), model)
	if err != nil {
		return acquire.Header{}, nil, err
	}
	found, err := acquire.ReadHeader(ctx, newClient(false), src)
	if err != nil {
		return found, nil, err
	}
	header, err := found.Outline()
	if err == nil && tokenizer {
		if header, err = synth.WithVocabulary(found.Name, header); err != nil {
			err = fail(exitModel, err, "leave --tokenizer out")
		}
	}
	return found, header, err
}
