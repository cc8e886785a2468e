package fetch

import "time"

// SetPatience shortens the time-outs and waits of a client that a test talks to
// in real time.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }

// Beside is the source of another file in the same place.
func (s Source) Beside(name string) Source { return s.beside(name) }

// OnBackground runs f as a queue's downloads run.
func OnBackground(f func()) {
	b := startBackground()
	defer b.stop()
	b.run(f)
}

// WarmReader is Warm of an open file with a limit of time.
var WarmReader = warm
