package main

import (
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
)

// refreshEvery is the time between redraws. It is long, because every redraw may
// interrupt a CPU that the worker computes on.
const refreshEvery = time.Second

// liveLine is a line that is redrawn below the log on a terminal. Its methods may be
// called from any goroutine.
type liveLine struct {
	terminal io.Writer
	text     func() string // what the line says now

	mu     sync.Mutex
	ticker *time.Ticker
	quit   chan struct{}
	gone   sync.WaitGroup
}

// clearLine goes to the first column and erases from there down.
const clearLine = "\r\x1b[J"

func newLiveLine(terminal io.Writer, text func() string) *liveLine {
	l := &liveLine{terminal: terminal, text: text, ticker: time.NewTicker(refreshEvery), quit: make(chan struct{})}
	l.gone.Go(func() {
		for {
			select {
			case <-l.ticker.C:
				l.draw()
			case <-l.quit:
				return
			}
		}
	})
	return l
}

// draw redraws the line, cut to the terminal's width.
func (l *liveLine) draw() {
	line := l.line()
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.terminal, clearLine+line) // a failure means that the terminal is gone
}

func (l *liveLine) line() string { return text.Trim(l.text(), max(width(l.terminal)-1, 0)) }

// Write writes lines of the log above the live line.
func (l *liveLine) Write(b []byte) (int, error) {
	line := l.line()
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := io.WriteString(l.terminal, clearLine); err != nil {
		return 0, err
	}
	n, err := l.terminal.Write(b)
	if err == nil && strings.HasSuffix(string(b), "\n") {
		_, err = io.WriteString(l.terminal, line)
	}
	return n, err
}

// close removes the line.
func (l *liveLine) close() {
	l.ticker.Stop()
	close(l.quit)
	l.gone.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.terminal, clearLine)
}

// showLine shows a live line instead of the log, which then has warnings and errors only,
// if stderr is a terminal that can redraw it. hide ends it.
func (g *globalOptions) showLine(stderr io.Writer, text func() string) (hide func()) {
	if !moves(stderr) || g.quiet || g.still || g.logFormat != "text" {
		return func() {}
	}
	line, before := newLiveLine(stderr, text), slog.Default()
	slog.SetDefault(newLogger(line, g.logFormat, slog.LevelWarn, stderr))
	return func() {
		line.close()
		slog.SetDefault(before)
	}
}
