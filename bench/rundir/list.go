package rundir

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Status says what can be done with a run.
const (
	Complete   = "complete"   // every test has its outcome
	Incomplete = "incomplete" // it can be resumed
	Running    = "running"    // a process writes it
	Damaged    = "damaged"    // run.json or events.jsonl is missing or broken
	Unreadable = "unreadable" // no permission, or of another version of this program
)

// Runs describes the runs in parent, as List finds them, and directories that a run left
// half-written. It changes nothing. Errors are ErrAccess and ErrNotRun, if parent is given and
// cannot be read.
func Runs(parent string) ([]report.Run, error) {
	if parent != "" {
		if _, err := os.ReadDir(parent); errors.Is(err, fs.ErrNotExist) {
			return nil, noRun(parent)
		} else if err != nil {
			return nil, &kindError{ErrAccess, err}
		}
	}
	var runs []report.Run
	n := 0
	for _, path := range list(parent, func(p string) bool { return isRun(p) || isBegun(p) }) {
		r, _, _ := describe(path)
		if isRun(path) {
			r.Name = lastName(n)
			n++
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func noRun(parent string) error {
	return &kindError{ErrNotRun, fmt.Errorf("there is no run in %s", parent)}
}

// isBegun tells whether a directory has the events of a run.
func isBegun(path string) bool {
	info, err := os.Lstat(filepath.Join(path, "events.jsonl"))
	return err == nil && info.Mode().IsRegular()
}

// describe reads the run at path. A run that cannot be read has its problem.
func describe(path string) (report.Run, Description, record.Left) {
	r := report.Run{Path: path, Status: Complete, Models: []string{}}
	for _, f := range filesOf(path) {
		r.SizeBytes += f.SizeBytes
	}
	about, left, err := read(path)
	switch {
	case err == nil:
		if r.Tests = len(left.Outcomes) + left.Unfinished(); about.last().Ended == nil || left.Unfinished() > 0 {
			r.Status = Incomplete
		}
		for _, o := range left.Outcomes {
			if o.Status == result.OK {
				r.Records++
			}
		}
	case errors.Is(err, ErrRunning):
		r.Status = Running
		d := &Dir{Path: path}
		about, _ = d.readDescription() // it is replaced as a whole; a run that begins has none yet
		for _, job := range about.Jobs {
			r.Tests += len(job.Tests)
		}
		lines, _ := os.ReadFile(d.ResultsFile())
		r.Records = bytes.Count(lines, []byte("\n"))
	case errors.Is(err, ErrNotRun), errors.Is(err, ErrBroken):
		r.Status, r.Problem = Damaged, err.Error()
	default:
		r.Status, r.Problem = Unreadable, err.Error()
	}
	for _, job := range about.Jobs {
		r.Models = append(r.Models, job.Model.Name)
	}
	r.Machine = machineOf(&about)
	if at := about.Started; !at.IsZero() {
		r.Started = &at
	} else if base := filepath.Base(path); runName.MatchString(base) {
		if at, err := time.Parse(nameFormat, base[:len(nameFormat)]); err == nil {
			r.Started = &at
		}
	}
	return r, about, left
}

// machineOf names the GPUs and the CPU of a run's machine.
func machineOf(about *Description) string {
	var parts []string
	count := map[string]int{}
	for _, g := range about.Host.GPUs {
		name := cmp.Or(g.Model, "GPU")
		if count[name]++; count[name] == 1 {
			parts = append(parts, name)
		}
	}
	for i, name := range parts {
		if n := count[name]; n > 1 {
			parts[i] = fmt.Sprintf("%d × %s", n, name)
		}
	}
	if cpu := cmp.Or(about.Host.CPU.Name(), about.Host.Arch); cpu != "" {
		parts = append(parts, cpu)
	}
	return strings.Join(parts, ", ")
}

// Show returns the details of the run at path. A run that is damaged or going on has those
// that can be read. The error is ErrNotRun.
func Show(path string) (report.RunDetails, error) {
	if !isRun(path) && !isBegun(path) {
		return report.RunDetails{}, notRun(path)
	}
	r, about, left := describe(path)
	d := report.RunDetails{Run: r, Outcomes: about.inOrder(left.Outcomes), Files: filesOf(path)}
	if len(about.Jobs) > 0 {
		d.Facts = about.facts(r.Status == Running)
		settings := report.Fact{Name: "settings", Value: settingsText(about.Jobs[0].Settings)}
		d.Facts = slices.Insert(d.Facts, min(2, len(d.Facts)), report.Fact{Name: "models", Value: strings.Join(r.Models, ", ")}, settings)
	}
	if r.Status == Incomplete {
		d.Resume = "benchmark-llm run --resume " + path
	}
	return d, nil
}

// settingsText lists settings under the names that run.json has, without those that are off.
func settingsText(s bench.Settings) string {
	b, _ := json.Marshal(s) // numbers and texts, which have JSON
	var values map[string]json.RawMessage
	_ = json.Unmarshal(b, &values)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := strings.NewReplacer(`"`, "", "[", "", "]", "").Replace(string(values[name]))
		if !slices.Contains([]string{"", "0", "false", "null"}, value) {
			parts = append(parts, name+" "+value)
		}
	}
	return strings.Join(parts, ", ")
}

// owned are the files of a run.
var owned = []string{"report.html", "report.md", "results.jsonl", "run.json", "events.jsonl"}

// replaced are the files that replace writes.
var replaced = []string{"run.json", "results.jsonl", "report.md", "report.html"}

// isOwned tells whether a run makes files with such a name: its files, and what a process
// that was killed left of them.
func isOwned(name string) bool {
	return slices.Contains(owned, name) || slices.ContainsFunc(replaced, func(r string) bool { return strings.HasPrefix(name, "."+r) })
}

// filesOf are the files in the directory of a run.
func filesOf(path string) (files []report.RunFile) {
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		f := report.RunFile{Name: e.Name(), Foreign: !isOwned(e.Name()) || !e.Type().IsRegular()}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			f.SizeBytes = info.Size()
		}
		files = append(files, f)
	}
	return files
}
