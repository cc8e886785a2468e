package suite

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// Suite is what a run measures.
type Suite struct {
	Models      []Entry `json:"models"`      // in this order
	Repetitions int     `json:"repetitions"` // of each test
	Targets     Targets `json:"targets"`     // from which budgets are computed

	// GivenOrder: the models were chosen with -m. They run in the order in which they were
	// given, not smallest first, and none of them rules out another. Their load budgets do
	// not depend on their tests.
	GivenOrder bool `json:"given_order,omitempty"`
}

// Entry is a model and its tests.
type Entry struct {
	Source    source.Source // of its file, or of the first of its files
	Name      string        // of its file, see NameApart; records of different models differ in it
	SizeBytes uint64        // of its tensors; 0 if unknown
	Tests     []result.Test // in this order

	// Load names the settings with which it is loaded, if the run loads it with several:
	// "-ngl 0". Each has an entry.
	Load string
}

// NameApart makes the names of models differ. Models whose files have the same name are
// called by the shortest end of their path that no other of them has, such as
// 7B/model.gguf. A fetched file of such a name is kept in the folder 7B. If two models
// differ neither in name nor in place, NameApart returns their indices, else -1.
func NameApart(models []Entry) (first, second int) {
	named := make(map[string][]int) // models by name
	for i, m := range models {
		named[m.Name] = append(named[m.Name], i)
	}
	for i := range models { // in order, so that the same pair is reported each time
		name := models[i].Name
		same := named[name]
		if len(same) < 2 || same[0] != i {
			continue
		}
		apart := slices.DeleteFunc(slices.Clone(same), func(k int) bool { return models[k].Source.Name() != name })
		if len(same)-len(apart) > 1 { // the suite file gives both that name
			named := slices.DeleteFunc(same, func(k int) bool { return slices.Contains(apart, k) })
			return named[0], named[1]
		}
		for _, k := range apart {
			m, parts := &models[k], models[k].Source.Parts()
			n := 2
			for ; ; n++ {
				other := slices.IndexFunc(apart, func(o int) bool { return o != k && sameEnd(models[o].Source.Parts(), parts, n) })
				if other < 0 {
					break
				}
				if n >= len(parts) {
					return min(k, apart[other]), max(k, apart[other])
				}
			}
			m.Name = strings.Join(parts[max(0, len(parts)-n):], "/")
			if !m.Source.Local() {
				m.Source.Folder = path.Dir(m.Name)
			}
		}
	}
	return -1, -1
}

// sameEnd tells whether the last n parts of two paths are the same.
func sameEnd(a, b []string, n int) bool {
	return slices.Equal(a[max(0, len(a)-n):], b[max(0, len(b)-n):])
}

// entryJSON is an Entry in run.json.
type entryJSON struct {
	Source    string        `json:"source"` // as it was given
	Name      string        `json:"name"`
	SHA256    string        `json:"sha256,omitempty"`
	SizeBytes uint64        `json:"size_bytes,omitempty"`
	Tests     []result.Test `json:"tests"`
	Load      string        `json:"load,omitempty"`
}

// MarshalJSON writes the source as it was given, with its secrets. The caller
// redacts Source.Given first.
func (e Entry) MarshalJSON() ([]byte, error) {
	return json.Marshal(entryJSON{e.Source.Given, e.Name, e.Source.SHA256, e.SizeBytes, e.Tests, e.Load})
}

// UnmarshalJSON reads an Entry. Its source is the text that was given, and is not
// parsed: the file may have been found elsewhere, and secrets were redacted.
func (e *Entry) UnmarshalJSON(text []byte) error {
	var j entryJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	from := source.Source{Given: j.Source, SHA256: j.SHA256}
	if folder := path.Dir(j.Name); folder != "." {
		from.Folder = folder
	}
	*e = Entry{Source: from, Name: j.Name, SizeBytes: j.SizeBytes, Tests: j.Tests, Load: j.Load}
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
