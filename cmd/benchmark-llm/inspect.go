package main

import (
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/host"
)

func newInspectCommand() *cobra.Command {
	prompt, gen := commandline.Lengths{Values: []int{512}}, commandline.Lengths{Values: []int{128}}
	var format string
	cmd := &cobra.Command{
		Use:   "inspect NAME|URL|FILE",
		Short: "Show what a model is, from its header",
		Long: `Show what a model is, from its header: architecture, tensors by type, size, and
the memory that tests of given lengths need. NAME is a default model. Only the
header is read, also if the model is a URL, hf:user/repository[:quant] or
hf:user/repository/file[@revision].
Inspecting works without libllama. With it, the memory of GPUs is shown too.

The memory is predicted for this machine's CPU. It is exact for models of plain
attention, an upper bound for the KV cache of sliding windows, and an estimate of the
compute buffers of other architectures. A token embedding that is also the output
counts twice if the CPU repacks its type: run --no-repack avoids the second copy.`,
		Args: oneModel("inspect"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("--output", format, tableFormats); err != nil {
				return err
			}
			ctx, stop := interruptible(nil)
			defer stop()
			src, err := acquire.Named(ctx, newClient(false), args[0])
			if err = causeOf(ctx, "nothing was read", err); err != nil {
				return err
			}
			found, err := acquire.ReadHeader(ctx, newClient(false), src)
			if err != nil {
				return causeOf(ctx, "nothing was read", err)
			}
			in := acquire.Inspect(found, slices.Concat(prompt.Values, gen.Values))
			in.Available = host.Observe("/").MemoryAvailableBytes
			devices, err := findDevices(ctx, slog.LevelError, nil)
			if err != nil {
				slog.Debug("cannot list devices", "reason", err)
			}
			in.Devices, in.DevicesFree = devices.plan()
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), in)
			}
			return printed(in.Write(cmd.OutOrStdout(), columns(cmd.OutOrStdout())))
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().VarP(&prompt, "n-prompt", "p", "prompt lengths in `tokens` to show the memory for; 0: none")
	cmd.Flags().VarP(&gen, "n-gen", "n", "generation lengths in `tokens` to show the memory for; 0: none")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "output `format`: table, json")
	return cmd
}
