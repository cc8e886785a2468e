//go:build cgo

package llamacpp

import (
	"fmt"
	"slices"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/llama"
)

// Values of llama-bench's options, and the constants of package llama for them.
var (
	splitModes = map[string]llama.SplitMode{
		"layer": llama.SplitLayer, "none": llama.SplitNone, "row": llama.SplitRow, "tensor": llama.SplitTensor,
	}
	loadModes = map[string]llama.LoadMode{
		"auto": llama.LoadAuto, "none": llama.LoadNone, "mmap": llama.LoadMmap, "mlock": llama.LoadMlock,
		"mmap+mlock": llama.LoadMmapMlock, "dio": llama.LoadDirectIO,
	}
	lazyModes = map[string]llama.LazyMode{"auto": llama.LazyAuto, "off": llama.LazyOff, "on": llama.LazyOn}
	flash     = map[int]llama.FlashAttention{-1: llama.FlashAuto, 0: llama.FlashOff, 1: llama.FlashOn}
	numa      = map[string]llama.NUMAStrategy{
		"distribute": llama.NUMADistribute, "isolate": llama.NUMAIsolate, "numactl": llama.NUMANumactl,
	}
	priority = map[int]llama.Priority{
		-1: llama.PriorityLow, 0: llama.PriorityNormal, 1: llama.PriorityMedium, 2: llama.PriorityHigh, 3: llama.PriorityRealtime,
	}
)

// lookup translates one value of an option. what names the option in the error.
func lookup[K comparable, V any](what string, words map[K]V, word K) (V, error) {
	v, ok := words[word]
	if !ok {
		return v, fmt.Errorf("unknown %s %v", what, word)
	}
	return v, nil
}

// modelParams translates settings into parameters of a load.
func modelParams(s bench.Settings) (p llama.ModelParams, err error) {
	devices := s.Devices
	if slices.Equal(devices, []string{bench.NoDevice}) {
		devices = []string{} // no device; nil would mean all
	}
	p = llama.ModelParams{
		Devices: devices, GPULayers: s.GPULayers, MainGPU: s.MainGPU, TensorSplit: s.TensorSplit,
		NoRepack: s.NoRepack, NoHost: s.NoHost,
	}
	if p.SplitMode, err = lookup("split mode", splitModes, s.SplitMode); err != nil {
		return p, err
	}
	if p.LoadMode, err = lookup("load mode", loadModes, s.LoadMode); err != nil {
		return p, err
	}
	if p.LazyMode, err = lookup("lazy mode", lazyModes, s.LazyMode); err != nil {
		return p, err
	}
	for _, o := range s.TensorOverrides {
		p.TensorOverrides = append(p.TensorOverrides, llama.TensorOverride{Pattern: o.Pattern, Buffer: o.Buffer})
	}
	for i := range s.CPUMoE {
		// The experts of the first layers, by the pattern of llama.cpp's common/arg.cpp.
		p.TensorOverrides = append(p.TensorOverrides, llama.TensorOverride{
			Pattern: fmt.Sprintf(`blk\.%d\.ffn_(up|down|gate)_(ch|)exps`, i), Buffer: "CPU",
		})
	}
	return p, nil
}

// contextParams translates settings into parameters of a test's context and its
// threadpool.
func contextParams(s bench.Settings, t result.Test) (p llama.ContextParams, tp llama.ThreadpoolParams, err error) {
	p = llama.ContextParams{
		Context: t.Context(), Batch: s.Batch, UBatch: s.UBatch, Threads: s.Threads, ThreadsBatch: s.ThreadsBatch,
		TypeK: llama.KVType(s.TypeK), TypeV: llama.KVType(s.TypeV),
		NoKVOffload: s.NoKVOffload, NoOpOffload: s.NoOpOffload, Embeddings: s.Embeddings,
	}
	if p.FlashAttention, err = lookup("flash attention setting", flash, s.FlashAttn); err != nil {
		return p, tp, err
	}
	tp = llama.ThreadpoolParams{Threads: s.Threads, CPUs: s.CPUs, Strict: s.CPUStrict, Poll: s.Poll}
	tp.Priority, err = lookup("priority", priority, s.Priority)
	return p, tp, err
}
