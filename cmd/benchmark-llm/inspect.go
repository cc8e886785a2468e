package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
)

func newInspectCommand() *cobra.Command {
	prompt, gen := commandline.Lengths{Values: []int{512}}, commandline.Lengths{Values: []int{128}}
	var format string
	cmd := &cobra.Command{
		Use:   "inspect NAME|URL|FILE",
		Short: "Show what a model is, from its header",
		Long: `Show what a model is, from its header: architecture, tensors by type, size, and
the memory that tests of given lengths need. NAME is a default model. Only the
header is read, also if the model is a URL or hf:user/repository/file[@revision].
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
			src, err := source.Parse(args[0])
			if err != nil {
				return err
			}
			ctx, stop := interruptible(nil)
			defer stop()
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
			return printInspection(cmd.OutOrStdout(), in)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().VarP(&prompt, "n-prompt", "p", "prompt lengths in `tokens` to show the memory for; 0: none")
	cmd.Flags().VarP(&gen, "n-gen", "n", "generation lengths in `tokens` to show the memory for; 0: none")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "output `format`: table, json")
	return cmd
}

// printInspection prints three tables: facts, tensors by type, and memory by length.
func printInspection(w io.Writer, in acquire.Inspection) error {
	var facts strings.Builder
	add := func(what string, value any) { fmt.Fprintf(&facts, "%-14s%v\n", what, value) }
	add("model", oneLine(in.Model))
	if in.Name != "" {
		add("name", oneLine(in.Name))
	}
	add("architecture", oneLine(in.Architecture))
	add("parameters", humanize.Comma(int64(in.Params)))
	add("size", fmt.Sprintf("%s of tensors, %s in %s", humanize.IBytes(in.TensorBytes), humanize.IBytes(uint64(in.FileBytes)), result.Count(in.Files, "file")))
	for _, c := range []struct {
		what string
		n    uint64
	}{{"layers", in.Layers}, {"embedding", in.Embedding}, {"context", in.ContextTokens}, {"vocabulary", in.Vocabulary}} {
		if c.n > 0 {
			add(c.what, c.n)
		}
	}
	if in.Experts > 0 {
		add("experts", fmt.Sprintf("%d, each token uses %d", in.Experts, in.ExpertsUsed))
	}
	add("each token", fmt.Sprintf("reads %s of weights and needs %.3g billion operations", humanize.IBytes(in.Token.WeightBytes), float64(in.Token.Ops())/1e9))
	if in.Unsupported != "" {
		add("cannot run", in.Unsupported)
	}
	if in.Available != nil {
		add("memory here", humanize.IBytes(*in.Available)+" available")
	}
	if in.DevicesFree != nil {
		add("GPU memory", humanize.IBytes(*in.DevicesFree)+" free")
	}
	fmt.Fprintln(&facts)
	if _, err := io.WriteString(w, facts.String()); err != nil {
		return printed(err)
	}
	var types []table.Row
	for _, s := range in.Types {
		types = append(types, table.Row{s.Type.String(), s.Tensors, humanize.Comma(int64(s.Elements)), humanize.IBytes(s.Bytes)})
	}
	if err := printTable(w, table.Row{"type", "tensors", "elements", "size"}, types, "tensors", "elements", "size"); err != nil || len(in.Memory) == 0 {
		return err
	}
	type place struct {
		heading string
		bytes   *uint64 // free; nil: unknown
	}
	places := []place{{"fits here", in.Available}}
	if in.DevicesFree != nil {
		places = append(places, place{"fits GPUs", in.DevicesFree})
	}
	header := table.Row{"context", "weights", "KV cache", "compute", "total"}
	for _, p := range places {
		header = append(header, p.heading)
	}
	var memory []table.Row
	for _, m := range in.Memory {
		row := table.Row{m.Tokens, humanize.IBytes(m.Weights), humanize.IBytes(m.Cache), humanize.IBytes(m.Compute), humanize.IBytes(m.Total())}
		for _, p := range places {
			fits := "?"
			if p.bytes != nil {
				fits = "no"
				if m.Fits(*p.bytes) == nil {
					fits = "yes"
				}
			}
			row = append(row, fits)
		}
		memory = append(memory, row)
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return printed(err)
	}
	return printTable(w, header, memory, "context", "weights", "KV cache", "compute", "total")
}
