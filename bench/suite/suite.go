package suite

import (
	"encoding/json"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// Suite is what a run measures.
type Suite struct {
	Models      []Entry `json:"models"`      // in this order
	Repetitions int     `json:"repetitions"` // of each test
	Targets     Targets `json:"targets"`     // from which budgets are computed

	// Single tells that -m chose one model. Its load budget does not depend on its tests.
	Single bool `json:"single,omitempty"`
}

// Entry is a model and its tests.
type Entry struct {
	Source    source.Source // of its file, or of the first of its files
	Name      string        // of its file; records of different models differ in it
	SizeBytes uint64        // of its tensors; 0 if unknown
	Tests     []result.Test // in this order
}

// entryJSON is an Entry in run.json.
type entryJSON struct {
	Source    string        `json:"source"` // as it was given
	Name      string        `json:"name"`
	SHA256    string        `json:"sha256,omitempty"`
	SizeBytes uint64        `json:"size_bytes,omitempty"`
	Tests     []result.Test `json:"tests"`
}

// MarshalJSON writes the source as it was given, with its secrets. The caller
// redacts Source.Given first.
func (e Entry) MarshalJSON() ([]byte, error) {
	return json.Marshal(entryJSON{e.Source.Given, e.Name, e.Source.SHA256, e.SizeBytes, e.Tests})
}

// UnmarshalJSON reads an Entry. A source that cannot be parsed, because of what
// was redacted in it, names no file.
func (e *Entry) UnmarshalJSON(text []byte) error {
	var j entryJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	from, err := source.Parse(j.Source)
	if err != nil {
		from = source.Source{Given: j.Source}
	}
	from.SHA256 = j.SHA256
	*e = Entry{Source: from, Name: j.Name, SizeBytes: j.SizeBytes, Tests: j.Tests}
	return nil
}

// defaultRepetitions is the number that llama-bench uses.
const defaultRepetitions = 5

// defaultLengths are those of every model of the default suite.
func defaultLengths() Lengths {
	return Lengths{Prompt: []int{16, 128, 512, 1024, 4096, 16384}, Gen: []int{16, 128, 512, 1024, 4096}}
}

// Default is the default suite: six models, smallest first, with eleven tests
// each.
func Default() Suite {
	s := Suite{Repetitions: defaultRepetitions, Targets: DefaultTargets()}
	for _, m := range models {
		s.Models = append(s.Models, m.entry(defaultLengths()))
	}
	return s
}

// entry is the model with tests of these lengths, which must be in range.
func (m Model) entry(l Lengths) Entry {
	tests, err := l.Tests()
	if err != nil {
		panic(err) // the caller must check them
	}
	return Entry{Source: m.Source(), Name: m.File, SizeBytes: m.SizeBytes, Tests: tests}
}
