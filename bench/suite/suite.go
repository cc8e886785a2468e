package suite

import "github.com/sparecores/benchmark-llm/bench/result"

// Suite is what a run measures.
type Suite struct {
	Models      []Entry // in this order
	Repetitions int     // of each test
	Targets     Targets // that budgets come from
}

// Entry is a model and its tests.
type Entry struct {
	Source    string        // as -m takes it: a path, an https URL, hf:user/repository/file[@revision]
	Name      string        // of its file: what readers of records tell models apart by
	SHA256    string        // of its file, 64 hexadecimal digits; empty where it is not known
	SizeBytes uint64        // of its tensors; 0 where it is not known yet
	Tests     []result.Test // in this order
}

// defaultRepetitions is what llama-bench does.
const defaultRepetitions = 5

// defaultLengths are those of every model of the default suite.
func defaultLengths() Lengths {
	return Lengths{Prompt: []int{16, 128, 512, 1024, 4096, 16384}, Gen: []int{16, 128, 512, 1024, 4096}}
}

// Default is the default suite: six models, smallest first, eleven tests each.
func Default() Suite {
	s := Suite{Repetitions: defaultRepetitions, Targets: DefaultTargets()}
	for _, m := range models {
		s.Models = append(s.Models, m.entry(defaultLengths()))
	}
	return s
}

// entry is the model with tests of lengths that are in range.
func (m Model) entry(l Lengths) Entry {
	tests, err := l.Tests()
	if err != nil {
		panic(err) // the caller's lengths were checked
	}
	return Entry{Source: m.Source(), Name: m.File, SizeBytes: m.SizeBytes, Tests: tests}
}
