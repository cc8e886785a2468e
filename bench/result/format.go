package result

import (
	"math"
	"strconv"
)

// FormatRate is a number of tokens per second for people: four significant digits, at
// most six decimals, and no exponent. A number from 10000 on has all its digits.
func FormatRate(tokensPerSecond float64) string {
	return FormatDecimals(tokensPerSecond, tokensPerSecond)
}

// FormatDecimals is v with as many decimals as FormatRate gives to reference.
func FormatDecimals(v, reference float64) string {
	digits := 6
	if reference > 0 {
		digits = min(6, max(0, 3-int(math.Floor(math.Log10(reference)))))
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// Count is a number with its noun, in the plural unless n is 1: "1 thread", "2 threads".
func Count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
