package commandline

import (
	"testing"
	"time"
)

func TestAge(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration // 0: refused
		as   string
	}{
		{"30d", 720 * time.Hour, "30d"},
		{"0.5d", 12 * time.Hour, "12h0m0s"},
		{"48h", 48 * time.Hour, "2d"},
		{"90m", 90 * time.Minute, "1h30m0s"},
		{"0d", 0, ""},
		{"-1d", 0, ""},
		{"0s", 0, ""},
		{"30", 0, ""},
		{"d", 0, ""},
		{"nand", 0, ""},
		{"infd", 0, ""},
		{"1e9d", 0, ""},
		{"30 d", 0, ""},
		{"", 0, ""},
	} {
		var a Age
		if err := a.Set(tt.text); (err == nil) != (tt.want > 0) || time.Duration(a) != tt.want || a.String() != tt.as {
			t.Errorf("%q is %v (%s), %v; want %v (%s)", tt.text, time.Duration(a), a.String(), err, tt.want, tt.as)
		}
	}
}
