package record_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A record names a GPU only when the library says that it put layers there.
func TestRecordClaimsGPU(t *testing.T) {
	engine := bench.EngineFacts{
		Backends: "CUDA", CPUInfo: "a CPU", GPUInfo: "NVIDIA L4, NVIDIA T4",
		GPUs: []bench.EngineGPU{
			{Name: "CUDA0", Model: "NVIDIA L4", Backend: "CUDA", PCIAddress: "0000:01:00.0"},
			{Name: "CUDA1", Model: "NVIDIA T4", Backend: "CUDA", PCIAddress: "0000:02:00.0"},
		},
	}
	noDevice := engineFacts
	noDevice.CUDAModule, noDevice.Problems = "libggml-cuda.so", []string{"RPC: odd", "ggml_cuda_init: no driver"}
	const notUsed = "gpu_not_used: measured on the CPU: the library put no layer of the model on CUDA0 (NVIDIA L4), CUDA1 (NVIDIA T4)"
	type claim struct {
		Backends, GPUInfo string
		Layers            int
		GPU               *result.GPU
		Warning           string
	}
	onBoth := []bench.Placement{{Device: "CUDA0", Layers: 20, WeightsBytes: 2000}, {Device: "CUDA1", Layers: 11, WeightsBytes: 1000}}
	for _, tt := range []struct {
		name   string
		engine bench.EngineFacts
		layers int      // asked for
		device []string // asked for
		placed []bench.Placement
		want   claim
	}{
		{"both hold layers", engine, -1, nil, onBoth, claim{"CUDA", "NVIDIA L4, NVIDIA T4", -1, &result.GPU{Devices: []result.GPUDevice{
			{Name: "CUDA0", Model: "NVIDIA L4", PCIAddress: "0000:01:00.0", Layers: 20, WeightsBytes: 2000},
			{Name: "CUDA1", Model: "NVIDIA T4", PCIAddress: "0000:02:00.0", Layers: 11, WeightsBytes: 1000},
		}}, ""}},
		{"one holds layers", engine, 10, nil, onBoth[:1], claim{"CUDA", "NVIDIA L4, NVIDIA T4", 10, &result.GPU{Devices: []result.GPUDevice{
			{Name: "CUDA0", Model: "NVIDIA L4", PCIAddress: "0000:01:00.0", Layers: 20, WeightsBytes: 2000},
		}}, ""}},
		{"none holds any", engine, -1, nil, nil, claim{"CPU", "", 0, nil, notUsed}},
		{"layers without weights", engine, -1, nil, []bench.Placement{{Device: "CUDA0", Layers: 31, WeightsBytes: 0}}, claim{"CPU", "", 0, nil, notUsed}},
		{"weights without layers", engine, -1, nil, []bench.Placement{{Device: "CUDA0", Layers: 0, WeightsBytes: 9}}, claim{"CPU", "", 0, nil, notUsed}},
		{"on a device that is not listed", engine, -1, nil, []bench.Placement{{Device: "CUDA7", Layers: 31, WeightsBytes: 9}}, claim{"CPU", "", 0, nil, notUsed}},
		{"none asked for", engine, 0, nil, nil, claim{"CUDA", "NVIDIA L4, NVIDIA T4", 0, nil, ""}},
		{"no device asked for", engine, -1, []string{bench.NoDevice}, nil, claim{"CUDA", "NVIDIA L4, NVIDIA T4", -1, nil, ""}},
		{"no GPU", engineFacts, -1, nil, nil, claim{"CPU", "", -1, nil, ""}},
		{"none for the CUDA back-end", noDevice, -1, nil, nil, claim{"CPU", "", -1, nil, "no_gpu: measured on the CPU: the CUDA back-end has no device: ggml_cuda_init: no driver"}},
		{"none, and none asked for", noDevice, 0, nil, nil, claim{"CPU", "", 0, nil, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := jobOf()
			job.Settings.GPULayers, job.Settings.Devices = tt.layers, tt.device
			a := record.Assembler{Job: job}
			var r *result.Record
			for _, e := range []bench.Event{
				bench.EngineReady{Facts: tt.engine},
				bench.LoadDone{Status: result.OK, Facts: bench.ModelFacts{Layers: 30, Placed: tt.placed}},
				bench.TestStarted{Test: pp512, Repetitions: 3},
				bench.WarmupDone{Elapsed: s},
				bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: s}},
				bench.RepetitionDone{Sample: result.Sample{Repetition: 2, Elapsed: s}},
				bench.RepetitionDone{Sample: result.Sample{Repetition: 3, Elapsed: s}},
				bench.TestDone{Test: pp512, Status: result.OK},
			} {
				if o := a.Add(bench.Stamped{At: time.Now(), Event: e}); o != nil {
					r = o.Record
				}
			}
			got := claim{r.Backends, r.GPUInfo, r.GPULayers, r.Ext.GPU, ""}
			for _, w := range r.Ext.Warnings {
				got.Warning += w.Code + ": " + w.Message
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// What drivers said of the devices is in the record, and is doubted where it
// contradicts the library.
func TestRecordOfGPUTelemetry(t *testing.T) {
	bytes := func(n uint64) *uint64 { return &n }
	said := func(address string, watts float64, used uint64, throttled ...string) bench.GPUObservation {
		return bench.GPUObservation{PCIAddress: address, GPUTelemetry: result.GPUTelemetry{
			Kernels: "ptx", PowerWatts: ptr(watts), EnergyJoules: ptr(watts * 3), UsedBytes: bytes(used), Throttled: throttled,
		}}
	}
	shared := said("0000:01:00.0", 100, 2500)
	shared.Others = 2
	silent := bench.GPUObservation{PCIAddress: "0000:02:00.0"}
	for _, tt := range []struct {
		name     string
		observed []bench.GPUObservation
		backends string
		power    *float64
		joules   *float64 // per token
		warnings []string
	}{
		{"nothing", nil, "CUDA", nil, nil, nil},
		{"both, and another", []bench.GPUObservation{said("0000:03:00.0", 999, 0, "power cap"), said("0000:02:00.0", 20, 1500), said("0000:01:00.0", 100, 2500)}, "CUDA",
			ptr(120), ptr(120 * 3. / (512 * 3)), nil},
		{"one does not tell", []bench.GPUObservation{said("0000:01:00.0", 100, 2500), silent}, "CUDA", nil, nil, nil},
		{"throttled and shared", []bench.GPUObservation{shared, said("0000:02:00.0", 20, 1500, "power cap", "power brake")}, "CUDA", ptr(120), ptr(120 * 3. / (512 * 3)), []string{
			"gpu_shared: CUDA0 is also used by 2 other processes, which slows it down", "gpu_throttled: CUDA1 was throttled: power cap, power brake",
		}},
		{"the memory is empty", []bench.GPUObservation{said("0000:01:00.0", 100, 1700), said("0000:02:00.0", 20, 1500)}, "CPU", nil, nil, []string{
			"gpu_not_used: measured on the CPU: the driver reports less memory in use than the weights need on CUDA0",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := record.Assembler{Job: jobOf()}
			var r *result.Record
			for _, e := range []bench.Event{
				bench.EngineReady{Facts: bench.EngineFacts{Backends: "CUDA", GPUInfo: "A, B", GPUs: []bench.EngineGPU{
					{Name: "CUDA0", Model: "A", Backend: "CUDA", PCIAddress: "0000:01:00.0"}, {Name: "CUDA1", Model: "B", Backend: "CUDA", PCIAddress: "0000:02:00.0"},
				}}},
				bench.LoadDone{Status: result.OK, Facts: bench.ModelFacts{Placed: []bench.Placement{{Device: "CUDA0", Layers: 20, WeightsBytes: 2000}, {Device: "CUDA1", Layers: 11, WeightsBytes: 1000}}}},
				bench.PrecompileDone{Status: result.OK, Elapsed: 1500 * ms},
				bench.TestStarted{Test: pp512, Repetitions: 3},
				bench.WarmupDone{Elapsed: s},
				bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: s}},
				bench.RepetitionDone{Sample: result.Sample{Repetition: 2, Elapsed: s}},
				bench.RepetitionDone{Sample: result.Sample{Repetition: 3, Elapsed: s}},
				bench.GPUObserved{Devices: tt.observed},
				bench.TestDone{Test: pp512, Status: result.OK},
			} {
				if o := a.Add(bench.Stamped{At: time.Now(), Event: e}); o != nil {
					r = o.Record
				}
			}
			var warnings []string
			for _, w := range r.Ext.Warnings {
				warnings = append(warnings, w.Code+": "+w.Message)
			}
			if diff := cmp.Diff(tt.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got)\n%s", diff)
			}
			if r.Backends != tt.backends || (r.Ext.GPU == nil) != (tt.backends == "CPU") || r.Ext.PrecompileSeconds != 1.5 {
				t.Fatalf("on %s: %+v, precompiled in %v s", r.Backends, r.Ext.GPU, r.Ext.PrecompileSeconds)
			}
			if r.Ext.GPU == nil {
				return
			}
			if diff := cmp.Diff([]*float64{tt.power, tt.joules}, []*float64{r.Ext.GPU.PowerWatts, r.Ext.GPU.JoulesPerToken}, near); diff != "" {
				t.Errorf("power and joules per token (-want +got)\n%s", diff)
			}
			if len(tt.observed) == 3 && r.Ext.GPU.Devices[1].Kernels != "ptx" {
				t.Errorf("%+v", r.Ext.GPU.Devices)
			}
		})
	}
}

