package commandline

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Age is a time of days, as 30d, or one as 12h. It is above 0 once it is set.
type Age time.Duration

// Type names the value in help.
func (a *Age) Type() string { return "time" }

func (a *Age) String() string {
	const day = Age(24 * time.Hour)
	switch {
	case *a == 0:
		return ""
	case *a%day == 0:
		return strconv.FormatInt(int64(*a/day), 10) + "d"
	}
	return time.Duration(*a).String()
}

// Set takes a text apart.
func (a *Age) Set(text string) error {
	var d time.Duration
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if d = time.Duration(n * float64(24*time.Hour)); err != nil || math.IsNaN(n) || n > 36500 {
			d = 0
		}
	} else if parsed, err := time.ParseDuration(text); err == nil {
		d = parsed
	}
	if d <= 0 {
		return fmt.Errorf("%q is not a time such as 30d or 12h", text)
	}
	*a = Age(d)
	return nil
}
