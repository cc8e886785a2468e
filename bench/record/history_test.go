package record_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

var (
	historyPP = result.Test{Prompt: 16}
	historyTG = result.Test{Gen: 8}
)

// twoJobs are two models, two tests each, two repetitions each.
func twoJobs() (jobs []bench.Job) {
	for _, name := range []string{"a.gguf", "b.gguf"} {
		jobs = append(jobs, bench.Job{
			Model: bench.Model{Name: name, Path: "/models/" + name, Weights: result.FileWeights}, Repetitions: 2, Settings: bench.DefaultSettings(2),
			Tests: []bench.TestBudget{{Test: historyPP, Budget: time.Minute}, {Test: historyTG, Budget: time.Minute}},
		})
	}
	return jobs
}

// allOK is the whole run of twoJobs.
func allOK() (events []bench.Event) {
	for _, model := range []string{"a.gguf", "b.gguf"} {
		events = append(events, benchtest.Join(benchtest.Loaded(model), benchtest.Begun(historyPP, 0, 2), benchtest.Done(historyPP, result.OK),
			benchtest.Begun(historyTG, 0, 2), benchtest.Done(historyTG, result.OK), bench.JobDone{})...)
	}
	return events
}

// Events of a newer version are left out.
func TestUnknownEvents(t *testing.T) {
	lines := `{"event":"moon_phase","at":"2026-11-23T12:00:00Z","data":{"full":true}}` + "\n"
	for _, e := range benchtest.Loaded("a.gguf") {
		b, err := bench.Stamped{At: benchtest.RunStart, Event: e}.MarshalLine()
		if err != nil {
			t.Fatal(err)
		}
		lines += string(b)
	}
	lines += `{"event":"moon_phase","data":3}` + "\n"
	var numbers []int
	good, n, err := record.ReadEvents(strings.NewReader(lines), func(line int, _ bench.Stamped) error {
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

// FuzzReadEvents: whatever is in the file, it is read in bounded memory, what is
// good of it is read again as the same, and nothing in it breaks the history.
func FuzzReadEvents(f *testing.F) {
	var lines []byte
	for i, e := range benchtest.Join(allOK(), benchtest.Loaded("b.gguf"), benchtest.Begun(historyTG, 0, 1), benchtest.Lost, benchtest.Skipped("a.gguf", historyPP, result.Aborted)) {
		line, err := bench.Stamped{At: benchtest.RunStart.Add(time.Duration(i) * time.Second), Event: e}.MarshalLine()
		if err != nil {
			f.Fatal(err)
		}
		lines = append(lines, line...)
		f.Add(line)
	}
	f.Add(lines)
	f.Add(lines[:len(lines)-3])
	f.Add([]byte("\n{}\n\x00"))
	jobs := twoJobs()
	f.Fuzz(func(t *testing.T, b []byte) {
		var events []bench.Stamped
		keep := func(_ int, s bench.Stamped) error {
			events = append(events, s)
			return nil
		}
		good, n, err := record.ReadEvents(bytes.NewReader(b), keep)
		if good > int64(len(b)) || n != bytes.Count(b[:good], []byte("\n")) || good > 0 && b[good-1] != '\n' {
			t.Fatalf("%d bytes and %d lines of %q are good", good, n, b)
		}
		if err == nil && bytes.Count(b[good:], []byte("\n")) > 1 {
			t.Fatalf("more than a line is left out: %q", b[good:])
		}
		first := events
		events = nil
		again, m, err := record.ReadEvents(bytes.NewReader(b[:good]), keep)
		if again != good || m != n || err != nil {
			t.Fatalf("what is good is read again as %d bytes, %d lines, %v", again, m, err)
		}
		if diff := cmp.Diff(first, events, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}

		h := record.NewHistory(jobs, []record.Span{{Program: "v1"}, {Program: "v2", Started: benchtest.RunStart, EventsBefore: 3}})
		_, _, _ = record.ReadEvents(bytes.NewReader(b), h.Add)
		r := h.End()
		if n := r.Unfinished(); n < 0 || n > 4 {
			t.Fatalf("%d tests are left", n)
		}
		for _, job := range r.Jobs {
			for _, begun := range job.Tests {
				if n := len(begun.Done); n > 2 {
					t.Fatalf("%d repetitions of %s", n, begun.Test)
				}
			}
		}
		w, err := report.New("jsonl", io.Discard, report.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range r.Outcomes {
			if err := w.Write(o); err != nil {
				t.Fatalf("outcome %+v: %v", o, err)
			}
		}
	})
}
