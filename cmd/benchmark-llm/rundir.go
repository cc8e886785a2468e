package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/google/renameio/v2"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// runDir is the directory of one run: run.json (what ran, where, how),
// events.jsonl (every step as it happened), results.jsonl (the records) and
// report.md (for people, written at the end).
type runDir struct {
	path    string
	events  *os.File
	results *os.File
	records report.Writer
	about   runDescription
	all     []result.Outcome
}

// runDescription is run.json.
type runDescription struct {
	Schema  int              `json:"schema"`
	Version string           `json:"version"`
	Command []string         `json:"command"`
	Started time.Time        `json:"started"`
	Ended   *time.Time       `json:"ended,omitempty"` // absent: the run was cut off
	Host    host.Facts       `json:"host"`
	Before  host.Conditions  `json:"before"`
	After   *host.Conditions `json:"after,omitempty"`
	Job     bench.Job        `json:"job"`
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
	if d.events, err = os.Create(d.file("events.jsonl")); err != nil {
		return nil, err
	}
	if d.results, err = os.Create(d.file("results.jsonl")); err != nil {
		return nil, err
	}
	if d.records, err = report.New("jsonl", d.results, report.Options{}); err != nil {
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

// secret matches the values in a command line that nobody else should read.
var secret = regexp.MustCompile(`(?i)(hf_[A-Za-z0-9]+|[?&][^ ]*$)`)

// describe writes run.json.
func (d *runDir) describe(version string, args []string, facts host.Facts, job bench.Job) error {
	command := make([]string, len(args))
	for i, a := range args {
		command[i] = secret.ReplaceAllString(a, "[redacted]")
	}
	d.about = runDescription{
		Schema: result.SchemaVersion, Version: version, Command: command, Started: time.Now().UTC(),
		Host: facts, Before: host.Observe("/"), Job: job,
	}
	return d.writeAbout()
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

// finish writes report.md and the end of run.json.
func (d *runDir) finish() error {
	now, after := time.Now().UTC(), host.Observe("/")
	d.about.Ended, d.about.After = &now, &after
	if err := d.writeAbout(); err != nil {
		return err
	}
	f, err := pendingFile(d.file("report.md"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	w, err := report.New("md", f, report.Options{})
	if err != nil {
		return err
	}
	for _, o := range d.all {
		if err := w.Write(o); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return f.CloseAtomicallyReplace()
}

// pendingFile is a temporary file beside path, on the disk that has room or not,
// to replace it.
func pendingFile(path string) (*renameio.PendingFile, error) {
	return renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
}

func (d *runDir) close() {
	_ = d.events.Close() // written unbuffered: there is nothing to lose
	_ = d.results.Close()
}
