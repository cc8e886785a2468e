//go:build cpu

package host

import "github.com/sparecores/benchmark-llm/bench/result"

// NVML is not in a build for the CPU.
type NVML struct{}

// OpenNVML returns ErrNoNVML.
func OpenNVML(string) (*NVML, error) { return nil, ErrNoNVML }

// Devices are none.
func (*NVML) Devices() []NVMLDevice { return nil }

// Read tells nothing.
func (*NVML) Read(int) result.GPUReading { return result.GPUReading{} }

// Processes are not known.
func (*NVML) Processes(int) (pids []int, ok bool) { return nil, false }

// Close does nothing.
func (*NVML) Close() {}
