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

// Each loss gets the first remedy that helps against it, and the job changes
// accordingly.
func TestRecover(t *testing.T) {
	crash := record.Loss{Status: result.Crashed, Reason: "why", Gone: true}
	memory := record.Loss{Status: result.OutOfMemory, Reason: "why", Gone: true}
	hang := record.Loss{Status: result.Timeout, Reason: "why", Gone: true}
	refused := record.Loss{Status: result.OutOfMemory, Reason: "why"}
	failed := record.Loss{Status: result.Failed, Reason: "why"}
	stopped := record.Loss{Status: result.Aborted, Reason: "why", Gone: true}

	loading := []bench.Event{benchtest.EngineReady, bench.LoadStarted{Model: bench.Model{Name: "a.gguf"}}}
	limiting := []bench.Event{benchtest.EngineReady, bench.LimitsStarted{Types: []string{"q4_K"}}}
	offloading := benchtest.Join(loading, bench.OffloadTry{Layers: 30, Of: 31})
	loaded := benchtest.Loaded("a.gguf")
	precompiling := benchtest.Join(loaded, bench.PrecompileStarted{}, bench.PrecompilePass{Shape: historyPP})
	testing1 := benchtest.Join(loaded, benchtest.Begun(historyPP, 0, 1))

	type step struct {
		events []bench.Event
		loss   record.Loss
	}
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string // what is done; empty: the loss is final
	}{
		{"a crash while limits are measured", []step{{limiting, crash}, {loading, crash}, {loading, crash}}, []string{"without the limits of the machine", "once more", ""}},
		{"a hang while limits are measured", []step{{limiting, hang}}, []string{"without the limits of the machine"}},
		{"a stop while limits are measured", []step{{limiting, stopped}}, []string{""}},
		{"a crash after limits were measured", []step{{benchtest.Join(limiting, bench.LimitsDone{Status: result.OK}), crash}}, []string{"once more"}},
		{"a crash", []step{{testing1, crash}}, []string{"once more"}},
		{"a second crash of the test", []step{{testing1, crash}, {testing1, crash}}, []string{"once more", ""}},
		{"a hang", []step{{testing1, hang}}, []string{""}},
		{"a stop while precompiling", []step{{precompiling, stopped}, {precompiling, crash}}, []string{"", "without precompiling pp16"}},
		{"a crash while loading", []step{{loading, crash}, {loading, crash}}, []string{"once more", ""}},
		{"memory while loading", []step{{loading, memory}, {loading, memory}, {loading, memory}}, []string{"once more", "without repacking weights", ""}},
		{"memory in a test", []step{{testing1, memory}, {testing1, memory}}, []string{"once more", ""}},
		{"a load that is refused for memory", []step{{loading, refused}, {loading, refused}}, []string{"without repacking weights", ""}},
		{"a load that fails", []step{{loading, failed}}, []string{""}},
		{
			"crashes while layers are tried on devices", []step{{offloading, crash}, {offloading, crash}, {offloading, crash}},
			[]string{"with at most 15 layers on devices", "with at most 0 layers on devices", ""},
		},
		{
			"losses while precompiling", []step{{precompiling, crash}, {precompiling, crash}, {testing1, crash}},
			[]string{"without precompiling pp16", "without precompiling pp16", "once more"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := record.NewRemaining(twoJobs()[0])
			var got []string
			for _, s := range tt.steps {
				w := record.NewWorker("v1", r.Job)
				for _, e := range s.events {
					w.Add(bench.Stamped{Event: e})
				}
				what, ok := r.Recover(w, s.loss)
				if !ok {
					what = ""
				}
				got = append(got, what)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A remedy changes what later workers do, and keeps the repetitions of the test.
func TestRemedies(t *testing.T) {
	after := func(l record.Loss, events ...bench.Event) bench.Job {
		t.Helper()
		job := twoJobs()[0]
		job.Limits = &result.LimitsPlan{}
		r := record.NewRemaining(job)
		w := record.NewWorker("v1", r.Job)
		for _, e := range events {
			w.Add(bench.Stamped{Event: e})
		}
		if _, ok := r.Recover(w, l); !ok {
			t.Fatalf("no remedy against %+v", l)
		}
		return r.Job
	}
	crash := record.Loss{Status: result.Crashed, Reason: "why", Gone: true}
	hang := record.Loss{Status: result.Timeout, Reason: "why", Gone: true}
	loading := []bench.Event{benchtest.EngineReady, bench.LoadStarted{Model: bench.Model{Name: "a.gguf"}}}
	precompiling := benchtest.Join(benchtest.Loaded("a.gguf"), bench.PrecompilePass{Shape: historyPP})

	if job := after(crash, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(historyPP, 0, 1))...); len(job.Tests[0].Done) != 1 {
		t.Errorf("%d repetitions are kept, want 1", len(job.Tests[0].Done))
	}
	if job := after(crash, benchtest.EngineReady, bench.LimitsStarted{}); job.Limits != nil || len(job.Tests) != 2 {
		t.Errorf("after a crash while limits are measured: %+v", job)
	}
	if job := after(crash, precompiling...); job.PrecompileSkip == nil || *job.PrecompileSkip != historyPP || job.NoPrecompile {
		t.Errorf("after a crash while precompiling: %+v", job)
	}
	if job := after(hang, precompiling...); !job.NoPrecompile {
		t.Errorf("after a hang while precompiling: %+v", job)
	}
	if job := after(crash, benchtest.Join(loading, bench.OffloadTry{Layers: 30, Of: 31})...); job.Offload == nil || job.Offload.Layers != 15 || job.Offload.Tried != 30 {
		t.Errorf("after a crash while offloading: %+v", job.Offload)
	}
	job := after(record.Loss{Status: result.OutOfMemory, Reason: "why"}, loading...)
	if !job.Effective().NoRepack || len(job.Warnings) != 1 || job.Warnings[0].Code != result.WarnNoRepack {
		t.Errorf("after a refused load: %+v, %v", job.Adjusted, job.Warnings)
	}
}

// A resumed run has the settings of the last worker; what was measured with a file
// is no part of its fallback.
func TestHistoryOfFallback(t *testing.T) {
	jobs := twoJobs()
	none := jobs[0].Settings
	none.LoadMode = "none"
	warning := result.Warning{Code: result.WarnSyntheticWeights, Message: "why"}
	synthetic := bench.LoadStarted{
		Model: bench.Model{Name: "a.gguf", Path: "/h", Weights: result.SyntheticWeights}, Settings: &none, Warnings: []result.Warning{warning},
	}
	h := record.NewHistory(jobs, []record.Span{{Program: "v1"}, {Program: "v2", EventsBefore: 7}})
	events := benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(historyPP, 0, 1), benchtest.EngineReady, synthetic, benchtest.LoadDone)
	for i, e := range events {
		if err := h.Add(i+1, bench.Stamped{At: benchtest.RunStart.Add(time.Duration(i) * time.Second), Event: e}); err != nil {
			t.Fatal(err)
		}
	}
	job := h.End().Jobs[0]
	if !cmp.Equal(job.Model, synthetic.Model) || job.Effective().LoadMode != "none" || len(job.Warnings) != 1 || len(job.Tests) != 2 || len(job.Tests[0].Done) != 0 {
		t.Errorf("%+v", job)
	}
}

// Repetitions with another file of the same name do not count, nor those of a span
// whose conditions differ from those of the next.
func TestHistoryForgets(t *testing.T) {
	loaded := func(bytes int64) bench.Event {
		return bench.LoadStarted{Model: bench.Model{Name: "a.gguf", Weights: result.FileWeights, Files: []bench.ModelFile{{Name: "a.gguf", Bytes: bytes}}}}
	}
	for name, tt := range map[string]struct {
		now    int64 // size of the file in the second span
		forget bool
		want   int // repetitions
	}{
		"the same":         {1, false, 1},
		"another file":     {2, false, 0},
		"other conditions": {1, true, 0},
	} {
		job := bench.Job{
			Model: bench.Model{Name: "a.gguf", Weights: result.FileWeights}, Repetitions: 3,
			Tests: []bench.TestBudget{{Test: historyPP}},
		}
		first := benchtest.Join(benchtest.EngineReady, loaded(1), benchtest.LoadDone, benchtest.Begun(historyPP, 0, 1))
		h := record.NewHistory([]bench.Job{job}, []record.Span{{Program: "v1"}, {Program: "v2", EventsBefore: len(first), Forget: tt.forget}})
		for i, e := range benchtest.Join(first, benchtest.EngineReady, loaded(tt.now)) {
			if err := h.Add(i+1, bench.Stamped{At: benchtest.RunStart, Event: e}); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(h.End().Jobs[0].Tests[0].Done); got != tt.want {
			t.Errorf("%s: %d repetitions count, want %d", name, got, tt.want)
		}
	}
}
