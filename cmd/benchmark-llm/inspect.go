package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/source"
)

func newInspectCommand() *cobra.Command {
	prompt, gen := lengthsFlag{values: []int{512}}, lengthsFlag{values: []int{128}}
	var format string
	cmd := &cobra.Command{
		Use:   "inspect NAME|URL|FILE",
		Short: "Show what a model is, from its header",
		Long: `Show what a model is, from its header: architecture, tensors by type, size, and
the memory that tests of given lengths need. NAME is a default model. Of a URL or
hf:user/repository/file[@revision] only the header is read; of a model in several
files, the header of each. The library is not needed. With it, the memory of GPUs
counts too.

Weights and KV cache are exact for models with plain attention, and an upper bound
with sliding windows. Compute buffers are an estimate. A token embedding that is
also the output counts twice: the library keeps it twice if it repacks or offloads
the output. --no-repack on a CPU avoids that.`,
		Args: oneModel("inspect"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return usage("one of table, json", "--output: unknown value %q", format)
			}
			src, err := source.Parse(args[0])
			if err != nil {
				return err
			}
			ctx, stop := interruptible(nil)
			defer stop()
			found, err := acquire.ReadHeader(ctx, newClient(false), src)
			if err != nil {
				if cause := context.Cause(ctx); cause != nil {
					return fmt.Errorf("nothing was read: %w", cause)
				}
				return err
			}
			in := inspect(found, slices.Concat(prompt.values, gen.values))
			in.Available = host.Observe("/").MemoryAvailableBytes
			devices, err := findDevices(ctx, slog.LevelError, nil)
			if err != nil {
				slog.Debug("devices unknown", "reason", err)
			}
			in.Devices, in.DevicesFree = devices.plan()
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), in)
			}
			return in.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().VarP(&prompt, "n-prompt", "p", "prompt lengths in `tokens` to show the memory for; 0: none")
	cmd.Flags().VarP(&gen, "n-gen", "n", "generation lengths in `tokens`, likewise")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "output `format`: table, json")
	return cmd
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

// inspection is what models inspect shows. Sizes are in bytes, lengths in tokens.
type inspection struct {
	Model         string        `json:"model"`
	Name          string        `json:"name,omitempty"` // the file's own for the model
	Architecture  string        `json:"architecture"`
	Params        uint64        `json:"model_n_params"`
	TensorBytes   uint64        `json:"model_size"`
	FileBytes     int64         `json:"file_bytes"`
	Files         int           `json:"files"`
	HeaderBytes   int64         `json:"header_bytes"` // of the first file, or of all if merged
	Layers        uint64        `json:"layers,omitempty"`
	Embedding     uint64        `json:"embedding_length,omitempty"`
	ContextTokens uint64        `json:"context_tokens,omitempty"` // it was trained with
	Vocabulary    uint64        `json:"vocabulary_tokens,omitempty"`
	Experts       uint64        `json:"experts,omitempty"`
	ExpertsUsed   uint64        `json:"experts_used,omitempty"` // for each token
	Types         []typeSum     `json:"types"`
	Memory        []gguf.Memory `json:"memory"`
	Available     *uint64       `json:"memory_available_bytes,omitempty"`

	Devices     []acquire.PlannedDevice `json:"devices,omitempty"`
	DevicesFree *uint64                 `json:"devices_free_bytes,omitempty"` // of all GPUs with memory of their own; absent without one
}

// typeSum is all tensors of one type.
type typeSum struct {
	Type     gguf.Type `json:"type"`
	Tensors  int       `json:"tensors"`
	Elements uint64    `json:"elements"`
	Bytes    uint64    `json:"bytes"`
}

func inspect(found acquire.Header, lengths []int) inspection {
	f := found.File
	in := inspection{
		Model: found.Name, Architecture: f.Architecture(), Params: f.Params(), TensorBytes: f.TensorBytes(),
		FileBytes: found.FileBytes, Files: found.Files, HeaderBytes: f.DataOffset, Types: []typeSum{}, Memory: []gguf.Memory{},
	}
	v, _ := f.Get("general.name")
	in.Name, _ = v.(string)
	arch := in.Architecture + "."
	in.Layers, _ = f.Uint(arch + "block_count")
	in.Embedding, _ = f.Uint(arch + "embedding_length")
	in.ContextTokens, _ = f.Uint(arch + "context_length")
	in.Experts, _ = f.Uint(arch + "expert_count")
	in.ExpertsUsed, _ = f.Uint(arch + "expert_used_count")
	in.Vocabulary = f.Vocabulary()
	for _, t := range f.Tensors {
		i := slices.IndexFunc(in.Types, func(s typeSum) bool { return s.Type == t.Type })
		if i < 0 {
			i = len(in.Types)
			in.Types = append(in.Types, typeSum{Type: t.Type})
		}
		s := &in.Types[i]
		s.Tensors, s.Elements, s.Bytes = s.Tensors+1, s.Elements+t.Elements(), s.Bytes+t.Bytes()
	}
	slices.SortStableFunc(in.Types, func(a, b typeSum) int { return cmp.Compare(b.Bytes, a.Bytes) })
	slices.Sort(lengths)
	settings := bench.DefaultSettings(1)
	for _, n := range slices.Compact(lengths) {
		if n > 0 {
			in.Memory = append(in.Memory, f.Memory(n, settings.UBatch, gguf.F16, gguf.F16))
		}
	}
	return in
}

// print writes three tables: what it is, its tensors, the memory it needs.
func (in inspection) print(w io.Writer) error {
	var facts strings.Builder
	add := func(what string, value any) { fmt.Fprintf(&facts, "%-14s%v\n", what, value) }
	add("model", oneLine(in.Model))
	if in.Name != "" {
		add("name", oneLine(in.Name))
	}
	add("architecture", oneLine(in.Architecture))
	add("parameters", humanize.Comma(int64(in.Params)))
	add("size", fmt.Sprintf("%s of tensors, %s in %s", humanize.IBytes(in.TensorBytes), humanize.IBytes(uint64(in.FileBytes)), files(in.Files)))
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
	// It fits, or not, the memory here and, where there are GPUs, theirs together.
	places := []struct {
		heading string
		bytes   *uint64
	}{{"fits here", in.Available}}
	if in.DevicesFree != nil {
		places = append(places, struct {
			heading string
			bytes   *uint64
		}{"fits GPUs", in.DevicesFree})
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

func files(n int) string {
	if n == 1 {
		return "one file"
	}
	return fmt.Sprintf("%d files", n)
}
