//go:build cgo

package llamacpp

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/llama"
)

// Memory returns the memory of the current test; nil: no context is open.
func (e *Engine) Memory() *result.Memory {
	e.mu.Lock()
	ctx := e.ctx
	e.mu.Unlock()
	if ctx == nil {
		return nil
	}
	m := memoryOf(e.devices, e.spread(e.model.Allocation()), e.spread(ctx.Allocation()))
	m.PeakResidentBytes = peakResident()
	if m.PeakResidentBytes > 0 {
		m.PeakSince = e.peakSince
	}
	return &m
}

// spread divides what several devices hold together.
func (e *Engine) spread(a llama.Allocation) llama.Allocation {
	return a.Spread(offloadDevices(e.job.Settings), e.job.Settings.TensorSplit)
}

// memoryOf adds up the buffers of a model and of a context by device. A buffer that
// belongs to no device is memory of the host: pinned memory, for example.
func memoryOf(devices []llama.Device, allocations ...llama.Allocation) result.Memory {
	var m result.Memory
	host := "CPU"
	if i := slices.IndexFunc(devices, func(d llama.Device) bool { return d.Type == llama.CPUDevice }); i >= 0 {
		host = devices[i].Name
	}
	for _, a := range allocations {
		for _, b := range a.Buffers {
			name := host
			if i := slices.IndexFunc(devices, b.In); i >= 0 {
				name = devices[i].Name
			}
			i := slices.IndexFunc(m.Devices, func(d result.DeviceMemory) bool { return d.Name == name })
			if i < 0 {
				i = len(m.Devices)
				m.Devices = append(m.Devices, result.DeviceMemory{Name: name})
			}
			d := &m.Devices[i]
			switch b.Kind {
			case "model":
				m.WeightsBytes += b.SizeBytes
				d.WeightsBytes += b.SizeBytes
			case "compute", "output":
				m.ComputeBytes += b.SizeBytes
				d.ComputeBytes += b.SizeBytes
			default: // "KV", "RS", and further kinds of states
				m.CacheBytes += b.SizeBytes
				d.CacheBytes += b.SizeBytes
			}
		}
	}
	return m
}

// resetPeak sets the peak of the resident memory of this process to the present
// value. It tells since when the peak counts from now on. Linux may refuse the reset.
// See proc_pid_clear_refs(5): the value 5.
func resetPeak() result.PeakSince {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return result.SinceWorker
	}
	return result.SinceTest
}

// peakResident is the peak of the resident memory of this process in bytes, VmHWM of
// proc_pid_status(5); 0: not known.
func peakResident() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	return peakIn(string(status))
}

// peakIn finds VmHWM, "VmHWM:\t  123 kB", in bytes; 0: it is not there.
func peakIn(status string) uint64 {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			number, unit, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if n, err := strconv.ParseUint(number, 10, 54); err == nil && unit == "kB" {
				return n << 10
			}
		}
	}
	return 0
}
