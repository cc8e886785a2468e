package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

var (
	runPP = result.Test{Prompt: 16}
	runTG = result.Test{Gen: 8}

	span = Span{Version: "llama.cpp 0.7.0", Program: "v2", Command: []string{"benchmark-llm"}, Started: time.Now()}
)

// twoModels is a run of two tests of each of two models, two repetitions each.
func twoModels() Description {
	about := Description{
		TimeLimit: time.Hour, Output: "jsonl",
		Sources: []Source{{Source: "hf:u/r/a.gguf"}, {Source: "https://h.example/b.gguf"}},
		Host:    host.Facts{Arch: "amd64", CPU: host.CPU{Model: "AMD EPYC", PhysicalCores: 2, LogicalCPUs: 4, Threads: 2}},
	}
	about.Version, about.Program, about.Started = span.Version, "v1", benchtest.RunStart
	about.Command = []string{"benchmark-llm"}
	for _, name := range []string{"a.gguf", "b.gguf"} {
		about.Selection.Suite.Models = append(about.Selection.Suite.Models, suite.Entry{Name: name})
		about.Jobs = append(about.Jobs, bench.Job{
			Model: bench.Model{Name: name, Path: "/models/" + name}, Repetitions: 2, Settings: bench.DefaultSettings(2),
			Tests: []bench.TestBudget{{Test: runPP, Budget: time.Minute}, {Test: runTG, Budget: time.Minute}},
		})
	}
	return about
}

// allOK is the whole run of twoModels.
func allOK() []bench.Event {
	var events []bench.Event
	for _, model := range []string{"a.gguf", "b.gguf"} {
		events = append(events, benchtest.Join(benchtest.Loaded(model), benchtest.Begun(runPP, 0, 2), benchtest.Done(runPP, result.OK), benchtest.Begun(runTG, 0, 2), benchtest.Done(runTG, result.OK), bench.JobDone{})...)
	}
	return events
}

// writeRun makes the directory of a run with these events, one second apart.
func writeRun(t *testing.T, about Description, events []bench.Event) (path string) {
	t.Helper()
	d, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Describe(about); err != nil {
		t.Fatal(err)
	}
	writeEvents(t, d, benchtest.RunStart, events)
	return d.Path
}

func writeEvents(t *testing.T, d *Dir, start time.Time, events []bench.Event) {
	t.Helper()
	for i, e := range events {
		if err := d.Event(bench.Stamped{At: start.Add(time.Duration(i+1) * time.Second), Event: e}); err != nil {
			t.Fatal(err)
		}
	}
}

// quietLog keeps the log of a test and returns it.
func quietLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	return &log
}

// told are the outcomes and the tests with repetitions to continue, one line each.
func told(r record.Left) (outcomes, begun []string) {
	for _, o := range r.Outcomes {
		outcomes = append(outcomes, fmt.Sprintf("%s %s %s %d", o.Model, o.Test, o.Status, len(o.Samples)))
	}
	for _, job := range r.Jobs {
		for _, t := range job.Tests {
			if len(t.Done) > 0 {
				var spent time.Duration
				for _, s := range t.Done {
					spent += s.Elapsed
				}
				begun = append(begun, fmt.Sprintf("%s %s %d %v", job.Model.Name, t.Test, len(t.Done), spent))
			}
		}
	}
	slices.Sort(begun)
	return outcomes, begun
}

// doneOf are the repetitions of a test that is to be continued.
func doneOf(r record.Left, model string, test result.Test) []result.Sample {
	for _, job := range r.Jobs {
		for _, t := range job.Tests {
			if job.Model.Name == model && t.Test == test {
				return t.Done
			}
		}
	}
	return nil
}

