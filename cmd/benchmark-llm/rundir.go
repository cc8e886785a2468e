package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// runDir is the directory of one run: run.json (what runs, where, how),
// events.jsonl (every step as it happened), results.jsonl (the records) and
// report.md (for people, written at the end). A run that was interrupted is
// continued in the same directory (resume.go).
type runDir struct {
	path    string
	events  *os.File // locked: one process writes to a run
	results *os.File
	records report.Writer
	about   runDescription
	all     []result.Outcome
}

// runSchema is the version of run.json. It changes when an older program could
// not continue a run any more; new fields do not change it.
const runSchema = 2

// runDescription is run.json: all that is needed to continue the run.
type runDescription struct {
	Schema     int               `json:"schema"`
	runSpan                      // the first one
	TimeLimit  time.Duration     `json:"time_limit_ns,omitempty"` // of each span; absent: none
	Output     string            `json:"output,omitempty"`        // form of stdout
	Selection  selection         `json:"selection"`               // what was asked for
	Sources    []modelSource     `json:"sources,omitempty"`       // of the jobs' models, in the same order
	Jobs       []bench.Job       `json:"jobs"`                    // one per model, in the order in which they run
	Host       host.Facts        `json:"host"`
	Before     host.Conditions   `json:"before"`
	After      *host.Conditions  `json:"after,omitempty"`
	Accounting *bench.Accounting `json:"accounting,omitempty"` // of all spans that came to their end
	Continued  []runSpan         `json:"continued,omitempty"`
}

// selection is what was asked for, as far as it is needed to give a model whose
// file was not here yet its budgets.
type selection struct {
	Suite           suite.Suite    `json:"suite"`
	Weights         string         `json:"weights,omitempty"` // as --weights; absent: as the jobs say
	ModelsDir       string         `json:"models_dir"`
	Scale           float64        `json:"timeout_scale"`
	Timeout         *time.Duration `json:"timeout_ns,omitempty"` // of each test; absent: by size and length
	DownloadTimeout time.Duration  `json:"download_timeout_ns,omitempty"`
}

// runSpan is what one process did of a run.
type runSpan struct {
	Version string     `json:"version"`                 // of the library and of this program
	Program string     `json:"program"`                 // of this program, as in the records
	Command []string   `json:"command"`                 // secrets redacted
	Started time.Time  `json:"started"`                 //
	Ended   *time.Time `json:"ended,omitempty"`         // absent: it was cut off
	Events  int        `json:"events_before,omitempty"` // lines of events.jsonl that earlier spans wrote
}

// modelSource is where a job's model came from.
type modelSource struct {
	Source string `json:"source"`           // as it was asked for, secrets redacted
	SHA256 string `json:"sha256,omitempty"` // of the file, where known
}

// spans are all of the run, the last one first to end.
func (a *runDescription) spans() []runSpan {
	return append([]runSpan{a.runSpan}, a.Continued...)
}

// last is the span that runs, or ran last.
func (a *runDescription) last() *runSpan {
	if n := len(a.Continued); n > 0 {
		return &a.Continued[n-1]
	}
	return &a.runSpan
}

// newSpan is the span of this process, from its start.
func newSpan(command []string) runSpan {
	return runSpan{Version: versionLine(), Program: version, Command: command, Started: started.UTC()}
}

