package rundir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// files are the files of a directory with their content and time of change.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = info.ModTime().Format(time.RFC3339Nano) + " " + string(b)
	}
	return all
}

// Read tells what a run measured, also one that was cut off, and changes nothing.
func TestRead(t *testing.T) {
	for name, tt := range map[string]struct {
		events []bench.Event
		want   []string
	}{
		"finished": {allOK(), []string{"a.gguf pp16 ok true", "a.gguf tg8 ok true", "b.gguf pp16 ok true", "b.gguf tg8 ok true"}},
		"cut off in a test": {
			benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 2), benchtest.Done(runPP, result.OK), benchtest.Begun(runTG, 0, 1)),
			[]string{"a.gguf pp16 ok true"},
		},
		"a test without a record": {
			benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 2), benchtest.Done(runPP, result.OK), benchtest.Begun(runTG, 0, 1), benchtest.Done(runTG, result.Timeout)),
			[]string{"a.gguf pp16 ok true", "a.gguf tg8 timeout false"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeRun(t, twoModels(), tt.events)
			before := files(t, path)
			about, outcomes, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range outcomes {
				got = append(got, fmt.Sprintf("%s %s %s %t", o.Model, o.Test, o.Status, o.Record != nil))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if len(about.Jobs) != 2 {
				t.Errorf("%d jobs, want 2", len(about.Jobs))
			}
			if diff := cmp.Diff(before, files(t, path)); diff != "" {
				t.Errorf("the directory changed:\n%s", diff)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	overwrite := func(file, old, new string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			b, err := os.ReadFile(filepath.Join(path, file))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(path, file), []byte(strings.Replace(string(b), old, new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		change func(t *testing.T, path string)
		want   error
		text   string
	}{
		"another directory": {func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(filepath.Join(path, "events.jsonl")); err != nil {
				t.Fatal(err)
			}
		}, ErrNotRun, "not the directory of a run"},
		"a damaged event":       {overwrite("events.jsonl", "\n", "\n{\n"), ErrBroken, "events.jsonl: line 2: "},
		"a damaged description": {overwrite("run.json", `"jobs"`, `jobs`), ErrBroken, "run.json: line "},
		"another version":       {overwrite("run.json", `"schema": 3`, `"schema": 99`), ErrSchema, "schema 99"},
	} {
		path := writeRun(t, twoModels(), allOK())
		tt.change(t, path)
		if _, _, err := Read(path); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %v with %q", name, err, tt.want, tt.text)
		}
	}
}

func TestReadRunning(t *testing.T) {
	d, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Describe(twoModels()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(d.Path); !errors.Is(err, ErrRunning) {
		t.Errorf("while it runs: %v, want %v", err, ErrRunning)
	}
	if _, err := Sides([]string{d.Path}, ""); !errors.Is(err, ErrRunning) {
		t.Errorf("as a side of a comparison: %v, want %v", err, ErrRunning)
	}
	d.Close()
	if _, _, err := Read(d.Path); err != nil {
		t.Errorf("after it: %v", err)
	}
}
