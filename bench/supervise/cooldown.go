package supervise

import (
	"context"
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
)

// CoolDown waits before tests so that each starts on a machine in the same state.
type CoolDown struct {
	For  time.Duration // the wait; with Back: the longest
	Back bool          // wait only until the temperature is back at the start's

	// Temperature reads the highest temperature of the machine in °C. ok is false if no
	// sensor is readable.
	Temperature func() (celsius float64, ok bool)

	start *float64 // temperature in °C at the start
	tests int      // for which Wait was called
}

const (
	coolDownLimit = 5 * time.Minute // of CoolDown.Back
	coolDownPoll  = time.Second
	// coolDownNear is how much warmer than at the start a machine may be, in °C. Sensors
	// step by 1 °C, and a machine in use does not return to its first value.
	coolDownNear = 2
)

// ParseCoolDown reads "temperature", or a time such as "30s".
func ParseCoolDown(text string) (CoolDown, error) {
	if text == "temperature" {
		return CoolDown{For: coolDownLimit, Back: true}, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return CoolDown{}, fmt.Errorf("%q is neither a time such as 30s nor the word temperature", text)
	}
	return CoolDown{For: d}, nil
}

// Start remembers the temperature before the first test. ok is false if it is needed
// and no sensor is readable.
func (c *CoolDown) Start() (ok bool) {
	c.start = c.read()
	return !c.Back || c.start != nil
}

// Wait waits, or returns early when ctx ends. It does not wait before the first test.
func (c *CoolDown) Wait(ctx context.Context) bench.CoolDownDone {
	began := time.Now()
	done := bench.CoolDownDone{From: c.read()}
	c.tests++
	if c.tests > 1 {
		c.wait(ctx, began.Add(c.For))
	}
	done.To, done.Elapsed = c.read(), time.Since(began)
	return done
}

func (c *CoolDown) wait(ctx context.Context, end time.Time) {
	for time.Now().Before(end) && !c.cool() {
		step := time.Until(end)
		if c.Back {
			step = min(step, coolDownPoll)
		}
		timer := time.NewTimer(step)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// cool tells whether the temperature is back.
func (c *CoolDown) cool() bool {
	if !c.Back {
		return false
	}
	now := c.read()
	return now == nil || c.start == nil || *now <= *c.start+coolDownNear
}

func (c *CoolDown) read() *float64 {
	if c.Temperature == nil {
		return nil
	}
	if t, ok := c.Temperature(); ok {
		return &t
	}
	return nil
}
