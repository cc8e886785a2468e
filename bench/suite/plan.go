package suite

import (
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Plan holds the tests of one model and their budgets.
type Plan struct {
	LoadBudget  time.Duration // for loading the model; 0 is no limit
	Tests       []PlannedTest // in this order
	Repetitions int           // of each test
}

// PlannedTest is a test and its budget; 0 is no limit.
type PlannedTest struct {
	Test   result.Test
	Budget time.Duration
}

// Lengths are the lengths of tests that are wanted, in tokens.
type Lengths struct {
	Prompt   []int    // a pp test for each
	Gen      []int    // a tg test for each
	Combined [][2]int // a pg test for each: prompt, generation
	Depth    []int    // depths at which all tests but the end-to-end ones are run; empty is depth 0
	E2E      [][2]int // an end-to-end test for each: prompt, generation
}

// Tests lists the tests in llama-bench's order: for each depth first prompts, then
// generations, then combined tests. End-to-end tests come last. Zero lengths are
// left out, as llama-bench does. A test is listed once, because readers of results
// keep one record per test. The error is that of the first length out of range.
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
			if pg == [2]int{} {
				continue
			}
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

// Plan plans the tests of one of the suite's models. sizeBytes is the size of its
// tensors; 0 if unknown, which gives the smallest budgets. With a timeout, it is the
// budget of every test, and 0 is no limit. Without one, each test gets the budget of
// its length and the model's size, times scale.
func (s Suite) Plan(m Entry, sizeBytes uint64, timeout *time.Duration, scale float64) Plan {
	p := Plan{Repetitions: s.Repetitions}
	if s.GivenOrder {
		p.LoadBudget = singleLoadBudget(sizeBytes, scale)
	}
	for i, t := range m.Tests {
		budget := s.Targets.Budget(t, sizeBytes, s.Repetitions, scale)
		if i == 0 && !s.GivenOrder {
			// The formula alone would give the smallest model about a second to load. In the
			// benchmark that the default suite replaces, every test loads the model within
			// its own budget. So a model that loads there within the budget of the first
			// test also loads here, and slow starts pass.
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