// How CUDA's kernels are made is said of CUDA's devices only, not of Vulkan's on the same
// GPU.
func TestKernelsOfBackend(t *testing.T) {
	for backend, want := range map[string]string{"CUDA": "ptx", "Vulkan": ""} {
		a := record.Assembler{Job: jobOf()}
		var r *result.Record
		for _, e := range []bench.Event{
			bench.EngineReady{Facts: bench.EngineFacts{Backends: backend, GPUs: []bench.EngineGPU{{Name: "a", Backend: backend, PCIAddress: "0000:01:00.0"}}}},
			bench.LoadDone{Status: result.OK, Facts: bench.ModelFacts{Placed: []bench.Placement{{Device: "a", Layers: 1, WeightsBytes: 1}}}},
			bench.TestStarted{Test: pp512, Repetitions: 1},
			bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: s}},
			bench.GPUObserved{Devices: []bench.GPUObservation{{PCIAddress: "0000:01:00.0", GPUTelemetry: result.GPUTelemetry{Kernels: "ptx"}}}},
			bench.TestDone{Test: pp512, Status: result.OK},
		} {
			if o := a.Add(bench.Stamped{At: time.Now(), Event: e}); o != nil {
				r = o.Record
			}
		}
		if r.Ext.GPU == nil || r.Ext.GPU.Devices[0].Kernels != want {
			t.Errorf("%s: %+v, want kernels %q", backend, r.Ext.GPU, want)
		}
	}
}
