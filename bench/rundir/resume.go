package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// Open opens the directory of an earlier run to continue it. It returns the run's
// description and what is left to do. It rewrites results.jsonl from the events, and
// adds span to run.json. If the conditions changed since the run was interrupted, it
// drops the repetitions of tests without an outcome, and logs what changed. A nil
// span.Host is not compared. Errors are ErrNotRun, ErrRunning, ErrFinished, ErrMachine,
// ErrCPUs, ErrSchema, ErrBroken, ErrAccess and ErrWrite.
func Open(path string, span Span) (*Dir, Description, record.Left, error) {
	d := &Dir{Path: path}
	switch err := d.openEvents(0); {
	case errors.Is(err, ErrRunning):
		return nil, Description{}, record.Left{}, fmt.Errorf("%s: %w", path, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, Description{}, record.Left{}, notRun(path)
	case err != nil:
		return nil, Description{}, record.Left{}, &kindError{ErrAccess, err}
	}
	left, err := d.resume(span)
	if err != nil {
		d.Close()
		return nil, Description{}, record.Left{}, err
	}
	return d, d.description, left, nil
}

func notRun(path string) error {
	return &kindError{ErrNotRun, fmt.Errorf("%s is %w", path, ErrNotRun)}
}

// broken is an ErrBroken that names a file of the directory.
func broken(file string, err error) error {
	return &kindError{ErrBroken, result.AtPath(file, err)}
}

// resume reads the directory's files and makes them ready for the next span.
func (d *Dir) resume(span Span) (record.Left, error) {
	about, err := d.readDescription()
	if err != nil {
		return record.Left{}, err
	}
	info, err := d.events.Stat()
	if err != nil {
		return record.Left{}, &kindError{ErrAccess, err}
	}
	h := about.history()
	good, lines, err := record.ReadEvents(d.events, h.Add)
	if err != nil {
		return record.Left{}, broken(d.EventsFile(), err)
	}
	left := h.End()
	if about.last().Ended != nil && left.Unfinished() == 0 {
		return record.Left{}, &FinishedError{Dir: d.Path, Report: d.ReportFile()}
	}
	about.dropUnused(lines)
	if span.Changed, err = d.compare(&about, span, &left); err != nil {
		return record.Left{}, err
	}
	if good < info.Size() {
		slog.Warn("ignoring the last event, which was cut off", "file", d.EventsFile(), "cut_bytes", info.Size()-good)
		if err := d.events.Truncate(good); err != nil {
			return record.Left{}, writeError(err)
		}
	}
	d.removePending()
	if err := d.rewriteResults(left.Outcomes); err != nil {
		return record.Left{}, writeError(err)
	}

	d.outcomes = slices.Clone(left.Outcomes)
	span.EventsBefore, span.Command, span.Started = lines, redactAll(span.Command), span.Started.UTC()
	about.Continued = append(slices.Clone(about.Continued), span)
	d.description = about
	return left, writeError(d.writeDescription())
}

// maxDescriptionBytes is the maximum size of run.json. A longer file is garbage.
const maxDescriptionBytes = 16 << 20

// readDescription reads run.json. It returns an error if this program cannot continue
// the run.
func (d *Dir) readDescription() (Description, error) {
	var about Description
	f, err := os.Open(d.file("run.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return about, notRun(d.Path)
	}
	if err != nil {
		return about, &kindError{ErrAccess, err}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDescriptionBytes+1))
	if err != nil {
		return about, broken(f.Name(), err)
	}
	if len(b) > maxDescriptionBytes {
		return about, broken(f.Name(), fmt.Errorf("longer than %d bytes", maxDescriptionBytes))
	}
	// The schema comes first, because the rest depends on it.
	var version struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return about, broken(f.Name(), atLine(b, err))
	}
	switch version.Schema {
	case schema:
	case 2:
		if b, err = fromSchema2(b); err != nil {
			return about, broken(f.Name(), err)
		}
	default:
		return about, &kindError{ErrSchema, fmt.Errorf("%s: schema %d, this program knows schemas 2 and %d", f.Name(), version.Schema, schema)}
	}
	if err := json.Unmarshal(b, &about); err != nil {
		return about, broken(f.Name(), atLine(b, err))
	}
	about.Schema = schema
	if err := about.check(); err != nil {
		return about, broken(f.Name(), err)
	}
	return about, nil
}

// atLine adds the line to an error of JSON.
func atLine(text []byte, err error) error {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &wrong):
		offset = wrong.Offset
	}
	if offset < 0 || offset > int64(len(text)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(text[:offset], []byte("\n")), err)
}

// schema2Keys maps keys of schema 2 to their present names. Keys that differ only in
// case are missing, because encoding/json matches them anyway.
var schema2Keys = map[string]string{
	"SizeBytes":       "size_bytes",
	"largest":         "largest_bytes",
	"TokensPerSecond": "tokens_per_second",
	"gentler":         "adjusted",
	"lost_pass":       "precompile_skip",
	"no_passes":       "no_precompile",
}

// fromSchema2 renames the keys of a description with schema 2 to their present names.
func fromSchema2(b []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // a seed has 64 bits
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	rename(v)
	return json.Marshal(v)
}

func rename(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			rename(item)
		}
	case map[string]any:
		for key, item := range v {
			rename(item)
			if name, ok := schema2Keys[key]; ok {
				delete(v, key)
				v[name] = item
			}
		}
	}
}

// check returns an error if a description from a file is not possible.
func (d *Description) check() error {
	if len(d.Jobs) == 0 {
		return errors.New("no model")
	}
	if n := len(d.Selection.Suite.Models); n != len(d.Jobs) {
		return fmt.Errorf("%d models in the selection for %d jobs", n, len(d.Jobs))
	}
	if n := len(d.Sources); n > 0 && n != len(d.Jobs) {
		return fmt.Errorf("%d sources of %d models", n, len(d.Jobs))
	}
	for i, job := range d.Jobs {
		if slices.ContainsFunc(d.Jobs[:i], func(j bench.Job) bool { return j.Model.Key() == job.Model.Key() }) {
			return fmt.Errorf("model %q twice", job.Model.Name)
		}
		if job.Repetitions < 1 || job.Repetitions > suite.MaxRepetitions {
			return fmt.Errorf("%s: %d repetitions, not 1…%d", job.Model.Name, job.Repetitions, suite.MaxRepetitions)
		}
		if u := job.Until; u != nil {
			if err := u.Validate(); err != nil {
				return fmt.Errorf("%s: until: %w", job.Model.Name, err)
			}
		}
		seen := map[result.Test]bool{}
		for _, t := range job.Tests {
			if err := t.Test.Validate(); err != nil {
				return fmt.Errorf("%s: %w", job.Model.Name, err)
			}
			if seen[t.Test] {
				return fmt.Errorf("%s: %s twice", job.Model.Name, t.Test)
			}
			seen[t.Test] = true
		}
	}
	return nil
}

// rewriteResults replaces results.jsonl by the records of outcomes and opens it for
// later records.
func (d *Dir) rewriteResults(outcomes []result.Outcome) error {
	err := d.replace("results.jsonl", func(f *renameio.PendingFile) error {
		w, err := report.New("jsonl", f, report.Options{})
		if err != nil {
			return err
		}
		for _, o := range outcomes {
			if err := w.Write(o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.openResults()
}
