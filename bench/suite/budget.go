package suite

import (
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Target is the speed expected of tests of a length.
type Target struct {
	Tokens          int     // of the test, at least 1
	TokensPerSecond float64 // above 0
}

// Targets are the speeds expected by length, shortest first. A test that is
// slower than its target is not worth its time on that machine.
type Targets struct {
	Prompt, Generation []Target
}

// DefaultTargets are those of the default suite.
func DefaultTargets() Targets {
	return Targets{
		Prompt:     []Target{{16, 2}, {128, 10}, {512, 25}, {1024, 50}, {4096, 250}, {16384, 1000}},
		Generation: []Target{{16, 1}, {128, 5}, {512, 25}, {1024, 50}, {4096, 250}},
	}
}

// rateAt is the target of the shortest listed length that is not below n, or of
// the longest.
func rateAt(targets []Target, n int) float64 {
	i, _ := slices.BinarySearchFunc(targets, n, func(t Target, n int) int { return t.Tokens - n })
	return targets[min(i, len(targets)-1)].TokensPerSecond
}

// loadRate is the speed of loading that is expected of any machine: 250 MB/s,
// as GiB/second.
const loadRate = 0.25

// Budget is the time that a test of a model of sizeBytes may take, from the
// creation of its context to its last repetition, times scale:
// size_GiB/0.25 + 1 + repetitions·n/target, the default suite's formula with
// its five repetitions. A combined test gets the sum of its two parts, and a
// depth is computed once.
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

// longest is far above every budget that is meant, so that a large scale cannot
// overflow.
const longest = 365 * 24 * time.Hour

// seconds is s as a duration, at most longest.
func seconds(s float64) time.Duration {
	return time.Duration(min(s*float64(time.Second), float64(longest)))
}
