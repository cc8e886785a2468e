package result

// Memory is the memory of a test. All sizes are in bytes.
//
// The sizes of buffers are the library's own. It reports each buffer in MiB, rounded
// to 0.01 MiB. Buffers do not include what a back-end allocates while it computes.
type Memory struct {
	WeightsBytes uint64         `json:"weights_bytes"`
	CacheBytes   uint64         `json:"cache_bytes"`   // KV cache and recurrent states
	ComputeBytes uint64         `json:"compute_bytes"` // intermediate results and output of the graph
	Devices      []DeviceMemory `json:"devices"`       // the same, by device

	// PeakResidentBytes is the largest resident memory of the worker, all of its
	// memory included: VmHWM of Linux. 0: not known.
	PeakResidentBytes uint64    `json:"peak_resident_bytes,omitempty"`
	PeakSince         PeakSince `json:"peak_since,omitempty"` // when the peak began to count; "": no peak
}

// DeviceMemory is the part of a Memory on one device.
type DeviceMemory struct {
	Name         string `json:"name"` // "CUDA0"; "CPU" is the host, with pinned memory
	WeightsBytes uint64 `json:"weights_bytes"`
	CacheBytes   uint64 `json:"cache_bytes"`
	ComputeBytes uint64 `json:"compute_bytes"`
}

// PeakSince tells since when a peak counts.
type PeakSince string

// Most systems let the worker reset its peak before each test. If not, the peak is
// that of the worker so far.
const (
	SinceTest   PeakSince = "test"
	SinceWorker PeakSince = "worker"
)

// Total is the sum of all buffers in bytes.
func (m Memory) Total() uint64 { return m.WeightsBytes + m.CacheBytes + m.ComputeBytes }
