package llamacpp

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
)

// LogLevel returns the lowest level of the library's log to show when a program
// shows its own from level on. What the library logs at info level is detail there.
func LogLevel(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelWarn
	}
	return level
}

// A Log passes the library's log on and lowers to debug level what says nothing new:
// expected warnings, and, once the engine is ready, errors, because the call that
// met them returns an error too.
type Log struct {
	slog.Handler
	ready *atomic.Bool
}

// NewLog returns a Log that writes to h.
func NewLog(h slog.Handler) Log { return Log{h, new(atomic.Bool)} }

// Ready notes that the engine is ready.
func (l Log) Ready() { l.ready.Store(true) }

// WithAttrs implements slog.Handler.
func (l Log) WithAttrs(a []slog.Attr) slog.Handler { return Log{l.Handler.WithAttrs(a), l.ready} }

// expected are parts of warnings that say nothing new: a model has no vocabulary, as
// synthetic ones have none; a decode was aborted; an RPC server has not the memory
// that was asked for to find its limit.
var expected = []string{"dummy tokens", "removing memory module entries", "ggml_backend_rpc_buffer_type_alloc_buffer"}

// Handle implements slog.Handler.
func (l Log) Handle(ctx context.Context, r slog.Record) error {
	says := func(text string) bool { return strings.Contains(r.Message, text) }
	if r.Level >= slog.LevelError && l.ready.Load() || slices.ContainsFunc(expected, says) {
		r.Level = slog.LevelDebug
	}
	return l.Handler.Handle(ctx, r)
}
