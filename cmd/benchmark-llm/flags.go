package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// onceFlag is the value of a flag that may be given once. Giving the same value again
// is no mistake.
type onceFlag struct {
	pflag.Value
	given bool
}

// errTwice is the error of a flag that was given twice with different values.
type errTwice struct{ first, second string }

func (e *errTwice) Error() string { return fmt.Sprintf("given twice, as %s and %s", e.first, e.second) }

func (o *onceFlag) Set(text string) error {
	before := o.String()
	if err := o.Value.Set(text); err != nil {
		return err
	}
	if now := o.String(); o.given && now != before {
		return &errTwice{strconv.Quote(before), strconv.Quote(now)}
	}
	o.given = true
	return nil
}

// adds tells whether each use of a flag adds to its value.
func adds(v pflag.Value) bool {
	switch v.(type) {
	case *lengthsFlag, *pairsFlag, *modelsFlag, *sourcesFlag, *rpcFlag, pflag.SliceValue:
		return true
	default:
		return false
	}
}

// setOnce makes the flags of a command and of its subcommands refuse a second value,
// unless they add. The last value would silently win.
func setOnce(c *cobra.Command) {
	once := func(f *pflag.Flag) {
		if _, done := f.Value.(*onceFlag); !done && !adds(f.Value) { // commands share flags
			f.Value = &onceFlag{Value: f.Value}
		}
	}
	c.Flags().VisitAll(once)
	c.PersistentFlags().VisitAll(once)
	for _, sub := range c.Commands() {
		setOnce(sub)
	}
}

// lengthsFlag is a list of lengths in tokens in llama-bench's syntax: numbers
// separated by commas, ranges first-last, first-last+step, first-last*factor. The
// first use replaces the default, later ones add to it.
type lengthsFlag struct {
	values  []int
	changed bool
}

func (l *lengthsFlag) Type() string { return "tokens" }

func (l *lengthsFlag) String() string {
	s := make([]string, len(l.values))
	for i, n := range l.values {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ",")
}

func (l *lengthsFlag) Set(text string) error {
	values, err := suite.ParseLengths(text)
	if err != nil {
		return err
	}
	if !l.changed {
		l.values = nil
	}
	l.values, l.changed = append(l.values, values...), true
	return nil
}

// pairsFlag is a list of prompt and generation lengths. Each use adds a pair.
type pairsFlag struct{ values [][2]int }

func (p *pairsFlag) Type() string { return "pp,tg" }

func (p *pairsFlag) String() string {
	s := make([]string, len(p.values))
	for i, v := range p.values {
		s[i] = fmt.Sprintf("%d,%d", v[0], v[1])
	}
	return strings.Join(s, " ")
}

func (p *pairsFlag) Set(text string) error {
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
	p.values = append(p.values, [2]int{a, b})
	return nil
}

// modelsFlag is a list of models. Each use adds one. A name may contain commas and
// spaces.
type modelsFlag []string

func (m *modelsFlag) Type() string   { return "model" }
func (m *modelsFlag) String() string { return strings.Join(*m, " ") }

func (m *modelsFlag) Set(text string) error {
	*m = append(*m, text)
	return nil
}

// sourcesFlag is a list of models. Each use adds to it.
type sourcesFlag []string

func (s *sourcesFlag) Type() string   { return "models" }
func (s *sourcesFlag) String() string { return strings.Join(*s, " ") }

func (s *sourcesFlag) Set(text string) error {
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

// devicesFlag is a list of device names.
type devicesFlag []string

func (d *devicesFlag) Type() string   { return "devices" }
func (d *devicesFlag) String() string { return strings.Join(*d, "/") }

func (d *devicesFlag) Set(text string) error {
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

// sharesFlag is a list of shares of the model, one per device.
type sharesFlag []float32

func (s *sharesFlag) Type() string { return "shares" }

func (s *sharesFlag) String() string {
	parts := make([]string, len(*s))
	for i, share := range *s {
		parts[i] = strconv.FormatFloat(float64(share), 'g', -1, 32)
	}
	return strings.Join(parts, "/")
}

func (s *sharesFlag) Set(text string) error {
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

// rpcFlag is a list of RPC servers, HOST:PORT separated by commas. Each use adds to
// it.
type rpcFlag []string

func (r *rpcFlag) Type() string   { return "servers" }
func (r *rpcFlag) String() string { return strings.Join(*r, ",") }

func (r *rpcFlag) Set(text string) error {
	servers := slices.Concat(*r, strings.Split(text, ","))
	if err := llamacpp.ParseRPC(servers); err != nil {
		return err
	}
	*r = servers
	return nil
}

const rpcUsage = "RPC `servers` that provide more devices, as host:50052,…"
