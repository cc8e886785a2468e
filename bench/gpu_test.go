package bench_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A record names a GPU only when the library says that it put layers there.
func TestRecordClaimsGPU(t *testing.T) {
	engine := bench.EngineFacts{
		Backends: "CUDA", CPUInfo: "a CPU", GPUInfo: "NVIDIA L4, NVIDIA T4",
		GPUs: []bench.EngineGPU{{"CUDA0", "NVIDIA L4", "CUDA", "0000:01:00.0"}, {"CUDA1", "NVIDIA T4", "CUDA", "0000:02:00.0"}},
	}
	type claim struct {
		Backends, GPUInfo string
		Layers            int
		GPU               *result.GPU
		Warning           string
	}
	onBoth := []bench.Placement{{"CUDA0", 20, 2000}, {"CUDA1", 11, 1000}}
	for _, tt := range []struct {
		name   string
		engine bench.EngineFacts
		layers int // asked for
		placed []bench.Placement
		want   claim
	}{
		{"both hold layers", engine, -1, onBoth, claim{"CUDA", "NVIDIA L4, NVIDIA T4", -1, &result.GPU{Devices: []result.GPUDevice{
			{Name: "CUDA0", Model: "NVIDIA L4", PCIAddress: "0000:01:00.0", Layers: 20, WeightsBytes: 2000},
			{Name: "CUDA1", Model: "NVIDIA T4", PCIAddress: "0000:02:00.0", Layers: 11, WeightsBytes: 1000},
		}}, ""}},
		{"one holds layers", engine, 10, onBoth[:1], claim{"CUDA", "NVIDIA L4, NVIDIA T4", 10, &result.GPU{Devices: []result.GPUDevice{
			{Name: "CUDA0", Model: "NVIDIA L4", PCIAddress: "0000:01:00.0", Layers: 20, WeightsBytes: 2000},
		}}, ""}},
		{"none holds any", engine, -1, nil, claim{"CPU", "", 0, nil, bench.GPUNotUsed}},
		{"layers without weights", engine, -1, []bench.Placement{{"CUDA0", 31, 0}}, claim{"CPU", "", 0, nil, bench.GPUNotUsed}},
		{"weights without layers", engine, -1, []bench.Placement{{"CUDA0", 0, 9}}, claim{"CPU", "", 0, nil, bench.GPUNotUsed}},
		{"on a device that is not listed", engine, -1, []bench.Placement{{"CUDA7", 31, 9}}, claim{"CPU", "", 0, nil, bench.GPUNotUsed}},
		{"none asked for", engine, 0, nil, claim{"CUDA", "NVIDIA L4, NVIDIA T4", 0, nil, ""}},
		{"no GPU", engineFacts, -1, nil, claim{"CPU", "", -1, nil, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := jobOf()
			job.Settings.GPULayers = tt.layers
			a := bench.Assembler{Job: job}
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
				got.Warning += w.Code
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
