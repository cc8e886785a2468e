package llama

// DeviceType is the kind of a device.
type DeviceType string

// The kinds of devices.
const (
	CPUDevice         DeviceType = "cpu"
	GPUDevice         DeviceType = "gpu"         // with memory of its own
	IntegratedDevice  DeviceType = "igpu"        // using host memory
	AcceleratorDevice DeviceType = "accelerator" // beside the CPU back-end: BLAS, AMX
	MetaDevice        DeviceType = "meta"        // several devices that compute as one (SplitTensor)
)

// metaName is the prefix of the names of a MetaDevice and of its buffers.
const metaName = "Meta("

// Device is a device that ggml computes on.
type Device struct {
	Name             string // "CPU", "CUDA0"
	Description      string // "AMD EPYC", "NVIDIA H200"
	Type             DeviceType
	Backend          string // name of its back-end: "CPU", "CUDA", "RPC"
	ID               string // PCI address; empty if unknown
	BufferType       string // type of its memory: "CUDA0", "RPC0[host:50052]"
	SplitsRows       bool   // whether its back-end splits matrices by rows (SplitRow)
	MemoryFreeBytes  uint64 // as the back-end reports it; 0: unknown
	MemoryTotalBytes uint64 // 0: unknown
}
