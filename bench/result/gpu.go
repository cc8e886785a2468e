package result

import "time"

// GPUReading is what the driver reported of one GPU at one moment. A value that it
// does not report is nil.
type GPUReading struct {
	At             time.Time
	PowerWatts     *float64 // of the whole board; on recent boards the mean of the last second
	EnergyJoules   *float64 // counted since the driver was loaded
	SMClockMHz     *float64
	MemoryClockMHz *float64
	TemperatureC   *float64
	BusyPercent    *float64 // share of the time in which it computed, 0 to 100, over a span that the driver chooses
	UsedBytes      *uint64  // memory in use, of all processes together
	Throttled      []string // why clocks are lower than they could be; empty: they are not, or the driver does not report it
}

// GPU describes the GPUs of a record. A value that is not known is absent.
type GPU struct {
	Devices        []GPUDevice `json:"devices"`           // that hold layers
	PowerWatts     *float64    `json:"power_w,omitempty"` // mean during the timed repetitions, of all these devices together
	JoulesPerToken *float64    `json:"joules_per_token,omitempty"`
}

// GPUDevice is one GPU of a record.
type GPUDevice struct {
	Name         string `json:"name"`                  // as the engine names it: "CUDA0"
	Model        string `json:"model"`                 // "NVIDIA L4"
	PCIAddress   string `json:"pci_address,omitempty"` //
	Layers       int    `json:"layers"`                // of the model, the output layer being one
	WeightsBytes uint64 `json:"weights_bytes"`         // in its memory, as the engine reports
	GPUTelemetry
}

// UnusedDevice is a device that the engine lists and that is used only if the settings
// name it.
type UnusedDevice struct {
	Name   string `json:"name"`   // "Vulkan0"
	Model  string `json:"model"`  // as its driver names it
	Reason string `json:"reason"` // why it is not used
}

// NamedBackend is a back-end module that the environment named (GGML_BACKEND_PATH).
type NamedBackend struct {
	Path    string `json:"path"`
	Problem string `json:"problem,omitempty"` // why it was not opened; empty: it was
}

// GPUTelemetry is what the driver reported of one GPU during the timed repetitions
// of a test.
type GPUTelemetry struct {
	Driver         string   `json:"driver,omitempty"`  // its version
	Kernels        string   `json:"kernels,omitempty"` // "native", or "ptx": compiled by the driver at first use
	PowerWatts     *float64 `json:"power_w,omitempty"` // mean
	EnergyJoules   *float64 `json:"energy_j,omitempty"`
	IdleWatts      *float64 `json:"idle_w,omitempty"` // before the first test of this process
	SMClockMHz     *Range   `json:"sm_clock_mhz,omitempty"`
	MemoryClockMHz *Range   `json:"memory_clock_mhz,omitempty"`
	TemperatureC   *float64 `json:"temperature_max_c,omitempty"`
	BusyPercent    *float64 `json:"busy_percent,omitempty"`          // mean share of the time in which it computed, 0 to 100
	UsedBytes      *uint64  `json:"memory_used_max_bytes,omitempty"` // of all processes together
	Throttled      []string `json:"throttled,omitempty"`             // why clocks were lower than they could be
	Others         int      `json:"other_processes,omitempty"`       // the most that computed on it before or after the test
}

// Range is the least and the greatest of several readings.
type Range struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}
