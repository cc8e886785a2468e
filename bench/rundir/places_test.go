package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
)

// runAt makes a directory that looks like one of a run, whose last event is so old.
func runAt(t *testing.T, path string, age time.Duration) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"run.json", "events.jsonl"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(filepath.Join(path, "events.jsonl"), at, at); err != nil {
		t.Fatal(err)
	}
	return path
}

// The last run is the newest one, in a given directory or in those of the user.
func TestFind(t *testing.T) {
	parent, state := t.TempDir(), t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	t.Setenv("TMPDIR", t.TempDir())
	if got, err := Find(Last, ""); !errors.Is(err, ErrNotRun) || !strings.Contains(err.Error(), "there is no run in "+state) {
		t.Errorf("got %s, %v", got, err)
	}
	runAt(t, filepath.Join(parent, "20261128T100000Z-9"), 0)
	runAt(t, filepath.Join(parent, "20261128T110000Z-7"), time.Hour)
	newest := runAt(t, filepath.Join(parent, "20261128T110000Z-3"), time.Minute)
	runAt(t, filepath.Join(parent, "zzz"), 0) // not a run's name
	if err := os.MkdirAll(filepath.Join(parent, "20261128T120000Z-1"), 0o755); err != nil {
		t.Fatal(err) // no run.json
	}
	old := runAt(t, filepath.Join(state, "benchmark-llm", "runs", "20261127T110000Z-3"), 0)
	for _, tt := range []struct{ name, parent, want string }{
		{Last, parent, newest},
		{Last, "", old},
		{"20261128T100000Z-9", parent, filepath.Join(parent, "20261128T100000Z-9")},
		{"20261127T110000Z-3", "", old},
		{"20261127T110000Z-3", parent, "20261127T110000Z-3"}, // as a path
		{"some/path", parent, "some/path"},
	} {
		if got, err := Find(tt.name, tt.parent); err != nil || got != tt.want {
			t.Errorf("%s in %q: got %s, %v; want %s", tt.name, tt.parent, got, err, tt.want)
		}
	}
}

// A run that did nothing leaves no directory; every other one stays.
func TestLeave(t *testing.T) {
	for name, tt := range map[string]struct {
		events []bench.Event
		idle   bool
	}{
		"nothing":   {nil, true},
		"no engine": {[]bench.Event{bench.EngineFailed{Reason: "no device"}}, true},
		"a step":    {[]bench.Event{bench.EngineFailed{}, bench.WaitStarted{Model: "a.gguf"}}, false},
	} {
		parent := t.TempDir()
		d, err := Start(parent, twoModels())
		if err != nil {
			t.Fatal(err)
		}
		writeEvents(t, d, benchtest.RunStart, tt.events)
		if d.Idle() != tt.idle {
			t.Errorf("%s: idle %t", name, d.Idle())
		}
		d.Leave()
		if _, err := os.Stat(d.Path); errors.Is(err, os.ErrNotExist) != tt.idle {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := writeRun(t, twoModels(), nil)
	d, _, _, err := Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	d.Leave()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the directory of an earlier process: %v", err)
	}
}
