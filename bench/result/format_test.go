package result_test

import (
	"testing"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestFormatRate(t *testing.T) {
	for _, test := range []struct {
		rate float64
		want string
	}{
		{0, "0.000000"}, {0.0123456, "0.01235"}, {3.14159, "3.142"}, {366.06, "366.1"}, {4301.2, "4301"}, {43010.4, "43010"}, {1.5e7, "15000000"},
	} {
		if got := result.FormatRate(test.rate); got != test.want {
			t.Errorf("%g: %s, want %s", test.rate, got, test.want)
		}
	}
	if got := result.FormatDecimals(1234.567, 45.6); got != "1234.57" {
		t.Errorf("decimals: %s", got)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 threads", 1: "1 thread", 2: "2 threads"} {
		if got := result.Count(n, "thread"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
