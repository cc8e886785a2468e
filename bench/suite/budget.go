package suite

import (
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Target is the expected speed of tests of one length.
type Target struct {
	Tokens          int     `json:"tokens"`            // of the test, at least 1
	TokensPerSecond float64 `json:"tokens_per_second"` // above 0
}

// Targets are the expected speeds by length, shortest first. A test that is slower
// than its target is not worth its time on that machine.
type Targets struct {
	Prompt     []Target `json:"prompt"`
	Generation []Target `json:"generation"`
}

// DefaultTargets are those of the default suite.
func DefaultTargets() Targets {
	return Targets{
		Prompt:     []Target{{16, 2}, {128, 10}, {512, 25}, {1024, 50}, {4096, 250}, {16384, 1000}},
		Generation: []Target{{16, 1}, {128, 5}, {512, 25}, {1024, 50}, {4096, 250}},
	}
}

// rateAt is the target of the shortest listed length that is at least n, or else of
// the longest listed length.
func rateAt(targets []Target, n int) float64 {
	i, _ := slices.BinarySearchFunc(targets, n, func(t Target, n int) int { return t.Tokens - n })
	return targets[min(i, len(targets)-1)].TokensPerSecond
}

// loadRate is the loading speed that is expected of any machine, in GiB/s.
const loadRate = 0.25

// Budget is the time that a test may take, from the creation of its context to its
// last repetition, times scale. sizeBytes is the size of the model's tensors. In
// seconds, it is size_GiB/0.25 + 1 + repetitions·n/target, the formula of the
// benchmark that the default suite replaces. A combined test gets the sum for its
// two parts. A depth counts once, with the target of a prompt.
func (t Targets) Budget(test result.Test, sizeBytes uint64, repetitions int, scale float64) time.Duration {
	s := float64(sizeBytes)/(1<<30)/loadRate + 1
	if n := test.Prompt; n > 0 {
		s += float64(repetitions) * float64(n) / rateAt(t.Prompt, n)
	}
	if n := test.Gen; n > 0 {
		s += float64(repetitions) * float64(n) / rateAt(t.Generation, n)
	}
	if n := test.Depth; n > 0 {
		s += float64(n) / rateAt(t.Prompt, n)
	}
	return seconds(s * scale)
}

// singleLoadBudget is the time that a single model may take to load, times scale. In
// seconds, it is 300 + size_GiB/0.025: ten times what any machine is expected to need, and
// five minutes for a slow start.
func singleLoadBudget(sizeBytes uint64, scale float64) time.Duration {
	return seconds((300 + float64(sizeBytes)/(1<<30)/(loadRate/10)) * scale)
}

// longest is the limit for budgets. It is far above every useful budget, and keeps
// a large scale from overflowing.
const longest = 365 * 24 * time.Hour

// seconds converts s seconds into a duration of at most longest.
func seconds(s float64) time.Duration {
	return time.Duration(min(s*float64(time.Second), float64(longest)))
}
