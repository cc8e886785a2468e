package gpu

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
)

func bundle(names ...string) []byte {
	b := append([]byte(bundleMagic), binary.LittleEndian.AppendUint64(nil, uint64(len(names)))...)
	for _, n := range names {
		b = append(b, make([]byte, 16)...)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(n)))
		b = append(b, n...)
	}
	return append(b, "code"...)
}

func TestHIPBundle(t *testing.T) {
	whole := bundle("host-x86_64-unknown-linux-gnu", "hipv4-amdgcn-amd-amdhsa--gfx90a:xnack-", "hipv4-amdgcn-amd-amdhsa--gfx90a:xnack+", "hipv4-amdgcn-amd-amdhsa--gfx1030")
	got, err := readBundle(whole)
	if diff := cmp.Diff([]string{"gfx90a", "gfx1030"}, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for name, broken := range map[string][]byte{
		"empty": nil, "compressed": []byte("CCOB\x02\x00"), "cut": whole[:80], "host only": bundle("host-x86_64-unknown-linux-gnu"), "no entries": bundle(),
	} {
		if got, err := readBundle(broken); !errors.Is(err, errBundle) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := readHIPTargets(os.Args[0]); !errors.Is(err, errBundle) {
		t.Errorf("a program without code for GPUs: %v", err)
	}
}

// A GPU that HIP has no code for is left to Vulkan.
func TestHIPTargets(t *testing.T) {
	root := files(t, map[string]string{
		"sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 8\ngfx_target_version 0\n",
		"sys/class/kfd/kfd/topology/nodes/1/properties": "simd_count 80\nlocation_id 768\ndomain 0\ngfx_target_version 100306\n",
		"sys/class/kfd/kfd/topology/nodes/2/properties": "location_id 49408\ndomain 1\ngfx_target_version 90010\n",
	})
	m := Machine{GPUs: []Facts{{PCIVendor: amd, Driver: "amdgpu"}}, gfx: gfxTargets(root)}
	if diff := cmp.Diff(map[string]string{"0000:03:00.0": "gfx1036", "0001:c1:00.0": "gfx90a"}, m.gfx); diff != "" {
		t.Error(diff)
	}
	rocm := bench.EngineGPU{Name: "ROCm0", Model: "AMD", Backend: "ROCm", PCIAddress: "0000:03:00.0"}
	vulkan := bench.EngineGPU{Name: "Vulkan0", Backend: "Vulkan", PCIAddress: "0000:03:00.0"}
	const why = "ROCm0 (AMD): the HIP back-end (libggml-hip.so) has no code for gfx1036, only for gfx1030"
	for _, tt := range []struct {
		name         string
		gpus         []bench.EngineGPU
		targets      []string
		keep         bool
		unused, left string
		env          []string
	}{
		{"code", []bench.EngineGPU{rocm}, []string{"gfx1036"}, false, "", "", nil},
		{"not known", []bench.EngineGPU{rocm}, nil, false, "", "", nil},
		{"no code", []bench.EngineGPU{rocm}, []string{"gfx1030"}, false, why, "", noHIP},
		{"no code, and Vulkan", []bench.EngineGPU{rocm, vulkan}, []string{"gfx1030"}, false, "", why, noHIP},
		{"no code, named", []bench.EngineGPU{rocm}, []string{"gfx1030"}, true, "", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.KeepNames = tt.keep
			u := m.judge(bench.EngineFacts{GPUs: tt.gpus}, libraries{hip: tt.targets}, "")
			if !strings.HasPrefix(u.UnusedReason, tt.unused) || (tt.unused == "") != (u.UnusedReason == "") ||
				!strings.HasPrefix(u.LeftOutReason, tt.left) || (tt.left == "") != (u.LeftOutReason == "") {
				t.Errorf("%+v", u)
			}
			if (len(u.Doubts) > 0) != (tt.name == "no code, named") {
				t.Errorf("doubts %q", u.Doubts)
			}
			if diff := cmp.Diff(tt.env, u.Env()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
