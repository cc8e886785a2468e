package result

import (
	"slices"
	"time"
)

// LimitsPlan says how the limits of devices are measured.
type LimitsPlan struct {
	// Devices are measured, by name. If there are none, those are that a model's layers
	// would go to; with CPU, the CPU too.
	Devices []string `json:"devices,omitempty"`
	CPU     bool     `json:"cpu,omitempty"`

	Types      []string `json:"types"`                 // of weights, as in a GGUF header: "q4_K"
	Bytes      uint64   `json:"bytes"`                 // of all weights together in the CPU's memory
	CacheBytes uint64   `json:"cache_bytes,omitempty"` // of the CPU's last level; 0: not known
}

// DeviceLimits are the highest rates that the library sustains on one device. Each is the
// best of several passes.
type DeviceLimits struct {
	Device      string `json:"device"` // "CPU"
	Description string `json:"description,omitempty"`
	Threads     int    `json:"threads,omitempty"` // of the CPU; absent from others
	// ReadBytesPerSecond is the rate of plain loads from the CPU's memory, with which the
	// library has nothing to do. It is absent from other devices.
	ReadBytesPerSecond float64       `json:"read_bytes_per_s,omitempty"`
	WeightsBytes       uint64        `json:"weights_bytes"`         // of all matrices of all types
	CacheBytes         uint64        `json:"cache_bytes,omitempty"` // of the CPU's last level; absent: not known
	Types              []TypeLimits  `json:"types"`
	Elapsed            time.Duration `json:"elapsed_ns"` // of the whole measurement
}

// TypeLimits are the rates of products with weights of one type.
type TypeLimits struct {
	Type   string `json:"type"`             // "q4_K"
	Buffer string `json:"buffer,omitempty"` // of the library, that holds the weights: "CPU_REPACK"
	// VectorBytesPerSecond is the rate at which weights are read for a product with a
	// vector, which is what a generated token needs. Bytes are those of the file.
	VectorBytesPerSecond float64 `json:"vector_bytes_per_s,omitempty"`
	// MatrixOpsPerSecond is the rate of a product with a matrix of MatrixColumns columns,
	// which is what a prompt needs. A multiplication and an addition are two operations.
	MatrixOpsPerSecond float64 `json:"matrix_flop_per_s,omitempty"`
	Reason             string  `json:"reason,omitempty"` // why the rates are missing
}

// MatrixColumns are the columns of the large product: the micro-batch of the default
// suite.
const MatrixColumns = 512

// Has tells whether a type was measured, or cannot be.
func (d DeviceLimits) Has(name string) bool {
	return slices.ContainsFunc(d.Types, func(t TypeLimits) bool { return t.Type == name })
}

// Type returns the limits of a type; ok is false if it was not measured.
func (d DeviceLimits) Type(name string) (t TypeLimits, ok bool) {
	for _, t := range d.Types {
		if t.Type == name && t.Reason == "" {
			return t, true
		}
	}
	return TypeLimits{}, false
}

// Work is what one repetition of a test asks of a machine, by its model's header.
type Work struct {
	Bytes      uint64     `json:"bytes"`      // of weights and of the KV cache, that are read
	PassBytes  uint64     `json:"pass_bytes"` // of them, in one pass
	Operations uint64     `json:"operations"` // of products with them
	Types      []TypeWork `json:"types"`      // of the weights, most bytes first
}

// TypeWork is the part of weights of one type.
type TypeWork struct {
	Type       string `json:"type"`
	Bytes      uint64 `json:"bytes"`
	Operations uint64 `json:"operations"`
}

// Limits compares the speed of a test with the limits of the device that holds the model.
// A limit is absent if it was not measured for the types of the model's weights, or with
// other threads, or if several devices hold the model.
type Limits struct {
	Device         string  `json:"device,omitempty"` // "CPU"; absent if several hold the model
	Bytes          uint64  `json:"bytes"`            // of weights and KV cache that a repetition reads
	Operations     uint64  `json:"operations"`       // of a repetition's products with them
	BytesPerSecond float64 `json:"bytes_per_s"`
	OpsPerSecond   float64 `json:"flop_per_s"`

	// InCache tells that the CPU's caches may hold what a pass reads. Then the memory
	// does not limit it, and there is no share of it.
	InCache      bool     `json:"in_cache,omitempty"`
	MemoryLimit  float64  `json:"memory_limit_bytes_per_s,omitempty"`
	MemoryShare  *float64 `json:"memory_share,omitempty"`
	ComputeLimit float64  `json:"compute_limit_flop_per_s,omitempty"`
	ComputeShare *float64 `json:"compute_share,omitempty"`
	// ReadBytesPerSecond is the plain read of the CPU's memory.
	ReadBytesPerSecond float64 `json:"plain_read_bytes_per_s,omitempty"`
}