// createRunDir makes the directory of a run below parent, or below the user's
// state directory. It is new in every run, so nothing is overwritten.
func createRunDir(parent string) (*runDir, error) {
	if parent == "" {
		parent = defaultResultsDir()
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(parent, time.Now().UTC().Format("20060102T150405Z-"))
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o755); err != nil { // MkdirTemp's is private: results are not
		return nil, err
	}
	d := &runDir{path: path}
	if err := d.openEvents(os.O_CREATE); err != nil {
		return nil, err
	}
	if err := d.openResults(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// defaultResultsDir is $XDG_STATE_HOME/benchmark-llm/runs, ~/.local/state/… or,
// without a home, below the directory for temporary files.
func defaultResultsDir() string {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		state = os.TempDir()
		if home, err := os.UserHomeDir(); err == nil {
			state = filepath.Join(home, ".local", "state")
		}
	}
	return filepath.Join(state, "benchmark-llm", "runs")
}

func (d *runDir) file(name string) string { return filepath.Join(d.path, name) }

// errRunning is a run directory that another process writes to.
var errRunning = errors.New("the run is still going on")

// openEvents opens events.jsonl and locks it. It is never replaced, so the lock
// holds for the run; it goes with its holder.
func (d *runDir) openEvents(flag int) error {
	f, err := os.OpenFile(d.file("events.jsonl"), os.O_RDWR|os.O_APPEND|flag, 0o644)
	if err != nil {
		return err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS):
		// a file system without locks: better unlocked than not at all
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = f.Close()
		return errRunning
	default:
		_ = f.Close()
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	d.events = f
	return nil
}

func (d *runDir) openResults() (err error) {
	if d.results, err = os.OpenFile(d.file("results.jsonl"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return err
	}
	d.records, err = report.New("jsonl", d.results, report.Options{})
	return err
}

// describe writes run.json, without the secrets in command lines and sources.
// What is not filled in of the schema, the versions, the start and the
// conditions is filled in.
func (d *runDir) describe(about runDescription) error {
	span := newSpan(about.Command)
	about.Schema = runSchema
	about.Version, about.Program = cmp.Or(about.Version, span.Version), cmp.Or(about.Program, span.Program)
	if about.Started.IsZero() {
		about.Started = span.Started
	}
	about.Started = about.Started.UTC()
	if about.Before == (host.Conditions{}) {
		about.Before = host.Observe("/")
	}
	about.Command = redactAll(about.Command)
	about.Continued = slices.Clone(about.Continued)
	for i := range about.Continued {
		about.Continued[i].Command = redactAll(about.Continued[i].Command)
	}
	about.Selection.Suite.Models = slices.Clone(about.Selection.Suite.Models)
	for i := range about.Selection.Suite.Models {
		about.Selection.Suite.Models[i].Source = redact(about.Selection.Suite.Models[i].Source)
	}
	about.Sources = slices.Clone(about.Sources)
	for i := range about.Sources {
		about.Sources[i].Source = redact(about.Sources[i].Source)
	}
	d.about = about
	return d.writeAbout()
}

// redact replaces secrets in a text that is kept or logged: what looks like one,
// and the hub's token of this process whatever it looks like.
func redact(s string) string {
	if token := os.Getenv("HF_TOKEN"); len(token) >= 4 { // shorter ones are no secrets, and part of many words
		s = strings.ReplaceAll(s, token, host.Redacted)
	}
	return host.Redact(s)
}

func redactAll(texts []string) []string {
	redacted := make([]string, len(texts))
	for i, s := range texts {
		redacted[i] = redact(s)
	}
	return redacted
}

func (d *runDir) writeAbout() error {
	b, err := json.MarshalIndent(d.about, "", "  ")
	if err != nil {
		return err
	}
	f, err := pendingFile(d.file("run.json"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // after the rename it does nothing
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// event writes one event. It is in the file when event returns.
func (d *runDir) event(e bench.Stamped) error {
	line, err := e.MarshalLine()
	if err != nil {
		return err
	}
	_, err = d.events.Write(line)
	return err
}

// outcome writes the record of an outcome, if it has one.
func (d *runDir) outcome(o *result.Outcome) error {
	d.all = append(d.all, *o)
	return d.records.Write(*o)
}

// finish writes the end of run.json, and report.md.
func (d *runDir) finish(acc bench.Accounting) error {
	now, after := time.Now().UTC(), host.Observe("/")
	d.about.last().Ended, d.about.After, d.about.Accounting = &now, &after, &acc
	if err := d.writeAbout(); err != nil {
		return err
	}
	f, err := pendingFile(d.file("report.md"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	document := report.Document{
		Title: "Run " + filepath.Base(d.path), Facts: d.about.facts(), Outcomes: d.about.inOrder(d.all), Accounting: acc,
	}
	if err := report.WriteDocument(f, document); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return f.CloseAtomicallyReplace()
}

// inOrder are the outcomes in the order of the jobs, whatever the order in which
// they came.
func (a *runDescription) inOrder(outcomes []result.Outcome) []result.Outcome {
	place := map[testKey]int{}
	for _, job := range a.Jobs {
		for _, t := range job.Tests {
			place[testKey{job.Model.Name, t.Test}] = len(place)
		}
	}
	outcomes = slices.Clone(outcomes)
	slices.SortStableFunc(outcomes, func(x, y result.Outcome) int {
		return cmp.Compare(place[keyOf(x)], place[keyOf(y)])
	})
	return outcomes
}

// testKey is a test of a run.
type testKey struct {
	model string
	test  result.Test
}

func keyOf(o result.Outcome) testKey { return testKey{o.Model, o.Test} }

// facts are the run and its machine in short.
func (a *runDescription) facts() []report.Fact {
	var facts []report.Fact
	add := func(name string, parts ...string) {
		parts = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
		facts = append(facts, report.Fact{Name: name, Value: strings.Join(parts, ", ")})
	}
	add("version", a.Version)
	for i, s := range a.spans() {
		name, until := "command", "cut off"
		if i > 0 {
			name = "continued"
		}
		if s.Ended != nil {
			until = "ended " + s.Ended.Format(time.RFC3339)
		}
		other := ""
		if s.Version != a.Version {
			other = "version " + s.Version
		}
		add(name, strings.Join(s.Command, " "), "started "+s.Started.Format(time.RFC3339), until, other)
	}
	c := a.Host.CPU
	cores := ""
	if c.PhysicalCores > 0 && c.LogicalCPUs > 0 {
		cores = fmt.Sprintf("%d cores, %d CPUs", c.PhysicalCores, c.LogicalCPUs)
		if c.AllowedCPUs > 0 && c.AllowedCPUs != c.LogicalCPUs {
			cores += fmt.Sprintf(", of them %d allowed", c.AllowedCPUs)
		}
	}
	quota := ""
	if c.QuotaCPUs != nil {
		quota = fmt.Sprintf("quota of %g CPUs", *c.QuotaCPUs)
	}
	add("CPU", c.Model, a.Host.Arch, cores, quota, strings.Join(c.Governors, "/"))
	total, limit := "", ""
	if a.Host.Memory.TotalBytes > 0 {
		total = humanize.IBytes(a.Host.Memory.TotalBytes)
	}
	if a.Host.Memory.LimitBytes > 0 {
		limit = "limit of " + humanize.IBytes(a.Host.Memory.LimitBytes)
	}
	add("memory", total, limit)
	for _, g := range a.Host.GPUs {
		id := ""
		if g.PCIDevice != "" {
			id = "PCI " + g.PCIVendor + ":" + g.PCIDevice
		}
		memory, cuda, capability := "", "", ""
		if g.MemoryTotalBytes > 0 {
			memory = humanize.IBytes(g.MemoryTotalBytes)
		}
		if g.CUDAVersion != "" {
			cuda = "for CUDA " + g.CUDAVersion
		}
		if g.ComputeCapability != "" {
			capability = "compute capability " + g.ComputeCapability
		}
		add("GPU", g.Model, id, memory, capability, strings.TrimSpace(g.Driver+" "+g.DriverVersion), cuda)
	}
	if a.Host.NVMLProblem != "" {
		add("GPU driver", a.Host.NVMLProblem)
	}
	v := a.Host.Virtualization
	hypervisor := ""
	if v.Hypervisor != "" {
		hypervisor = "hypervisor " + v.Hypervisor
	}
	add("system", v.System, hypervisor, v.Container, a.Host.OS, a.Host.Kernel)
	if a.After != nil {
		if share, ok := a.After.StealShare(a.Before); ok {
			add("stolen by other guests", fmt.Sprintf("%.1f %% of the CPU time asked for", 100*share))
		}
	}
	var variables []string
	for name, value := range a.Host.Environment {
		variables = append(variables, name+"="+value)
	}
	slices.Sort(variables)
	add("environment", strings.Join(variables, " "))
	return facts
}

// pendingFile is a temporary file beside path, on the disk that has room or not,
// to replace it.
func pendingFile(path string) (*renameio.PendingFile, error) {
	return renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
}

// removePending removes what a process that ended at once left of pending files.
func (d *runDir) removePending() {
	for _, name := range []string{"run.json", "results.jsonl", "report.md"} {
		left, _ := filepath.Glob(d.file("." + name + "*")) // the pattern is good unless the path has signs of one
		for _, path := range left {
			_ = os.Remove(path) // it is in nobody's way
		}
	}
}

func (d *runDir) close() {
	_ = d.events.Close() // written unbuffered: there is nothing to lose
	_ = d.results.Close()
}
