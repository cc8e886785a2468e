package result

import "time"

// GPUReading is what the driver said of one GPU at one moment. What it does not
// tell is nil.
type GPUReading struct {
	At             time.Time
	PowerWatts     *float64 // of the whole board; on recent ones the mean of the second before
	EnergyJoules   *float64 // counted since the driver was loaded
	SMClockMHz     *float64
	MemoryClockMHz *float64
	TemperatureC   *float64
	UsedBytes      *uint64  // memory in use, of all processes together
	Throttled      []string // why clocks are lower than they could be; empty: they are not, or it is not told
}

// GPU is what a record says of the GPUs that it was measured on.
type GPU struct {
	Devices []GPUDevice `json:"devices"` // that hold layers
}

// GPUDevice is one of them. A value that is not known is absent.
type GPUDevice struct {
	Name         string `json:"name"`                  // as the engine names it: "CUDA0"
	Model        string `json:"model"`                 // "NVIDIA L4"
	PCIAddress   string `json:"pci_address,omitempty"` //
	Layers       int    `json:"layers"`                // of the model, the output layer being one
	WeightsBytes uint64 `json:"weights_bytes"`         // in its memory, by the engine's report
}
