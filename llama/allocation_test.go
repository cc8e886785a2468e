package llama

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAllocationLines(t *testing.T) {
	mib := func(n float64) uint64 { return uint64(math.Round(n * (1 << 20))) }
	var got Allocation
	for _, line := range []string{
		"load_tensors: layer   0 assigned to device CUDA0, is_swa = 0",
		"load_tensors: layer   1 assigned to device CUDA0, is_swa = 1",
		"load_tensors: layer  30 assigned to device CPU, is_swa = 0",
		"load_tensors: offloaded 2/3 layers to GPU", // says so without any GPU, too
		"load_tensors:   CPU_Mapped model buffer size =    28.69 MiB",
		"load_tensors:        CUDA0 model buffer size =  6378.40 MiB",
		"llama_context:  CUDA_Host  output buffer size =     0.49 MiB",
		"llama_kv_cache: RPC0[127.0.0.1:51777] KV buffer size =     5.62 MiB",
		"llama_kv_cache: size =    5.62 MiB (   256 cells,  30 layers,  1/1 seqs), K (f16):    2.81 MiB, V (f16):    2.81 MiB",
		"llama_memory_recurrent:      CUDA0 RS buffer size =     0.50 MiB",
		"llama_kv_cache:      CUDA0 DSV4 index state buffer size =     0.25 MiB",
		"sched_reserve:      CUDA0 compute buffer size =   126.77 MiB",
		"sched_reserve:      CUDA0 compute buffer size is 126.7700 MiB, matches expectation of 126.7700 MiB",
		"llama_model_loader: - kv   3: general.name str = load_tensors: CUDA0 model buffer size = 1 MiB",
		"load_tensors: CUDA0 model buffer size = 99999999999999999999 MiB",
		"load_tensors: CUDA0 model buffer size = 1.2.3 MiB",
	} {
		got.read(line)
	}
	want := Allocation{
		Buffers: []Buffer{
			{"model", "CPU_Mapped", mib(28.69)},
			{"model", "CUDA0", mib(6378.40)},
			{"output", "CUDA_Host", mib(0.49)},
			{"KV", "RPC0[127.0.0.1:51777]", mib(5.62)},
			{"RS", "CUDA0", mib(0.50)},
			{"DSV4 index state", "CUDA0", mib(0.25)},
			{"compute", "CUDA0", mib(126.77)},
		},
		Layers: map[string]int{"CUDA0": 2, "CPU": 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, tt := range []struct {
		device, kind string
		want         uint64
	}{
		{"CUDA0", "model", mib(6378.40)},
		{"CUDA0", "", mib(6378.40) + mib(0.50) + mib(0.25) + mib(126.77)},
		{"CUDA1", "", 0},
		{"CUDA", "", 0}, // pinned memory of the host
		{"RPC0", "KV", mib(5.62)},
		{"CPU", "model", mib(28.69)},
	} {
		if got := want.SizeOn(tt.device, tt.kind); got != tt.want {
			t.Errorf("%s memory on %s: %d bytes, want %d", tt.kind, tt.device, got, tt.want)
		}
	}
	if b := (Buffer{Type: "CUDA10"}); b.In("CUDA1") {
		t.Error("CUDA10 is not CUDA1")
	}
}
