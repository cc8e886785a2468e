package record_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

var (
	someWork   = &result.Work{Bytes: 8e9, PassBytes: 1e9, Operations: 16e9, Types: []result.TypeWork{{Type: "q4_K", Bytes: 8e9, Operations: 16e9}}}
	someLimits = []result.DeviceLimits{
		{Device: "CPU", Threads: 2, Types: []result.TypeLimits{{Type: "q4_K", VectorBytesPerSecond: 10e9, MatrixOpsPerSecond: 100e9}}},
		{Device: "CUDA0", Types: []result.TypeLimits{{Type: "q4_K", VectorBytesPerSecond: 100e9, MatrixOpsPerSecond: 1000e9}}},
	}
)

// The limit is that of the device which holds the model, with the threads of the test.
func TestRecordLimits(t *testing.T) {
	onGPU := func(layers int, devices ...string) bench.ModelFacts {
		f := bench.ModelFacts{Offload: &result.Offload{Layers: layers, Of: 31}}
		for _, d := range devices {
			f.Placed = append(f.Placed, bench.Placement{Device: d, Layers: layers})
		}
		return f
	}
	for _, tt := range []struct {
		name     string
		model    bench.ModelFacts
		settings func(*bench.Settings)
		work     *result.Work
		known    bool // by the job; false: measured by this worker
		device   string
		share    float64 // of the memory's limit; 0: none
	}{
		{"measured by this worker", bench.ModelFacts{}, nil, someWork, false, "CPU", 0.8},
		{"measured by an earlier worker", bench.ModelFacts{}, nil, someWork, true, "CPU", 0.8},
		{"on a GPU", onGPU(31, "CUDA0"), nil, someWork, false, "CUDA0", 0.08},
		{"partly on a GPU", onGPU(20, "CUDA0"), nil, someWork, false, "", 0},
		{"on a GPU without limits", onGPU(31, "CUDA1"), nil, someWork, false, "CUDA1", 0},
		{"on two GPUs", onGPU(31, "CUDA0", "CUDA1"), nil, someWork, false, "", 0},
		{"with other threads", bench.ModelFacts{}, func(s *bench.Settings) { s.Threads = 1 }, someWork, false, "CPU", 0},
		{"with other threads for prompts", bench.ModelFacts{}, func(s *bench.Settings) { s.ThreadsBatch = 1 }, someWork, false, "CPU", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := twoJobs()[0]
			if tt.settings != nil {
				tt.settings(&job.Settings)
			}
			a := record.Assembler{Job: job}
			events := []bench.Event{benchtest.EngineReady}
			if tt.known {
				a.Job.LimitsKnown = someLimits
			} else {
				events = append(events, bench.LimitsDone{Status: result.OK, Devices: someLimits})
			}
			events = append(events, bench.LoadDone{Status: result.OK, Facts: tt.model}, bench.TestStarted{Test: historyTG, Repetitions: 1, Work: tt.work},
				bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Second}}, bench.TestDone{Test: historyTG, Status: result.OK})
			var o *result.Outcome
			for _, e := range events {
				o = a.Add(bench.Stamped{Event: e})
			}
			l := o.Record.Ext.Limits
			if l == nil || l.Device != tt.device || l.BytesPerSecond != 8e9 {
				t.Fatalf("%+v", l)
			}
			var share float64
			if l.MemoryShare != nil {
				share = *l.MemoryShare
			}
			if diff := cmp.Diff(tt.share, share, near); diff != "" {
				t.Errorf("share (-want +got):\n%s", diff)
			}
		})
	}
}

// Without limits, or without the work of the test, a record is as it was before.
func TestRecordWithoutLimits(t *testing.T) {
	for _, events := range [][]bench.Event{
		{bench.TestStarted{Test: historyTG, Repetitions: 1, Work: someWork}},
		{bench.LimitsDone{Status: result.OutOfMemory}, bench.TestStarted{Test: historyTG, Repetitions: 1, Work: someWork}},
		{bench.LimitsDone{Status: result.OK, Devices: someLimits}, bench.TestStarted{Test: historyTG, Repetitions: 1}},
	} {
		a := record.Assembler{Job: twoJobs()[0]}
		var o *result.Outcome
		for _, e := range append(events, bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Second}}, bench.TestDone{Test: historyTG, Status: result.OK}) {
			o = a.Add(bench.Stamped{Event: e})
		}
		if l := o.Record.Ext.Limits; l != nil {
			t.Errorf("%v: limits %+v", events[0], l)
		}
	}
}

// A resumed run, and a later model, know what an earlier worker has measured; records
// that are read from the events are those that were printed.
func TestHistoryOfLimits(t *testing.T) {
	jobs := twoJobs()
	started := func(test result.Test) bench.Event {
		return bench.TestStarted{Test: test, Repetitions: 1, Work: someWork}
	}
	rest := func(test result.Test) []bench.Event {
		return []bench.Event{bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Second}}, bench.TestDone{Test: test, Status: result.OK}}
	}
	events := []bench.Event{
		benchtest.EngineReady, bench.LimitsStarted{Types: []string{"q4_K"}}, bench.LimitsDone{Status: result.OK, Devices: someLimits},
		bench.LoadStarted{Model: jobs[0].Model}, bench.LoadDone{Status: result.OK}, started(historyTG),
	}
	events = append(events, rest(historyTG)...)
	events = append(events, benchtest.EngineReady, bench.LoadStarted{Model: jobs[1].Model}, bench.LoadDone{Status: result.OK}, started(historyTG))
	events = append(events, rest(historyTG)...)
	h := record.NewHistory(jobs, []record.Span{{Program: "v1"}})
	for i, e := range events {
		if err := h.Add(i+1, bench.Stamped{At: benchtest.RunStart, Event: e}); err != nil {
			t.Fatal(err)
		}
	}
	left := h.End()
	if len(left.Outcomes) != 2 {
		t.Fatalf("%d outcomes, want 2", len(left.Outcomes))
	}
	for i, o := range left.Outcomes {
		if l := o.Record.Ext.Limits; l == nil || l.MemoryShare == nil {
			t.Errorf("outcome %d: limits %+v", i, l)
		}
	}
	for i, job := range left.Jobs {
		if diff := cmp.Diff(someLimits, job.LimitsKnown); diff != "" {
			t.Errorf("known to job %d (-want +got):\n%s", i, diff)
		}
	}
}
