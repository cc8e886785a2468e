package roofline

import (
	"cmp"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// leastShare is the share of a model's weights from which on their type is measured.
const leastShare = 0.02

// Work returns what a repetition of a test asks of a machine; nil for a test that is
// neither a prompt nor a generation alone, because its speed has two limits. c is as in
// gguf.File.Work.
func Work(f *gguf.File, t result.Test, c gguf.Context) *result.Work {
	passes := uint64(max(t.Gen, 1))
	switch t.Kind() {
	case result.TextGeneration:
	case result.PromptProcessing:
		ubatch := uint64(max(c.UBatch, 1))
		passes = (uint64(max(t.Prompt, 1)) + ubatch - 1) / ubatch
	default:
		return nil
	}
	all := f.Work(t, c)
	w := result.Work{Bytes: all.Bytes(), PassBytes: all.Bytes() / passes, Operations: all.Ops()}
	for name, part := range f.WorkByType(t, c) {
		if part.WeightBytes > 0 {
			w.Types = append(w.Types, result.TypeWork{Type: name.String(), Bytes: part.WeightBytes, Operations: part.Operations})
		}
	}
	slices.SortFunc(w.Types, func(a, b result.TypeWork) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Type, b.Type))
	})
	return &w
}

// Wanted are the types that have to be measured for some tests: those of at least two
// percent of the weights of one.
func Wanted(works []*result.Work) (types []string) {
	for _, w := range works {
		if w == nil {
			continue
		}
		for _, t := range w.Types {
			if float64(t.Bytes) >= leastShare*float64(w.Bytes) && slices.Contains(Types(), t.Type) && !slices.Contains(types, t.Type) {
				types = append(types, t.Type)
			}
		}
	}
	return types
}

// Of compares a test with the limits of a device. elapsed is the time of a repetition.
// known are measurements of this device; those that came later add types.
//
// A limit is that of a test which reaches the limit of each type in turn: the work divided
// by the sum of the times that each type needs. So a mixture of types cannot exceed it, as
// it could exceed the limit of its main type. What no type was measured for, such as the KV
// cache and the vectors of norms, counts at the highest rate that was measured.
func Of(w result.Work, elapsed time.Duration, device string, known []result.DeviceLimits) *result.Limits {
	seconds := elapsed.Seconds()
	if seconds <= 0 {
		return nil
	}
	l := &result.Limits{
		Device: device, Bytes: w.Bytes, Operations: w.Operations,
		BytesPerSecond: float64(w.Bytes) / seconds, OpsPerSecond: float64(w.Operations) / seconds,
	}
	types := map[string]result.TypeLimits{}
	var vector, matrix float64 // the highest
	var caches uint64
	for _, d := range known {
		l.ReadBytesPerSecond, caches = max(l.ReadBytesPerSecond, d.ReadBytesPerSecond), max(caches, d.CacheBytes)
		for _, t := range d.Types {
			if t.VectorBytesPerSecond > 0 && t.MatrixOpsPerSecond > 0 {
				types[t.Type] = t
				vector, matrix = max(vector, t.VectorBytesPerSecond), max(matrix, t.MatrixOpsPerSecond)
			}
		}
	}
	if len(w.Types) == 0 || vector == 0 {
		return l
	}
	if _, ok := types[w.Types[0].Type]; !ok {
		return l
	}
	fastest := max(vector, l.ReadBytesPerSecond)
	restBytes, restOps := w.Bytes, w.Operations
	var memory, compute float64 // seconds
	for _, t := range w.Types {
		if rates, ok := types[t.Type]; ok {
			memory += float64(t.Bytes) / rates.VectorBytesPerSecond
			compute += float64(t.Operations) / rates.MatrixOpsPerSecond
			restBytes, restOps = restBytes-min(t.Bytes, restBytes), restOps-min(t.Operations, restOps)
		}
	}
	memory += float64(restBytes) / fastest
	compute += float64(restOps) / matrix
	l.MemoryLimit, l.ComputeLimit = float64(w.Bytes)/memory, float64(w.Operations)/compute
	memoryShare, computeShare := memory/seconds, compute/seconds
	l.ComputeShare = &computeShare
	if l.InCache = w.PassBytes <= caches || memoryShare > 1 && w.PassBytes <= leastFactor*caches; !l.InCache {
		l.MemoryShare = &memoryShare
	}
	return l
}
