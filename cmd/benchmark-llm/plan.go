package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// planOptions are the flags of plan.
type planOptions struct {
	selectOptions
	sweepOptions
	global *globalOptions
	format string
	like   string
}

func newPlanCommand(global *globalOptions) *cobra.Command {
	o := &planOptions{global: global}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what run would do, and whether it fits, without doing it",
		Long: `Show what run would do with the same flags: models and tests, and where each file
is or how much must be downloaded. It also shows whether the models fit the disk, the
memory and the devices, and how long the tests may take by their budgets. Nothing is
measured. Only the header of a model that is neither on this machine nor a default
model is downloaded.

"needs" predicts the memory of the longest test: weights, KV cache and compute
buffers. "fits" compares it with the memory that is free now. If a model does
not fit the devices, it may still run with only some of its layers on them.`,
		Example: `  benchmark-llm plan
  benchmark-llm plan --suite mine.yaml -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.selectOptions.register(f)
	o.sweepOptions.register(f)
	inGroup(f, groupOutput, func() {
		f.StringVarP(&o.format, "output", "o", "table", "output `format`: table, json")
		f.StringVar(&o.like, "like", "", "`directory` of an earlier run to estimate times from")
	})
	return cmd
}

func (o *planOptions) run(stdout io.Writer) error {
	if err := oneOf("--output", o.format, tableFormats); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	s, err := o.suite()
	if err != nil {
		return err
	}
	measured, err := o.measured()
	if err != nil {
		return err
	}
	settings := bench.DefaultSettings(0)
	if err := o.apply(&settings); err != nil {
		return err
	}
	cells, err := o.cells(s, settings)
	if err != nil {
		return err
	}
	if cells.Settings == nil {
		cells.Settings = map[string]bench.Settings{"": settings}
	}
	ctx, stop := interruptible(nil)
	defer stop()
	p, err := acquire.NewPlan(ctx, cells.Suite, acquire.PlanOptions{
		Finder: o.finder(acquire.Weights(o.weights), o.modelsDir), Timeout: o.timeout(), Scale: o.scale, TimeLimit: o.timeLimit, Measured: measured, Settings: cells.Settings,
	})
	if err = causeOf(ctx, "nothing was planned", err); err != nil {
		return err
	}
	if err := o.addDevices(ctx, p); err != nil {
		return err
	}
	if o.format == "json" {
		return printJSON(stdout, p)
	}
	return (*planText)(p).print(stdout)
}

// addDevices adds the devices to a plan, and whether its models fit them.
func (o *planOptions) addDevices(ctx context.Context, p *acquire.Plan) error {
	level, err := o.global.level()
	if err != nil {
		return err
	}
	var free *uint64
	found, err := findDevices(ctx, level, nil)
	if err != nil {
		p.DevicesUnknown = err.Error()
	} else {
		p.GPUNotUsed, p.GPUDoubts = cmp.Or(found.gpus.UnusedReason, found.gpus.LeftOutReason), found.gpus.Doubts
		p.Devices, free = found.plan()
	}
	p.Fit(free)
	return nil
}

// measured returns what the run of --like measured.
func (o *planOptions) measured() (acquire.Measured, error) {
	if o.like == "" {
		return nil, nil
	}
	f, err := os.Open(filepath.Join(o.like, "results.jsonl"))
	if err != nil {
		return nil, usage(causeHint(err, "give the directory of a run, the one with its report.md"), "--like: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	read, err := report.ReadRecords(f)
	if err != nil {
		return nil, usage(causeHint(err, "give the directory of a run"), "--like: %w", result.AtPath(f.Name(), err))
	}
	m := acquire.Measured{}
	for i := range read {
		m.Add(&read[i])
	}
	return m, nil
}

// planText prints a plan as text.
type planText acquire.Plan

// print writes the table and the lines below it.
func (p *planText) print(w io.Writer) error {
	header := table.Row{"model", "tests", "size", "file", "disk", "load within", "tests within", "needs", "memory", "devices"}
	var rows []table.Row
	for i := range p.Models {
		rows = append(rows, planRow(&p.Models[i]))
	}
	if err := printTable(w, header, rows, "tests", "size", "load within", "tests within", "needs"); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, m := range p.Models {
		if m.Bad != "" {
			fmt.Fprintf(&b, "%s: cannot be run: %s\n", oneLine(m.Name), oneLine(m.Bad))
		}
	}
	for _, n := range (*acquire.Plan)(p).Notes() {
		fmt.Fprintf(&b, "%s: %s\n", oneLine(strings.Join(n.Models, ", ")), oneLine(n.Text))
	}
	for _, line := range []string{p.diskLine(), p.memoryLine(), p.devicesLine(), p.gpuLines(), p.loadsLine(), p.timeLine()} {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return printed(err)
}

func planRow(m *acquire.PlannedModel) table.Row {
	size, load, tests, needs := "?", "?", "?", "?"
	if m.SizeBytes > 0 {
		size, load, tests = humanize.IBytes(m.SizeBytes), budgetText(m.LoadBudgetSeconds), budgetText(m.TestBudgetSeconds)
	}
	if m.Memory != nil {
		needs = humanize.IBytes(m.Memory.Total())
	}
	file := "synthetic"
	switch {
	case m.Bad != "":
		file = "cannot run"
	case m.Path != "":
		file = "here"
	case m.Source != "" && m.DownloadBytes == 0:
		file = "to fetch"
	case m.Source != "":
		file = "to fetch, " + humanize.IBytes(uint64(m.DownloadBytes))
	}
	if m.Fallback && m.Path == "" {
		file += ", else synthetic"
	}
	return table.Row{strings.TrimSuffix(oneLine(m.Name)+" "+m.Settings, " "), len(m.Tests), size, file, orDash(m.Disk), load, tests, needs, orDash(m.InMemory), orDash(m.OnDevices)}
}

func orDash(f acquire.Fit) string { return cmp.Or(string(f), "-") }

// budgetText is a budget for people; 0 is no limit.
func budgetText(seconds float64) string {
	if seconds == 0 {
		return "no limit"
	}
	return durationText(seconds)
}

// durationText is a duration without trailing zero parts: 1h20m, not 1h20m0s.
func durationText(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	text := d.String()
	if d >= time.Minute && d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d >= time.Hour && d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (p *planText) diskLine() string {
	if p.FreeBytes == nil {
		return ""
	}
	about, all := "", acquire.Fits
	for _, m := range p.Models {
		if m.Disk == acquire.Unknown {
			about = "at least "
		} else if m.About && m.Path == "" && about == "" {
			about = "about "
		}
		if m.Disk == acquire.DoesNotFit || m.Disk == acquire.Unknown && all == acquire.Fits {
			all = m.Disk
		}
	}
	size := about + humanize.IBytes(uint64(p.DownloadBytes))
	if all == acquire.Unknown && p.DownloadBytes == 0 {
		size = "unknown size"
	}
	return fmt.Sprintf("download: %s to %s, which has room for %s: %s", size,
		oneLine(p.Directory), humanize.IBytes(uint64(max(*p.FreeBytes, 0))), all)
}

func (p *planText) memoryLine() string {
	if p.MemoryAvailableBytes == nil {
		return "memory: unknown"
	}
	return fmt.Sprintf("memory: %s available", humanize.IBytes(*p.MemoryAvailableBytes))
}

func (p *planText) devicesLine() string {
	if p.DevicesUnknown != "" {
		return "devices: unknown: " + oneLine(p.DevicesUnknown)
	}
	var names []string
	for _, d := range p.Devices {
		about := []string{oneLine(d.Type), bytesOrUnknown(d.FreeBytes) + " free"}
		if how := kernelWords[d.Kernels]; how != "" {
			about = append(about, how)
		}
		if d.NotUsed != "" {
			about = append(about, "not used: "+oneLine(d.NotUsed))
		}
		names = append(names, fmt.Sprintf("%s (%s)", oneLine(d.Name), strings.Join(about, ", ")))
	}
	return "devices: " + strings.Join(names, ", ")
}

// gpuLines say which GPUs are not used or may not work; empty if there are none.
func (p *planText) gpuLines() string {
	var lines []string
	if p.GPUNotUsed != "" {
		lines = append(lines, gpuUnused+": "+oneLine(p.GPUNotUsed))
	}
	for _, doubt := range p.GPUDoubts {
		lines = append(lines, "a GPU may not work: "+oneLine(doubt))
	}
	return strings.Join(lines, "\n")
}

// loadsLine says how often models are loaded, if they are loaded with several settings.
func (p *planText) loadsLine() string {
	if !slices.ContainsFunc(p.Models, func(m acquire.PlannedModel) bool { return m.Settings != "" }) {
		return ""
	}
	return fmt.Sprintf("loads: %d, one for each model and its settings", p.Loads)
}

func (p *planText) timeLine() string {
	var b strings.Builder
	switch {
	case p.UpperBoundSeconds != nil:
		fmt.Fprintf(&b, "time: at most %s by the budgets, without downloads", durationText(*p.UpperBoundSeconds))
		if n := p.UnknownSizes; n > 0 {
			b.WriteString(" and without " + result.Count(n, "model") + " of unknown size")
		}
	case p.UnknownSizes == len(p.Models):
		b.WriteString("time: unknown")
	default:
		b.WriteString("time: tests have no limit")
	}
	if p.LikelySeconds != nil {
		fmt.Fprintf(&b, "; likely %s by an earlier run, which measured %d of %s", durationText(*p.LikelySeconds), p.LikelyTests, result.Count(p.Tests, "test"))
	}
	switch {
	case p.TimeLimitSeconds == nil:
		b.WriteString("; the run has no time limit")
	case p.UpperBoundSeconds != nil && *p.UpperBoundSeconds <= *p.TimeLimitSeconds:
		fmt.Fprintf(&b, "; the run's limit is %s: fits", durationText(*p.TimeLimitSeconds))
	default:
		fmt.Fprintf(&b, "; the run's limit is %s: tests that would end later are skipped", durationText(*p.TimeLimitSeconds))
	}
	return b.String()
}
