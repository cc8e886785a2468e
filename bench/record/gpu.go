package record

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// gpu is what a record may say of GPUs: those that hold layers of the model, by
// the engine's report of where it put the weights. It is nil when none does.
func (a *Assembler) gpu() *result.GPU {
	var g result.GPU
	for _, p := range a.model.Placed {
		if p.Layers == 0 || p.WeightsBytes == 0 {
			continue
		}
		for _, d := range a.engine.GPUs {
			if d.Name == p.Device {
				g.Devices = append(g.Devices, result.GPUDevice{
					Name: d.Name, Model: d.Model, PCIAddress: d.PCIAddress, Layers: p.Layers, WeightsBytes: p.WeightsBytes,
					GPUTelemetry: a.observed(d.PCIAddress),
				})
			}
		}
	}
	if len(g.Devices) == 0 {
		return nil
	}
	g.PowerWatts = together(g.Devices, func(d result.GPUDevice) *float64 { return d.PowerWatts })
	if joules := together(g.Devices, func(d result.GPUDevice) *float64 { return d.EnergyJoules }); joules != nil {
		if tokens := a.test.Test.Tokens() * (len(a.samples) - len(a.test.Done)); tokens > 0 {
			each := *joules / float64(tokens)
			g.JoulesPerToken = &each
		}
	}
	return &g
}

// observed is what the driver said of a device during the test.
func (a *Assembler) observed(address string) result.GPUTelemetry {
	for _, o := range a.gpus {
		if o.PCIAddress == address && address != "" {
			return o.GPUTelemetry
		}
	}
	return result.GPUTelemetry{}
}

// together sums up over all devices; nil when one does not tell.
func together(devices []result.GPUDevice, of func(result.GPUDevice) *float64) *float64 {
	var sum float64
	for _, d := range devices {
		v := of(d)
		if v == nil {
			return nil
		}
		sum += *v
	}
	return &sum
}

// empty are the devices whose memory in use, by the driver, is less than what
// the engine says to have put there. The driver counts what the weights take and
// more; a tenth is left for how each of them rounds.
func empty(devices []result.GPUDevice) (names []string) {
	for _, d := range devices {
		if d.UsedBytes != nil && float64(*d.UsedBytes) < 0.9*float64(d.WeightsBytes) {
			names = append(names, d.Name)
		}
	}
	return names
}

// claimGPU has a record say of GPUs what is true. llama-bench names all that it
// lists, which holds when they compute; a record of a model that no GPU holds
// names none, and says why.
func (a *Assembler) claimGPU(r *result.Record) {
	g := a.gpu()
	if g != nil {
		names := empty(g.Devices)
		if len(names) == 0 {
			r.Ext.GPU = g
			r.Ext.Warnings = append(r.Ext.Warnings, gpuWarnings(g.Devices)...)
			return
		}
		a.disclaimGPU(r, "the driver says that the memory in use is less than the model's weights on "+strings.Join(names, ", "))
		return
	}
	if !a.Job.Effective().Offloads() {
		return // a GPU may still compute single operations
	}
	if len(a.engine.GPUs) == 0 {
		told := slices.ContainsFunc(a.Job.Warnings, func(w result.Warning) bool { return w.Code == result.WarnGPUNotUsed })
		if reason := a.engine.WithoutCUDA(); reason != "" && !told {
			r.Ext.Warnings = append(r.Ext.Warnings, result.Warning{Code: result.WarnNoGPU, Message: "measured on the CPU: the CUDA back-end has no device: " + reason})
		}
		return
	}
	names := make([]string, len(a.engine.GPUs))
	for i, d := range a.engine.GPUs {
		names[i] = fmt.Sprintf("%s (%s)", d.Name, d.Model)
	}
	a.disclaimGPU(r, "the library put no layer of the model on "+strings.Join(names, ", "))
}

// disclaimGPU takes from a record what it says of GPUs.
func (a *Assembler) disclaimGPU(r *result.Record, reason string) {
	r.Backends, r.GPUInfo, r.GPULayers = "CPU", "", 0
	r.Ext.Warnings = append(r.Ext.Warnings, result.Warning{Code: result.WarnGPUNotUsed, Message: "measured on the CPU: " + reason})
}

// gpuWarnings are the reasons to read a figure of these devices with care.
func gpuWarnings(devices []result.GPUDevice) []result.Warning {
	var w []result.Warning
	for _, d := range devices {
		if len(d.Throttled) > 0 {
			w = append(w, result.Warning{Code: result.WarnGPUThrottled, Message: fmt.Sprintf("%s was throttled: %s", d.Name, strings.Join(d.Throttled, ", "))})
		}
		if d.Others > 0 {
			w = append(w, result.Warning{Code: result.WarnGPUShared, Message: fmt.Sprintf("%d other processes compute on %s: their work takes from its speed", d.Others, d.Name)})
		}
	}
	return w
}
