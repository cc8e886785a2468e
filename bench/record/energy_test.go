package record_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A record has the share of the energy that belongs to its timed repetitions, and what its
// tokens cost.
func TestRecordEnergy(t *testing.T) {
	cpu := &bench.EnergyObserved{
		Window: 12 * s, Joules: result.Parts{Package: new(600.0), DRAM: new(60.0)}, IdleWatts: result.Parts{Package: new(20.0)},
	}
	card := bench.GPUObserved{Devices: []bench.GPUObservation{{PCIAddress: "0000:01:00.0", GPUTelemetry: result.GPUTelemetry{
		EnergyJoules: new(700.0), PowerWatts: new(70.0), IdleWatts: new(9.0),
	}}}}
	sampledCard := bench.GPUObserved{Devices: []bench.GPUObservation{{PCIAddress: "0000:01:00.0", GPUTelemetry: result.GPUTelemetry{PowerWatts: new(70.0)}}}}
	eur := &result.Prices{Machine: &result.Price{PerHour: 0.36, Currency: "EUR"}, Electricity: &result.PowerPrice{PerKWh: 0.3}}
	for _, tt := range []struct {
		name     string
		observed []bench.Event
		gpu      bool
		done     int // repetitions of an earlier worker
		prices   *result.Prices
		want     *result.Energy
		cost     string // the sentence
		warning  string
	}{
		{"nothing is readable", nil, false, 0, nil, nil, "", ""},
		{"nothing is known", []bench.Event{bench.EnergyObserved{Window: 12 * s}}, false, 0, nil, nil, "", ""},
		{
			"packages and memory", []bench.Event{*cpu}, false, 0, nil,
			&result.Energy{
				Repetitions: 5, TimedSeconds: 10, WindowSeconds: 12, Joules: result.Parts{Package: new(500.0), DRAM: new(50.0)},
				JoulesPerToken: result.Parts{Package: new(500 / 640.0), DRAM: new(50 / 640.0)}, IdleWatts: result.Parts{Package: new(20.0)},
			}, "", "",
		},
		{
			"of the repetitions of this worker", []bench.Event{*cpu}, false, 2, nil,
			&result.Energy{
				Repetitions: 3, TimedSeconds: 6, WindowSeconds: 12, Joules: result.Parts{Package: new(300.0), DRAM: new(30.0)},
				JoulesPerToken: result.Parts{Package: new(300 / 384.0), DRAM: new(30 / 384.0)}, IdleWatts: result.Parts{Package: new(20.0)},
			}, "", "",
		},
		{
			"a GPU", []bench.Event{card}, true, 0, nil,
			&result.Energy{
				Repetitions: 5, TimedSeconds: 10, Joules: result.Parts{GPU: new(700.0)}, JoulesPerToken: result.Parts{GPU: new(700 / 640.0)},
				IdleWatts: result.Parts{GPU: new(9.0)},
			}, "", "",
		},
		{
			"a GPU whose power is sampled", []bench.Event{sampledCard}, true, 0, nil,
			&result.Energy{
				Repetitions: 5, TimedSeconds: 10, Joules: result.Parts{GPU: new(700.0)}, JoulesPerToken: result.Parts{GPU: new(700 / 640.0)}, Sampled: []string{"gpu"},
			}, "", "",
		},
		{
			"money", []bench.Event{*cpu}, false, 0, eur,
			&result.Energy{
				Repetitions: 5, TimedSeconds: 10, WindowSeconds: 12, Joules: result.Parts{Package: new(500.0), DRAM: new(50.0)},
				JoulesPerToken: result.Parts{Package: new(500 / 640.0), DRAM: new(50 / 640.0)}, IdleWatts: result.Parts{Package: new(20.0)},
			}, "1 M generated tokens cost 1.634 EUR (0.07161 EUR of it electricity)", "",
		},
		{"money without energy", nil, false, 0, eur, nil, "1 M generated tokens cost 1.562 EUR", result.WarnNoEnergy},
		{"money without electricity", nil, false, 0, &result.Prices{Machine: eur.Machine}, nil, "1 M generated tokens cost 1.562 EUR", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job, model := jobOf(), modelFacts
			job.Prices = tt.prices
			facts := engineFacts
			if tt.gpu {
				facts.GPUs = []bench.EngineGPU{{Name: "CUDA0", Model: "NVIDIA L4", PCIAddress: "0000:01:00.0"}}
				model.Placed = []bench.Placement{{Device: "CUDA0", Layers: 3, WeightsBytes: 1000}}
			}
			var done []result.Sample
			for n := range tt.done {
				done = append(done, sample(n+1, 0, 2*s))
			}
			events := []bench.Event{
				bench.EngineReady{Facts: facts}, bench.LoadDone{Status: result.OK, Facts: model},
				bench.TestStarted{Test: tg128, Repetitions: 5, Done: done}, bench.ContextReady{}, bench.WarmupDone{Elapsed: s},
			}
			for n := tt.done; n < 5; n++ {
				events = append(events, bench.RepetitionDone{Sample: sample(n+1, 0, 2*s)})
			}
			events = append(append(events, tt.observed...), bench.TestDone{Test: tg128, Status: result.OK})
			a := record.Assembler{Job: job}
			var r *result.Record
			for range 2 { // the second test has nothing of the first
				for _, e := range events {
					if o := a.Add(bench.Stamped{At: time.Now(), Event: e}); o != nil {
						r = o.Record
					}
				}
			}
			if diff := cmp.Diff(tt.want, r.Ext.Energy, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
				t.Errorf("energy (-want +got)\n%s", diff)
			}
			cost := ""
			if c := r.Ext.Cost; c != nil {
				cost = c.Sentence()
			}
			if cost != tt.cost {
				t.Errorf("cost %q, want %q", cost, tt.cost)
			}
			warning := ""
			for _, w := range r.Ext.Warnings {
				if w.Code == result.WarnNoEnergy {
					warning = w.Code
				}
			}
			if warning != tt.warning {
				t.Errorf("warning %q, want %q", warning, tt.warning)
			}
		})
	}
}

// A test without energy does not have that of the test before.
func TestRecordEnergyIsOfOneTest(t *testing.T) {
	a := record.Assembler{Job: jobOf()}
	var records []*result.Record
	for _, e := range []bench.Event{
		bench.EngineReady{Facts: engineFacts}, bench.LoadDone{Status: result.OK, Facts: modelFacts},
		bench.TestStarted{Test: tg128, Repetitions: 1}, bench.RepetitionDone{Sample: sample(1, 0, s)},
		bench.EnergyObserved{Window: s, Joules: result.Parts{Package: new(1.0)}}, bench.TestDone{Test: tg128, Status: result.OK},
		bench.TestStarted{Test: pp512, Repetitions: 1}, bench.RepetitionDone{Sample: sample(1, 0, s)}, bench.TestDone{Test: pp512, Status: result.OK},
	} {
		if o := a.Add(bench.Stamped{At: time.Now(), Event: e}); o != nil {
			records = append(records, o.Record)
		}
	}
	if records[0].Ext.Energy == nil || records[1].Ext.Energy != nil {
		t.Errorf("%+v, %+v", records[0].Ext.Energy, records[1].Ext.Energy)
	}
}
