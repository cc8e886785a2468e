package commandline

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// PriceFlags are the prices of a machine and of its electricity, or of the machines of
// several sides.
type PriceFlags struct{ machine, electricity prices }

// prices are the values of one flag, by the label of a side; empty: of all other sides.
type prices struct {
	texts  []string // as given
	labels []string // of texts
	set    func(p *result.Prices, text string) error
	sides  bool // labels are allowed
}

// Type is the placeholder in the help.
func (*prices) Type() string     { return "price" }
func (p *prices) String() string { return strings.Join(p.texts, " ") }

// Adds says that each use adds to the list.
func (*prices) Adds() {}

// Set takes the text of one use of the flag: PRICE, or LABEL=PRICE.
func (p *prices) Set(text string) error {
	label, price := "", text
	if i := strings.LastIndexByte(text, '='); i >= 0 && p.sides {
		label, price = text[:i], text[i+1:]
	}
	if err := p.set(new(result.Prices), price); err != nil {
		return err
	}
	if i := slices.Index(p.labels, label); i >= 0 {
		if p.texts[i] != text {
			return errTwice
		}
		return nil
	}
	p.texts, p.labels = append(p.texts, text), append(p.labels, label)
	return nil
}

// of sets the price of a side.
func (p *prices) of(label string, to *result.Prices) {
	i := slices.Index(p.labels, label)
	if i < 0 {
		i = slices.Index(p.labels, "")
	}
	if i >= 0 {
		_ = p.set(to, p.texts[i][strings.LastIndexByte(p.texts[i], '=')+1:]) // Set has read it
	}
}

// Register defines the flags. sides: LABEL=PRICE gives the price of one side.
func (p *PriceFlags) Register(f *pflag.FlagSet, sides bool) {
	what := " or \"0.53 EUR/h\": adds the cost of a million tokens"
	if sides {
		what = ", or LABEL=0.53/h: adds the cost of tokens; repeatable"
	}
	p.machine.sides, p.electricity.sides = sides, sides
	p.RegisterMachine(f, what)
	p.electricity.set = func(to *result.Prices, text string) error {
		price, err := result.ParsePowerPrice(text)
		to.Electricity = &price
		return err
	}
	f.Var(&p.electricity, "power-price", "`price` of electricity, as 0.30/kWh: adds its cost, if the machine tells its energy")
}

// RegisterMachine defines the price of the machine alone. what follows its text.
func (p *PriceFlags) RegisterMachine(f *pflag.FlagSet, what string) {
	p.machine.set = func(to *result.Prices, text string) error {
		price, err := result.ParsePrice(text)
		to.Machine = &price
		return err
	}
	f.Var(&p.machine, "price", "`price` of the machine per hour, as 0.53/h"+what)
}

// Prices returns the prices of a machine; nil: none was given. The error is a Mistake.
func (p *PriceFlags) Prices() (*result.Prices, error) { return p.side("") }

func (p *PriceFlags) side(label string) (*result.Prices, error) {
	var of result.Prices
	p.machine.of(label, &of)
	p.electricity.of(label, &of)
	if of == (result.Prices{}) {
		return nil, nil //nolint:nilnil // as documented
	}
	if _, err := of.Currency(); err != nil {
		return nil, mistake("give both in one currency", "--power-price: %w", err)
	}
	return &of, nil
}

// Sides returns the prices of sides with these labels. nil: none was given for a side. The
// error, about a label that no side has, is a Mistake.
func (p *PriceFlags) Sides(labels []string) (all []*result.Prices, err error) {
	for _, flag := range []struct {
		name   string
		labels []string
	}{{"--price", p.machine.labels}, {"--power-price", p.electricity.labels}} {
		for _, label := range flag.labels {
			if label != "" && !slices.Contains(labels, label) {
				return nil, mistake("the sides are "+strings.Join(labels, ", "), "%s: no side is called %q", flag.name, label)
			}
		}
	}
	for _, label := range labels {
		of, err := p.side(label)
		if err != nil {
			return nil, err
		}
		all = append(all, of)
	}
	return all, nil
}
