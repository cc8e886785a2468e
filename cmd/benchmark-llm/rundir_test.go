package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

var (
	runPP = result.Test{Prompt: 16}
	runTG = result.Test{Gen: 8}

	runStart = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// twoModels is a run of two tests of each of two models, two repetitions each.
func twoModels() runDescription {
	about := runDescription{
		TimeLimit: time.Hour, Output: "jsonl",
		Sources: []modelSource{{Source: "hf:u/r/a.gguf"}, {Source: "https://h.example/b.gguf"}},
		Host:    host.Facts{Arch: "amd64", CPU: host.CPU{Model: "AMD EPYC", PhysicalCores: 2, LogicalCPUs: 4, Threads: 2}},
	}
	about.Version, about.Program, about.Started = versionLine(), "v1", runStart
	about.Command = []string{"benchmark-llm"}
	for _, name := range []string{"a.gguf", "b.gguf"} {
		about.Jobs = append(about.Jobs, bench.Job{
			Model: bench.Model{Name: name, Path: "/models/" + name}, Repetitions: 2, Settings: bench.DefaultSettings(2),
			Tests: []bench.TestBudget{{Test: runPP, Budget: time.Minute}, {Test: runTG, Budget: time.Minute}},
		})
	}
	return about
}

// The events of the runs below, one second apart.
var (
	engineReady = bench.EngineReady{PID: 7, Facts: bench.EngineFacts{BuildCommit: "Debian", BuildNumber: 11669, Backends: "CPU", CPUInfo: "AMD EPYC"}}
	loadDone    = bench.LoadDone{Status: result.OK, Facts: bench.ModelFacts{Type: "llama", SizeBytes: 1 << 20, Params: 1e6}, Elapsed: time.Second}
)

func loadOf(model string) []bench.Event {
	return []bench.Event{engineReady, bench.LoadStarted{Model: bench.Model{Name: model}}, loadDone}
}

func sampleOf(n int) result.Sample {
	return result.Sample{Repetition: n, Start: runStart, Elapsed: time.Duration(n) * 100 * time.Millisecond}
}

func samplesTo(n int) []result.Sample {
	var s []result.Sample
	for i := range n {
		s = append(s, sampleOf(i+1))
	}
	return s
}

// testFrom is a test with its repetitions from the first that is not done, up to
// the last.
func testFrom(t result.Test, done, last int) []bench.Event {
	events := []bench.Event{
		bench.TestStarted{Test: t, Repetitions: 2, Done: samplesTo(done)},
		bench.ContextReady{Elapsed: time.Millisecond}, bench.WarmupDone{Elapsed: time.Millisecond},
	}
	for n := done + 1; n <= last; n++ {
		events = append(events, bench.RepetitionDone{Sample: sampleOf(n)})
	}
	return events
}

func doneAs(t result.Test, s result.Status) bench.Event { return bench.TestDone{Test: t, Status: s} }

func skippedAs(model string, t result.Test, s result.Status) bench.Event {
	return bench.TestSkipped{Model: model, Test: t, Status: s, Reason: "why"}
}

var lostAs = bench.WorkerLost{Status: result.Crashed, Reason: "signal: killed"}

// flat joins events and lists of them.
func flat(parts ...any) []bench.Event {
	var events []bench.Event
	for _, p := range parts {
		switch p := p.(type) {
		case []bench.Event:
			events = append(events, p...)
		case bench.Event:
			events = append(events, p)
		default:
			panic(fmt.Sprintf("%T is no event", p))
		}
	}
	return events
}

// allOK is the whole run of twoModels.
func allOK() []bench.Event {
	var events []bench.Event
	for _, model := range []string{"a.gguf", "b.gguf"} {
		events = append(events, flat(loadOf(model), testFrom(runPP, 0, 2), doneAs(runPP, result.OK), testFrom(runTG, 0, 2), doneAs(runTG, result.OK), bench.JobDone{})...)
	}
	return events
}

// writeRun makes the directory of a run with these events, one second apart.
func writeRun(t *testing.T, about runDescription, events []bench.Event) (path string) {
	t.Helper()
	d, err := createRunDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := d.describe(about); err != nil {
		t.Fatal(err)
	}
	writeEvents(t, d, runStart, events)
	return d.path
}

func writeEvents(t *testing.T, d *runDir, start time.Time, events []bench.Event) {
	t.Helper()
	for i, e := range events {
		if err := d.event(bench.Stamped{At: start.Add(time.Duration(i+1) * time.Second), Event: e}); err != nil {
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

// told are the outcomes and the tests begun, one line each.
func told(r resumed) (outcomes, begun []string) {
	for _, o := range r.outcomes {
		outcomes = append(outcomes, fmt.Sprintf("%s %s %s %d", o.Model, o.Test, o.Status, len(o.Samples)))
	}
	for key, b := range r.begun {
		begun = append(begun, fmt.Sprintf("%s %s %d %v", key.model, key.test, len(b.samples), b.spent))
	}
	slices.Sort(begun)
	return outcomes, begun
}

func TestOpenRunDir(t *testing.T) {
	ppDone := flat(loadOf("a.gguf"), testFrom(runPP, 0, 2), doneAs(runPP, result.OK))
	for _, tc := range []struct {
		name     string
		events   []bench.Event
		outcomes []string
		begun    []string
	}{
		{name: "nothing"},
		{name: "waiting", events: flat(bench.WaitStarted{Model: "a.gguf"})},
		{name: "loading", events: flat(engineReady, bench.LoadStarted{Model: bench.Model{Name: "a.gguf"}}, bench.LoadProgress{Share: 0.5})},
		{
			name: "all completed, without the end", events: allOK(),
			outcomes: []string{"a.gguf pp16 ok 2", "a.gguf tg8 ok 2", "b.gguf pp16 ok 2", "b.gguf tg8 ok 2"},
		},
		{name: "begun without a repetition", events: flat(ppDone, testFrom(runTG, 0, 0)), outcomes: []string{"a.gguf pp16 ok 2"}},
		{
			name: "cut after a repetition", events: flat(ppDone, testFrom(runTG, 0, 1)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 1 100ms"},
		},
		{
			name: "cut after the last repetition", events: flat(ppDone, testFrom(runTG, 0, 2)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 2 300ms"},
		},
		{
			name: "interrupted", events: flat(ppDone, testFrom(runTG, 0, 1), doneAs(runTG, result.Aborted), bench.JobDone{},
				skippedAs("b.gguf", runPP, result.Aborted), skippedAs("b.gguf", runTG, result.Aborted)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 1 100ms"},
		},
		{
			name: "time limit", events: flat(ppDone, testFrom(runTG, 0, 1), doneAs(runTG, result.TimeLimit), skippedAs("b.gguf", runPP, result.TimeLimit)),
			outcomes: []string{"a.gguf pp16 ok 2"}, begun: []string{"a.gguf tg8 1 100ms"},
		},
		{
			name: "stopped and skipped tests are final", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), doneAs(runPP, result.Timeout),
				skippedAs("a.gguf", runTG, result.PredictedTimeout), skippedAs("b.gguf", runPP, result.DownloadFailed)),
			outcomes: []string{"a.gguf pp16 timeout 1", "a.gguf tg8 predicted_timeout 0", "b.gguf pp16 download_failed 0"},
		},
		{
			name: "worker lost last", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "worker lost, then cut while loading again", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs, loadOf("a.gguf")),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "worker lost, then lost while loading again", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs, engineReady,
				bench.LoadStarted{Model: bench.Model{Name: "a.gguf"}}, lostAs, skippedAs("a.gguf", runPP, result.Crashed), skippedAs("a.gguf", runTG, result.Crashed)),
			outcomes: []string{"a.gguf pp16 crashed 1", "a.gguf tg8 crashed 0"},
		},
		{
			name: "worker lost, continued", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs, loadOf("a.gguf"), testFrom(runPP, 1, 2), doneAs(runPP, result.OK)),
			outcomes: []string{"a.gguf pp16 ok 2"},
		},
		{
			name: "worker lost, continued, cut", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs, loadOf("a.gguf"), testFrom(runPP, 1, 1)),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "worker lost twice, next test", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs, loadOf("a.gguf"), testFrom(runPP, 1, 1), lostAs,
				loadOf("a.gguf"), testFrom(runTG, 0, 0)),
			outcomes: []string{"a.gguf pp16 crashed 1"},
		},
		{
			name: "worker lost, next model", events: flat(loadOf("a.gguf"), testFrom(runTG, 0, 1), lostAs, loadOf("b.gguf")),
			outcomes: []string{"a.gguf tg8 crashed 1"},
		},
		{
			name: "worker lost, others given up", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs, skippedAs("a.gguf", runTG, result.Crashed)),
			outcomes: []string{"a.gguf pp16 crashed 1", "a.gguf tg8 crashed 0"},
		},
		{
			name: "worker lost while the run was stopped", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1), lostAs, skippedAs("a.gguf", runTG, result.Aborted)),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
		{
			name: "repetitions out of order are measured again", events: flat(loadOf("a.gguf"), bench.TestStarted{Test: runPP, Repetitions: 2},
				bench.RepetitionDone{Sample: sampleOf(2)}),
		},
		{
			name: "repetition that took no time", events: flat(loadOf("a.gguf"), testFrom(runPP, 0, 1),
				bench.RepetitionDone{Sample: result.Sample{Repetition: 2}}),
			begun: []string{"a.gguf pp16 1 100ms"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := writeRun(t, twoModels(), tc.events)
			d, r, err := openRunDir(path)
			if err != nil {
				t.Fatal(err)
			}
			defer d.close()
			outcomes, begun := told(r)
			if diff := cmp.Diff(tc.outcomes, outcomes); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.begun, begun); diff != "" {
				t.Errorf("begun (-want +got):\n%s", diff)
			}
			var want []result.Record
			for _, o := range r.outcomes {
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
	d, r, err := openRunDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	var want []result.Outcome
	var a bench.Assembler
	for i, e := range allOK() {
		if _, ok := e.(bench.EngineReady); ok {
			a = bench.Assembler{Version: "v1", Job: about.Jobs[len(want)/2]}
		}
		if o := a.Add(bench.Stamped{At: runStart.Add(time.Duration(i+1) * time.Second), Event: e}); o != nil {
			want = append(want, *o)
		}
	}
	if diff := cmp.Diff(want, r.outcomes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestContinuedRun: a run that is cut off and continued, twice, has all its
// records, in its own order, and its account.
func TestContinuedRun(t *testing.T) {
	log := quietLog(t)
	about := twoModels()
	about.Version = "llama.cpp of another day"
	path := writeRun(t, about, flat(loadOf("a.gguf"), testFrom(runTG, 0, 2), doneAs(runTG, result.OK), testFrom(runPP, 0, 1)))
	left := filepath.Join(path, ".report.md1003552489260507191") // the process was ended while it wrote the report
	if err := os.WriteFile(left, []byte("# Run"), 0o644); err != nil {
		t.Fatal(err)
	}

	d, _, err := openRunDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a pending file is still there: %v", err)
	}
	if want := `before="llama.cpp of another day"`; !strings.Contains(log.String(), want) {
		t.Errorf("log %q, want %s", log, want)
	}
	writeEvents(t, d, d.about.last().Started, flat(loadOf("a.gguf"), testFrom(runPP, 1, 2)))
	d.close()

	d, r, err := openRunDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	outcomes, begun := told(r)
	if diff := cmp.Diff([]string{"a.gguf tg8 ok 2"}, outcomes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a.gguf pp16 2 300ms"}, begun); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The second span ends here, the third has all that is left.
	start := d.about.last().Started
	rest := flat(loadOf("a.gguf"), testFrom(runPP, 2, 2), doneAs(runPP, result.OK), bench.JobDone{},
		skippedAs("b.gguf", runPP, result.NoDisk), skippedAs("b.gguf", runTG, result.NoDisk))
	r.account.Begin(start)
	a := bench.Assembler{Version: "v2", Job: about.Jobs[0]}
	for i, e := range rest {
		s := bench.Stamped{At: start.Add(time.Duration(i+1) * time.Second), Event: e}
		if err := d.event(s); err != nil {
			t.Fatal(err)
		}
		r.account.Add(s)
		if o := a.Add(s); o != nil {
			if err := d.outcome(o); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := start.Add(time.Duration(len(rest)) * time.Second)
	if err := d.finish(r.account.Accounting(end)); err != nil {
		t.Fatal(err)
	}
	var tests []string
	for _, r := range recordsOf(t, path) {
		tests = append(tests, r.Test().String()+" "+r.Ext.Version)
	}
	if diff := cmp.Diff([]string{"tg8 v1", "pp16 v2"}, tests); diff != "" {
		t.Errorf("results.jsonl (-want +got):\n%s", diff)
	}

	var written runDescription
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
		"## a.gguf", "## b.gguf", "- pp16: no disk: why", "## Where the time went", "| lost in stopped tests |",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("report.md lacks %q:\n%s", want, b)
		}
	}
	if pp, tg := strings.Index(string(b), "| pp16 "), strings.Index(string(b), "| tg8 "); pp < 0 || tg < pp {
		t.Errorf("report.md has the tests in another order than the run:\n%s", b)
	}

	d.close()
	if _, _, err := openRunDir(path); !errors.Is(err, errFinished) {
		t.Errorf("error %v, want %v", err, errFinished)
	}
}

// TestTornEvents: wherever a power cut ends the file, the lines before are good
// and the run goes on after them.
func TestTornEvents(t *testing.T) {
	log := quietLog(t)
	events := flat(loadOf("a.gguf"), testFrom(runPP, 0, 2))
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
			d, r, err := openRunDir(path)
			if err != nil {
				t.Fatalf("cut at %d, %q: %v", cut, tail, err)
			}
			good, n := last, 1
			if cut == len(whole) {
				good, n = cut, 2
			}
			if got := len(r.begun[testKey{"a.gguf", runPP}].samples); got != n {
				t.Errorf("cut at %d, %q: %d repetitions, want %d", cut, tail, got, n)
			}
			if err := d.event(bench.Stamped{At: runStart, Event: engineReady}); err != nil {
				t.Fatal(err)
			}
			d.close()
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if rest, ok := bytes.CutPrefix(got, whole[:good]); !ok || !bytes.HasPrefix(rest, []byte(`{"event":"engine_ready"`)) {
				t.Errorf("cut at %d, %q: the file does not go on where the lines end", cut, tail)
			}
		}
	}
	if !strings.Contains(log.String(), "the last event was cut off") {
		t.Errorf("log %q", log)
	}
}

// writeEnded writes a run that has ended.
func writeEnded(t *testing.T, events []bench.Event) (path string) {
	t.Helper()
	path = writeRun(t, twoModels(), events)
	var about runDescription
	b, err := os.ReadFile(filepath.Join(path, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &about); err != nil {
		t.Fatal(err)
	}
	about.Ended = &runStart
	d := &runDir{path: path, about: about}
	if err := d.writeAbout(); err != nil {
		t.Fatal(err)
	}
	return path
}

// A run that was stopped with its report goes on, and nothing about that is odd.
func TestContinuesAfterTheEnd(t *testing.T) {
	log := quietLog(t)
	d, r, err := openRunDir(writeEnded(t, flat(loadOf("a.gguf"), testFrom(runPP, 0, 1))))
	if err != nil {
		t.Fatal(err)
	}
	d.close()
	if n := r.unfinished(); n != 4 || log.Len() > 0 {
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
		code int
		want string
	}{
		{"missing", func(t *testing.T) string { return filepath.Join(t.TempDir(), "none") }, exitUsage, "is not the directory of a run"},
		{"empty directory", func(t *testing.T) string { return t.TempDir() }, exitUsage, "is not the directory of a run"},
		{"a file", func(t *testing.T) string { return filepath.Join(writeRun(t, twoModels(), nil), "run.json") }, exitUsage, "is not the directory of a run"},
		{"no run.json", func(t *testing.T) string {
			path := writeRun(t, twoModels(), nil)
			if err := os.Remove(filepath.Join(path, "run.json")); err != nil {
				t.Fatal(err)
			}
			return path
		}, exitUsage, "is not the directory of a run"},
		{"finished", func(t *testing.T) string { return writeEnded(t, allOK()) }, exitUsage, "the run is finished, nothing is left to do"},
		{"going on", func(t *testing.T) string {
			d, err := createRunDir(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.close)
			return d.path
		}, exitUsage, "the run is still going on"},
		{"other schema", change("run.json", `"schema": 2`, `"schema": 1`), exitUsage, "schema 1, this program knows schema 2"},
		{"not JSON", change("run.json", `"schema"`, "schema"), exitNothing, "run.json: "},
		{"other types", change("run.json", `"jobs": [`, `"jobs": 1, "x": [`), exitNothing, "run.json: "},
		{"no jobs", change("run.json", `"jobs": [`, `"x": [`), exitNothing, "run.json: no model"},
		{"same model twice", change("run.json", `"name": "b.gguf"`, `"name": "a.gguf"`), exitNothing, `run.json: model "a.gguf" twice`},
		{"no repetitions", change("run.json", `"repetitions": 2`, `"repetitions": 0`), exitNothing, "run.json: a.gguf: 0 repetitions, not 1…10000"},
		{"many repetitions", change("run.json", `"repetitions": 2`, `"repetitions": 10001`), exitNothing, "run.json: a.gguf: 10001 repetitions, not 1…10000"},
		{"endless", change("run.json", `{`, strings.Repeat(" ", maxAboutBytes)+`{`), exitNothing, "run.json: longer than 16777216 bytes"},
		{"a source less", change("run.json", `"source": "https://h.example/b.gguf"`, `"source": "https://h.example/b.gguf"}, {"source": "c"`), exitNothing, "run.json: 3 sources"},
		{"no test", change("run.json", `"n_prompt": 16`, `"n_prompt": 0`), exitNothing, "run.json: a.gguf: a test needs"},
		{"same test twice", change("run.json", "\"n_prompt\": 0,\n            \"n_gen\": 8", "\"n_prompt\": 16,\n            \"n_gen\": 0"), exitNothing, "run.json: a.gguf: pp16 twice"},
		{"malformed line", change("events.jsonl", `{"event":"load_done"`, `{"event":"load_done`), exitNothing, "events.jsonl: line 3: decode event: "},
		{"malformed event", change("events.jsonl", `"repetition":1`, `"repetition":"1"`), exitNothing, "events.jsonl: line 7: decode event repetition_done: "},
		{"empty line", change("events.jsonl", "\n", "\n\n"), exitNothing, "events.jsonl: line 2: decode event: "},
		{"long line", change("events.jsonl", "\n", "\n"+long+"\n"), exitNothing, "events.jsonl: line 2: decode event: line of "},
		{"another run's model", change("events.jsonl", `"name":"a.gguf"`, `"name":"c.gguf"`), exitNothing, `events.jsonl: line 2: model "c.gguf" is not of this run`},
		{"another run's test", change("events.jsonl", `"n_prompt":16`, `"n_prompt":17`), exitNothing, `events.jsonl: line 4: pp17 of "a.gguf" is not of this run`},
		{"a test without a model", change("events.jsonl", `"load_started"`, `"load_begun"`), exitNothing, "events.jsonl: line 4: pp16 starts without a model"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, _, err := openRunDir(tc.path(t))
			if err == nil {
				d.close()
				t.Fatal("no error")
			}
			var f *failure
			if !errors.As(err, &f) || f.code != tc.code || f.hint == "" {
				t.Errorf("%v is %+v, want code %d and a hint", err, f, tc.code)
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want %q on one line", err, tc.want)
			}
		})
	}
}

// Events of a newer version are left out.
func TestUnknownEvents(t *testing.T) {
	lines := `{"event":"moon_phase","at":"2026-11-23T12:00:00Z","data":{"full":true}}` + "\n"
	for _, e := range loadOf("a.gguf") {
		b, err := bench.Stamped{At: runStart, Event: e}.MarshalLine()
		if err != nil {
			t.Fatal(err)
		}
		lines += string(b)
	}
	lines += `{"event":"moon_phase","data":3}` + "\n"
	var numbers []int
	good, n, err := readEvents(strings.NewReader(lines), func(line int, _ bench.Stamped) error {
		numbers = append(numbers, line)
		return nil
	})
	if err != nil || good != int64(len(lines)) || n != 5 {
		t.Errorf("%d of %d bytes, %d lines, %v", good, len(lines), n, err)
	}
	if diff := cmp.Diff([]int{2, 3, 4}, numbers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLockedRunDir: two processes cannot write one run, and the lock ends with
// its holder.
func TestLockedRunDir(t *testing.T) {
	path := writeRun(t, twoModels(), nil)
	d, _, err := openRunDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openRunDir(path); !errors.Is(err, errRunning) {
		t.Errorf("error %v, want %v", err, errRunning)
	}
	d.close()
	d, _, err = openRunDir(path)
	if err != nil {
		t.Fatal(err)
	}
	d.close()
}

// TestRunJSONRedacted keeps secrets out of run.json.
func TestRunJSONRedacted(t *testing.T) {
	t.Setenv("HF_TOKEN", "unusual.secret.1")
	d, err := createRunDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	about := twoModels()
	about.Command = []string{"benchmark-llm", "-m", "https://hub.example/m.gguf?token=secret.2", "hf_secret3", "x=unusual.secret.1"}
	about.Sources = []modelSource{{Source: "https://user:secret.4@hub.example/a.gguf?sig=secret.5"}, {Source: "/models/b.gguf", SHA256: "00"}}
	about.Continued = []runSpan{{Command: []string{"hf_secret6"}}}
	if err := d.describe(about); err != nil {
		t.Fatal(err)
	}
	want := []string{"benchmark-llm", "-m", "https://hub.example/m.gguf?(redacted)", "(redacted)", "x=(redacted)"}
	if diff := cmp.Diff(want, d.about.Command); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	sources := []modelSource{{Source: "https://(redacted)@hub.example/a.gguf?(redacted)"}, {Source: "/models/b.gguf", SHA256: "00"}}
	if diff := cmp.Diff(sources, d.about.Sources); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b, err := os.ReadFile(filepath.Join(d.path, "run.json"))
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

// FuzzReadEvents: whatever is in the file, it is read in bounded memory, what is
// good of it is read again as the same, and nothing in it breaks the history.
func FuzzReadEvents(f *testing.F) {
	var lines []byte
	for i, e := range flat(allOK(), loadOf("b.gguf"), testFrom(runTG, 0, 1), lostAs, skippedAs("a.gguf", runPP, result.Aborted)) {
		line, err := bench.Stamped{At: runStart.Add(time.Duration(i) * time.Second), Event: e}.MarshalLine()
		if err != nil {
			f.Fatal(err)
		}
		lines = append(lines, line...)
		f.Add(line)
	}
	f.Add(lines)
	f.Add(lines[:len(lines)-3])
	f.Add([]byte("\n{}\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var events []bench.Stamped
		keep := func(_ int, s bench.Stamped) error {
			events = append(events, s)
			return nil
		}
		good, n, err := readEvents(bytes.NewReader(b), keep)
		if good > int64(len(b)) || n != bytes.Count(b[:good], []byte("\n")) || good > 0 && b[good-1] != '\n' {
			t.Fatalf("%d bytes and %d lines of %q are good", good, n, b)
		}
		if err == nil && bytes.Count(b[good:], []byte("\n")) > 1 {
			t.Fatalf("more than a line is left out: %q", b[good:])
		}
		first := events
		events = nil
		again, m, err := readEvents(bytes.NewReader(b[:good]), keep)
		if again != good || m != n || err != nil {
			t.Fatalf("what is good is read again as %d bytes, %d lines, %v", again, m, err)
		}
		if diff := cmp.Diff(first, events, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}

		about := twoModels()
		about.Continued = []runSpan{{Started: runStart, Events: 3}}
		h := newHistory(about)
		_, _, err = readEvents(bytes.NewReader(b), h.add)
		r := h.end()
		if err == nil && r.unfinished() < 0 {
			t.Fatal("more outcomes than tests")
		}
		for key, begun := range r.begun {
			if len(begun.samples) < 1 || len(begun.samples) > 2 {
				t.Fatalf("%d repetitions of %s", len(begun.samples), key.test)
			}
		}
		w, err := report.New("jsonl", io.Discard, report.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range r.outcomes {
			if err := w.Write(o); err != nil {
				t.Fatalf("outcome %+v: %v", o, err)
			}
		}
	})
}
