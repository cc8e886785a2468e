package fetch

import (
	"time"

	"github.com/gofrs/flock"
)

// NewTransport is newTransport.
var NewTransport = newTransport

// Lock is lock.
var Lock = lock

// SetTryLock replaces the attempt to take a lock, until the returned function is called.
func SetTryLock(f func(*flock.Flock) (bool, error)) (restore func()) {
	before := tryLock
	tryLock = f
	return func() { tryLock = before }
}

// SetPatience shortens the time-outs and waits of a client in a test that runs in
// real time.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }

// OnBackground runs f as a queue runs downloads that nobody waits for.
func OnBackground(f func()) {
	b := startBackground()
	defer b.stop()
	b.run(f)
}

// ReadInReader is ReadIn for an open file, with a time limit.
var ReadInReader = readIn
