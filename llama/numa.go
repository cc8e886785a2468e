//go:build cgo

package llama

// #include "bridge.h"
import "C"

// NUMAStrategy says how the CPU back-end places its threads on NUMA nodes (enum
// ggml_numa_strategy).
type NUMAStrategy int

// The strategies.
const (
	NUMADistribute NUMAStrategy = C.GGML_NUMA_STRATEGY_DISTRIBUTE // over all nodes
	NUMAIsolate    NUMAStrategy = C.GGML_NUMA_STRATEGY_ISOLATE    // on the node of the first thread
	NUMANumactl    NUMAStrategy = C.GGML_NUMA_STRATEGY_NUMACTL    // as numactl says
)

// InitNUMA sets the strategy of this process (llama_numa_init). The back-ends must have been
// loaded, and no model. On a machine with one node it does nothing.
func InitNUMA(s NUMAStrategy) { C.llama_numa_init(C.enum_ggml_numa_strategy(s)) }
