package bench_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

var at = time.Date(2026, 11, 23, 15, 19, 41, 123456789, time.UTC)

// everyEvent is each event with all its fields set, and its line.
var everyEvent = []struct {
	event bench.Event
	line  string
}{
	{
		bench.EngineReady{PID: 42, Facts: bench.EngineFacts{
			BuildCommit: "Debian", BuildNumber: 11669, Library: map[string]string{"libllama0": "0.7.0"},
			Backends: "CUDA", CPUInfo: "a CPU", GPUInfo: "a GPU", CPUVariant: "zen4",
			Warnings: []result.Warning{{Code: "c", Message: "m"}},
		}},
		`{"event":"engine_ready","at":"2026-11-23T15:19:41.123456789Z","data":{"pid":42,"facts":{"build_commit":"Debian","build_number":11669,` +
			`"library":{"libllama0":"0.7.0"},"backends":"CUDA","cpu_info":"a CPU","gpu_info":"a GPU","cpu_variant":"zen4","warnings":[{"code":"c","message":"m"}]}}}`,
	},
	{
		bench.LimitsStarted{Types: []string{"q4_K"}, Budget: 2},
		`{"event":"limits_started","at":"2026-11-23T15:19:41.123456789Z","data":{"types":["q4_K"],"budget_ns":2}}`,
	},
	{
		bench.LimitsDone{Status: result.OK, Devices: []result.DeviceLimits{{
			Device: "CPU", Threads: 2, ReadBytesPerSecond: 1, WeightsBytes: 2, CacheBytes: 3, Elapsed: 4,
			Types: []result.TypeLimits{{Type: "q4_K", Buffer: "AMX", VectorBytesPerSecond: 5, MatrixOpsPerSecond: 6}},
		}}, Elapsed: 7},
		`{"event":"limits_done","at":"2026-11-23T15:19:41.123456789Z","data":{"status":"ok","devices":[{"device":"CPU","threads":2,"read_bytes_per_s":1,` +
			`"weights_bytes":2,"cache_bytes":3,"types":[{"type":"q4_K","buffer":"AMX","vector_bytes_per_s":5,"matrix_flop_per_s":6}],"elapsed_ns":4}],"elapsed_ns":7}}`,
	},
	{
		bench.LoadStarted{Model: bench.Model{Name: "m.gguf", Path: "/m.gguf", Weights: result.FileWeights, Seed: 7}, Budget: 3},
		`{"event":"load_started","at":"2026-11-23T15:19:41.123456789Z","data":{"model":{"name":"m.gguf","path":"/m.gguf","weights":"file","seed":7},"budget_ns":3}}`,
	},
	{
		bench.LoadProgress{Share: 0.5},
		`{"event":"load_progress","at":"2026-11-23T15:19:41.123456789Z","data":{"share":0.5}}`,
	},
	{
		bench.OffloadTry{Layers: 1, Of: 2, Reason: "r"},
		`{"event":"offload_try","at":"2026-11-23T15:19:41.123456789Z","data":{"layers":1,"of":2,"reason":"r"}}`,
	},
	{
		bench.LoadDone{Status: result.Failed, Reason: "odd", Facts: bench.ModelFacts{
			Type: "llama", SizeBytes: 1, Params: 2, Layers: 3, Offload: &result.Offload{Layers: 2, Of: 4},
		}, Elapsed: 4},
		`{"event":"load_done","at":"2026-11-23T15:19:41.123456789Z","data":{"status":"failed","reason":"odd",` +
			`"facts":{"type":"llama","size_bytes":1,"params":2,"layers":3,"offload":{"layers":2,"of":4}},"elapsed_ns":4}}`,
	},
	{
		bench.TestStarted{Test: result.Test{Prompt: 1, Gen: 2, Depth: 3}, Budget: 4, Repetitions: 5},
		`{"event":"test_started","at":"2026-11-23T15:19:41.123456789Z","data":{"test":{"n_prompt":1,"n_gen":2,"n_depth":3},"budget_ns":4,"repetitions":5}}`,
	},
	{
		bench.ContextReady{Elapsed: 1},
		`{"event":"context_ready","at":"2026-11-23T15:19:41.123456789Z","data":{"elapsed_ns":1}}`,
	},
	{
		bench.WarmupDone{Elapsed: 1, UBatch: 2, Priming: 3},
		`{"event":"warmup_done","at":"2026-11-23T15:19:41.123456789Z","data":{"elapsed_ns":1,"ubatch_ns":2,"priming_ns":3}}`,
	},
	{
		bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Start: at, Elapsed: 2}, UBatch: 3, Priming: 4},
		`{"event":"repetition_done","at":"2026-11-23T15:19:41.123456789Z","data":{"sample":{"repetition":1,` +
			`"start":"2026-11-23T15:19:41.123456789Z","elapsed_ns":2},"ubatch_ns":3,"priming_ns":4}}`,
	},
	{
		bench.PrecompileStarted{Shapes: []result.Test{{Gen: 1}}, Budget: 2},
		`{"event":"precompile_started","at":"2026-11-23T15:19:41.123456789Z","data":{"shapes":[{"n_prompt":0,"n_gen":1}],"budget_ns":2}}`,
	},
	{
		bench.PrecompilePass{Shape: result.Test{Prompt: 512}},
		`{"event":"precompile_pass","at":"2026-11-23T15:19:41.123456789Z","data":{"shape":{"n_prompt":512,"n_gen":0}}}`,
	},
	{
		bench.PrecompileDone{Status: result.Failed, Reason: "r", Elapsed: 2},
		`{"event":"precompile_done","at":"2026-11-23T15:19:41.123456789Z","data":{"status":"failed","reason":"r","elapsed_ns":2}}`,
	},
	{
		bench.GPUObserved{Devices: []bench.GPUObservation{{PCIAddress: "0000:01:00.0", GPUTelemetry: result.GPUTelemetry{Kernels: "ptx", Others: 1}}}},
		`{"event":"gpu_observed","at":"2026-11-23T15:19:41.123456789Z","data":{"devices":[{"pci_address":"0000:01:00.0","kernels":"ptx","other_processes":1}]}}`,
	},
	{
		bench.AbortRequested{Status: result.Timeout, Reason: "late", Grace: 1},
		`{"event":"abort_requested","at":"2026-11-23T15:19:41.123456789Z","data":{"status":"timeout","reason":"late","grace_ns":1}}`,
	},
	{
		bench.AbortReturned{Latency: 1},
		`{"event":"abort_returned","at":"2026-11-23T15:19:41.123456789Z","data":{"latency_ns":1}}`,
	},
	{
		bench.GraceExpired{Grace: 1},
		`{"event":"grace_expired","at":"2026-11-23T15:19:41.123456789Z","data":{"grace_ns":1}}`,
	},
	{
		bench.TestDone{Test: result.Test{Gen: 1}, Status: result.OK, Reason: "r", Elapsed: 2, Memory: &result.Memory{
			WeightsBytes: 1, CacheBytes: 2, ComputeBytes: 3, Devices: []result.DeviceMemory{{Name: "CPU", WeightsBytes: 1, CacheBytes: 2, ComputeBytes: 3}},
			PeakResidentBytes: 4, PeakSince: result.SinceWorker,
		}},
		`{"event":"test_done","at":"2026-11-23T15:19:41.123456789Z","data":{"test":{"n_prompt":0,"n_gen":1},"status":"ok","reason":"r","elapsed_ns":2,` +
			`"memory":{"weights_bytes":1,"cache_bytes":2,"compute_bytes":3,"devices":[{"name":"CPU","weights_bytes":1,"cache_bytes":2,"compute_bytes":3}],` +
			`"peak_resident_bytes":4,"peak_since":"worker"}}}`,
	},
	{
		bench.CoolDownStarted{Test: result.Test{Gen: 1}},
		`{"event":"cool_down_started","at":"2026-11-23T15:19:41.123456789Z","data":{"test":{"n_prompt":0,"n_gen":1}}}`,
	},
	{
		bench.CoolDownDone{Elapsed: 2, From: new(55.5), To: new(41.0)},
		`{"event":"cool_down_done","at":"2026-11-23T15:19:41.123456789Z","data":{"elapsed_ns":2,"from_c":55.5,"to_c":41}}`,
	},
	{
		bench.EngineFailed{Reason: "r", Code: bench.NoRPC},
		`{"event":"engine_failed","at":"2026-11-23T15:19:41.123456789Z","data":{"reason":"r","code":"no_rpc"}}`,
	},
	{
		bench.TestSkipped{Model: "m.gguf", Test: result.Test{Gen: 1}, Status: result.PredictedTimeout, Reason: "r"},
		`{"event":"test_skipped","at":"2026-11-23T15:19:41.123456789Z","data":{"model":"m.gguf","test":{"n_prompt":0,"n_gen":1},"status":"predicted_timeout","reason":"r"}}`,
	},
	{
		bench.WaitStarted{Model: "m.gguf"},
		`{"event":"wait_started","at":"2026-11-23T15:19:41.123456789Z","data":{"model":"m.gguf"}}`,
	},
	{
		bench.WaitDone{Model: "m.gguf", Status: result.NoDisk, Reason: "r", Elapsed: 2},
		`{"event":"wait_done","at":"2026-11-23T15:19:41.123456789Z","data":{"model":"m.gguf","status":"no_disk","reason":"r","elapsed_ns":2}}`,
	},
	{
		bench.ReadInDone{Model: "m.gguf", Bytes: 1, Elapsed: 2},
		`{"event":"read_in_done","at":"2026-11-23T15:19:41.123456789Z","data":{"model":"m.gguf","bytes":1,"elapsed_ns":2}}`,
	},
	{
		bench.Continued{Stopped: 1},
		`{"event":"continued","at":"2026-11-23T15:19:41.123456789Z","data":{"stopped_ns":1}}`,
	},
	{
		bench.EnergyObserved{Window: 2, Joules: result.Parts{Package: new(1.5)}, IdleWatts: result.Parts{DRAM: new(0.5)}, Sampled: []string{"system"}},
		`{"event":"energy_observed","at":"2026-11-23T15:19:41.123456789Z","data":{"window_ns":2,"joules":{"package":1.5},"idle_w":{"dram":0.5},"sampled":["system"]}}`,
	},
	{
		bench.JobDone{},
		`{"event":"job_done","at":"2026-11-23T15:19:41.123456789Z","data":{}}`,
	},
	{
		bench.WorkerLost{Status: result.Crashed, Reason: "gone\n", Output: []string{"a", "\x1b[31m<b>"}},
		`{"event":"worker_lost","at":"2026-11-23T15:19:41.123456789Z","data":{"status":"crashed","reason":"gone\n","output":["a","\u001b[31m\u003cb\u003e"]}}`,
	},
}

