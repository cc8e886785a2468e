package suite

import (
	"sort"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// target is the speed expected of a test of a length, in tokens/second.
type target struct {
	tokens int
	rate   float64
}

// The targets of the default suite, by length. A test that is slower than its
// target is not worth its time on that machine.
var (
	promptTargets     = []target{{16, 2}, {128, 10}, {512, 25}, {1024, 50}, {4096, 250}, {16384, 1000}}
	generationTargets = []target{{16, 1}, {128, 5}, {512, 25}, {1024, 50}, {4096, 250}}
)

// rateAt is the target of the shortest listed length that is not below n, or of
// the longest.
func rateAt(targets []target, n int) float64 {
	i := sort.Search(len(targets), func(i int) bool { return targets[i].tokens >= n })
	return targets[min(i, len(targets)-1)].rate
}

// loadRate is the speed of loading that is expected of any machine: 250 MB/s,
// as GiB/second.
const loadRate = 0.25

// LoadBudget is the time that loading a model of sizeBytes may take.
func LoadBudget(sizeBytes uint64, scale float64) time.Duration {
	return seconds(scale * (float64(sizeBytes)/(1<<30)/loadRate + 1))
}

// Budget is the time that a test of a model of sizeBytes may take, from the
// creation of its context to its last repetition, times scale:
// size_GiB/0.25 + 1 + repetitions·n/target, the default suite's formula with
// its five repetitions. A combined test gets the sum of its two parts, and a
// depth is computed once.
func Budget(t result.Test, sizeBytes uint64, repetitions int, scale float64) time.Duration {
	s := float64(sizeBytes)/(1<<30)/loadRate + 1
	if t.Prompt > 0 {
		s += float64(repetitions) * float64(t.Prompt) / rateAt(promptTargets, t.Prompt)
	}
	if t.Gen > 0 {
		s += float64(repetitions) * float64(t.Gen) / rateAt(generationTargets, t.Gen)
	}
	if t.Depth > 0 {
		s += float64(t.Depth) / rateAt(promptTargets, t.Depth)
	}
	return seconds(s * scale)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
