package bench

import (
	"fmt"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// GPUNotUsed is the code of the warning that a GPU is there, and the record was
// measured without it.
const GPUNotUsed = "gpu_not_used"

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
				})
			}
		}
	}
	if len(g.Devices) == 0 {
		return nil
	}
	return &g
}

// claimGPU has a record say of GPUs what is true. llama-bench names all that it
// lists, which holds when they compute; a record of a model that no GPU holds
// names none, and says why.
func (a *Assembler) claimGPU(r *result.Record) {
	r.Ext.GPU = a.gpu()
	if r.Ext.GPU != nil || len(a.engine.GPUs) == 0 || a.Job.Effective().GPULayers == 0 {
		return // with no layers asked for, a GPU may still compute single operations
	}
	names := make([]string, len(a.engine.GPUs))
	for i, d := range a.engine.GPUs {
		names[i] = fmt.Sprintf("%s (%s)", d.Name, d.Model)
	}
	r.Backends, r.GPUInfo, r.GPULayers = "CPU", "", 0
	r.Ext.Warnings = append(r.Ext.Warnings, result.Warning{
		Code: GPUNotUsed, Message: "measured on the CPU: the library put no layer of the model on " + strings.Join(names, ", "),
	})
}
