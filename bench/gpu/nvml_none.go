//go:build cpu

package gpu

import "github.com/sparecores/benchmark-llm/bench/result"

// NVML is not part of a build for the CPU.
type NVML struct{}

// startNVML returns ErrNoNVML.
func startNVML(string) (*NVML, error) { return nil, ErrNoNVML }

// Devices returns none.
func (*NVML) Devices() []NVMLDevice { return nil }

// Read returns an empty reading.
func (*NVML) Read(int) result.GPUReading { return result.GPUReading{} }

// Processes returns ok false.
func (*NVML) Processes(int) (pids []int, ok bool) { return nil, false }

// Close does nothing.
func (*NVML) Close() {}
