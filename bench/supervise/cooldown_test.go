package supervise

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseCoolDown(t *testing.T) {
	for text, want := range map[string]CoolDown{
		"30s":         {For: 30 * time.Second},
		"0s":          {},
		"temperature": {For: 5 * time.Minute, Back: true},
	} {
		got, err := ParseCoolDown(text)
		if err != nil || got.For != want.For || got.Back != want.Back {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1s", "30", "cold", "temperature 30s"} {
		if got, err := ParseCoolDown(text); err == nil {
			t.Errorf("%q is %+v, want an error", text, got)
		}
	}
}

// The machine warms to hot in each test and cools by a degree each second.
func TestCoolDownWaits(t *testing.T) {
	for name, tt := range map[string]struct {
		cool   CoolDown
		hot    float64 // after a test, in °C; 0: no sensor
		starts bool
		want   time.Duration // before the second test
	}{
		"a time":                {CoolDown{For: 30 * time.Second}, 90, true, 30 * time.Second},
		"a time, no sensor":     {CoolDown{For: 30 * time.Second}, 0, true, 30 * time.Second},
		"back":                  {CoolDown{For: 5 * time.Minute, Back: true}, 90, true, 48 * time.Second}, // to 42 °C
		"already cool":          {CoolDown{For: 5 * time.Minute, Back: true}, 41, true, 0},
		"never cool":            {CoolDown{For: 5 * time.Minute, Back: true}, 900, true, 5 * time.Minute},
		"back, but no sensor":   {CoolDown{For: 5 * time.Minute, Back: true}, 0, false, 0},
		"no time, but a sensor": {CoolDown{}, 90, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				celsius, since := 40.0, time.Now()
				c := tt.cool
				c.Temperature = func() (float64, bool) {
					return max(40, celsius-time.Since(since).Seconds()), tt.hot > 0
				}
				if got := c.Start(); got != tt.starts {
					t.Fatalf("Start is %v", got)
				}
				if done := c.Wait(t.Context()); done.Elapsed != 0 {
					t.Errorf("waited %v before the first test", done.Elapsed)
				}
				celsius, since = tt.hot, time.Now()
				done := c.Wait(t.Context())
				if done.Elapsed != tt.want {
					t.Errorf("waited %v, want %v", done.Elapsed, tt.want)
				}
				if known := tt.hot > 0; (done.From != nil) != known || (done.To != nil) != known {
					t.Errorf("temperatures %v and %v", done.From, done.To)
				}
			})
		})
	}
}

// A run that is stopped does not wait on.
func TestCoolDownEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := CoolDown{For: time.Hour}
		c.Start()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		c.Wait(ctx)
		if done := c.Wait(ctx); done.Elapsed != 3*time.Second {
			t.Errorf("waited %v after the end of the run", done.Elapsed)
		}
	})
}
