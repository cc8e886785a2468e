// Package rundir keeps the directory of a run:
//
//	run.json       what runs, where and how, without secrets; all that is needed to continue the run
//	events.jsonl   every step as it happened; the source of everything else
//	results.jsonl  the records
//	report.md      tables for people, written at the end
//
// One process at a time writes to a directory. Another one may continue the run
// after it. The page README.md beside this file describes every field.
package rundir

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

// Why a directory cannot be used, for errors.Is.
var (
	ErrNotRun   = errors.New("not the directory of a run")
	ErrRunning  = errors.New("the run is still going on")                  // in another process
	ErrFinished = errors.New("the run is finished, nothing is left to do") // see FinishedError
	ErrSchema   = errors.New("written by another version of this program") // run.json
	ErrBroken   = errors.New("damaged")                                    // run.json or events.jsonl
	ErrWrite    = errors.New("results could not be kept")                  // no disk, no permission
	ErrCreate   = errors.New("the results directory could not be made")    // likewise, before anything runs
	ErrAccess   = errors.New("the run's directory cannot be read or written")
)

// kindError is an error of one of these kinds, with a text of its own.
type kindError struct {
	kind error
	err  error
}

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.err} }

// kept makes a failure to write an ErrWrite; nil when err is.
func kept(err error) error {
	if err == nil {
		return nil
	}
	return &kindError{ErrWrite, fmt.Errorf("%w: %w", ErrWrite, err)}
}

// FinishedError is a run of which nothing is left to do. It is ErrFinished.
type FinishedError struct{ Dir, Report string }

func (e *FinishedError) Error() string { return fmt.Sprintf("%s: %v", e.Dir, ErrFinished) }

// Unwrap makes it an ErrFinished.
func (e *FinishedError) Unwrap() error { return ErrFinished }

// Dir is the directory of one run, open for writing. It consumes the run's
// events and outcomes, from one goroutine.
type Dir struct {
	Path string

	lock    *flock.Flock // of events.jsonl
	events  *os.File
	results *os.File
	records report.Writer
	about   Description
	all     []result.Outcome
}

// schema is the version of run.json. It changes when an older program could not
// continue a run any more; new fields do not change it. Version 2 is read, too.
const schema = 3

// Description is run.json: all that is needed to continue the run.
type Description struct {
	Schema     int                `json:"schema"`
	Span                          // the first one
	TimeLimit  time.Duration      `json:"time_limit_ns,omitempty"` // of each span; absent: none
	Output     string             `json:"output,omitempty"`        // format of stdout
	Selection  Selection          `json:"selection"`               // what was asked for
	Sources    []Source           `json:"sources,omitempty"`       // of the jobs' models, in the same order
	Jobs       []bench.Job        `json:"jobs"`                    // one per model, in the order in which they run
	Host       host.Facts         `json:"host"`
	Before     host.Conditions    `json:"before"`
	After      *host.Conditions   `json:"after,omitempty"`
	Accounting *result.Accounting `json:"accounting,omitempty"` // of all spans that came to their end
	Continued  []Span             `json:"continued,omitempty"`
}

// Selection is what was asked for, as far as it is needed to give a model whose
// file was not here yet its budgets.
type Selection struct {
	Suite           suite.Suite    `json:"suite"`
	Weights         string         `json:"weights,omitempty"` // as --weights; absent: as the jobs say
	ModelsDir       string         `json:"models_dir"`
	Scale           float64        `json:"timeout_scale"`
	Timeout         *time.Duration `json:"timeout_ns,omitempty"` // of each test; absent: by size and length
	DownloadTimeout time.Duration  `json:"download_timeout_ns,omitempty"`
}

// Span is what one process did of a run.
type Span struct {
	Version      string     `json:"version"`                 // of the library and of this program, one line
	Program      string     `json:"program"`                 // of this program, as in the records
	Command      []string   `json:"command"`                 // secrets redacted
	Started      time.Time  `json:"started"`                 //
	Ended        *time.Time `json:"ended,omitempty"`         // absent: it was cut off
	EventsBefore int        `json:"events_before,omitempty"` // lines of events.jsonl that earlier spans wrote
}

// Source is where a job's model came from.
type Source struct {
	Source string `json:"source"`           // as it was asked for, secrets redacted
	SHA256 string `json:"sha256,omitempty"` // of the file, where known
}

// spans are all of the run, the last one first to end.
func (a *Description) spans() []Span {
	return append([]Span{a.Span}, a.Continued...)
}

// last is the span that runs, or ran last.
func (a *Description) last() *Span {
	if n := len(a.Continued); n > 0 {
		return &a.Continued[n-1]
	}
	return &a.Span
}

// Create makes the directory of a run below parent, or below DefaultParent if
// parent is empty. It is new in every run, so nothing is overwritten. Errors are
// ErrCreate.
func Create(parent string) (*Dir, error) {
	d, err := create(cmp.Or(parent, DefaultParent()))
	if err != nil {
		return nil, &kindError{ErrCreate, fmt.Errorf("results directory: %w", err)}
	}
	return d, nil
}

