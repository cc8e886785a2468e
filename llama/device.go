package llama

// DeviceType is the kind of a device.
type DeviceType string

// The kinds of devices.
const (
	CPUDevice         DeviceType = "cpu"
	GPUDevice         DeviceType = "gpu"         // with memory of its own
	IntegratedDevice  DeviceType = "igpu"        // using host memory
	AcceleratorDevice DeviceType = "accelerator" // beside the CPU back-end: BLAS, AMX
	MetaDevice        DeviceType = "meta"        // several devices as one
)

// metaName begins the name of the device that stands for those of SplitTensor, and
// of its buffers.
const metaName = "Meta("

// Device is a device that ggml can compute on.
type Device struct {
	Name             string     // "CPU", "CUDA0"
	Description      string     // "AMD EPYC", "NVIDIA H200"
	Type             DeviceType //
	Backend          string     // name of its back-end: "CPU", "CUDA", "RPC"
	ID               string     // PCI bus id where known
	BufferType       string     // of memory on it: "CUDA0", "RPC0[host:50052]"
	SplitsRows       bool       // its back-end can split matrices by rows (SplitRow)
	MemoryFreeBytes  uint64     // 0: unknown
	MemoryTotalBytes uint64     // 0: unknown
}
