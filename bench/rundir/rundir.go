// Package rundir keeps the directory of a run:
//
//	run.json       the description of the run, without secrets; enough to continue it
//	events.jsonl   every step as it happened; all results are derived from it
//	results.jsonl  the records
//	report.md      tables for people, written at the end
//	report.html    the same as a page with plots
//
// One process at a time writes to a directory. Another process may continue the run
// later. The page bench/record/README.md describes every field.
package rundir

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// Errors that say why a directory cannot be used, for errors.Is.
var (
	ErrNotRun   = errors.New("not the directory of a run")
	ErrRunning  = errors.New("the run is still going on")     // in another process
	ErrMachine  = errors.New("the run is of another machine") // see OtherMachineError
	ErrCPUs     = errors.New("the run needs CPUs that this process may not use")
	ErrFinished = errors.New("the run is finished, nothing is left to do") // see FinishedError
	ErrSchema   = errors.New("written by another version of this program") // of run.json
	ErrBroken   = errors.New("damaged")                                    // run.json or events.jsonl
	ErrWrite    = errors.New("cannot write results")                       // no disk space, no permission
	ErrCreate   = errors.New("cannot create the results directory")        // the same, before anything runs
	ErrAccess   = errors.New("cannot read or write the run's directory")
)

// kindError is one of these errors with a text of its own.
type kindError struct {
	kind error
	err  error
}

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.err} }

// writeError makes an error of writing an ErrWrite; nil stays nil.
func writeError(err error) error {
	if err == nil {
		return nil
	}
	return &kindError{ErrWrite, fmt.Errorf("%w: %w", ErrWrite, err)}
}

// FinishedError is the ErrFinished of a directory.
type FinishedError struct{ Dir, Report string }

func (e *FinishedError) Error() string { return fmt.Sprintf("%s: %v", e.Dir, ErrFinished) }

// Unwrap returns ErrFinished.
func (e *FinishedError) Unwrap() error { return ErrFinished }

// Dir is the directory of one run, open for writing. It consumes the run's
// events and outcomes, from one goroutine.
type Dir struct {
	Path string

	created     bool         // by this process
	steps       int          // events written, without those of an engine that cannot start
	lock        *flock.Flock // of events.jsonl
	events      *lines
	results     *lines
	records     report.Writer // writes to results
	description Description
	outcomes    []result.Outcome
}

// schema is the version of run.json. It changes if older programs cannot continue the
// run. New fields do not change it. Version 2 can be read too.
const schema = 3

// Description is the content of run.json. It is enough to continue the run.
type Description struct {
	Schema     int                `json:"schema"`
	Span                          // the first span
	TimeLimit  time.Duration      `json:"time_limit_ns,omitempty"` // of each span; absent: none
	Output     string             `json:"output,omitempty"`        // format of stdout
	Selection  Selection          `json:"selection"`               // what was requested
	Sources    []Source           `json:"sources,omitempty"`       // of the jobs' models, in the same order
	Jobs       []bench.Job        `json:"jobs"`                    // one per model, in the order in which they run
	Host       host.Facts         `json:"host"`
	Before     host.Conditions    `json:"before"`
	After      *host.Conditions   `json:"after,omitempty"`
	Accounting *result.Accounting `json:"accounting,omitempty"` // of all spans that were not cut off
	Continued  []Span             `json:"continued,omitempty"`
}

// Selection is what was requested. A continued run needs it for the budgets of models
// whose files were not on this machine yet.
type Selection struct {
	Suite           suite.Suite    `json:"suite"`
	Weights         string         `json:"weights,omitempty"` // value of --weights; absent: see the jobs
	ModelsDir       string         `json:"models_dir"`
	Scale           float64        `json:"timeout_scale"`
	Timeout         *time.Duration `json:"timeout_ns,omitempty"` // of each test; absent: by size and length
	DownloadTimeout time.Duration  `json:"download_timeout_ns,omitempty"`
	GPUSampling     *time.Duration `json:"gpu_sampling_ns,omitempty"` // time between readings of GPUs; absent: the default
	CoolDown        string         `json:"cool_down,omitempty"`       // value of --cool-down; absent: none
}

// Span is the part of a run that one process did.
type Span struct {
	Version      string     `json:"version"`                 // of this program and the library, in one line
	Program      string     `json:"program"`                 // version of this program, as in the records
	Command      []string   `json:"command"`                 // secrets redacted
	Started      time.Time  `json:"started"`                 //
	Ended        *time.Time `json:"ended,omitempty"`         // absent: the span was cut off
	EventsBefore int        `json:"events_before,omitempty"` // lines of events.jsonl that earlier spans wrote

	// Of a continued run only: the facts of the machine, and what differs from the span
	// before. If anything does, repetitions of that span do not count.
	Host    *host.Facts `json:"host,omitempty"`
	Changed []string    `json:"changed,omitempty"`
}

