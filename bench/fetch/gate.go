package fetch

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Gate holds downloads back: it pauses them and limits their rate, so that they
// keep off a running test. The zero Gate lets everything through, and so does a
// nil one. Its methods may be called from any goroutine.
type Gate struct {
	mu      sync.Mutex
	open    chan struct{} // closed by Resume; nil while open
	limiter *rate.Limiter // nil without a limit
}

// Pause stops all downloads through the gate until Resume, after the buffer
// that each of them holds (at most bufferBytes). Their connections stay open
// for as long as the server lets them; a download whose connection was cut
// resumes where it was.
func (g *Gate) Pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		g.open = make(chan struct{})
	}
}

// Resume ends a pause.
func (g *Gate) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		close(g.open)
		g.open = nil
	}
}

// Limit sets how many bytes per second pass, all downloads together; 0 is no
// limit. It holds from the next buffer on.
func (g *Gate) Limit(bytesPerSecond float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limiter = nil
	if bytesPerSecond > 0 {
		g.limiter = rate.NewLimiter(rate.Limit(bytesPerSecond), bufferBytes)
		g.limiter.ReserveN(time.Now(), bufferBytes) // it starts empty: a repetition must not begin with a burst
	}
}

// wait returns when n more bytes, at most bufferBytes, may pass.
func (g *Gate) wait(ctx context.Context, n int) error {
	if g == nil {
		return context.Cause(ctx)
	}
	open, limiter := g.state()
	if limiter != nil {
		// Not WaitN: it refuses at once a wait that would end after the deadline.
		if err := sleep(ctx, limiter.ReserveN(time.Now(), n).Delay()); err != nil {
			return err
		}
	}
	for ; open != nil; open, _ = g.state() {
		select {
		case <-open:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return context.Cause(ctx)
}

func (g *Gate) state() (open <-chan struct{}, limiter *rate.Limiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.limiter
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
