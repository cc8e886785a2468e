package result

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Price is what a machine costs per hour, in any currency.
type Price struct {
	PerHour  float64 `json:"per_hour"`           // above 0
	Currency string  `json:"currency,omitempty"` // as it was given: "€", "USD"
}

// PowerPrice is what electricity costs per kilowatt-hour.
type PowerPrice struct {
	PerKWh   float64 `json:"per_kwh"` // above 0
	Currency string  `json:"currency,omitempty"`
}

// maxCurrency is the longest name of a currency, in bytes.
const maxCurrency = 8

// ParsePrice reads a price per hour: 0.53/h, €0.53/h, "0.53 USD/h".
func ParsePrice(text string) (Price, error) {
	amount, currency, err := parseAmount(text, "h", "a price per hour such as 0.53/h")
	return Price{amount, currency}, err
}

// ParsePowerPrice reads a price per kilowatt-hour: 0.30/kWh, "EUR 0.30/kWh".
func ParsePowerPrice(text string) (PowerPrice, error) {
	amount, currency, err := parseAmount(text, "kWh", "a price of electricity such as 0.30/kWh")
	return PowerPrice{amount, currency}, err
}

// parseAmount reads an amount above 0 with a currency on one of its sides, for a unit. what
// says what is wanted.
func parseAmount(text, unit, what string) (amount float64, currency string, err error) {
	bad := fmt.Errorf("%q is not %s", text, what)
	rest := strings.TrimSpace(text)
	slash := strings.LastIndexByte(rest, '/')
	if slash < 0 || !strings.EqualFold(strings.TrimSpace(rest[slash+1:]), unit) {
		return 0, "", bad
	}
	rest = strings.TrimSpace(rest[:slash])
	const digits = "0123456789.+-"
	i, j := strings.IndexAny(rest, digits), strings.LastIndexAny(rest, digits)
	if i < 0 {
		return 0, "", bad
	}
	before, number, after := strings.TrimSpace(rest[:i]), rest[i:j+1], strings.TrimSpace(rest[j+1:])
	if before != "" && after != "" {
		return 0, "", fmt.Errorf("%q has two currencies", text)
	}
	currency = before + after
	amount, err = strconv.ParseFloat(number, 64)
	var failed *strconv.NumError
	switch {
	case errors.As(err, &failed) && errors.Is(failed.Err, strconv.ErrRange):
		return 0, "", fmt.Errorf("%q is too large", text)
	case err != nil, strings.ContainsAny(number, "xXpP_"): // Go's other numbers
		return 0, "", bad
	case !(amount > 0):
		return 0, "", fmt.Errorf("%q is not above 0", text)
	case math.IsInf(amount*1e6, 0) || math.IsInf(1/amount, 0):
		return 0, "", fmt.Errorf("%q is no price", text)
	case len(currency) > maxCurrency || !utf8.ValidString(currency) || strings.ContainsFunc(currency, noCurrency):
		return 0, "", fmt.Errorf("%q has no currency such as € or USD", text)
	}
	return amount, currency, nil
}

// noCurrency tells whether a name of a currency cannot have the character.
func noCurrency(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`/,;="'`, r) }

func (p Price) String() string { return amount(p.PerHour, p.Currency) + "/h" }

func (p PowerPrice) String() string { return amount(p.PerKWh, p.Currency) + "/kWh" }

// amount is an amount with all its digits.
func amount(x float64, currency string) string {
	return strings.TrimSpace(strconv.FormatFloat(x, 'f', -1, 64) + " " + currency)
}

// PerMillion is what a million tokens cost at a speed in tokens per second, if the
// machine does nothing else: price per hour · 10⁶ / (3600 · speed).
func (p Price) PerMillion(tokensPerSecond float64) float64 {
	return p.PerHour * 1e6 / (3600 * tokensPerSecond)
}

// PerMillion is what the electricity of a million tokens costs: J/token · 10⁶ / 3.6·10⁶ J
// per kWh · price.
func (p PowerPrice) PerMillion(joulesPerToken float64) float64 {
	return joulesPerToken / 3.6 * p.PerKWh
}

// Prices are what a machine costs. Nil: not known.
type Prices struct {
	Machine     *Price      `json:"machine,omitempty"`
	Electricity *PowerPrice `json:"electricity,omitempty"` // in addition to Machine
}