func TestEventLines(t *testing.T) {
	if len(everyEvent) != bench.EventTypes {
		t.Errorf("%d events are tried, there are %d", len(everyEvent), bench.EventTypes)
	}
	for _, tt := range everyEvent {
		if v := reflect.ValueOf(tt.event); v.NumField() > 0 && v.IsZero() {
			t.Errorf("%T has no field set", tt.event)
		}
		// The clock of the machine is in a zone; lines are not.
		line, err := bench.Stamped{At: at.In(time.FixedZone("", 3600)), Event: tt.event}.MarshalLine()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.line+"\n", string(line)); diff != "" {
			t.Errorf("%T: %s", tt.event, diff)
		}
		var back bench.Stamped
		if err := back.UnmarshalLine(line); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(bench.Stamped{At: at, Event: tt.event}, back); diff != "" {
			t.Errorf("%T: %s", tt.event, diff)
		}
	}
}

func TestUnmarshalLineRefuses(t *testing.T) {
	for _, line := range []string{
		"", "\n", "null", "{}", "[]", "1", `"job_done"`, "{", "GGML_ASSERT(false) failed",
		`{"event":"job_done"}`,
		`{"event":"JOB_DONE","data":{}}`,
		`{"event":"job_done","data":{}} {}`,
		`{"event":"job_done","data":[]}`,
		`{"event":"test_started","data":{"budget_ns":"1s"}}`,
		`{"event":"load_progress","data":{"share":NaN}}`,
		`{"event":"job_done","at":"yesterday","data":{}}`,
		`{"event":"job_done","data":{}}` + strings.Repeat(" ", bench.MaxEventBytes),
	} {
		before := bench.Stamped{At: at, Event: bench.JobDone{}}
		got := before
		if err := got.UnmarshalLine([]byte(line)); err == nil {
			t.Errorf("%.60q was read as %+v", line, got)
		}
		if diff := cmp.Diff(before, got); diff != "" {
			t.Errorf("%.60q left %s", line, diff)
		}
		// Who passes over events of newer versions does not pass over garbage.
		if err := got.UnmarshalLine([]byte(line)); errors.Is(err, bench.ErrUnknownEvent) && !json.Valid([]byte(line)) {
			t.Errorf("%.60q: %v", line, err)
		}
	}
	var newer bench.Stamped
	if err := newer.UnmarshalLine([]byte(`{"event":"energy","data":{}}`)); !errors.Is(err, bench.ErrUnknownEvent) {
		t.Errorf("error %v of an unknown event, want %v", err, bench.ErrUnknownEvent)
	}
}

