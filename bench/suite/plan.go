package suite

import (
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Plan is what one model is to be measured with.
type Plan struct {
	Model       string        // as given
	SizeBytes   uint64        // of its tensors
	LoadBudget  time.Duration //
	Tests       []PlannedTest // in this order
	Repetitions int           // of each test
}

// PlannedTest is a test and the time it may take; 0 is no limit.
type PlannedTest struct {
	Test   result.Test
	Budget time.Duration
}

// Lengths are the lengths of tests asked for, in tokens, and llama-bench's
// combined tests.
type Lengths struct {
	Prompt   []int    // one pp test each
	Gen      []int    // one tg test each
	Combined [][2]int // one pg test each: prompt, generation
	Depth    []int    // every test but the end-to-end ones at each of these depths; empty: 0
	E2E      [][2]int // one end-to-end test each: prompt, generation
}

// Tests lists the tests in llama-bench's order: for each depth prompts, then
// generations, then combined ones; end-to-end tests come last. Zero lengths are
// left out, as llama-bench does, and so is what was listed before: readers keep one record per test. The
// error is that of the first length out of range.
func (l Lengths) Tests() ([]result.Test, error) {
	depths := l.Depth
	if len(depths) == 0 {
		depths = []int{0}
	}
	var tests []result.Test
	add := func(t result.Test) {
		if !slices.Contains(tests, t) {
			tests = append(tests, t)
		}
	}
	for _, d := range depths {
		for _, n := range l.Prompt {
			if n != 0 {
				add(result.Test{Prompt: n, Depth: d})
			}
		}
		for _, n := range l.Gen {
			if n != 0 {
				add(result.Test{Gen: n, Depth: d})
			}
		}
		for _, pg := range l.Combined {
			add(result.Test{Prompt: pg[0], Gen: pg[1], Depth: d})
		}
	}
	for _, pg := range l.E2E {
		add(result.Test{Prompt: pg[0], Gen: pg[1], E2E: true})
	}
	for _, t := range tests {
		if err := t.Validate(); err != nil {
			return nil, err
		}
	}
	return tests, nil
}

// Plan plans the tests of one of the suite's models, whose tensors have
// sizeBytes; 0, not known yet, gives the least budgets. A timeout is the budget
// of every test; nil gives each the budget of its length and size, times scale; 0
// is no limit.
func (s Suite) Plan(m Entry, sizeBytes uint64, timeout *time.Duration, scale float64) Plan {
	p := Plan{Model: m.Source, SizeBytes: sizeBytes, Repetitions: s.Repetitions}
	for i, t := range m.Tests {
		budget := s.Targets.Budget(t, sizeBytes, s.Repetitions, scale)
		if i == 0 {
			// In the suite that this one replaces, every test loaded the model within its
			// own budget. What could load there within the first test's loads here.
			p.LoadBudget = budget
		}
		if timeout != nil {
			budget = *timeout
		}
		p.Tests = append(p.Tests, PlannedTest{t, budget})
	}
	if timeout != nil && *timeout == 0 {
		p.LoadBudget = 0
	}
	return p
}
