//go:build cgo

package llamacpp

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
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

// Report returns what the library reports for tests of a model on the CPU, without
// reading weights. Memory for the weights is allocated for a moment, but not touched.
// If that fails, WeightsBytes is 0. There are no devices and no peak.
func Report(job bench.Job, tests []result.Test) ([]result.Memory, error) {
	job.Settings.GPULayers = 0
	e, err := New(job, Options{})
	if err != nil {
		return nil, err
	}
	defer e.stop()
	var all []result.Memory
	e.do(func() { all, err = e.report(tests) })
	return all, translate(err)
}

// report is Report on the engine's thread.
func (e *Engine) report(tests []result.Test) ([]result.Memory, error) {
	p, err := modelParams(e.job.Settings)
	if err != nil {
		return nil, err
	}
	open, err := e.opener(nil)
	if err != nil {
		return nil, err
	}
	var weights llama.Allocation
	allocate := p
	allocate.Allocated = func(a llama.Allocation) error {
		weights = a
		return errFits // which ends the load
	}
	if _, err := open(allocate); !errors.Is(err, errFits) && !errors.Is(err, llama.ErrOutOfMemory) {
		return nil, err
	}
	m, err := open(dry(p, 0))
	if err != nil {
		return nil, err
	}
	defer m.Close() //nolint:errcheck // its contexts are closed
	var all []result.Memory
	for _, t := range tests {
		cp, _, err := contextParams(e.settingsOf(t), t)
		if err != nil {
			return nil, err
		}
		c, err := m.NewContext(cp)
		if err != nil {
			return nil, err
		}
		memory := memoryOf(nil, weights, c.Allocation())
		for _, size := range c.Allocation().Cache { // its buffers have no size yet
			memory.CacheBytes += size
		}
		memory.Devices = nil
		all = append(all, memory)
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	return all, nil
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
