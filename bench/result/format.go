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

// FormatEstimate is an estimated number for people: three significant digits, because the
// interval of an estimate is never narrower than some per cent.
func FormatEstimate(v float64) string { return FormatDecimals(v, 10*v) }

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

// FormatBytesPerSecond is a rate of memory in decimal units: "61.30 GB/s".
func FormatBytesPerSecond(rate float64) string { return FormatRate(rate/1e9) + " GB/s" }

// FormatOpsPerSecond is a rate of arithmetic: "1.900 TFLOP/s", "310.0 GFLOP/s".
func FormatOpsPerSecond(rate float64) string {
	if rate >= 1e12 {
		return FormatRate(rate/1e12) + " TFLOP/s"
	}
	return FormatRate(rate/1e9) + " GFLOP/s"
}
