package fetch

import (
	"context"
	"sync"
	"time"
)

// Gate pauses downloads, to keep them off a running test. The zero Gate and a nil
// Gate are open. Its methods may be called from any goroutine.
type Gate struct {
	mu     sync.Mutex
	open   chan struct{} // nil while the gate is open, else closed by Resume
	passed int64         // bytes that passed so far
}

// Pause stops all downloads through the gate until Resume. Each of them still
// finishes its current buffer of at most bufferBytes. Connections stay open as long
// as the server allows. A download whose connection was closed continues where it
// stopped.
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

// wait returns when n more bytes may pass. The error is the cause of ctx.
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

// sleep waits for d. The error is the cause of ctx, if that ends first.
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
