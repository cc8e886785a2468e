package llama

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestAllocationLines(t *testing.T) {
	mib := func(n float64) uint64 { return uint64(math.Round(n * (1 << 20))) }
	var got Allocation
	for _, line := range []string{
		"load_tensors: layer   0 assigned to device CUDA0, is_swa = 0",
		"load_tensors: layer   1 assigned to device CUDA0, is_swa = 1",
		"load_tensors: layer  30 assigned to device CPU, is_swa = 0",
		"load_tensors: offloaded 2/3 layers to GPU", // logged without any GPU, too
		"load_tensors:   CPU_Mapped model buffer size =    28.69 MiB",
		"load_tensors:        CUDA0 model buffer size =  6378.40 MiB",
		"llama_context:  CUDA_Host  output buffer size =     0.49 MiB",
		"llama_kv_cache: layer   0: dev = CUDA0",
		"llama_kv_cache: layer   1: dev = CUDA0",
		"llama_kv_cache: layer   2: filtered",
		"llama_kv_cache: layer   3: dev = RPC1",
		"llama_kv_cache: RPC0[127.0.0.1:51777] KV buffer size =     5.62 MiB",
		"llama_kv_cache: size =    6.00 MiB (   256 cells,   3 layers,  1/1 seqs), K (f16):    3.00 MiB, V (f16):    3.00 MiB",
		"llama_memory_recurrent, layer   4: dev = CUDA0",
		"llama_memory_recurrent:      CUDA0 RS buffer size =     0.50 MiB",
		"llama_memory_recurrent: size =    0.50 MiB (     1 cells,   1 layers,  1 seqs), R (f32):    0.25 MiB, S (f32):    0.25 MiB",
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
		Cache:  map[string]uint64{"CUDA0": mib(4.5), "RPC1": mib(2)},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Allocation{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, tt := range []struct {
		device Device
		kind   string
		want   uint64
	}{
		{Device{BufferType: "CUDA0"}, "model", mib(6378.40)},
		{Device{BufferType: "CUDA0"}, "", mib(6378.40) + mib(0.50) + mib(0.25) + mib(126.77)},
		{Device{BufferType: "CUDA1"}, "", 0},
		{Device{BufferType: "CUDA"}, "", 0}, // pinned memory of the host
		{Device{Name: "RPC1", BufferType: "RPC0[127.0.0.1:51777]"}, "KV", mib(5.62)},
		{Device{Name: "RPC0", BufferType: "RPC0[127.0.0.1:51776]"}, "", 0},
		{Device{BufferType: "CPU"}, "model", mib(28.69)},
	} {
		if got := want.SizeOn(tt.device, tt.kind); got != tt.want {
			t.Errorf("%s memory on %s: %d bytes, want %d", tt.kind, tt.device.BufferType, got, tt.want)
		}
	}
	if b := (Buffer{Type: "CUDA10"}); b.In(Device{BufferType: "CUDA1"}) {
		t.Error("CUDA10 is not CUDA1")
	}
	if b := (Buffer{Type: "AMX"}); !b.In(Device{Type: CPUDevice, BufferType: "CPU"}) || b.In(Device{Type: GPUDevice, BufferType: "CUDA0"}) {
		t.Error("AMX is the CPU's")
	}
}

func FuzzAllocation(f *testing.F) {
	f.Add("load_tensors:   CPU_REPACK model buffer size =     7.59 MiB\nllama_kv_cache: layer   0: dev = RPC0\nllama_kv_cache: size =   11.25 MiB (   512 cells")
	f.Add("llama_kv_cache: size =  1e30 MiB (   512 cells\nload_tensors: layer  30 assigned to device RPC0, is_swa = 0")
	f.Fuzz(func(t *testing.T, lines string) {
		var a Allocation
		for line := range strings.SplitSeq(lines, "\n") {
			a.read(line)
		}
		for _, b := range a.Buffers {
			if b.Type == "" || b.Kind == "" || b.SizeBytes > 1<<60 {
				t.Errorf("%+v", b)
			}
		}
		for device, n := range a.Cache {
			if device == "" || n > 1<<60*uint64(1+strings.Count(lines, "\n")) {
				t.Errorf("%q has %d", device, n)
			}
		}
	})
}

// What is on a MetaDevice is on each of the devices that it stands for.
func TestSpread(t *testing.T) {
	devices := []Device{{Name: "CUDA0", BufferType: "CUDA0", Type: GPUDevice}, {Name: "CUDA1", BufferType: "CUDA1", Type: GPUDevice}}
	var a Allocation
	for _, line := range []string{
		"load_tensors: layer   0 assigned to device Meta(), is_swa = 0",
		"load_tensors: layer   1 assigned to device Meta(), is_swa = 0",
		"load_tensors: layer   2 assigned to device CPU, is_swa = 0",
		"load_tensors:       Meta() model buffer size =    60.00 MiB",
		"load_tensors:          CPU model buffer size =    10.00 MiB",
		"llama_kv_cache: layer   0: dev = Meta()",
		"llama_kv_cache: layer   1: dev = Meta()",
		"llama_kv_cache: layer   2: dev = CPU",
		"llama_kv_cache: size =    9.00 MiB (   256 cells,   3 layers,  1/1 seqs), K (f16):    4.50 MiB, V (f16):    4.50 MiB",
	} {
		a.read(line)
	}
	if n := a.Together(); n != 2 {
		t.Errorf("%d layers on several devices at once", n)
	}
	const mib = 1 << 20
	for _, tt := range []struct {
		name  string
		split []float32
		want  [4]uint64 // weights and cache of the first device, then of the second
	}{
		{"evenly", nil, [4]uint64{60 * mib, 3 * mib, 60 * mib, 3 * mib}},
		{"by no share at all", []float32{0, 0}, [4]uint64{60 * mib, 3 * mib, 60 * mib, 3 * mib}},
		{"unevenly", []float32{3, 1}, [4]uint64{60 * mib, 4.5 * mib, 20 * mib, 1.5 * mib}},
	} {
		s := a.Spread(devices, tt.split)
		if diff := cmp.Diff(map[string]int{"CUDA0": 2, "CUDA1": 2, "CPU": 1}, s.Layers); diff != "" {
			t.Errorf("%s: layers (-want +got)\n%s", tt.name, diff)
		}
		got := [4]uint64{s.SizeOn(devices[0], "model"), s.Cache["CUDA0"], s.SizeOn(devices[1], "model"), s.Cache["CUDA1"]}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: bytes (-want +got)\n%s", tt.name, diff)
		}
		if cpu := s.SizeOn(Device{Type: CPUDevice, BufferType: "CPU"}, "model"); cpu != 10*mib || s.Cache["CPU"] != 3*mib {
			t.Errorf("%s: on the CPU %d, %d", tt.name, cpu, s.Cache["CPU"])
		}
	}
	plain := Allocation{Buffers: []Buffer{{"model", "CUDA0", 5}}, Layers: map[string]int{"CUDA0": 3}, Cache: map[string]uint64{"CUDA0": 7}}
	if diff := cmp.Diff(plain, plain.Spread(devices, nil), cmpopts.IgnoreUnexported(Allocation{})); diff != "" {
		t.Errorf("without a device that stands for several (-want +got)\n%s", diff)
	}
}
