package rundir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// runNamed writes a run of twoModels under a name of its own in parent.
func runNamed(t *testing.T, parent, name string, events []bench.Event, end bool) string {
	t.Helper()
	from := writeRun(t, twoModels(), events)
	if end {
		from = writeEnded(t, events)
	}
	path := filepath.Join(parent, name)
	if err := os.Rename(from, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// oneTest are the events of a run that was cut off after its first test.
func oneTest() []bench.Event {
	return allOK()[:1+slices.IndexFunc(allOK(), func(e bench.Event) bool { _, ok := e.(bench.TestDone); return ok })]
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func lockedBy(t *testing.T, path string) *flock.Flock {
	t.Helper()
	lock := flock.New(filepath.Join(path, "events.jsonl"), flock.SetFlag(os.O_RDWR))
	if ok, err := lock.TryLock(); err != nil || !ok {
		t.Fatal(ok, err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	return lock
}

// Every state of a run has its status, and none ends the list.
func TestRuns(t *testing.T) {
	quietLog(t)
	parent := t.TempDir()
	runNamed(t, parent, "20261128T100000Z-1", allOK(), true)
	runNamed(t, parent, "20261128T110000Z-1", oneTest(), false)
	lockedBy(t, runNamed(t, parent, "20261128T120000Z-1", nil, false))
	write(t, filepath.Join(runNamed(t, parent, "20261128T130000Z-1", nil, false), "run.json"), `{"schema": 3, "jobs": `)
	write(t, filepath.Join(runNamed(t, parent, "20261128T140000Z-1", allOK(), true), "events.jsonl"), "no event\nno event\n")
	write(t, filepath.Join(runNamed(t, parent, "20261128T150000Z-1", nil, false), "run.json"), `{"schema": 99}`)
	if err := os.Remove(filepath.Join(runNamed(t, parent, "20261128T160000Z-1", nil, false), "run.json")); err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"20261128T170000Z-1", "zzz"} { // empty, or another name
		if err := os.Mkdir(filepath.Join(parent, foreign), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := Runs(parent)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Dir, Name, Status string
		Problem           bool
		Records, Tests    int
	}
	var got []row
	for _, r := range runs {
		got = append(got, row{filepath.Base(r.Path), r.Name, r.Status, r.Problem != "", r.Records, r.Tests})
		if r.Started == nil {
			t.Errorf("%s: no start", r.Path)
		}
	}
	want := []row{
		{"20261128T160000Z-1", "", Damaged, true, 0, 0},
		{"20261128T150000Z-1", "last", Unreadable, true, 0, 0},
		{"20261128T140000Z-1", "last~1", Damaged, true, 0, 0},
		{"20261128T130000Z-1", "last~2", Damaged, true, 0, 0},
		{"20261128T120000Z-1", "last~3", Running, false, 0, 4},
		{"20261128T110000Z-1", "last~4", Incomplete, false, 1, 4},
		{"20261128T100000Z-1", "last~5", Complete, false, 4, 4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for i, r := range runs {
		if path, err := Find(r.Name, parent); r.Name != "" && (err != nil || path != r.Path) {
			t.Errorf("%s is %s, %v", r.Name, path, err)
		}
		if d, err := Show(r.Path); err != nil || d.Status != want[i].Status || (d.Resume != "") != (d.Status == Incomplete) {
			t.Errorf("%s: %+v, %v", r.Path, d, err)
		}
	}
	if _, err := Show(parent); !errors.Is(err, ErrNotRun) {
		t.Errorf("what is no run: %v", err)
	}
	if _, err := Runs(filepath.Join(parent, "nosuch")); !errors.Is(err, ErrNotRun) {
		t.Errorf("no such directory: %v", err)
	}
	if runs, err := Runs(filepath.Join(parent, "zzz")); err != nil || len(runs) > 0 {
		t.Errorf("an empty directory: %v, %v", runs, err)
	}
}

// Only the files of a run are removed, and only if nobody writes them.
func TestRemove(t *testing.T) {
	take := (*flock.Flock).TryLock
	noLocks := func(*flock.Flock) (bool, error) { return false, unix.ENOLCK }
	const named = "20261128T100000Z-1"
	old := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name  string
		dir   string
		ended bool
		make  func(t *testing.T, path string)
		try   func(*flock.Flock) (bool, error)
		err   error
		stay  []string // files in the directory afterwards, if err is nil
	}{
		{name: "complete", dir: named, ended: true},
		{name: "incomplete", dir: named},
		{name: "renamed", dir: "baseline"},
		{name: "left by a process that was killed", dir: named, make: func(t *testing.T, path string) { write(t, path+"/.run.json123", "{") }},
		{name: "broken run.json", dir: named, make: func(t *testing.T, path string) { write(t, path+"/run.json", "{") }},
		{name: "half-written", dir: named, make: func(t *testing.T, path string) {
			_ = os.Remove(path + "/run.json")
			_ = os.Chtimes(path, old, old)
		}},
		{name: "a run that begins", dir: named, err: ErrRunning, make: func(_ *testing.T, path string) { _ = os.Remove(path + "/run.json") }},
		{name: "being written", dir: named, err: ErrRunning, make: func(t *testing.T, path string) { lockedBy(t, path) }},
		{name: "foreign files", dir: named, stay: []string{"notes.txt", "report.md", "sub"}, make: func(t *testing.T, path string) {
			write(t, path+"/notes.txt", "mine")
			_ = os.Mkdir(path+"/sub", 0o755)
			_ = os.Symlink(path+"/notes.txt", path+"/report.md")
		}},
		{name: "another program's run.json", dir: "other", err: ErrNotRun, make: func(t *testing.T, path string) { write(t, path+"/run.json", `{"name":"x"}`) }},
		{name: "no run.json, another name", dir: "other", err: ErrNotRun, make: func(_ *testing.T, path string) { _ = os.Remove(path + "/run.json") }},
		{name: "no events", dir: named, err: ErrNotRun, make: func(_ *testing.T, path string) { _ = os.Remove(path + "/events.jsonl") }},
		{name: "a link", dir: "real", err: ErrNotRun, make: func(_ *testing.T, path string) {
			_ = os.Rename(path, path+".1")
			_ = os.Symlink(path+".1", path)
		}},
		{name: "no locks, complete", dir: named, ended: true, try: noLocks},
		{name: "no locks, incomplete", dir: named, err: ErrRunning, try: noLocks},
		{name: "no permission", dir: named, err: ErrAccess, try: func(*flock.Flock) (bool, error) { return false, syscall.EACCES }},
		{name: "removed meanwhile", dir: named, err: ErrNotRun, try: func(l *flock.Flock) (bool, error) {
			ok, err := l.TryLock()
			_ = os.Remove(l.Path())
			return ok, err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := runNamed(t, t.TempDir(), tt.dir, oneTest(), tt.ended)
			if tt.make != nil {
				tt.make(t, path)
			}
			try := tt.try
			if try == nil {
				try = take
			}
			before := names(t, path)
			dry := remove(path, true, try)
			if tt.name != "removed meanwhile" {
				if diff := cmp.Diff(before, names(t, path)); diff != "" {
					t.Errorf("a dry run changed something\n%s", diff)
				}
				if r := remove(path, false, try); !errors.Is(r.Err, tt.err) || r.Bytes != dry.Bytes || !slices.Equal(r.Stay, dry.Stay) {
					t.Errorf("got %+v, the dry run %+v", r, dry)
				}
			}
			if !errors.Is(dry.Err, tt.err) || tt.err == nil && (dry.Err != nil || dry.Bytes == 0) {
				t.Errorf("got %+v, want %v", dry, tt.err)
			}
			after := names(t, path)
			if tt.err == nil {
				before = tt.stay
			}
			if diff := cmp.Diff(before, after); diff != "" && tt.name != "removed meanwhile" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// names are the files of a directory; nil: there is none.
func names(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// The newest runs stay, and so do the young ones, those being written, and what is no run.
func TestPrune(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    PruneOptions
		gone []string
	}{
		{"all but one", PruneOptions{Keep: 1}, []string{"20261127T100000Z-1", "20261125T100000Z-1"}},
		{"old ones", PruneOptions{OlderThan: 24 * time.Hour}, []string{"20261125T100000Z-1"}},
		{"dry", PruneOptions{Keep: 1, DryRun: true}, nil},
		{"more than there are", PruneOptions{Keep: 9}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parent := t.TempDir()
			for name, age := range map[string]time.Duration{
				"20261128T100000Z-1": time.Minute, "20261127T100000Z-1": time.Hour, "20261126T100000Z-1": 50 * time.Hour, "20261125T100000Z-1": 60 * time.Hour,
			} {
				path := runNamed(t, parent, name, nil, false)
				at := time.Now().Add(-age)
				if err := os.Chtimes(filepath.Join(path, "events.jsonl"), at, at); err != nil {
					t.Fatal(err)
				}
			}
			lockedBy(t, filepath.Join(parent, "20261126T100000Z-1"))
			elsewhere := runNamed(t, t.TempDir(), "20261101T100000Z-1", nil, false)
			if err := os.Symlink(elsewhere, filepath.Join(parent, "20261101T100000Z-1")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(parent, "20261101T090000Z-1"), "a file")
			before := names(t, parent)
			if _, err := Prune(parent, tt.o); err != nil {
				t.Fatal(err)
			}
			want := slices.DeleteFunc(before, func(n string) bool { return slices.Contains(tt.gone, n) })
			if diff := cmp.Diff(want, names(t, parent)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if n := names(t, elsewhere); !slices.Contains(n, "run.json") {
				t.Errorf("behind the link: %v", n)
			}
		})
	}
}

// Two prunes at once remove every run once.
func TestPruneTwice(t *testing.T) {
	parent := t.TempDir()
	for i := range 20 {
		runNamed(t, parent, "20261128T1000"+string(rune('0'+i/10))+string(rune('0'+i%10))+"Z-1", nil, false)
	}
	removed := make(chan int)
	for range 2 {
		go func() {
			n := 0
			all, err := Prune(parent, PruneOptions{})
			for _, r := range all {
				if r.Err == nil {
					n++
				} else if !errors.Is(r.Err, ErrRunning) && !errors.Is(r.Err, ErrNotRun) {
					err = r.Err
				}
			}
			if err != nil {
				t.Error(err)
			}
			removed <- n
		}()
	}
	if n := <-removed + <-removed; n != 20 {
		t.Errorf("%d runs removed", n)
	}
	if left := names(t, parent); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Names are found before the first run is removed, and each run is removed once.
func TestRemoveAll(t *testing.T) {
	parent := t.TempDir()
	for _, name := range []string{"20261128T100000Z-1", "20261128T100001Z-1", "20261128T100002Z-1"} {
		runNamed(t, parent, name, nil, false)
	}
	if _, err := RemoveAll([]string{"last", "last~7"}, parent); !errors.Is(err, ErrNotRun) || !strings.Contains(err.Error(), "there is no last~7") {
		t.Errorf("got %v", err)
	}
	removed, err := RemoveAll([]string{"last", "last~1", "20261128T100002Z-1"}, parent)
	if err != nil || len(removed) != 2 {
		t.Errorf("got %v, %v", removed, err)
	}
	if diff := cmp.Diff([]string{"20261128T100000Z-1"}, names(t, parent)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What a run does is not hidden: an outcome without a record counts as a test only.
func TestRunsWithoutRecords(t *testing.T) {
	parent := t.TempDir()
	events := oneTest()
	for i, e := range events {
		if done, ok := e.(bench.TestDone); ok {
			done.Status = result.Timeout
			events[i] = done
		}
	}
	runNamed(t, parent, "20261128T100000Z-1", events, false)
	runs, err := Runs(parent)
	if err != nil || len(runs) != 1 || runs[0].Records != 0 || runs[0].Tests != 4 {
		t.Errorf("got %+v, %v", runs, err)
	}
}
