package rundir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/database"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A database is a source with one or more runs.
func TestSidesOfDatabases(t *testing.T) {
	t.Chdir(t.TempDir())
	for i, name := range []string{"20260101T000000Z-1", "20260102T000000Z-2"} {
		db, err := database.Open("a.db", name)
		if err != nil {
			t.Fatal(err)
		}
		r := &result.Record{ModelFilename: "m.gguf", PromptTokens: 16, TestTime: fmt.Sprint(i), AvgTS: 10, SamplesNs: []int64{1, 2}, SamplesTS: []float64{10, 11}}
		if err := errors.Join(db.Outcome(&result.Outcome{Status: result.OK, Record: r}), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	results(t, "b.jsonl", "9")
	results(t, "c#last", "10") // a file with such a name is no run
	for _, tt := range []struct {
		args string
		want []string // label: times of the tests of each run
	}{
		{"a.db b.jsonl", []string{"a: [0] [1]", "b: [9]"}},
		{"a.db#last~1 a.db#last", []string{"a.db#last~1: [0]", "a.db#last: [1]"}},
		{"x=a.db#20260101T000000Z-1 c#last", []string{"x: [0]", "c#last: [10]"}},
	} {
		sides, err := Sides(strings.Fields(tt.args), ".")
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		var got []string
		for _, side := range sides {
			line := side.Label + ":"
			for _, run := range side.Runs {
				var times []string
				for _, r := range run.Records {
					times = append(times, r.TestTime)
				}
				line += fmt.Sprint(" ", times)
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.args, diff)
		}
	}
}

// Errors are one line with the name of the file.
func TestDatabaseErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	results(t, "b.jsonl", "9")
	if err := os.WriteFile("cut.db", []byte("SQLite format 3\x00 and no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		source, want string
		is           error
	}{
		{"cut.db", "cut.db: file is not a database", ErrSource},
		{"cut.db#last", "cut.db: file is not a database", ErrSource},
	} {
		_, err := Sides([]string{"b.jsonl", tt.source}, ".")
		if !errors.Is(err, tt.is) || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", tt.source, err)
		}
	}
}

// A pipe is opened once: its writer would lose it otherwise.
func TestSidesOfPipe(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(results(t, filepath.Join(dir, "a.jsonl"), "1"))
	if err != nil {
		t.Fatal(err)
	}
	other := results(t, filepath.Join(dir, "b.jsonl"), "2")
	wrote := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.Write(line)
			err = errors.Join(err, f.Close())
		}
		wrote <- err
	}()
	sides, err := Sides([]string{pipe, other}, dir)
	if err := errors.Join(err, <-wrote); err != nil {
		t.Fatal(err)
	}
	if n := len(sides[0].Runs[0].Records); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}
