package fetch

import (
	"context"
	"sync"
	"time"
)

// Gate holds downloads back: it pauses them, so that they keep off a running test. The zero Gate lets everything through, and so does a
// nil one. Its methods may be called from any goroutine.
type Gate struct {
	mu     sync.Mutex
	open   chan struct{} // closed by Resume; nil while open
	passed int64         // bytes
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

// wait returns when n more bytes may pass.
func (g *Gate) wait(ctx context.Context, n int) error {
	if g == nil {
		return context.Cause(ctx)
	}
	for {
		g.mu.Lock()
		open := g.open
		if open == nil {
			g.passed += int64(n)
		}
		g.mu.Unlock()
		if open == nil {
			return context.Cause(ctx)
		}
		select {
		case <-open:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
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