// Source is where a job's model came from.
type Source struct {
	Source string `json:"source"`           // as requested, secrets redacted
	SHA256 string `json:"sha256,omitempty"` // of the file, if known
}

// spans are all spans of the run, the oldest first.
func (d *Description) spans() []Span {
	return append([]Span{d.Span}, d.Continued...)
}

// last is the most recent span.
func (d *Description) last() *Span {
	if n := len(d.Continued); n > 0 {
		return &d.Continued[n-1]
	}
	return &d.Span
}

// Create creates the directory of a new run in parent. Its name is unique, so nothing
// is overwritten. Errors are ErrCreate.
func Create(parent string) (*Dir, error) {
	d, err := create(parent)
	if err != nil {
		return nil, &kindError{ErrCreate, fmt.Errorf("results directory: %w", err)}
	}
	return d, nil
}

func create(parent string) (*Dir, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(parent, time.Now().UTC().Format(nameFormat))
	if err != nil {
		return nil, err
	}
	d := &Dir{Path: path, created: true}
	err = os.Chmod(path, 0o755) // MkdirTemp makes it private, but results are not
	if err == nil {
		err = d.openEvents(os.O_CREATE)
	}
	if err == nil {
		err = d.openResults()
	}
	if err != nil {
		d.Leave()
		return nil, err
	}
	return d, nil
}

// nameFormat is how the name of a run's directory begins: its start in UTC.
const nameFormat = "20060102T150405Z-"

// NewName names a run that has no directory in the same way.
func NewName(start time.Time, pid int) string {
	return start.UTC().Format(nameFormat) + strconv.Itoa(pid)
}

func (d *Dir) file(name string) string { return filepath.Join(d.Path, name) }

// EventsFile returns the path of the run's events.
func (d *Dir) EventsFile() string { return d.file("events.jsonl") }

// ResultsFile returns the path of the run's records.
func (d *Dir) ResultsFile() string { return d.file("results.jsonl") }

// ReportFile returns the path of the run's report, which Finish writes.
func (d *Dir) ReportFile() string { return d.file("report.md") }

// lines is a file of whole lines. If a line cannot be written, what was written of it
// is removed. The file can still be read.
type lines struct {
	*os.File
	write func([]byte) (int, error) // File.Write; tests replace it
}

func (l *lines) Write(line []byte) (int, error) {
	n, err := l.write(line)
	if err != nil && n > 0 {
		if info, statErr := l.Stat(); statErr == nil {
			_ = l.Truncate(info.Size() - int64(n)) // the reader ignores the beginning of a line at the end
		}
	}
	return n, err
}

// openLines opens a file of the directory to append to it.
func openLines(path string, flag int) (*lines, error) {
	f, err := os.OpenFile(path, os.O_APPEND|flag, 0o644)
	if err != nil {
		return nil, err
	}
	return &lines{f, f.Write}, nil
}

// openEvents opens and locks events.jsonl. The file is never replaced, so its lock
// protects the whole directory. The lock ends with its process.
func (d *Dir) openEvents(flag int) (err error) {
	if d.events, err = openLines(d.EventsFile(), os.O_RDWR|flag); err != nil {
		return err
	}
	d.lock = flock.New(d.EventsFile(), flock.SetFlag(os.O_RDWR))
	if err := locked(d.EventsFile(), d.lock.TryLock); err != nil {
		d.Close()
		return err
	}
	return nil
}

// locked takes the lock of a run's events. It is ErrRunning if another process has it. A
// file system without locks goes on without one.
func locked(events string, try func() (bool, error)) error {
	switch ok, err := try(); {
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS):
		return nil
	case err != nil:
		return fmt.Errorf("lock: %w", result.AtPath(events, err))
	case !ok:
		return ErrRunning
	}
	return nil
}

func (d *Dir) openResults() (err error) {
	if d.results, err = openLines(d.ResultsFile(), os.O_WRONLY|os.O_CREATE); err != nil {
		return err
	}
	d.records, err = report.New("jsonl", d.results, report.Options{})
	return err
}

// Describe writes run.json, without the secrets in command lines and sources. It
// fills in the schema and the conditions of the machine. Errors are ErrWrite.
func (d *Dir) Describe(about Description) error {
	about.Schema = schema
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
		from := &about.Selection.Suite.Models[i].Source.Given
		*from = redact(*from)
	}
	about.Sources = slices.Clone(about.Sources)
	for i := range about.Sources {
		about.Sources[i].Source = redact(about.Sources[i].Source)
	}
	d.description = about
	return writeError(d.writeDescription())
}

