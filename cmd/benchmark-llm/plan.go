package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// planOptions are the flags of plan.
type planOptions struct {
	selectOptions
	global *globalOptions
	format string
	like   string
}

func newPlanCommand(global *globalOptions) *cobra.Command {
	o := &planOptions{global: global}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what run would do, and whether it fits, without doing it",
		Long: `Show what run would do with the same flags: models and tests, where each file is
or how much must be fetched, whether it fits the disk, the memory and the devices,
and how long it may take by its budgets. Nothing is measured and nothing is
fetched, but the header of a model that is neither here nor a default one. With
--weights auto a file that cannot be had is replaced by generated weights.

Memory is an estimate for the longest test: weights, KV cache and compute buffers.
"fits" counts all of it against what is free now, so a model that does not fit the
devices may still run with a part of its layers there.`,
		Example: `  benchmark-llm plan
  benchmark-llm plan --suite mine.yaml -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.register(f)
	f.StringVarP(&o.format, "output", "o", "table", "`form` of stdout: table, json")
	f.StringVar(&o.like, "like", "", "`directory` of an earlier run: tests that it has records of likely take as long")
	return cmd
}

// verdict is whether something fits; empty when it need not.
type verdict string

const (
	fits       verdict = "fits"
	doesNotFit verdict = "does not fit"
	unknown    verdict = "unknown"
)

func verdictOf(fit bool) verdict {
	if fit {
		return fits
	}
	return doesNotFit
}

// plan is what a run would do.
type plan struct {
	Models      []plannedModel `json:"models"` // in the order they run
	Repetitions int            `json:"repetitions"`
	Weights     string         `json:"weights"` // as --weights

	Directory     string `json:"models_dir"`
	DownloadBytes int64  `json:"download_bytes"`       // that are missing, as far as known
	FreeBytes     *int64 `json:"free_bytes,omitempty"` // for downloads in the directory

	MemoryAvailableBytes *uint64         `json:"memory_available_bytes,omitempty"`
	Devices              []plannedDevice `json:"devices,omitempty"`
	DevicesUnknown       string          `json:"devices_unknown,omitempty"` // why
	GPUNotUsed           string          `json:"gpu_not_used,omitempty"`    // why a GPU that is there cannot be used
	GPUDoubts            []string        `json:"gpu_doubts,omitempty"`      // why one that is used may not work

	UpperBoundSeconds *float64 `json:"upper_bound_s,omitempty"` // of models whose size is known, by budgets; absent: no limit
	UnknownSizes      int      `json:"unknown_sizes,omitempty"` // models that are not in it
	LikelySeconds     *float64 `json:"likely_s,omitempty"`      // of tests that --like has records of
	LikelyTests       int      `json:"likely_tests,omitempty"`  // their number
	Tests             int      `json:"tests"`                   // of all models
	TimeLimitSeconds  *float64 `json:"time_limit_s,omitempty"`
}

// plannedModel is a model of a plan. Its file is at Path, or DownloadBytes of it
// are to be fetched from Source, or it has no file.
type plannedModel struct {
	Name          string  `json:"name"`
	Source        string  `json:"source,omitempty"`
	Instead       bool    `json:"instead,omitempty"` // with --weights auto: generated weights if the file does not come
	Path          string  `json:"path,omitempty"`
	DownloadBytes int64   `json:"download_bytes,omitempty"`
	About         bool    `json:"download_about,omitempty"` // it is the size of the tensors, a little less than the file's
	Disk          verdict `json:"disk,omitempty"`

	SizeBytes         uint64        `json:"size_bytes,omitempty"` // of its tensors; absent: unknown
	Tests             []plannedTest `json:"tests"`
	LoadBudgetSeconds float64       `json:"load_budget_s,omitempty"`
	TestBudgetSeconds float64       `json:"test_budgets_s,omitempty"` // their sum

	Memory    *gguf.Memory `json:"memory,omitempty"`
	Longest   string       `json:"longest_test"`
	InMemory  verdict      `json:"fits_memory"`
	OnDevices verdict      `json:"fits_devices,omitempty"` // of all GPUs together; absent without one
	Notes     []string     `json:"notes,omitempty"`

	wanted suite.Entry
	source fetch.Source
	header *gguf.File // nil: unknown
}

type plannedTest struct {
	Name string `json:"name"`
	result.Test
	BudgetSeconds float64 `json:"budget_s,omitempty"` // absent: no limit, or the model's size is unknown
}

func (o *planOptions) run(stdout io.Writer) error {
	if o.format != "table" && o.format != "json" {
		return usage("one of table, json", "--output: unknown value %q", o.format)
	}
	if err := o.check(); err != nil {
		return err
	}
	s, err := o.suite()
	if err != nil {
		return err
	}
	known, err := o.known()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer catchSignals(cancel, nil)()

	p, err := o.plan(ctx, s, known)
	if err != nil {
		return err
	}
	if o.format == "json" {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return outputFailure(e.Encode(p))
	}
	return p.print(stdout)
}

// plan finds the models and counts what they need.
func (o *planOptions) plan(ctx context.Context, s suite.Suite, known earlier) (*plan, error) {
	p := &plan{Repetitions: s.Repetitions, Weights: o.weights, Directory: o.downloadDir()}
	for _, m := range s.Models {
		found, err := o.find(ctx, m)
		if err != nil {
			return nil, err
		}
		p.Models = append(p.Models, found)
	}
	client := newClient(o.auto())
	p.ask(ctx, client, o.askedWithin())
	var stopped *signalError
	if errors.As(context.Cause(ctx), &stopped) {
		return nil, stopped.failure("nothing was planned", "")
	}
	p.sortBySize()
	if err := p.disk(ctx, client); err != nil {
		return nil, fail(exitModel, fmt.Errorf("models directory: %w", err), "choose another place with --models-dir")
	}
	level, err := o.global.level()
	if err != nil {
		return nil, err
	}
	gpu := p.devices(ctx, level)
	p.MemoryAvailableBytes = host.Observe("/").MemoryAvailableBytes
	o.times(p, s, known)
	for i := range p.Models {
		p.Models[i].memory(p.MemoryAvailableBytes, gpu)
	}
	return p, nil
}

// find looks for a model on this machine.
func (o *planOptions) find(ctx context.Context, wanted suite.Entry) (plannedModel, error) {
	m := plannedModel{Name: wanted.Name, wanted: wanted}
	var err error
	if m.source, err = fetch.ParseSource(wanted.Source); err != nil {
		return m, fail(exitModel, err, sourcesHint)
	}
	published, ok := suite.LookupModel(wanted.Name)
	isDefault := ok && published.Source() == wanted.Source
	var file fetch.File
	switch {
	case result.Weights(o.weights) == result.SyntheticWeights:
		m.header, err = o.header(ctx, wanted)
		return m, err
	case m.source.Local():
		if file, err = fetch.Local(m.source.Path, o.dirs()...); err == nil {
			break
		}
		header, unknown := o.header(ctx, wanted)
		if !o.auto() || unknown != nil {
			return m, localFailure(m.source.Path, err)
		}
		m.header, m.Notes = header, append(m.Notes, fmt.Sprintf("synthetic weights: %v", err))
		return m, nil
	default:
		m.Source, m.Instead = m.source.String(), o.auto()
		path := filepath.Join(o.downloadDir(), m.source.Name())
		if file, err = fetch.Local(path); err != nil && !errors.Is(err, fetch.ErrNotFound) {
			m.Notes = append(m.Notes, fmt.Sprintf("%v; it will be fetched again", err))
		}
	}
	if m.Path, m.header = file.Path, file.Header; m.header != nil || !isDefault {
		return m, nil
	}
	shape, err := lookupShape(published.File) // needs no network
	if err != nil {
		return m, err
	}
	if m.header, err = shape.File(); err != nil {
		return m, fail(exitModel, err, "")
	}
	m.DownloadBytes, m.About = int64(published.SizeBytes), true
	return m, nil
}

// header is that of a model whose weights are generated. Nothing is kept of it.
func (o *planOptions) header(ctx context.Context, wanted suite.Entry) (*gguf.File, error) {
	if shape, err := synth.Lookup(wanted.Name); err == nil {
		return shape.File()
	}
	ctx, cancel := context.WithTimeout(ctx, o.askedWithin())
	defer cancel()
	found, err := findHeader(ctx, newClient(o.auto()), wanted.Source)
	if err != nil {
		return nil, err
	}
	return found.outline()
}

// ask reads the headers of models that are not known here, all at once.
func (p *plan) ask(ctx context.Context, client *fetch.Client, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var asked sync.WaitGroup
	for i := range p.Models {
		m := &p.Models[i]
		if m.header != nil {
			continue
		}
		asked.Go(func() {
			s, err := client.Survey(ctx, m.source, p.Directory)
			if err != nil {
				m.Notes = append(m.Notes, fmt.Sprintf("size unknown: %v", err))
				return
			}
			m.header = s.Header
			m.DownloadBytes, _ = s.Missing()
		})
	}
	asked.Wait()
	for i := range p.Models {
		m := &p.Models[i]
		if m.header != nil {
			m.SizeBytes = m.header.TensorBytes()
		}
	}
}

// sortBySize puts smaller models first, as a run does.
func (p *plan) sortBySize() {
	if slices.ContainsFunc(p.Models, func(m plannedModel) bool { return m.SizeBytes == 0 }) {
		return
	}
	slices.SortStableFunc(p.Models, func(a, b plannedModel) int { return cmp.Compare(a.SizeBytes, b.SizeBytes) })
}

// disk counts what is to be fetched, in the order of the run, against the room.
func (p *plan) disk(ctx context.Context, client *fetch.Client) error {
	if !slices.ContainsFunc(p.Models, func(m plannedModel) bool { return m.Source != "" && m.Path == "" }) {
		return nil
	}
	q := client.Prefetch(ctx, nil, fetch.QueueOptions{Dir: p.Directory})
	defer q.Close()
	room, err := q.Total(ctx)
	if err != nil {
		return err
	}
	p.FreeBytes = &room.Free
	var used int64
	for i := range p.Models {
		m := &p.Models[i]
		switch {
		case m.Source == "" || m.Path != "":
			continue
		case m.DownloadBytes == 0:
			m.Disk = unknown
			continue
		}
		p.DownloadBytes += m.DownloadBytes
		m.Disk = verdictOf(used+m.DownloadBytes <= room.Free)
		switch {
		case m.Disk == fits:
			used += m.DownloadBytes
		case m.Instead:
			p.DownloadBytes -= m.DownloadBytes
			m.Notes = append(m.Notes, "synthetic weights: the disk has no room for its file")
		}
	}
	return nil
}

// devices lists the devices, and gives the free memory of GPUs with memory of
// their own: nil without one that says, or that can be used.
func (p *plan) devices(ctx context.Context, level slog.Level) (gpu *uint64) {
	found, err := findDevices(ctx, level, nil)
	if err != nil {
		p.DevicesUnknown = err.Error()
		return nil
	}
	p.GPUNotUsed, p.GPUDoubts = cmp.Or(found.gpus.unused, found.gpus.without), found.gpus.doubts
	p.Devices, gpu = found.plan()
	return gpu
}

// times gives each model its budgets, and the plan their sum.
func (o *planOptions) times(p *plan, s suite.Suite, known earlier) {
	bound, limited := time.Duration(0), true
	var likely time.Duration
	for i := range p.Models {
		m := &p.Models[i]
		planned := s.Plan(m.wanted, m.SizeBytes, o.timeout, o.scale)
		m.Longest = planned.Longest().String()
		p.Tests += len(planned.Tests)
		took, tests := planned.Likely(known[m.Name])
		likely += took
		p.LikelyTests += tests
		for _, t := range planned.Tests {
			test := plannedTest{Name: t.Test.String(), Test: t.Test}
			if m.SizeBytes > 0 {
				test.BudgetSeconds = t.Budget.Seconds()
				m.TestBudgetSeconds += t.Budget.Seconds()
			}
			m.Tests = append(m.Tests, test)
		}
		if m.SizeBytes == 0 {
			p.UnknownSizes++
			continue
		}
		need := planned.Memory(m.header, bench.DefaultSettings(0).UBatch)
		m.Memory = &need
		m.LoadBudgetSeconds = planned.LoadBudget.Seconds()
		all, ok := planned.UpperBound()
		bound += all
		limited = limited && ok
	}
	if limited && p.UnknownSizes < len(p.Models) {
		p.UpperBoundSeconds = secondsOf(bound)
	}
	if p.LikelyTests > 0 {
		p.LikelySeconds = secondsOf(likely)
	}
	if o.timeLimit > 0 {
		p.TimeLimitSeconds = secondsOf(o.timeLimit)
	}
}

func secondsOf(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

// memory tells whether the longest test fits.
func (m *plannedModel) memory(available, gpu *uint64) {
	m.InMemory = unknown
	if gpu != nil {
		m.OnDevices = unknown
	}
	if m.Memory == nil {
		return
	}
	need := m.Memory.Total()
	if available != nil {
		m.InMemory = verdictOf(need <= *available)
	}
	if gpu != nil {
		m.OnDevices = verdictOf(need <= *gpu)
	}
}

// earlier is what an earlier run measured: by model and test, the time of one
// repetition.
type earlier map[string]map[result.Test]time.Duration

// known are the records of --like.
func (o *planOptions) known() (earlier, error) {
	if o.like == "" {
		return nil, nil
	}
	f, err := os.Open(filepath.Join(o.like, "results.jsonl"))
	if err != nil {
		return nil, usage("give the directory of a run, as its last line names it", "--like: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	read, err := report.ReadRecords(f)
	if err != nil {
		return nil, usage("give the directory of a run", "--like: %s: %w", f.Name(), err)
	}
	known := make(earlier)
	for i := range read {
		r := &read[i]
		name := filepath.Base(r.ModelFilename)
		if known[name] == nil {
			known[name] = make(map[result.Test]time.Duration)
		}
		known[name][r.Test()] = time.Duration(r.AvgNs)
	}
	return known, nil
}

// print shows the plan to a person.
func (p *plan) print(w io.Writer) error {
	header := table.Row{"model", "tests", "size", "file", "disk", "load", "tests take", "needs", "memory", "devices"}
	var rows []table.Row
	for i := range p.Models {
		rows = append(rows, p.Models[i].row())
	}
	if err := printTable(w, header, rows, "tests", "size", "load", "tests take", "needs"); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, m := range p.Models {
		for _, note := range m.Notes {
			fmt.Fprintf(&b, "%s: %s\n", oneLine(m.Name), oneLine(note))
		}
	}
	for _, line := range []string{p.diskLine(), p.memoryLine(), p.devicesLine(), p.gpuLines(), p.timeLine()} {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return outputFailure(err)
}

func (m *plannedModel) row() table.Row {
	size, load, tests, needs := "?", "?", "?", "?"
	if m.SizeBytes > 0 {
		size, load, tests = humanize.IBytes(m.SizeBytes), budgetText(m.LoadBudgetSeconds), budgetText(m.TestBudgetSeconds)
	}
	if m.Memory != nil {
		needs = humanize.IBytes(m.Memory.Total())
	}
	file := "synthetic"
	switch {
	case m.Path != "":
		file = "here"
	case m.Source != "" && m.DownloadBytes == 0:
		file = "to fetch"
	case m.Source != "":
		file = "to fetch, " + humanize.IBytes(uint64(m.DownloadBytes))
	}
	if m.Instead && m.Path == "" {
		file += ", else synthetic"
	}
	return table.Row{oneLine(m.Name), len(m.Tests), size, file, orDash(m.Disk), load, tests, needs, orDash(m.InMemory), orDash(m.OnDevices)}
}

func orDash(v verdict) string { return cmp.Or(string(v), "-") }

// budgetText is a budget for people; 0 is no limit.
func budgetText(seconds float64) string {
	if seconds == 0 {
		return "no limit"
	}
	return durationText(seconds)
}

// durationText is a time without parts that are 0 at its end: 1h20m, not 1h20m0s.
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

func (p *plan) diskLine() string {
	if p.FreeBytes == nil {
		return ""
	}
	about, all := "", fits
	for _, m := range p.Models {
		if m.About && m.Path == "" {
			about = "about "
		}
		if m.Disk == doesNotFit || m.Disk == unknown && all == fits {
			all = m.Disk
		}
	}
	return fmt.Sprintf("download: %s%s to %s, which has room for %s: %s", about, humanize.IBytes(uint64(p.DownloadBytes)),
		oneLine(p.Directory), humanize.IBytes(uint64(max(*p.FreeBytes, 0))), all)
}

func (p *plan) memoryLine() string {
	if p.MemoryAvailableBytes == nil {
		return "memory: unknown"
	}
	return fmt.Sprintf("memory: %s available", humanize.IBytes(*p.MemoryAvailableBytes))
}

func (p *plan) devicesLine() string {
	if p.DevicesUnknown != "" {
		return "devices unknown: " + oneLine(p.DevicesUnknown)
	}
	var names []string
	for _, d := range p.Devices {
		about := []string{oneLine(d.Type), bytesOrUnknown(d.FreeBytes) + " free"}
		if how := kernelWords[d.Kernels]; how != "" {
			about = append(about, how)
		}
		names = append(names, fmt.Sprintf("%s (%s)", oneLine(d.Name), strings.Join(about, ", ")))
	}
	return "devices: " + strings.Join(names, ", ")
}

// gpuLines are what is to be known of GPUs that are not used, or may not work;
// empty when nothing is.
func (p *plan) gpuLines() string {
	var lines []string
	if p.GPUNotUsed != "" {
		lines = append(lines, gpuUnused+": "+oneLine(p.GPUNotUsed))
	}
	for _, doubt := range p.GPUDoubts {
		lines = append(lines, "a GPU may not work: "+oneLine(doubt))
	}
	return strings.Join(lines, "\n")
}

func (p *plan) timeLine() string {
	var b strings.Builder
	switch {
	case p.UpperBoundSeconds != nil:
		fmt.Fprintf(&b, "time: at most %s by the budgets, downloads not counted", durationText(*p.UpperBoundSeconds))
	case p.UnknownSizes == len(p.Models):
		b.WriteString("time: unknown")
	default:
		b.WriteString("time: tests have no limit")
	}
	if n := p.UnknownSizes; n > 0 && n < len(p.Models) {
		fmt.Fprintf(&b, ", nor models of unknown size (%d)", n)
	}
	if p.LikelySeconds != nil {
		fmt.Fprintf(&b, "; likely %s for the %d of %d tests that were measured before", durationText(*p.LikelySeconds), p.LikelyTests, p.Tests)
	}
	switch {
	case p.TimeLimitSeconds == nil:
		b.WriteString("; the run has no time limit")
	case p.UpperBoundSeconds != nil && *p.UpperBoundSeconds <= *p.TimeLimitSeconds:
		fmt.Fprintf(&b, "; the run's limit is %s: fits", durationText(*p.TimeLimitSeconds))
	default:
		fmt.Fprintf(&b, "; the run's limit is %s: tests that cannot end by then are left out", durationText(*p.TimeLimitSeconds))
	}
	return b.String()
}