func create(parent string) (*Dir, error) {
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
	d := &Dir{Path: path}
	if err := d.openEvents(os.O_CREATE); err != nil {
		return nil, err
	}
	if err := d.openResults(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// DefaultParent is $XDG_STATE_HOME/benchmark-llm/runs, ~/.local/state/… or,
// without a home, below the directory for temporary files.
func DefaultParent() string {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		state = os.TempDir()
		if home, err := os.UserHomeDir(); err == nil {
			state = filepath.Join(home, ".local", "state")
		}
	}
	return filepath.Join(state, "benchmark-llm", "runs")
}

func (d *Dir) file(name string) string { return filepath.Join(d.Path, name) }

// EventsFile and ResultsFile are the paths of the run's events and records.
func (d *Dir) EventsFile() string  { return d.file("events.jsonl") }
func (d *Dir) ResultsFile() string { return d.file("results.jsonl") } //nolint:revive // see above

// openEvents opens events.jsonl and locks it. It is never replaced, so the lock
// holds for the run; it goes with its holder.
func (d *Dir) openEvents(flag int) (err error) {
	if d.events, err = os.OpenFile(d.EventsFile(), os.O_RDWR|os.O_APPEND|flag, 0o644); err != nil {
		return err
	}
	d.lock = flock.New(d.EventsFile(), flock.SetFlag(os.O_RDWR))
	switch locked, err := d.lock.TryLock(); {
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS):
		return nil // a file system without locks: better unlocked than not at all
	case err != nil:
		d.Close()
		return fmt.Errorf("lock %s: %w", d.EventsFile(), err)
	case !locked:
		d.Close()
		return ErrRunning
	}
	return nil
}

func (d *Dir) openResults() (err error) {
	if d.results, err = os.OpenFile(d.ResultsFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
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
	d.about = about
	return kept(d.writeAbout())
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

func (d *Dir) writeAbout() error {
	b, err := json.MarshalIndent(d.about, "", "  ")
	if err != nil {
		return err
	}
	return d.replace("run.json", func(f *renameio.PendingFile) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
}

// Event writes one event. The event is in the file when Event returns. Errors
// are ErrWrite.
func (d *Dir) Event(e bench.Stamped) error {
	line, err := e.MarshalLine()
	if err != nil {
		return err
	}
	_, err = d.events.Write(line)
	return kept(err)
}

// Outcome writes the record of an outcome, if it has one. Errors are ErrWrite.
func (d *Dir) Outcome(o *result.Outcome) error {
	d.all = append(d.all, *o)
	return kept(d.records.Write(*o))
}

// Finish writes the end of run.json, and report.md. Errors are ErrWrite.
func (d *Dir) Finish(acc result.Accounting) error {
	now, after := time.Now().UTC(), host.Observe("/")
	d.about.last().Ended, d.about.After, d.about.Accounting = &now, &after, &acc
	if err := d.writeAbout(); err != nil {
		return kept(err)
	}
	document := report.Document{
		Title: "Run " + filepath.Base(d.Path), Facts: d.about.facts(), Outcomes: d.about.inOrder(d.all), Accounting: acc,
	}
	return kept(d.replace("report.md", func(f *renameio.PendingFile) error {
		if err := report.WriteDocument(f, document); err != nil {
			return fmt.Errorf("report: %w", err)
		}
		return nil
	}))
}

// inOrder are the outcomes in the order of the jobs, whatever the order in which
// they came.
func (a *Description) inOrder(outcomes []result.Outcome) []result.Outcome {
	type key struct {
		model string
		test  result.Test
	}
	place := map[key]int{}
	for _, job := range a.Jobs {
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

// replace writes a file of the directory anew: it is whole, or as it was.
func (d *Dir) replace(name string, write func(*renameio.PendingFile) error) error {
	f, err := renameio.NewPendingFile(d.file(name), renameio.WithTempDir(d.Path), renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // after the rename it does nothing
	if err := write(f); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// removePending removes the pending files of a process that ended at once.
func (d *Dir) removePending() {
	for _, name := range []string{"run.json", "results.jsonl", "report.md"} {
		left, _ := filepath.Glob(d.file("." + name + "*")) // the pattern is good unless the path has signs of one
		for _, path := range left {
			_ = os.Remove(path) // it is in nobody's way
		}
	}
}

// Close closes the files and gives the lock back. Everything is written when an
// event or outcome is taken, so nothing is lost.
func (d *Dir) Close() {
	for _, f := range []*os.File{d.events, d.results} {
		if f != nil {
			_ = f.Close()
		}
	}
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

// history is what the events of the run tell, given its description.
func (a *Description) history() *record.History {
	var spans []record.Span
	for _, s := range a.spans() {
		spans = append(spans, record.Span{Program: s.Program, Started: s.Started, EventsBefore: s.EventsBefore})
	}
	return record.NewHistory(a.Jobs, spans)
}
