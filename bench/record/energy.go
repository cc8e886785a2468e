package record

import (
	"math"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// addEnergy adds the energy of the timed repetitions to a record, and what a million tokens
// cost at its median speed in tokens/second. The record's GPUs must be known.
func (a *Assembler) addEnergy(r *result.Record, median float64) {
	r.Ext.Energy = a.energyOf(r.Ext.GPU)
	prices := a.Job.Prices
	if prices == nil {
		return
	}
	r.Ext.Cost = prices.Cost(a.test.Test, median, r.Ext.Energy)
	if _, of := r.Ext.Energy.Whole(); prices.Electricity != nil && len(of) == 0 {
		r.Ext.Warnings = append(r.Ext.Warnings, result.Warning{
			Code: result.WarnNoEnergy, Message: "the cost has no electricity: no readable part of this machine tells its energy",
		})
	}
}

// energyOf is the energy of the repetitions of this worker; nil: no part is known.
func (a *Assembler) energyOf(g *result.GPU) *result.Energy {
	samples := a.samples[len(a.test.Done):]
	var timed time.Duration
	for _, s := range samples {
		timed += s.Elapsed
	}
	e := &result.Energy{Repetitions: len(samples), TimedSeconds: timed.Seconds()}
	if o := a.energy; o != nil {
		e.IdleWatts = o.IdleWatts
		if o.Window > 0 {
			e.WindowSeconds, e.Sampled = o.Window.Seconds(), o.Sampled
			e.Joules = o.Joules.Times(timed.Seconds() / o.Window.Seconds())
		}
	}
	if g != nil {
		e.IdleWatts.GPU = total(g.Devices, func(d result.GPUDevice) *float64 { return d.IdleWatts })
		e.Joules.GPU = total(g.Devices, func(d result.GPUDevice) *float64 { return d.EnergyJoules })
		if e.Joules.GPU == nil && g.PowerWatts != nil {
			e.Joules.GPU = new(*g.PowerWatts * timed.Seconds())
			e.Sampled = slices.Concat(e.Sampled, []string{"gpu"})
		}
	}
	if len(e.Joules.Known()) == 0 {
		return nil
	}
	for _, part := range e.Joules.Known() {
		*part.Value = new(math.Round(**part.Value*1e6) / 1e6) // counters have microjoules
	}
	if tokens := a.test.Test.Tokens() * len(samples); tokens > 0 {
		e.JoulesPerToken = e.Joules.Times(1 / float64(tokens))
	}
	return e
}
