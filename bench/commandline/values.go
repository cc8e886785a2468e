package commandline

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// adder is a flag's value to which each use adds.
type adder interface{ Adds() }

// adds tells whether each use of a flag adds to its value.
func adds(v pflag.Value) bool {
	_, list := v.(pflag.SliceValue)
	_, own := v.(adder)
	return list || own
}

// Lengths is a list of lengths in tokens in llama-bench's syntax: numbers
// separated by commas, ranges first-last, first-last+step, first-last*factor. The
// first use replaces the default, later ones add to it.
type Lengths struct {
	Values  []int
	changed bool
}

// Type names the values in the help.
func (l *Lengths) Type() string { return "tokens" }

func (l *Lengths) String() string {
	s := make([]string, len(l.Values))
	for i, n := range l.Values {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ",")
}

// Set takes the text of one use of the flag.
func (l *Lengths) Set(text string) error {
	values, err := suite.ParseLengths(text)
	if err != nil {
		return err
	}
	if !l.changed {
		l.Values = nil
	}
	l.Values, l.changed = append(l.Values, values...), true
	return nil
}

// Pairs is a list of prompt and generation lengths. Each use adds a pair.
type Pairs struct{ Values [][2]int }

// Type names the values in the help.
func (p *Pairs) Type() string { return "pp,tg" }

func (p *Pairs) String() string {
	s := make([]string, len(p.Values))
	for i, v := range p.Values {
		s[i] = fmt.Sprintf("%d,%d", v[0], v[1])
	}
	return strings.Join(s, " ")
}

// Set takes the text of one use of the flag.
func (p *Pairs) Set(text string) error {
	prompt, gen, ok := strings.Cut(text, ",")
	if !ok {
		return fmt.Errorf("%q is not two lengths such as 512,128", text)
	}
	a, err := suite.ParseLength(prompt)
	if err != nil {
		return err
	}
	b, err := suite.ParseLength(gen)
	if err != nil {
		return err
	}
	p.Values = append(p.Values, [2]int{a, b})
	return nil
}

// Models is a list of models. Each use adds one. A name may contain commas and
// spaces.
type Models []string

// Type names the values in the help.
func (m *Models) Type() string   { return "model" }
func (m *Models) String() string { return strings.Join(*m, " ") }

// Set takes the text of one use of the flag.
func (m *Models) Set(text string) error {
	parts := strings.Split(text, ",")
	if !slices.ContainsFunc(parts, func(p string) bool { return p != "" && !strings.HasSuffix(p, ".gguf") }) { // llama-bench's list
		if slices.Contains(parts, "") {
			return errors.New("a model of the list is empty")
		}
		*m = append(*m, parts...)
		return nil
	}
	*m = append(*m, text)
	return nil
}

// Sources is a list of models. Each use adds to it.
type Sources []string

// Type names the values in the help.
func (s *Sources) Type() string   { return "models" }
func (s *Sources) String() string { return strings.Join(*s, " ") }

// Set takes the text of one use of the flag.
func (s *Sources) Set(text string) error {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		if !source.Explicit(word) {
			return fmt.Errorf("%q is not a model", word)
		}
		*s = append(*s, word)
	}
	return nil
}

// splitList splits a list of devices or shares at slashes, as llama-bench does, or at
// commas.
func splitList(text string) []string { return strings.Split(strings.ReplaceAll(text, "/", ","), ",") }

// Devices is a list of device names.
type Devices []string

// Type names the values in the help.
func (d *Devices) Type() string   { return "devices" }
func (d *Devices) String() string { return strings.Join(*d, "/") }

// Set takes the text of one use of the flag.
func (d *Devices) Set(text string) error {
	names := splitList(text)
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("%q has a device without a name", text)
		}
		for _, before := range names[:i] {
			if before == name {
				return fmt.Errorf("device %s is named twice", name)
			}
		}
	}
	*d = names
	return nil
}

// Shares is a list of shares of the model, one per device.
type Shares []float32

// Type names the values in the help.
func (s *Shares) Type() string { return "shares" }

func (s *Shares) String() string {
	parts := make([]string, len(*s))
	for i, share := range *s {
		parts[i] = strconv.FormatFloat(float64(share), 'g', -1, 32)
	}
	return strings.Join(parts, "/")
}

// Set takes the text of one use of the flag.
func (s *Shares) Set(text string) error {
	var shares []float32
	var sum float64
	for _, part := range splitList(text) {
		share, err := strconv.ParseFloat(part, 32)
		switch {
		case err != nil || math.IsNaN(share) || math.IsInf(share, 0):
			return fmt.Errorf("%q is not a number", part)
		case share < 0:
			return fmt.Errorf("%s is negative", part)
		}
		shares, sum = append(shares, float32(share)), sum+share
	}
	if sum == 0 {
		return errors.New("every share is 0")
	}
	*s = shares
	return nil
}

// Adds says that each use adds to the list.
func (*Lengths) Adds() {}

// Adds says that each use adds to the list.
func (*Pairs) Adds() {}

// Adds says that each use adds to the list.
func (*Models) Adds() {}

// Adds says that each use adds to the list.
func (*Sources) Adds() {}

// Size is a number of bytes, such as 2GiB.
type Size int64

// Type names the values in the help.
func (s *Size) Type() string { return "size" }

func (s *Size) String() string { return strings.ReplaceAll(humanize.IBytes(uint64(*s)), " ", "") }

// Set takes the text of one use of the flag.
func (s *Size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is not a size such as 2GiB", text)
	}
	*s = Size(n)
	return nil
}

// Share is a number from 0 to Max, which may be given as a percentage: 2% is 0.02.
type Share struct{ Value, Max float64 }

// Type is the placeholder in the help.
func (s *Share) Type() string   { return "share" }
func (s *Share) String() string { return strconv.FormatFloat(s.Value, 'g', -1, 64) }

// Set parses a number or a percentage.
func (s *Share) Set(text string) error {
	number, percent := strings.CutSuffix(text, "%")
	x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return fmt.Errorf("%q is neither a number nor a percentage such as 2%%", text)
	}
	if percent {
		x /= 100
	}
	if x < 0 || x > s.Max {
		return fmt.Errorf("%s is outside 0…%g", text, s.Max)
	}
	s.Value = x
	return nil
}

// Words is a list of words that must be among Allowed. Each use adds to it.
type Words struct {
	Allowed []string
	Values  []string
}

// Type is the placeholder in the help.
func (w *Words) Type() string   { return "names" }
func (w *Words) String() string { return strings.Join(w.Values, ",") }

// Set adds words that are separated by commas.
func (w *Words) Set(text string) error {
	for _, word := range strings.Split(text, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(w.Allowed, word) {
			return &unknownWord{word, w.Allowed}
		}
		w.Values = append(w.Values, word)
	}
	return nil
}

// Adds says that each use adds to the list.
func (*Words) Adds() {}

// unknownWord is a word that is not one of allowed.
type unknownWord struct {
	word    string
	allowed []string
}

func (e *unknownWord) Error() string { return fmt.Sprintf("unknown value %q", e.word) }

// Unknown returns the word and those that are allowed.
func (e *unknownWord) Unknown() (word string, allowed []string) { return e.word, e.allowed }

// unknownValue is an error of a flag's value that is not one of the allowed words.
type unknownValue interface {
	error
	Unknown() (word string, allowed []string)
}
