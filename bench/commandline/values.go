package commandline

import (
	"errors"
	"fmt"
	"math"
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

func (l *Lengths) Type() string { return "tokens" }

func (l *Lengths) String() string {
	s := make([]string, len(l.Values))
	for i, n := range l.Values {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ",")
}

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

func (p *Pairs) Type() string { return "pp,tg" }

func (p *Pairs) String() string {
	s := make([]string, len(p.Values))
	for i, v := range p.Values {
		s[i] = fmt.Sprintf("%d,%d", v[0], v[1])
	}
	return strings.Join(s, " ")
}

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

// Bytes is a size in bytes: a number with a unit such as MB (1000²) or MiB (1024²), or
// without one. It is at most 1 EiB.
type Bytes int64

func (b *Bytes) Type() string   { return "size" }
func (b *Bytes) String() string { return strings.ReplaceAll(humanize.IBytes(uint64(*b)), " ", "") }

func (b *Bytes) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > 1<<60 {
		return fmt.Errorf("%q is not a size such as 512MiB or 2GiB", text)
	}
	*b = Bytes(n)
	return nil
}

// Models is a list of models. Each use adds one. A name may contain commas and
// spaces.
type Models []string

func (m *Models) Type() string   { return "model" }
func (m *Models) String() string { return strings.Join(*m, " ") }

func (m *Models) Set(text string) error {
	*m = append(*m, text)
	return nil
}

// Sources is a list of models. Each use adds to it.
type Sources []string

func (s *Sources) Type() string   { return "models" }
func (s *Sources) String() string { return strings.Join(*s, " ") }

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

func (d *Devices) Type() string   { return "devices" }
func (d *Devices) String() string { return strings.Join(*d, "/") }

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

func (s *Shares) Type() string { return "shares" }

func (s *Shares) String() string {
	parts := make([]string, len(*s))
	for i, share := range *s {
		parts[i] = strconv.FormatFloat(float64(share), 'g', -1, 32)
	}
	return strings.Join(parts, "/")
}

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
