package rundir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// results writes a results file of one record and returns its path.
func results(t *testing.T, path, time string) string {
	t.Helper()
	line := fmt.Sprintf(`{"model_filename": "m.gguf", "n_prompt": 16, "n_gen": 0, "test_time": %q, "avg_ts": 10, "samples_ts": [10, 11]}`+"\n", time)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(line), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSides(t *testing.T) {
	t.Chdir(t.TempDir())
	results(t, "old/a.jsonl", "1")
	results(t, "new/a.jsonl", "2")
	results(t, "b.jsonl", "3")
	results(t, "x=y,z.jsonl", "4")
	results(t, "b.json", "5")
	for _, name := range []string{"20260101T000000Z-1", "20260102T000000Z-2"} {
		run := writeRun(t, twoModels(), benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 2), benchtest.Done(runPP, result.OK),
			benchtest.Begun(runTG, 0, 1), benchtest.Done(runTG, result.Timeout)))
		if name == "20260101T000000Z-1" { // other measurements
			b, err := os.ReadFile(filepath.Join(run, "events.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			older := strings.ReplaceAll(string(b), "2026-11-23", "2026-11-22")
			if err := os.WriteFile(filepath.Join(run, "events.jsonl"), []byte(older), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.MkdirAll("runs", 0o755), os.Rename(run, filepath.Join("runs", name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args string
		want []string // label: records and missing tests of each run
	}{
		{"old/a.jsonl new/a.jsonl", []string{"old/a: 1+0", "new/a: 1+0"}},
		{"old/a.jsonl b.jsonl", []string{"a: 1+0", "b: 1+0"}},
		{"b.jsonl b.json", []string{"b.jsonl: 1+0", "b.json: 1+0"}},
		{"base=old/a.jsonl,b.jsonl new/a.jsonl", []string{"base: 1+0 1+0", "a: 1+0"}},
		{"old/a.jsonl,b.jsonl new/a.jsonl", []string{"old/a+1: 1+0 1+0", "new/a: 1+0"}},
		{"x=y,z.jsonl b.jsonl", []string{"x=y,z: 1+0", "b: 1+0"}},
		{"l=x=y,z.jsonl b.jsonl", []string{"l: 1+0", "b: 1+0"}},
		{"last~1 last", []string{"last~1: 1+1", "last: 1+1"}},
		{"last,last~1 runs=b.jsonl", []string{"last+1: 1+1 1+1", "runs: 1+0"}},
		{"20260101T000000Z-1 b.jsonl", []string{"20260101T000000Z-1: 1+1", "b: 1+0"}},
	} {
		sides, err := Sides(strings.Fields(tt.args), "runs")
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		var got []string
		for _, s := range sides {
			line := s.Label + ":"
			for _, run := range s.Runs {
				line += fmt.Sprintf(" %d+%d", len(run.Records), len(run.Missing))
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.args, diff)
		}
	}
	if diff := cmp.Diff([]string{"last", "last~1", "runs/20260102T000000Z-2", "runs/20260101T000000Z-1"}, Names("runs")); diff != "" {
		t.Error(diff)
	}
}

func TestSidesRefuse(t *testing.T) {
	t.Chdir(t.TempDir())
	whole := results(t, "a.jsonl", "1")
	results(t, "b.jsonl", "2")
	results(t, "copy.jsonl", "1")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	write("empty", "")
	write("cut", string(line)+string(line[:40]))
	write("nan", strings.Replace(string(line), `"avg_ts": 10`, `"avg_ts": NaN`, 1))
	write("infinite", strings.Replace(string(line), `"avg_ts": 10`, `"avg_ts": 1e999`, 1))
	write("model.gguf", "GGUF\x03\x00\x00\x00")
	write("untimed.jsonl", `{"model_filename": "m.gguf", "n_prompt": 16, "avg_ts": 10}`)
	write("untimed2.jsonl", `{"model_filename": "m.gguf", "n_prompt": 16, "avg_ts": 10}`)
	if err := os.Symlink("untimed.jsonl", "link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("directory", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		want error
		text string
	}{
		{"a.jsonl a.jsonl", ErrTwice, "a.jsonl and a.jsonl hold the same measurements"},
		{"a.jsonl ./a.jsonl", ErrTwice, "the same measurements"},
		{"a.jsonl copy.jsonl", ErrTwice, "a.jsonl and copy.jsonl hold the same measurements"},
		{"a.jsonl,copy.jsonl b.jsonl", ErrTwice, "the same measurements"},
		{"untimed.jsonl link", ErrTwice, "untimed.jsonl and link"},
		{"x=a.jsonl x=b.jsonl", ErrTwice, `label "x"`},
		{"a.jsonl missing", ErrSource, "missing: no such file"},
		{"a.jsonl empty", ErrSource, "empty: no records"},
		{"a.jsonl cut", ErrSource, "cut: line 2: "},
		{"a.jsonl nan", ErrSource, "nan: line 1: "},
		{"a.jsonl infinite", ErrSource, "infinite: line 1: "},
		{"a.jsonl model.gguf", ErrSource, "model.gguf: line 1: not results"},
		{"a.jsonl /dev/null", ErrSource, "/dev/null: "},
		{"a.jsonl directory", ErrNotRun, "directory is not the directory of a run"},
		{"a.jsonl last", ErrNotRun, "there is no run in "},
		{"a.jsonl last~3", ErrNotRun, "there is no last~3: "},
		{"a.jsonl,", ErrSource, ""},
	} {
		_, err := Sides(strings.Fields(tt.args), "runs")
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v with %q", tt.args, err, tt.want, tt.text)
		}
	}
	if _, err := Sides([]string{"untimed.jsonl", "untimed2.jsonl"}, ""); err != nil {
		t.Errorf("equal records without times are no proof: %v", err)
	}
	if _, err := Compare([]string{"a.jsonl"}, "", compare.DefaultOptions(), nil); !errors.Is(err, compare.ErrFewSides) {
		t.Errorf("one side: %v", err)
	}
}