func FuzzUnmarshalLine(f *testing.F) {
	for _, e := range everyEvent {
		f.Add([]byte(e.line))
	}
	f.Add([]byte(`{"event":"job_done","at":"9999-12-31T23:59:59-23:59","data":null}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var first, second bench.Stamped
		if err := first.UnmarshalLine(line); err != nil {
			if first.Event != nil {
				t.Fatalf("%v and an event: %+v", err, first)
			}
			return
		}
		again, err := first.MarshalLine()
		if first.At.UTC().Year() > 9999 || first.At.UTC().Year() < 0 {
			return // cannot be written
		}
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", first, err)
		}
		if bytes.Count(again, []byte("\n")) != 1 || again[len(again)-1] != '\n' {
			t.Fatalf("not one line: %q", again)
		}
		if len(again) > bench.MaxEventBytes {
			return // escapes are longer than what they stand for
		}
		if err := second.UnmarshalLine(again); err != nil {
			t.Fatalf("%q cannot be read: %v", again, err)
		}
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Events that an earlier version wrote under another name are read as today's.
func TestOldNames(t *testing.T) {
	for line, want := range map[string]bench.Event{
		`{"event":"compile_started","at":"2026-11-23T12:00:00Z","data":{"shapes":[{"n_prompt":16,"n_gen":0}],"budget_ns":7}}`: bench.PrecompileStarted{Shapes: []result.Test{{Prompt: 16}}, Budget: 7},
		`{"event":"compile_pass","at":"2026-11-23T12:00:00Z","data":{"shape":{"n_prompt":16,"n_gen":0}}}`:                     bench.PrecompilePass{Shape: result.Test{Prompt: 16}},
		`{"event":"compile_done","at":"2026-11-23T12:00:00Z","data":{"status":"ok","elapsed_ns":7}}`:                          bench.PrecompileDone{Status: result.OK, Elapsed: 7},
		`{"event":"warm_done","at":"2026-11-23T12:00:00Z","data":{"model":"m.gguf","bytes":1,"elapsed_ns":2}}`:                bench.ReadInDone{Model: "m.gguf", Bytes: 1, Elapsed: 2},
	} {
		var s bench.Stamped
		if err := s.UnmarshalLine([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, s.Event); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
