package fetch

import "time"

// SetPatience shortens the time-outs and waits of a client that a test talks to
// in real time.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }

// SetHarmless makes a queue's rate that of a run in miniature, in bytes per second.
func (q *Queue) SetHarmless(bytesPerSecond float64) { q.pace.harmless = bytesPerSecond }

// OnBackground runs f as a queue's downloads run.
func OnBackground(f func()) {
	b := startBackground()
	defer b.stop()
	b.run(f)
}

// WarmReader is Warm of an open file with a limit of time.
var WarmReader = warm