func TestOpenRunDir(t *testing.T) {
	ppDone := benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 2), benchtest.Done(runPP, result.OK))
	for _, tc := range []struct {
		name     string
		events   []bench.Event
		outcomes []string
		begun    []string
	}{
		{name: "nothing"},
		{name: "waiting", events: benchtest.Join(bench.WaitStarted{Model: "a.gguf"})},
		{name: "loading", events: benchtest.Join(benchtest.EngineReady, bench.LoadStarted{Model: bench.Model{Name: "a.gguf"}}, bench.LoadProgress{Share: 0.5})},
		{
			name: "all completed, without the end", events: allOK(),
			outcomes: []string{"a.gguf pp16 ok 2", "a.gguf tg8 ok 2", "b.gguf pp16 ok 2", "b.gguf tg8 ok 2"},
		},
		{name: "begun without a repetition", events: benchtest.Join(ppDone, benchtest.Begun(runTG, 0, 0)), outcomes: []string{"a.gguf pp16 ok 2"}},
		{
			name: "cut after a repetition", events: benchtest.Join(ppDone, benchtest.Begun(runTG, 0, 1)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 1 100ms"},
		},
		{
			name: "cut after the last repetition", events: benchtest.Join(ppDone, benchtest.Begun(runTG, 0, 2)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 2 300ms"},
		},
		{
			name: "interrupted", events: benchtest.Join(ppDone, benchtest.Begun(runTG, 0, 1), benchtest.Done(runTG, result.Aborted), bench.JobDone{},
				benchtest.Skipped("b.gguf", runPP, result.Aborted), benchtest.Skipped("b.gguf", runTG, result.Aborted)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 1 100ms"},
		},
		{
			name: "time limit", events: benchtest.Join(ppDone, benchtest.Begun(runTG, 0, 1), benchtest.Done(runTG, result.TimeLimit), benchtest.Skipped("b.gguf", runPP, result.TimeLimit)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 1 100ms"},
		},
		{
			name: "stopped and skipped tests are final", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Done(runPP, result.Timeout),
				benchtest.Skipped("a.gguf", runTG, result.PredictedTimeout), benchtest.Skipped("b.gguf", runPP, result.DownloadFailed)),
			outcomes: []string{"a.gguf pp16 timeout 1", "a.gguf tg8 predicted_timeout 0", "b.gguf pp16 download_failed 0"},
		},
		{
			name: "worker lost last", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "worker lost, then cut while loading again", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.Loaded("a.gguf")),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "worker lost, then lost while loading again", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.EngineReady,
				bench.LoadStarted{Model: bench.Model{Name: "a.gguf"}}, benchtest.Lost, benchtest.Skipped("a.gguf", runPP, result.Crashed), benchtest.Skipped("a.gguf", runTG, result.Crashed)),
			outcomes: []string{"a.gguf pp16 crashed 1", "a.gguf tg8 crashed 0"},
		},
		{
			name: "worker lost, continued", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 1, 2), benchtest.Done(runPP, result.OK)),
			outcomes: []string{"a.gguf pp16 ok 2"},
		},
		{
			name: "worker lost, continued, cut", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 1, 1)),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "worker lost twice, next test", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 1, 1), benchtest.Lost,
				benchtest.Loaded("a.gguf"), benchtest.Begun(runTG, 0, 0)),
			outcomes: []string{"a.gguf pp16 crashed 1"},
		},
		{
			name: "worker lost twice, next model", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runTG, 0, 1), benchtest.Lost,
				benchtest.Loaded("a.gguf"), benchtest.Begun(runTG, 1, 1), benchtest.Lost, benchtest.Loaded("b.gguf")),
			outcomes: []string{"a.gguf tg8 crashed 1"},
		},
		{
			name: "worker lost, next model", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runTG, 0, 1), benchtest.Lost, benchtest.Loaded("b.gguf"), benchtest.Begun(runPP, 0, 1)),
			outcomes: []string{"a.gguf tg8 crashed 1"}, begun: []string{"b.gguf pp16 1 100ms"},
		},
		{
			name: "worker lost, next test", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.Loaded("a.gguf"), benchtest.Begun(runTG, 0, 1)),
			outcomes: []string{"a.gguf pp16 crashed 1"}, begun: []string{"a.gguf tg8 1 100ms"},
		},
		{
			name: "worker lost, others given up", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.Skipped("a.gguf", runTG, result.Crashed)),
			outcomes: []string{"a.gguf pp16 crashed 1", "a.gguf tg8 crashed 0"},
		},
		{
			name: "worker lost twice, others given up", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost,
				benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 1, 1), benchtest.Lost, benchtest.Skipped("a.gguf", runTG, result.Crashed)),
			outcomes: []string{"a.gguf pp16 crashed 1", "a.gguf tg8 crashed 0"},
		},
		{
			name: "worker lost while the run was stopped", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1), benchtest.Lost, benchtest.Skipped("a.gguf", runTG, result.Aborted)),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "repetitions out of order are measured again", events: benchtest.Join(benchtest.Loaded("a.gguf"), bench.TestStarted{Test: runPP, Repetitions: 2},
				bench.RepetitionDone{Sample: benchtest.Sample(2)}),
		},
		{
			name: "repetition that took no time", events: benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1),
				bench.RepetitionDone{Sample: result.Sample{Repetition: 2}}),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := writeRun(t, twoModels(), tc.events)
			d, _, r, err := Open(path, span)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			outcomes, begun := told(r)
			if diff := cmp.Diff(tc.outcomes, outcomes); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.begun, begun); diff != "" {
				t.Errorf("begun (-want +got):\n%s", diff)
			}
			var want []result.Record
			for _, o := range r.Outcomes {
				if (o.Record != nil) != (o.Status == result.OK) {
					t.Errorf("%s of %s is %s, record %v", o.Test, o.Model, o.Status, o.Record)
				}
				if o.Record != nil {
					want = append(want, *o.Record)
				}
			}
			if diff := cmp.Diff(want, recordsOf(t, path)); diff != "" {
				t.Errorf("results.jsonl (-want +got):\n%s", diff)
			}
		})
	}
}

