package result

import (
	"fmt"
	"math"
	"strconv"
)

// Count is a number of things in words: "1 thread", "2 threads".
func Count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// FormatRate is a rate, or another positive number, in at least four significant
// digits, and never with an exponent.
func FormatRate(v float64) string { return FormatLike(v, v) }

// FormatLike is v with as many decimals as FormatRate gives reference.
func FormatLike(v, reference float64) string {
	digits := 6
	if reference > 0 {
		digits = min(6, max(0, 3-int(math.Floor(math.Log10(reference)))))
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}
