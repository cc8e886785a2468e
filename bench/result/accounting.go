package result

import "time"

// Accounting tells where the wall time of a run went. The parts are never
// negative and sum to Wall exactly.
type Accounting struct {
	Wall    time.Duration `json:"wall_ns"`
	Timed   time.Duration `json:"timed_ns"`   // repetitions of tests that completed
	Warmup  time.Duration `json:"warmup_ns"`  // warm-ups of tests that completed, and passes before the first test of a model on a GPU
	Load    time.Duration `json:"load_ns"`    // loading models, and reading their files into memory before
	Context time.Duration `json:"context_ns"` // creating the contexts of tests that completed
	Wait    time.Duration `json:"wait_ns"`    // waiting for model files
	Lost    time.Duration `json:"lost_ns"`    // everything spent in tests that did not complete, and in workers that were lost
	Other   time.Duration `json:"other_ns"`   // the rest: starting workers, preparing repetitions
}

// Part is one part of an Accounting.
type Part struct {
	Name string // for people: "download waits"
	Time time.Duration
}

// Parts are the parts, in the order in which they are shown.
func (a Accounting) Parts() []Part {
	return []Part{
		{"timed", a.Timed},
		{"warm-up", a.Warmup},
		{"load", a.Load},
		{"contexts", a.Context},
		{"download waits", a.Wait},
		{"lost in stopped tests", a.Lost},
		{"other", a.Other},
	}
}

// Share is the share of the wall time that d is, in [0, 1] for a part; 0 of a
// run that took no time.
func (a Accounting) Share(d time.Duration) float64 {
	if a.Wall <= 0 {
		return 0
	}
	return float64(d) / float64(a.Wall)
}
