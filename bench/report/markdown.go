package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// settings are the optional columns of llama-bench's Markdown table, in the order
// and with the headings of version 0.7.0. A column is shown if the value of a
// record differs from standard, llama-bench's default.
var settings = []struct{ field, heading, standard string }{
	{"n_gpu_layers", "ngl", ""}, // shown except on the CPU
	{"n_cpu_moe", "n_cpu_moe", "0"},
	{"n_threads", "threads", ""}, // shown on the CPU
	{"cpu_mask", "cpu_mask", "0x0"},
	{"cpu_strict", "cpu_strict", "0"},
	{"poll", "poll", "50"},
	{"n_batch", "n_batch", "2048"},
	{"n_ubatch", "n_ubatch", "512"},
	{"type_k", "type_k", "f16"},
	{"type_v", "type_v", "f16"},
	{"main_gpu", "main_gpu", "0"},
	{"split_mode", "sm", "layer"},
	{"no_kv_offload", "nkvo", "0"},
	{"flash_attn", "fa", "-1"},
	{"devices", "dev", "auto"},
	{"tensor_split", "ts", "0.00"},
	{"tensor_buft_overrides", "ot", "none"},
	{"load_mode", "lm", "auto"},
	{"lazy_mode", "lazy_mode", "auto"},
	{"embeddings", "embd", "0"},
	{"no_op_offload", "nopo", "0"},
	{"no_host", "noh", "0"},
	{"repack", "rpk", "1"},
	{"fit_target", "fitt", "0"},
	{"fit_min_ctx", "fitc", "0"},
}

// markdown writes llama-bench's Markdown table, then the builds, the latencies, the costs,
// the warnings and the tests that did not complete. It writes nothing before
// Close, because the columns depend on all records.
type markdown struct {
	w        io.Writer
	outcomes []result.Outcome
}

func (m *markdown) Write(o result.Outcome) error {
	if err := check(o); err != nil {
		return err
	}
	m.outcomes = append(m.outcomes, o)
	return nil
}

func (m *markdown) Close() error {
	var records []*result.Record
	var builds, times, spent, warned, missing []string
	for _, o := range m.outcomes {
		name := fmt.Sprintf("%s, %s", printable(o.Model), o.Test)
		if o.Status == result.OK {
			records = append(records, o.Record)
			for _, line := range latencies([]*result.Record{o.Record}) {
				times = append(times, "- "+printable(o.Model)+", "+line)
			}
			for _, line := range costs([]*result.Record{o.Record}) {
				spent = append(spent, "- "+printable(o.Model)+", "+line)
			}
			build := fmt.Sprintf("build: %s (%d)", printable(o.Record.BuildCommit), o.Record.BuildNumber)
			if !slices.Contains(builds, build) {
				builds = append(builds, build)
			}
		} else {
			missing = append(missing, "- "+name+": "+statusText(o))
		}
		for _, note := range notes(o) {
			warned = append(warned, "- "+name+": "+note)
		}
	}
	blocks := []string{recordTable(records)}
	for _, block := range []struct {
		title string
		lines []string
	}{{"", builds}, {"Latency:\n\n", times}, {"Cost and energy:\n\n", spent}, {"Warnings:\n\n", warned}, {"Not completed:\n\n", missing}} {
		if len(block.lines) > 0 {
			blocks = append(blocks, block.title+strings.Join(block.lines, "\n"))
		}
	}
	return write(m.w, []byte(strings.Join(blocks, "\n\n")+"\n"))
}

// statusText is the status of a test with its reason.
func statusText(o result.Outcome) string {
	status := strings.ReplaceAll(string(o.Status), "_", " ")
	if o.Reason == "" {
		return status
	}
	return status + ": " + printable(o.Reason)
}

func recordTable(records []*result.Record) string {
	w := table.NewWriter()
	w.Style().Markdown.PadContent = true

	header := table.Row{"model", "size", "params", "backend"}
	var shown []Column
	for _, s := range settings {
		c := columns[slices.IndexFunc(columns, func(c Column) bool { return c.Name == s.field })]
		if slices.ContainsFunc(records, func(r *result.Record) bool { return isShown(r, c, s.standard) }) {
			shown = append(shown, c)
			header = append(header, s.heading)
		}
	}
	header = append(header, "test", "t/s")
	w.AppendHeader(header)

	var configs []table.ColumnConfig
	for i, heading := range header {
		align := text.AlignRight
		if heading == "model" || heading == "backend" {
			align = text.AlignLeft
		}
		configs = append(configs, table.ColumnConfig{Number: i + 1, Align: align, AlignHeader: align})
	}
	w.SetColumnConfigs(configs)

	for _, r := range records {
		row := table.Row{printable(r.ModelType), size(r.ModelSizeBytes), params(r.ModelParams), printable(r.Backends)}
		for _, c := range shown {
			row = append(row, printable(c.text(r)))
		}
		speed := fmt.Sprintf("%.2f ± %.2f", r.AvgTS, r.StddevTS)
		if verdict, _ := doubt(result.Outcome{Record: r}); verdict != "" {
			speed += " (" + verdict + ")"
		}
		w.AppendRow(append(row, r.Test().String(), speed))
	}
	return w.RenderMarkdown()
}

// isShown reports whether record r makes the table show column c, by llama-bench's
// rules. standard is the default value of the column.
func isShown(r *result.Record, c Column, standard string) bool {
	onCPU := slices.ContainsFunc([]string{"CPU", "BLAS", "ZenDNN"}, func(name string) bool {
		return strings.Contains(r.Backends, name)
	})
	switch c.Name {
	case "n_gpu_layers":
		return !onCPU
	case "n_threads":
		return onCPU
	default:
		// Records that are older than a text field have it empty.
		value := c.text(r)
		return value != "" && value != standard
	}
}
