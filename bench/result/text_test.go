package result_test

import (
	"testing"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestTexts(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{result.Count(0, "thread"), "0 threads"},
		{result.Count(1, "thread"), "1 thread"},
		{result.Count(2, "thread"), "2 threads"},
		{result.FormatRate(43012.4), "43012"},
		{result.FormatRate(999.96), "1000.0"},
		{result.FormatRate(25), "25.00"},
		{result.FormatRate(0.00001234), "0.000012"},
		{result.FormatRate(0), "0.000000"},
		{result.FormatEstimate(9.2149), "9.21"},
		{result.FormatEstimate(1234.4), "1234"},
		{result.FormatEstimate(0.05123), "0.0512"},
		{result.FormatDecimals(0.5, 1000), "0"},
		{result.FormatDecimals(0.5, 25), "0.50"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}
