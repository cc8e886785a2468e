package result

import "time"

// Accounting divides the wall time of a run into parts. No part is negative, and
// their sum is exactly Wall.
type Accounting struct {
	Wall     time.Duration `json:"wall_ns"`
	Timed    time.Duration `json:"timed_ns"`               // repetitions of tests that completed
	Warmup   time.Duration `json:"warmup_ns"`              // warm-ups of tests that completed, passes that prime their repetitions, and passes before the first test of a model on a GPU
	Load     time.Duration `json:"load_ns"`                // loading models, and reading their files into memory before
	Context  time.Duration `json:"context_ns"`             // creating the contexts of tests that completed
	Wait     time.Duration `json:"wait_ns"`                // waiting for model files
	Limits   time.Duration `json:"limits_ns,omitempty"`    // measuring the machine's limits
	CoolDown time.Duration `json:"cool_down_ns,omitempty"` // waiting before tests until the machine has cooled down
	Lost     time.Duration `json:"lost_ns"`                // tests that did not complete, and workers that were lost
	Other    time.Duration `json:"other_ns"`               // the rest: starting workers, preparing repetitions
}

// Part is one part of an Accounting.
type Part struct {
	Key  string // of the log: "wait_s"
	Name string // for people: "download waits"
	Time time.Duration
}

// Parts lists the parts in the order in which reports show them.
func (a Accounting) Parts() []Part {
	parts := []Part{
		{"timed_s", "timed", a.Timed},
		{"warmup_s", "warm-up", a.Warmup},
		{"load_s", "load", a.Load},
		{"context_s", "contexts", a.Context},
		{"wait_s", "download waits", a.Wait},
	}
	if a.Limits > 0 {
		parts = append(parts, Part{"limits_s", "limits of the machine", a.Limits})
	}
	if a.CoolDown > 0 { // most runs have none
		parts = append(parts, Part{"cool_down_s", "cool-down", a.CoolDown})
	}
	return append(parts, Part{"lost_s", "lost in stopped tests", a.Lost}, Part{"other_s", "other", a.Other})
}

// Share is d as a share of the wall time, in [0, 1] for a part. It is 0 for a run
// that took no time.
func (a Accounting) Share(d time.Duration) float64 {
	if a.Wall <= 0 {
		return 0
	}
	return float64(d) / float64(a.Wall)
}
