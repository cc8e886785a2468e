package roofline_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

func share(f float64) *float64 { return &f }

func TestOf(t *testing.T) {
	t.Parallel()
	const gb = 1e9
	limits := func(types ...result.TypeLimits) []result.DeviceLimits {
		return []result.DeviceLimits{{Device: "CPU", ReadBytesPerSecond: 20 * gb, CacheBytes: 2 * gb, Types: types}}
	}
	q4 := result.TypeLimits{Type: "q4_K", VectorBytesPerSecond: 10 * gb, MatrixOpsPerSecond: 100 * gb}
	q6 := result.TypeLimits{Type: "q6_K", VectorBytesPerSecond: 15 * gb, MatrixOpsPerSecond: 50 * gb}
	one := result.Work{Bytes: 40 * gb, PassBytes: 5 * gb, Operations: 80 * gb, Types: []result.TypeWork{{Type: "q4_K", Bytes: 40 * gb, Operations: 80 * gb}}}
	two := result.Work{Bytes: 35 * gb, PassBytes: 5 * gb, Operations: 30 * gb, Types: []result.TypeWork{
		{Type: "q4_K", Bytes: 20 * gb, Operations: 20 * gb}, {Type: "q6_K", Bytes: 15 * gb, Operations: 10 * gb},
	}}
	// 20 GB of KV cache count at the rate of the plain read, 10 G operations at that of the fastest type.
	cache := result.Work{Bytes: 40 * gb, PassBytes: 5 * gb, Operations: 30 * gb, Types: []result.TypeWork{{Type: "q4_K", Bytes: 20 * gb, Operations: 20 * gb}}}
	small := one
	small.PassBytes = 1 * gb
	near := one
	near.PassBytes = 3 * gb
	for _, tc := range []struct {
		name    string
		work    result.Work
		seconds float64
		known   []result.DeviceLimits
		want    *result.Limits
	}{
		{"one type", one, 5, limits(q4), &result.Limits{BytesPerSecond: 8 * gb, OpsPerSecond: 16 * gb, MemoryLimit: 10 * gb, MemoryShare: share(0.8), ComputeLimit: 100 * gb, ComputeShare: share(0.16)}},
		{"two types", two, 6, limits(q4, q6), &result.Limits{
			BytesPerSecond: 35 * gb / 6, OpsPerSecond: 5 * gb, MemoryLimit: 35 * gb / 3, MemoryShare: share(0.5), ComputeLimit: 75 * gb, ComputeShare: share(0.4 / 6),
		}},
		{"two types, measured one after the other", two, 6, append(limits(q4), limits(q6)...), &result.Limits{
			BytesPerSecond: 35 * gb / 6, OpsPerSecond: 5 * gb, MemoryLimit: 35 * gb / 3, MemoryShare: share(0.5), ComputeLimit: 75 * gb, ComputeShare: share(0.4 / 6),
		}},
		{"KV cache", cache, 4, limits(q4), &result.Limits{BytesPerSecond: 10 * gb, OpsPerSecond: 7.5 * gb, MemoryLimit: 40 * gb / 3, MemoryShare: share(0.75), ComputeLimit: 100 * gb, ComputeShare: share(0.075)}},
		{"more than the limit", one, 2, limits(q4), &result.Limits{BytesPerSecond: 20 * gb, OpsPerSecond: 40 * gb, MemoryLimit: 10 * gb, MemoryShare: share(2), ComputeLimit: 100 * gb, ComputeShare: share(0.4)}},
		{"caches hold it", small, 5, limits(q4), &result.Limits{BytesPerSecond: 8 * gb, OpsPerSecond: 16 * gb, InCache: true, MemoryLimit: 10 * gb, ComputeLimit: 100 * gb, ComputeShare: share(0.16)}},
		{"caches hold a part, slow", near, 5, limits(q4), &result.Limits{BytesPerSecond: 8 * gb, OpsPerSecond: 16 * gb, MemoryLimit: 10 * gb, MemoryShare: share(0.8), ComputeLimit: 100 * gb, ComputeShare: share(0.16)}},
		{"caches hold a part, fast", near, 2, limits(q4), &result.Limits{BytesPerSecond: 20 * gb, OpsPerSecond: 40 * gb, InCache: true, MemoryLimit: 10 * gb, ComputeLimit: 100 * gb, ComputeShare: share(0.4)}},
		{"the main type was not measured", one, 5, limits(q6), &result.Limits{BytesPerSecond: 8 * gb, OpsPerSecond: 16 * gb}},
		{"nothing was measured", one, 5, nil, &result.Limits{BytesPerSecond: 8 * gb, OpsPerSecond: 16 * gb}},
		{"no time", one, 0, limits(q4), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.want != nil {
				tc.want.Device, tc.want.Bytes, tc.want.Operations = "CPU", tc.work.Bytes, tc.work.Operations
				if len(tc.known) > 0 {
					tc.want.ReadBytesPerSecond = 20 * gb
				}
			}
			got := roofline.Of(tc.work, time.Duration(tc.seconds*1e9), "CPU", tc.known)
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestWork checks for every default model that its work has nearly all weights in types
// that can be measured, and that a generated token reads each weight once.
func TestWork(t *testing.T) {
	t.Parallel()
	c := gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16}
	for _, name := range []string{
		"SmolLM-135M.Q4_K_M.gguf", "qwen1_5-0_5b-chat-q4_k_m.gguf", "gemma-2b.Q4_K_M.gguf", "llama-7b.Q4_K_M.gguf", "phi-4-q4.gguf", "Llama-3.3-70B-Instruct-Q4_K_M.gguf",
	} {
		shape, err := synth.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := shape.File()
		if err != nil {
			t.Fatal(err)
		}
		for test, passes := range map[result.Test]uint64{{Gen: 1}: 1, {Gen: 128}: 128, {Gen: 16, Depth: 4096}: 16, {Prompt: 16}: 1, {Prompt: 512}: 1, {Prompt: 1025}: 3} {
			w, all := roofline.Work(f, test, c), f.Work(test, c)
			var bytes, ops uint64
			for _, part := range w.Types {
				bytes, ops = bytes+part.Bytes, ops+part.Operations
			}
			if bytes != all.WeightBytes || ops != all.Operations || w.Bytes != all.Bytes() || w.Operations != all.Ops() || w.PassBytes != all.Bytes()/passes {
				t.Errorf("%s, %v: types have %d bytes and %d operations of %+v; %+v", name, test, bytes, ops, all, w)
			}
			var wanted uint64
			for _, part := range w.Types {
				for _, measured := range roofline.Wanted([]*result.Work{nil, w}) {
					if part.Type == measured {
						wanted += part.Bytes
					}
				}
			}
			if least := 0.95 * float64(all.WeightBytes); float64(wanted) < least {
				t.Errorf("%s, %v: types with %d of %d bytes are measured", name, test, wanted, all.WeightBytes)
			}
		}
		for _, test := range []result.Test{{Prompt: 16, Gen: 8}, {Prompt: 16, Gen: 8, E2E: true}} {
			if w := roofline.Work(f, test, c); w != nil {
				t.Errorf("%s, %v: %+v", name, test, w)
			}
		}
	}
	if diff := cmp.Diff([]string(nil), roofline.Wanted(nil)); diff != "" {
		t.Error(diff)
	}
}
