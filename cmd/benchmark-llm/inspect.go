package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

func newInspectCommand() *cobra.Command {
	prompt, gen := lengthsFlag{values: []int{512}}, lengthsFlag{values: []int{128}}
	var format string
	cmd := &cobra.Command{
		Use:   "inspect NAME|URL|FILE",
		Short: "Show what a model is, by its header alone",
		Long: `Show what a model is, by its header alone: architecture, tensors by type, size,
and the memory that tests of given lengths need. NAME is a default model's. Of a
URL or hf:user/repository/file[@revision] no more than the header is read; of a
model in several files, the header of each. The library is not needed; with it,
and a GPU, the memory of all GPUs counts too.

Weights and KV cache are exact for models of plain attention, an upper bound for
those with sliding windows; compute buffers are an estimate. A token embedding
that is the output, too, counts twice: so the library keeps it where it repacks
or offloads the output, which --no-repack on a CPU spares.`,
		Args: oneModel("inspect"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return usage("one of table, json", "--output: unknown value %q", format)
			}
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			defer catchSignals(cancel, nil)()
			found, err := findHeader(ctx, newClient(false), args[0])
			if err != nil {
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
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return outputFailure(e.Encode(in))
			}
			return in.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().VarP(&prompt, "n-prompt", "p", "prompt lengths in tokens, whose memory is shown; 0: none")
	cmd.Flags().VarP(&gen, "n-gen", "n", "generation lengths in tokens, the same")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "`form` of stdout: table, json")
	return cmd
}

// oneModel refuses anything but one argument.
func oneModel(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("benchmark-llm models lists the names of default models", "%s needs one model, got %d", command, len(args))
		}
		return nil
	}
}

// foundHeader is a model's header, wherever it was.
type foundHeader struct {
	name      string // of the model's file, without folder
	file      *gguf.File
	shards    int
	fileBytes int64 // of all files; as it would be, for a default model
	shape     bool  // of a default model, and so without words
}

// outline is what the synthetic model is made from.
func (f foundHeader) outline() (*gguf.File, error) {
	if f.shape {
		return f.file, nil
	}
	o, err := synth.Outline(f.name, f.file)
	if err != nil {
		return nil, fail(exitModel, err, "--weights file measures it")
	}
	return o, nil
}

// findHeader reads the header of a default model's shape, of a file here or of
// one on a server, and merges those of a model in several files.
func findHeader(ctx context.Context, client *fetch.Client, model string) (foundHeader, error) {
	source, err := fetch.ParseSource(model)
	if err != nil {
		return foundHeader{}, fail(exitModel, err, sourcesHint)
	}
	if source.Local() {
		return localHeader(model, source)
	}
	s, err := client.Survey(ctx, source, "")
	if err != nil {
		return foundHeader{}, downloadFailure(ctx, err)
	}
	return foundHeader{name: source.Name(), file: s.Header, shards: len(s.Files), fileBytes: s.Bytes()}, nil
}

// localHeader is findHeader for what is no address.
func localHeader(model string, source fetch.Source) (foundHeader, error) {
	if shape, err := synth.Lookup(model); err == nil {
		file, err := shape.File()
		if err != nil {
			return foundHeader{}, fail(exitModel, err, "")
		}
		return foundHeader{shape.Name, file, 1, file.Size(), true}, nil
	}
	if _, err := os.Stat(source.Path); errors.Is(err, fs.ErrNotExist) && filepath.Base(model) == model {
		_, err := lookupShape(model) // what it may have meant
		return foundHeader{}, err
	}
	f, err := fetch.Local(source.Path)
	if err != nil {
		return foundHeader{}, localFailure(source.Path, err)
	}
	return foundHeader{name: source.Name(), file: f.Header, shards: len(f.Paths), fileBytes: f.Bytes}, nil
}

var pinnedRevision = regexp.MustCompile(`^[0-9a-f]{40}$`)

// keepOutline makes the header file of a model that is to be measured by its
// header alone, in the first of dirs that takes it, and returns its path: Path of
// bench.Model. What an earlier run kept serves where it cannot have changed, and
// where the server cannot be asked.
func keepOutline(ctx context.Context, client *fetch.Client, model string, dirs ...string) (path string, outline *gguf.File, err error) {
	source, err := fetch.ParseSource(model)
	if err != nil {
		return "", nil, fail(exitModel, err, sourcesHint)
	}
	name := fmt.Sprintf("%x.gguf-header", sha256.Sum256([]byte(source.String())))
	var kept *gguf.File
	for _, dir := range dirs {
		path = filepath.Join(dir, name)
		if kept, err = synth.ReadHeaderFile(path); err == nil {
			break
		}
	}
	if kept != nil && pinnedRevision.MatchString(source.Revision) {
		return path, kept, nil
	}
	found, err := findHeader(ctx, client, model)
	if err != nil {
		if kept != nil && !source.Local() && !errors.As(context.Cause(ctx), new(*signalError)) {
			slog.Warn("using the header that an earlier run kept", "model", source, "reason", err)
			return path, kept, nil
		}
		return "", nil, err
	}
	if outline, err = found.outline(); err != nil {
		return "", nil, err
	}
	for _, dir := range dirs {
		path = filepath.Join(dir, name)
		if err = os.MkdirAll(dir, 0o755); err == nil {
			err = synth.WriteHeaderFile(path, outline)
		}
		if err == nil {
			return path, outline, nil
		}
	}
	return "", nil, fail(exitModel, fmt.Errorf("keep the header: %w", err), "choose another place with --models-dir")
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

	Devices     []plannedDevice `json:"devices,omitempty"`
	DevicesFree *uint64         `json:"devices_free_bytes,omitempty"` // of all GPUs with memory of their own; absent without one
}

// typeSum is all tensors of one type.
type typeSum struct {
	Type     gguf.Type `json:"type"`
	Tensors  int       `json:"tensors"`
	Elements uint64    `json:"elements"`
	Bytes    uint64    `json:"bytes"`
}

func inspect(found foundHeader, lengths []int) inspection {
	f := found.file
	in := inspection{
		Model: found.name, Architecture: f.Architecture(), Params: f.Params(), TensorBytes: f.TensorBytes(),
		FileBytes: found.fileBytes, Files: found.shards, HeaderBytes: f.DataOffset, Types: []typeSum{}, Memory: []gguf.Memory{},
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
		return outputFailure(err)
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
		return outputFailure(err)
	}
	return printTable(w, header, memory, "context", "weights", "KV cache", "compute", "total")
}

func files(n int) string {
	if n == 1 {
		return "one file"
	}
	return fmt.Sprintf("%d files", n)
}
