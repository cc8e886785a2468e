package result

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Price is what a machine costs per hour, in any currency.
type Price struct {
	PerHour  float64 `json:"per_hour"`           // above 0
	Currency string  `json:"currency,omitempty"` // as it was given: "€", "USD"
}

// maxCurrency is the longest name of a currency, in bytes.
const maxCurrency = 8

// ParsePrice reads a price per hour: 0.53/h, €0.53/h, "0.53 USD/h".
func ParsePrice(text string) (p Price, err error) {
	amount, ok := strings.CutSuffix(strings.TrimSpace(text), "/h")
	if !ok {
		return p, fmt.Errorf("%q is not a price per hour such as 0.53/h", text)
	}
	const digits = "0123456789.+-"
	amount = strings.TrimSpace(amount)
	number := strings.Trim(amount, " ")
	if i, j := strings.IndexAny(amount, digits), strings.LastIndexAny(amount, digits); i >= 0 {
		before, after := strings.TrimSpace(amount[:i]), strings.TrimSpace(amount[j+1:])
		number, p.Currency = amount[i:j+1], before+after
		if before != "" && after != "" {
			return Price{}, fmt.Errorf("%q has two currencies", text)
		}
	}
	p.PerHour, err = strconv.ParseFloat(number, 64)
	switch {
	case err != nil:
		return Price{}, fmt.Errorf("%q is not a price per hour such as 0.53/h", text)
	case !(p.PerHour > 0) || math.IsInf(p.PerHour, 0):
		return Price{}, fmt.Errorf("%q is not above 0", text)
	case len(p.Currency) > maxCurrency || !utf8.ValidString(p.Currency) || strings.ContainsFunc(p.Currency, func(r rune) bool { return r < ' ' }):
		return Price{}, fmt.Errorf("%q has no currency such as € or USD", text)
	}
	return p, nil
}

// PerMillion is what a million tokens cost at a speed in tokens per second, if the
// machine does nothing else: price per hour · 10⁶ / (3600 · speed).
func (p Price) PerMillion(tokensPerSecond float64) float64 {
	return p.PerHour * 1e6 / (3600 * tokensPerSecond)
}
