// Package sweep reads the lists of values that llama-bench takes for its parameters, and
// makes the cells of a sweep: every combination of values and lengths, in llama-bench's
// order. That order puts the settings of a load outside those of a context, so each model
// is loaded once for each combination of its load settings.
package sweep

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// MaxCells is the number of cells from which on a sweep must be confirmed.
const MaxCells = 1000

// Parameters are the parameters of llama-bench that take lists, each with its values.
type Parameters struct{ all []*List }

// List is a parameter with its values. It is a flag's value: the first use replaces the
// default, and later uses add to it.
type List struct {
	Flag string // name of the flag, without dashes

	name      string // how cells name the parameter: "-t"
	kind      string // of values, for the help: "tokens"
	load      bool   // the model is loaded again for another value
	innermost bool   // its values change within a depth
	parse     func(text string) ([]value, error)
	values    []value
	changed   bool
}

// value is one value of a parameter.
type value struct {
	text string
	set  func(*bench.Settings)
}

// RepeatedError is a value that a list has twice. Results of the two could not be told
// apart.
type RepeatedError struct{ Flag, Value string }

func (e *RepeatedError) Error() string {
	return fmt.Sprintf("--%s: the value %s is given twice", e.Flag, e.Value)
}

// Type is the kind of values, for the help.
func (l *List) Type() string { return l.kind }

func (l *List) String() string {
	texts := make([]string, len(l.values))
	for i, v := range l.values {
		texts[i] = v.text
	}
	return strings.Join(texts, ",")
}

// Set takes the text of one use of the flag.
func (l *List) Set(text string) error {
	values, err := l.parse(text)
	if err != nil {
		return err
	}
	if !l.changed {
		l.values = nil
	}
	l.values, l.changed = append(l.values, values...), true
	if len(l.values) > suite.MaxLengths {
		return fmt.Errorf("more than %d values", suite.MaxLengths)
	}
	return nil
}

// Adds says that each use adds to the list.
func (*List) Adds() {}

// IsBoolFlag tells whether the values are 0 and 1. Then the flag alone stands for 1.
func (l *List) IsBoolFlag() bool { return l.kind == "bool" }

// Values is the number of values.
func (l *List) Values() int { return len(l.values) }

// List returns a parameter by the name of its flag.
func (p *Parameters) List(flag string) *List {
	i := slices.IndexFunc(p.all, func(l *List) bool { return l.Flag == flag })
	return p.all[i]
}

// Flags returns the names of all flags.
func (p *Parameters) Flags() (flags []string) {
	for _, l := range p.all {
		flags = append(flags, l.Flag)
	}
	return flags
}

// Cells is the number of combinations of values.
func (p *Parameters) Cells() int {
	n := 1
	for _, l := range p.all {
		if n *= len(l.values); n > math.MaxInt32 {
			return math.MaxInt32
		}
	}
	return n
}

// Loads is the number of times that a model is loaded.
func (p *Parameters) Loads() int {
	n := 1
	for _, l := range p.all {
		if l.load {
			n *= len(l.values)
		}
	}
	return n
}

// Apply sets the parameters that have one value, and checks all lists. Those with several
// values get their first.
func (p *Parameters) Apply(s *bench.Settings) error {
	for _, l := range p.all {
		for i, v := range l.values {
			if slices.ContainsFunc(l.values[:i], func(o value) bool { return o.text == v.text }) {
				return &RepeatedError{l.Flag, v.text}
			}
		}
	}
	for _, l := range p.all {
		if l.changed || l.values[0].text != "" {
			l.values[0].set(s)
		}
	}
	return nil
}

// Combination is one combination of the parameters' values.
type Combination struct {
	Name     string // of the parameters with several values, as flags: "-t 2 -ub 128"; empty: there are none
	Load     string // the part of Name that a load depends on
	Settings bench.Settings
}

// Combinations returns all combinations in llama-bench's order. Settings begin as base.
func (p *Parameters) Combinations(base bench.Settings) []Combination {
	all := []Combination{{Settings: base}}
	for _, l := range p.all {
		if len(l.values) == 1 {
			continue // Apply has set it
		}
		var next []Combination
		for _, c := range all {
			for _, v := range l.values {
				n := c
				v.set(&n.Settings)
				part := l.name + " " + v.text
				n.Name = strings.TrimPrefix(n.Name+" "+part, " ")
				if l.load {
					n.Load = strings.TrimPrefix(n.Load+" "+part, " ")
				}
				next = append(next, n)
			}
		}
		all = next
	}
	return all
}

// Sweep are the cells of a run.
type Sweep struct {
	Suite    suite.Suite               // with an entry for each model and its load settings
	Settings map[string]bench.Settings // by result.Test.Settings; nil: there is one combination
}

// Of returns the cells of a suite: each of its tests with every combination.
func Of(s suite.Suite, combinations []Combination, innermost int) Sweep {
	if len(combinations) < 2 {
		return Sweep{Suite: s}
	}
	sweep := Sweep{Suite: s, Settings: map[string]bench.Settings{}}
	sweep.Suite.Models = nil
	for _, m := range s.Models {
		for i := 0; i < len(combinations); {
			load := combinations[i].Load
			entry := m
			entry.Tests, entry.Load = nil, load
			for i < len(combinations) && combinations[i].Load == load {
				group := combinations[i : i+innermost] // they differ in the parameters inside a depth
				entry.Tests = append(entry.Tests, testsOf(m.Tests, group)...)
				for _, c := range group {
					sweep.Settings[c.Name] = c.Settings
				}
				i += innermost
			}
			sweep.Suite.Models = append(sweep.Suite.Models, entry)
		}
	}
	return sweep
}

// testsOf returns the tests with each combination of a group. All tests of a depth come
// with one combination before they come with the next.
func testsOf(tests []result.Test, group []Combination) (all []result.Test) {
	for i := 0; i < len(tests); {
		j := i + 1
		for j < len(tests) && tests[j].Depth == tests[i].Depth && tests[j].E2E == tests[i].E2E {
			j++
		}
		for _, c := range group {
			for _, t := range tests[i:j] {
				t.Settings = c.Name
				all = append(all, t)
			}
		}
		i = j
	}
	return all
}

// Innermost is the number of combinations of the parameters inside a depth.
func (p *Parameters) Innermost() int {
	n := 1
	for _, l := range p.all {
		if l.innermost {
			n *= len(l.values)
		}
	}
	return n
}

// MostCells is the largest number of cells of a run.
const MostCells = 100_000

// EachValue calls check with the settings of each value of each parameter, beside the
// first values of the others.
func (p *Parameters) EachValue(base bench.Settings, check func(bench.Settings) error) error {
	if err := check(base); err != nil {
		return err
	}
	for _, l := range p.all {
		if len(l.values) == 1 {
			continue
		}
		for _, v := range l.values {
			s := base
			v.set(&s)
			if err := check(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate returns a *bench.SettingError for the first value that is not allowed.
func (p *Parameters) Validate(base bench.Settings) error {
	return p.EachValue(base, bench.Settings.Validate)
}

// EachPair calls check with each combination of values of two parameters.
func (p *Parameters) EachPair(first, second string, base bench.Settings, check func(bench.Settings) error) error {
	for _, a := range p.List(first).values {
		for _, b := range p.List(second).values {
			s := base
			a.set(&s)
			b.set(&s)
			if err := check(s); err != nil {
				return err
			}
		}
	}
	return nil
}
