package record

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// gpu is what a record says about GPUs. It contains the GPUs that hold layers of the
// model, according to the engine's report of where it put the weights; nil: none does.
func (a *Assembler) gpu() *result.GPU {
	var g result.GPU
	for _, p := range a.model.Placed {
		if p.Layers == 0 || p.WeightsBytes == 0 {
			continue
		}
		for _, d := range a.engine.GPUs {
			if d.Name == p.Device {
				seen := a.observed(d.PCIAddress)
				if d.Backend != "CUDA" {
					seen.Kernels = "" // those of CUDA on the same GPU
				}
				g.Devices = append(g.Devices, result.GPUDevice{
					Name: d.Name, Model: d.Model, PCIAddress: d.PCIAddress, Layers: p.Layers, WeightsBytes: p.WeightsBytes,
					GPUTelemetry: seen,
				})
			}
		}
	}
	if len(g.Devices) == 0 {
		return nil
	}
	g.PowerWatts = total(g.Devices, func(d result.GPUDevice) *float64 { return d.PowerWatts })
	if joules := total(g.Devices, func(d result.GPUDevice) *float64 { return d.EnergyJoules }); joules != nil {
		if tokens := a.test.Test.Tokens() * (len(a.samples) - len(a.test.Done)); tokens > 0 {
			perToken := *joules / float64(tokens)
			g.JoulesPerToken = &perToken
		}
	}
	return &g
}

// observed is what the driver reported about a device during the test.
func (a *Assembler) observed(address string) result.GPUTelemetry {
	for _, o := range a.gpus {
		if o.PCIAddress == address && address != "" {
			return o.GPUTelemetry
		}
	}
	return result.GPUTelemetry{}
}

// total adds up the values of all devices. It is nil if a device has no value.
func total(devices []result.GPUDevice, value func(result.GPUDevice) *float64) *float64 {
	var sum float64
	for _, d := range devices {
		v := value(d)
		if v == nil {
			return nil
		}
		sum += *v
	}
	return &sum
}

// empty are the devices on which the driver reports less memory in use than the
// engine reports weights. The driver should report more, because it counts everything
// on the device. A tenth is allowed for rounding.
func empty(devices []result.GPUDevice) (names []string) {
	for _, d := range devices {
		if d.UsedBytes != nil && float64(*d.UsedBytes) < 0.9*float64(d.WeightsBytes) {
			names = append(names, d.Name)
		}
	}
	return names
}

// claimGPU adds what is known about GPUs to a record. llama-bench names every GPU that
// it lists, which is true only if they compute. If no GPU holds a part of the model,
// the record names none and says why.
func (a *Assembler) claimGPU(r *result.Record) {
	g := a.gpu()
	if g != nil {
		names := empty(g.Devices)
		if len(names) == 0 {
			r.Ext.GPU = g
			r.Ext.Warnings = append(r.Ext.Warnings, gpuWarnings(g.Devices)...)
			return
		}
		a.disclaimGPU(r, "the driver reports less memory in use than the weights need on "+strings.Join(names, ", "))
		return
	}
	if !a.Job.Effective().Offloads() {
		return // a GPU may still compute single operations
	}
	usable := a.engine.Usable()
	if len(usable) == 0 {
		known := slices.ContainsFunc(a.Job.Warnings, func(w result.Warning) bool { return w.Code == result.WarnGPUNotUsed })
		if reason := a.engine.WithoutCUDA(); reason != "" && !known {
			r.Ext.Warnings = append(r.Ext.Warnings, result.Warning{Code: result.WarnNoGPU, Message: "measured on the CPU: the CUDA back-end has no device: " + reason})
		}
		return
	}
	names := make([]string, len(usable))
	for i, d := range usable {
		names[i] = fmt.Sprintf("%s (%s)", d.Name, d.Model)
	}
	a.disclaimGPU(r, "the library put no layer of the model on "+strings.Join(names, ", "))
}

// disclaimGPU removes the GPUs from a record.
func (a *Assembler) disclaimGPU(r *result.Record, reason string) {
	r.Backends, r.GPUInfo, r.GPULayers = "CPU", "", 0
	r.Ext.Warnings = append(r.Ext.Warnings, result.Warning{Code: result.WarnGPUNotUsed, Message: "measured on the CPU: " + reason})
}

// gpuWarnings are the reasons to read figures of these devices with care.
func gpuWarnings(devices []result.GPUDevice) []result.Warning {
	var w []result.Warning
	for _, d := range devices {
		if len(d.Throttled) > 0 {
			w = append(w, result.Warning{Code: result.WarnGPUThrottled, Message: fmt.Sprintf("%s was throttled: %s", d.Name, strings.Join(d.Throttled, ", "))})
		}
		if d.Others > 0 {
			others := "1 other process"
			if d.Others > 1 {
				others = fmt.Sprintf("%d other processes", d.Others)
			}
			w = append(w, result.Warning{Code: result.WarnGPUShared, Message: fmt.Sprintf("%s is also used by %s, which slows it down", d.Name, others)})
		}
	}
	return w
}