func recordsOf(t *testing.T, path string) []result.Record {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path, "results.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	records, err := report.ReadRecords(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// TestResumedRecords: a record that is read back is the one that was written
// when it was measured.
func TestResumedRecords(t *testing.T) {
	about := twoModels()
	path := writeRun(t, about, allOK())
	d, _, r, err := Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var want []result.Outcome
	var a record.Assembler
	for i, e := range allOK() {
		if _, ok := e.(bench.EngineReady); ok {
			a = record.Assembler{Version: "v1", Job: about.Jobs[len(want)/2]}
		}
		if o := a.Add(bench.Stamped{At: benchtest.RunStart.Add(time.Duration(i+1) * time.Second), Event: e}); o != nil {
			want = append(want, *o)
		}
	}
	if diff := cmp.Diff(want, r.Outcomes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestContinuedRun: a run that is cut off and continued, twice, has all its
// records, in its own order, and its account.
func TestContinuedRun(t *testing.T) {
	log := quietLog(t)
	about := twoModels()
	about.Version = "llama.cpp of another day"
	path := writeRun(t, about, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runTG, 0, 2), benchtest.Done(runTG, result.OK), benchtest.Begun(runPP, 0, 1)))
	left := filepath.Join(path, ".report.md1003552489260507191") // the process was ended while it wrote the report
	if err := os.WriteFile(left, []byte("# Run"), 0o644); err != nil {
		t.Fatal(err)
	}

	d, _, _, err := Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a pending file is still there: %v", err)
	}
	if want := `before="llama.cpp of another day"`; !strings.Contains(log.String(), want) {
		t.Errorf("log %q, want %s", log, want)
	}
	writeEvents(t, d, d.description.last().Started, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 1, 2)))
	d.Close()

	d, _, r, err := Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	outcomes, begun := told(r)
	if diff := cmp.Diff([]string{"a.gguf tg8 ok 2"}, outcomes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a.gguf pp16 2 300ms"}, begun); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The second span ends here, the third has all that is left.
	start := d.description.last().Started
	rest := benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 2, 2), benchtest.Done(runPP, result.OK), bench.JobDone{},
		benchtest.Skipped("b.gguf", runPP, result.NoDisk), benchtest.Skipped("b.gguf", runTG, result.NoDisk))
	r.Account.Begin(start)
	a := record.Assembler{Version: "v2", Job: about.Jobs[0]}
	for i, e := range rest {
		s := bench.Stamped{At: start.Add(time.Duration(i+1) * time.Second), Event: e}
		if err := d.Event(s); err != nil {
			t.Fatal(err)
		}
		r.Account.Add(s)
		if o := a.Add(s); o != nil {
			if err := d.Outcome(o); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := start.Add(time.Duration(len(rest)) * time.Second)
	if err := d.Finish(r.Account.Accounting(end)); err != nil {
		t.Fatal(err)
	}
	var tests []string
	for _, r := range recordsOf(t, path) {
		tests = append(tests, r.Test().String()+" "+r.Ext.Version)
	}
	if diff := cmp.Diff([]string{"tg8 v1", "pp16 v2"}, tests); diff != "" {
		t.Errorf("results.jsonl (-want +got):\n%s", diff)
	}

	var written Description
	b, err := os.ReadFile(filepath.Join(path, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &written); err != nil {
		t.Fatal(err)
	}
	if n := len(written.Continued); n != 2 || written.Ended != nil || written.Continued[0].Ended != nil || written.Continued[1].Ended == nil {
		t.Errorf("spans: %+v", written.spans())
	}
	if diff := cmp.Diff(about.Jobs, written.Jobs); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
	acc := written.Accounting
	// The four repetitions took 0.6 s of the steps they were in; the time between two spans is none of them.
	if acc == nil || acc.Timed != 600*time.Millisecond || acc.Wall > 10*time.Minute {
		t.Errorf("accounting %+v", acc)
	}
	b, err = os.ReadFile(filepath.Join(path, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Run " + filepath.Base(path), "- version: llama.cpp of another day", "- continued: ", "- CPU: AMD EPYC, amd64, 2 cores, 4 CPUs",
		"## a.gguf", "## Models without a record", "- b.gguf (2 tests): no disk: why", "## Where the time went", "| lost in stopped tests |",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("report.md lacks %q:\n%s", want, b)
		}
	}
	if pp, tg := strings.Index(string(b), "| pp16 "), strings.Index(string(b), "| tg8 "); pp < 0 || tg < pp {
		t.Errorf("report.md has the tests in another order than the run:\n%s", b)
	}

	if b, err = os.ReadFile(filepath.Join(path, "report.html")); err != nil || !strings.Contains(string(b), "<title>Run ") || !strings.Contains(string(b), "no disk: why") {
		t.Errorf("report.html: %v\n%s", err, b)
	}

	d.Close()
	if _, _, _, err := Open(path, span); !errors.Is(err, ErrFinished) {
		t.Errorf("error %v, want %v", err, ErrFinished)
	}
}

// TestTornEvents: wherever a power cut ends the file, the lines before are good
// and the run goes on after them.
func TestTornEvents(t *testing.T) {
	log := quietLog(t)
	events := benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 2))
	template := writeRun(t, twoModels(), events)
	whole, err := os.ReadFile(filepath.Join(template, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := last; cut <= len(whole); cut += min(7, max(1, len(whole)-cut)) {
		for _, tail := range []string{"", "\x00\x00", "\x00\n"} {
			path := writeRun(t, twoModels(), nil)
			file := filepath.Join(path, "events.jsonl")
			if err := os.WriteFile(file, append(bytes.Clone(whole[:cut]), tail...), 0o644); err != nil {
				t.Fatal(err)
			}
			d, _, r, err := Open(path, span)
			if err != nil {
				t.Fatalf("cut at %d, %q: %v", cut, tail, err)
			}
			good, n := last, 1
			if cut == len(whole) {
				good, n = cut, 2
			}
			if got := len(doneOf(r, "a.gguf", runPP)); got != n {
				t.Errorf("cut at %d, %q: %d repetitions, want %d", cut, tail, got, n)
			}
			if err := d.Event(bench.Stamped{At: benchtest.RunStart, Event: benchtest.EngineReady}); err != nil {
				t.Fatal(err)
			}
			d.Close()
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if rest, ok := bytes.CutPrefix(got, whole[:good]); !ok || !bytes.HasPrefix(rest, []byte(`{"event":"engine_ready"`)) {
				t.Errorf("cut at %d, %q: the file does not go on where the lines end", cut, tail)
			}
		}
	}
	if !strings.Contains(log.String(), "ignoring the last event, which was cut off") {
		t.Errorf("log %q", log)
	}
}

// writeEnded writes a run that has ended.
func writeEnded(t *testing.T, events []bench.Event) (path string) {
	t.Helper()
	path = writeRun(t, twoModels(), events)
	var about Description
	b, err := os.ReadFile(filepath.Join(path, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &about); err != nil {
		t.Fatal(err)
	}
	about.Ended = &benchtest.RunStart
	d := &Dir{Path: path, description: about}
	if err := d.writeDescription(); err != nil {
		t.Fatal(err)
	}
	return path
}

// A page that cannot be written costs a line of the log, and nothing else.
func TestPageCannotBeWritten(t *testing.T) {
	log := quietLog(t)
	d, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Describe(twoModels()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(d.Path, "report.html", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.Finish(result.Accounting{}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "report.html cannot be written"); n != 1 {
		t.Errorf("log %q", log)
	}
	for _, name := range []string{"run.json", "report.md"} {
		if b, err := os.ReadFile(filepath.Join(d.Path, name)); err != nil || len(b) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

// A run that was stopped with its report goes on, and nothing about that is odd.
func TestContinuesAfterTheEnd(t *testing.T) {
	log := quietLog(t)
	d, _, r, err := Open(writeEnded(t, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1))), span)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if n := r.Unfinished(); n != 4 || log.Len() > 0 {
		t.Errorf("%d tests are left; log %q", n, log)
	}
}

func TestOpenRunDirRefuses(t *testing.T) {
	quietLog(t)
	// change writes a run and replaces a text in one of its files.
	change := func(file, old, by string) func(*testing.T) string {
		return func(t *testing.T) string {
			path := writeRun(t, twoModels(), allOK()[:8])
			b, err := os.ReadFile(filepath.Join(path, file))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(b, []byte(old)) {
				t.Fatalf("%s has no %q:\n%s", file, old, b)
			}
			if err := os.WriteFile(filepath.Join(path, file), bytes.Replace(b, []byte(old), []byte(by), 1), 0o644); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	long := strings.Repeat("x", bench.MaxEventBytes+10)
	for _, tc := range []struct {
		name string
		path func(*testing.T) string
		kind error
		want string
	}{
		{"missing", func(t *testing.T) string { return filepath.Join(t.TempDir(), "none") }, ErrNotRun, "is not the directory of a run"},
		{"empty directory", func(t *testing.T) string { return t.TempDir() }, ErrNotRun, "is not the directory of a run"},
		{"a file", func(t *testing.T) string { return filepath.Join(writeRun(t, twoModels(), nil), "run.json") }, ErrNotRun, "is not the directory of a run"},
		{"no run.json", func(t *testing.T) string {
			path := writeRun(t, twoModels(), nil)
			if err := os.Remove(filepath.Join(path, "run.json")); err != nil {
				t.Fatal(err)
			}
			return path
		}, ErrNotRun, "is not the directory of a run"},
		{"finished", func(t *testing.T) string { return writeEnded(t, allOK()) }, ErrFinished, "the run is finished, nothing is left to do"},
		{"going on", func(t *testing.T) string {
			d, err := Create(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.Close)
			return d.Path
		}, ErrRunning, "the run is still going on"},
		{"other schema", change("run.json", `"schema": 3`, `"schema": 1`), ErrSchema, "schema 1, this program knows schemas 2 and 3"},
		{"not JSON", change("run.json", `"schema"`, "schema"), ErrBroken, "run.json: "},
		{"other types", change("run.json", `"jobs": [`, `"jobs": 1, "x": [`), ErrBroken, "run.json: "},
		{"no selection", change("run.json", `"models": [`, `"x": [`), ErrBroken, "run.json: 0 models in the selection for 2 jobs"},
		{"no jobs", change("run.json", `"jobs": [`, `"x": [`), ErrBroken, "run.json: no model"},
		{"same model twice", change("run.json", "\"name\": \"b.gguf\",\n        \"path\"", "\"name\": \"a.gguf\",\n        \"path\""), ErrBroken, `run.json: model "a.gguf" twice`},
		{"no repetitions", change("run.json", `"repetitions": 2`, `"repetitions": 0`), ErrBroken, "run.json: a.gguf: 0 repetitions, not 1…10000"},
		{"many repetitions", change("run.json", `"repetitions": 2`, `"repetitions": 10001`), ErrBroken, "run.json: a.gguf: 10001 repetitions, not 1…10000"},
		{"endless", change("run.json", `{`, strings.Repeat(" ", maxDescriptionBytes)+`{`), ErrBroken, "run.json: longer than 16777216 bytes"},
		{"a source less", change("run.json", `"source": "https://h.example/b.gguf"`, `"source": "https://h.example/b.gguf"}, {"source": "c"`), ErrBroken, "run.json: 3 sources"},
		{"no test", change("run.json", `"n_prompt": 16`, `"n_prompt": 0`), ErrBroken, "run.json: a.gguf: a test needs"},
		{"same test twice", change("run.json", "\"n_prompt\": 0,\n            \"n_gen\": 8", "\"n_prompt\": 16,\n            \"n_gen\": 0"), ErrBroken, "run.json: a.gguf: pp16 twice"},
		{"malformed line", change("events.jsonl", `{"event":"load_done"`, `{"event":"load_done`), ErrBroken, "events.jsonl: line 3: decode event: "},
		{"malformed event", change("events.jsonl", `"repetition":1`, `"repetition":"1"`), ErrBroken, "events.jsonl: line 7: decode event repetition_done: "},
		{"empty line", change("events.jsonl", "\n", "\n\n"), ErrBroken, "events.jsonl: line 2: decode event: "},
		{"long line", change("events.jsonl", "\n", "\n"+long+"\n"), ErrBroken, "events.jsonl: line 2: decode event: line of "},
		{"another run's model", change("events.jsonl", `"name":"a.gguf"`, `"name":"c.gguf"`), ErrBroken, `events.jsonl: line 2: model "c.gguf" does not belong to this run`},
		{"another run's test", change("events.jsonl", `"n_prompt":16`, `"n_prompt":17`), ErrBroken, `events.jsonl: line 4: test pp17 of model "a.gguf" does not belong to this run`},
		{"a test without a model", change("events.jsonl", `"load_started"`, `"load_begun"`), ErrBroken, "events.jsonl: line 4: pp16 starts before a model is loaded"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, _, _, err := Open(tc.path(t), span)
			if err == nil {
				d.Close()
				t.Fatal("no error")
			}
			if !errors.Is(err, tc.kind) {
				t.Errorf("%v is not %v", err, tc.kind)
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want %q on one line", err, tc.want)
			}
		})
	}
}

// TestLockedRunDir: two processes cannot write one run, and the lock ends with
// its holder.
func TestLockedRunDir(t *testing.T) {
	path := writeRun(t, twoModels(), nil)
	d, _, _, err := Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := Open(path, span); !errors.Is(err, ErrRunning) {
		t.Errorf("error %v, want %v", err, ErrRunning)
	}
	d.Close()
	d, _, _, err = Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// TestRunJSONRedacted keeps secrets out of run.json.
func TestRunJSONRedacted(t *testing.T) {
	t.Setenv("HF_TOKEN", "unusual.secret.1")
	d, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	about := twoModels()
	about.Command = []string{"benchmark-llm", "-m", "https://hub.example/m.gguf?token=secret.2", "hf_secret3", "x=unusual.secret.1"}
	about.Sources = []Source{{Source: "https://user:secret.4@hub.example/a.gguf?sig=secret.5"}, {Source: "/models/b.gguf", SHA256: "00"}}
	about.Continued = []Span{{Command: []string{"hf_secret6"}}}
	if err := d.Describe(about); err != nil {
		t.Fatal(err)
	}
	want := []string{"benchmark-llm", "-m", "https://hub.example/m.gguf?(redacted)", "(redacted)", "x=(redacted)"}
	if diff := cmp.Diff(want, d.description.Command); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	sources := []Source{{Source: "https://(redacted)@hub.example/a.gguf?(redacted)"}, {Source: "/models/b.gguf", SHA256: "00"}}
	if diff := cmp.Diff(sources, d.description.Sources); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b, err := os.ReadFile(filepath.Join(d.Path, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("secret")) {
		t.Errorf("run.json tells a secret:\n%s", b)
	}
	// The caller's own is as it was: the run needs it.
	if about.Sources[0].Source != "https://user:secret.4@hub.example/a.gguf?sig=secret.5" {
		t.Errorf("the caller's source is %q", about.Sources[0].Source)
	}
}

// A run of the version with schema 2 goes on, with the settings and limits that it
// had, under the present names.
func TestSchema2(t *testing.T) {
	quietLog(t)
	archive, err := txtar.ParseFile("testdata/schema2.txtar")
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	for _, f := range archive.Files {
		if err := os.WriteFile(filepath.Join(path, f.Name), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, about, left, err := Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if len(left.Outcomes) != 7 || left.Unfinished() != 1 {
		t.Errorf("%d outcomes, %d tests are left", len(left.Outcomes), left.Unfinished())
	}
	if m := about.Selection.Suite.Models; len(m) != 2 || m[0].Name != "tiny.Q4_K_M.gguf" || m[0].SizeBytes != 1571072 ||
		!strings.HasPrefix(m[1].Source.Given, "hf:QuantFactory/SmolLM-135M-GGUF/") || len(m[1].Tests) != 4 {
		t.Errorf("models %+v", m)
	}
	if targets := about.Selection.Suite.Targets; targets.Prompt[0] != (suite.Target{Tokens: 16, TokensPerSecond: 2}) || len(targets.Generation) != 5 {
		t.Errorf("targets %+v", targets)
	}
	if got := left.Jobs[1].Model.LargestBytes; got != 30081024 {
		t.Errorf("the largest tensor has %d bytes, want 30081024", got)
	}
	job := about.Jobs[1]
	if job.Adjusted == nil || !job.Adjusted.NoRepack || job.PrecompileSkip == nil || *job.PrecompileSkip != (result.Test{Prompt: 16}) {
		t.Errorf("job %+v", job)
	}
	b, err := os.ReadFile(filepath.Join(path, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{`"schema": 2`, "SizeBytes", "Models", "gentler", "lost_pass"} {
		if bytes.Contains(b, []byte(old)) {
			t.Errorf("run.json still has %s", old)
		}
	}
	// It is opened again as one of today.
	d.Close()
	if _, _, left, err = Open(path, span); err != nil || left.Unfinished() != 1 {
		t.Fatalf("%d tests are left, %v", left.Unfinished(), err)
	}
}

// A disk that is full in the middle of a line leaves whole lines, in the events and in
// the records.
func TestTornByAFullDisk(t *testing.T) {
	path := writeRun(t, twoModels(), nil)
	d, _, _, err := Open(path, span)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	record := result.Outcome{Model: "a.gguf", Test: runPP, Status: result.OK, Record: &result.Record{PromptTokens: 16, SamplesNs: []int64{1}, SamplesTS: []float64{1}}}
	write := func() error {
		return errors.Join(d.Event(bench.Stamped{At: benchtest.RunStart, Event: bench.WaitStarted{Model: "a.gguf"}}), d.Outcome(&record))
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	whole := map[string][]byte{}
	for _, f := range []*lines{d.events, d.results} {
		if whole[f.Name()], err = os.ReadFile(f.Name()); err != nil {
			t.Fatal(err)
		}
		f.write = func(b []byte) (int, error) {
			n, err := f.File.Write(b[:len(b)/2])
			return n, errors.Join(err, syscall.ENOSPC)
		}
	}
	if err := write(); !errors.Is(err, ErrWrite) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	for name, want := range whole {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) || len(want) == 0 {
			t.Errorf("%s has %d bytes, want %d, %v", name, len(got), len(want), err)
		}
	}
}