// ErrCurrencies says that the prices of a machine and of its electricity cannot be added.
var ErrCurrencies = errors.New("the machine and its electricity have prices in different currencies")

// Currency is that of all prices. One that names none has that of the other. The error is
// ErrCurrencies.
func (p *Prices) Currency() (string, error) {
	var currency string
	if p.Machine != nil {
		currency = p.Machine.Currency
	}
	if e := p.Electricity; e != nil && e.Currency != "" {
		if currency != "" && currency != e.Currency {
			return "", fmt.Errorf("%w: %s and %s", ErrCurrencies, currency, e.Currency)
		}
		currency = e.Currency
	}
	return currency, nil
}

// CostOf are texts of what times of the machine cost; none without its price.
func (p *Prices) CostOf(times ...time.Duration) (texts []any) {
	if p == nil || p.Machine == nil {
		return nil
	}
	for _, t := range times {
		texts = append(texts, strings.TrimSpace(FormatRate(p.Machine.PerHour*t.Hours())+" "+p.Machine.Currency))
	}
	return texts
}

// Cost is what a million tokens of a test cost. Prices are those of the run, or those that
// a report was given.
type Cost struct {
	Currency      string   `json:"currency,omitempty"`                // as it was given
	PerHour       *float64 `json:"machine_per_hour,omitempty"`        // price of the machine
	PerKWh        *float64 `json:"electricity_per_kwh,omitempty"`     // price of electricity
	Tokens        string   `json:"tokens"`                            // "prompt", "generated", or "prompt and generated" together
	PerMillion    float64  `json:"per_million"`                       // of these tokens; the sum of the two below
	Machine       *float64 `json:"machine_per_million,omitempty"`     // at the median speed, if the machine does nothing else
	Electricity   *float64 `json:"electricity_per_million,omitempty"` // absent: its price or the energy is not known
	ElectricityOf []string `json:"electricity_of,omitempty"`          // parts of the machine whose energy is known
}

// Cost returns what a million tokens of a test cost at its median speed; nil: not known.
// e may be nil.
func (p *Prices) Cost(t Test, tokensPerSecond float64, e *Energy) *Cost {
	if p == nil || !(tokensPerSecond > 0) {
		return nil
	}
	currency, err := p.Currency()
	if err != nil {
		return nil
	}
	c := &Cost{Currency: currency, Tokens: "prompt and generated"}
	switch {
	case t.Gen == 0:
		c.Tokens = "prompt"
	case t.Prompt == 0:
		c.Tokens = "generated"
	}
	if m := p.Machine; m != nil {
		c.PerHour, c.Machine = new(m.PerHour), new(m.PerMillion(tokensPerSecond))
		c.PerMillion += *c.Machine
	}
	if w := p.Electricity; w != nil {
		c.PerKWh = new(w.PerKWh)
		if joules, of := e.Whole(); len(of) > 0 {
			c.Electricity, c.ElectricityOf = new(w.PerMillion(joules)), of
			c.PerMillion += *c.Electricity
		}
	}
	if c.Machine == nil && c.Electricity == nil || math.IsInf(c.PerMillion, 0) {
		return nil
	}
	return c
}

// Prices are those that the cost was computed from.
func (c *Cost) Prices() (p Prices) {
	if c == nil {
		return p
	}
	if c.PerHour != nil {
		p.Machine = &Price{*c.PerHour, c.Currency}
	}
	if c.PerKWh != nil {
		p.Electricity = &PowerPrice{*c.PerKWh, c.Currency}
	}
	return p
}

// String is the cost of a million tokens with its currency: "0.4212 EUR".
func (c *Cost) String() string { return strings.TrimSpace(FormatRate(c.PerMillion) + " " + c.Currency) }

// Sentence says what a million tokens cost: "1 M generated tokens cost 0.42 EUR (0.06 EUR of
// it electricity)".
func (c *Cost) Sentence() string {
	money := func(x float64) string { return strings.TrimSpace(FormatRate(x) + " " + c.Currency) }
	of := ""
	switch {
	case c.Machine == nil:
		of = " of electricity"
	case c.Electricity != nil:
		of = fmt.Sprintf(" (%s of it electricity)", money(*c.Electricity))
	}
	return fmt.Sprintf("1 M %s tokens cost %s%s", c.Tokens, money(c.PerMillion), of)
}