// redact replaces secrets in a text that is kept or logged: everything that looks like
// a secret, and the value of HF_TOKEN.
func redact(s string) string {
	if token := os.Getenv("HF_TOKEN"); len(token) >= 4 { // shorter values are no secrets, and occur in many words
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

func (d *Dir) writeDescription() error {
	b, err := json.MarshalIndent(d.description, "", "  ")
	if err != nil {
		return err
	}
	return d.replace("run.json", func(f *renameio.PendingFile) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
}

// Event writes one event. The event is in the file when Event returns. Errors are
// ErrWrite.
func (d *Dir) Event(e bench.Stamped) error {
	line, err := e.MarshalLine()
	if err != nil {
		return err
	}
	if _, err = d.events.Write(line); err != nil {
		return writeError(err)
	}
	if _, failed := e.Event.(bench.EngineFailed); !failed {
		d.steps++
	}
	return nil
}

// Outcome writes the record of an outcome, if it has one. Errors are ErrWrite.
func (d *Dir) Outcome(o *result.Outcome) error {
	d.outcomes = append(d.outcomes, *o)
	return writeError(d.records.Write(*o))
}

// Finish completes run.json and writes report.md and report.html. Errors are ErrWrite. A
// page that cannot be written is logged: all that it shows is in the other files.
func (d *Dir) Finish(acc result.Accounting) error {
	now, after := time.Now().UTC(), host.Observe("/")
	d.description.last().Ended, d.description.After, d.description.Accounting = &now, &after, &acc
	if err := d.writeDescription(); err != nil {
		return writeError(err)
	}
	run := d.description.pageRun(d.Path, d.outcomes)
	err := d.replace("report.md", func(f *renameio.PendingFile) error {
		if err := report.WriteDocument(f, run.Document); err != nil {
			return fmt.Errorf("report: %w", err)
		}
		return nil
	})
	page := func(f *renameio.PendingFile) error {
		return report.WritePage(f, report.Page{Title: run.Title, Runs: []report.PageRun{run}})
	}
	if err := d.replace("report.html", page); err != nil {
		slog.Warn("report.html cannot be written", "error", err)
	}
	return writeError(err)
}

// inOrder returns outcomes in the order of the jobs and their tests.
func (d *Description) inOrder(outcomes []result.Outcome) []result.Outcome {
	type key struct {
		model string
		test  result.Test
	}
	place := map[key]int{}
	for _, job := range d.Jobs {
		for _, t := range job.Tests {
			place[key{job.Model.Name, t.Test}] = len(place)
		}
	}
	outcomes = slices.Clone(outcomes)
	slices.SortStableFunc(outcomes, func(x, y result.Outcome) int {
		return cmp.Compare(place[key{x.Model, x.Test}], place[key{y.Model, y.Test}])
	})
	return outcomes
}

// replace replaces a file of the directory. If it fails, the old file stays.
func (d *Dir) replace(name string, write func(*renameio.PendingFile) error) error {
	f, err := renameio.NewPendingFile(d.file(name), renameio.WithTempDir(d.Path), renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // does nothing after the rename
	if err := write(f); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// removePending removes the temporary files of a process that was killed.
func (d *Dir) removePending() {
	for _, name := range replaced {
		left, _ := filepath.Glob(d.file("." + name + "*")) // fails only if the path itself contains a bad pattern
		for _, path := range left {
			_ = os.Remove(path) // it does no harm if it stays
		}
	}
}

// Close closes the files and releases the lock. Events and outcomes have been written
// before, so nothing is lost.
func (d *Dir) Close() {
	for _, f := range []*lines{d.events, d.results} {
		if f != nil {
			_ = f.Close()
		}
	}
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

// Idle tells whether the run failed at its start: this process created the directory,
// and nothing happened.
func (d *Dir) Idle() bool { return d.created && d.steps == 0 }

// Leave closes the directory, and removes one that is idle.
func (d *Dir) Leave() {
	if d.Idle() {
		_ = os.RemoveAll(d.Path) // it does no harm if it stays
	}
	d.Close()
}

// history returns a History that is ready to read the events of the run.
func (d *Description) history() *record.History {
	var spans []record.Span
	for _, s := range d.spans() {
		spans = append(spans, record.Span{Program: s.Program, Started: s.Started, EventsBefore: s.EventsBefore, Forget: len(s.Changed) > 0})
	}
	return record.NewHistory(d.Jobs, spans)
}
