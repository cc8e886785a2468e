//go:build cgo

package llama

// #include "bridge.h"
import "C"

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// logSink receives the library's log. There is one per process, because the
// library has one log callback per process.
var logSink struct {
	sync.Mutex
	handler slog.Handler
	least   slog.Level      // lowest level that handler gets
	reader  *Allocation     // reads every line of an allocating call; nil between such calls
	changes []Change        // that the lines of this call report
	partial strings.Builder // start of a line whose end has not arrived
	level   slog.Level      // of the partial line
	recent  []string        // errors since takeRecent, at most recentMax
	kept    bool            // whether handler gets errors at level info (keepErrors)
	warned  map[string]bool // warnings that handler already got, at most warnedMax
}

const (
	recentMax = 16
	warnedMax = 256
)

// SetLog sends each line that the library logs at level or above to h, with the
// attribute source=libllama. A nil h discards the lines. A repeated warning
// arrives at level debug. Lines arrive on any thread, one at a time, and h must
// not call the library. Errors also become part of the Go error of the call that
// they belong to, whatever h is. SetLog may be called from any goroutine.
func SetLog(h slog.Handler, level slog.Level) {
	logSink.Lock()
	defer logSink.Unlock()
	if h != nil {
		h = h.WithAttrs([]slog.Attr{slog.String("source", "libllama")})
	}
	logSink.handler, logSink.least = h, level
	switch {
	case h != nil && level <= slog.LevelDebug:
		C.bl_log_level(C.GGML_LOG_LEVEL_DEBUG)
	case h != nil && level <= slog.LevelInfo:
		C.bl_log_level(C.GGML_LOG_LEVEL_INFO)
	default: // warnings and errors always arrive: Go errors need them
		C.bl_log_level(C.GGML_LOG_LEVEL_WARN)
	}
	initLog()
}

var initLog = sync.OnceFunc(func() { C.bl_log_init() })

// readAllocation makes a read all that the library logs until stop is called. stop
// returns the changes of settings that the library logged. Only one allocating call may
// run at a time: the log does not say which call a line belongs to.
func readAllocation(a *Allocation) (stop func() []Change) {
	set := func(a *Allocation) []Change {
		logSink.Lock()
		defer logSink.Unlock()
		changes := logSink.changes
		logSink.reader, logSink.changes = a, nil
		C.bl_log_all(C.bool(a != nil))
		return changes
	}
	set(a)
	return func() []Change { return set(nil) }
}

// allocationSoFar is a copy of what the running call has allocated; empty if none
// runs.
func allocationSoFar() Allocation {
	logSink.Lock()
	defer logSink.Unlock()
	if logSink.reader == nil {
		return Allocation{}
	}
	a := *logSink.reader
	a.Buffers, a.Layers, a.Cache = slices.Clone(a.Buffers), maps.Clone(a.Layers), maps.Clone(a.Cache)
	return a
}

//export goLog
func goLog(level C.int, text *C.char) {
	logSink.Lock()
	defer logSink.Unlock()
	if logSink.partial.Len() == 0 {
		logSink.level = slogLevel(level)
	}
	logSink.partial.WriteString(C.GoString(text))
	all := logSink.partial.String()
	end := strings.LastIndexByte(all, '\n')
	if end < 0 {
		return
	}
	logSink.partial.Reset()
	logSink.partial.WriteString(all[end+1:])
	for line := range strings.SplitSeq(all[:end], "\n") {
		logLine(strings.TrimRight(line, " \r"))
	}
	logSink.level = slogLevel(level)
}

// logLine handles one whole line. The caller holds the lock of logSink.
func logLine(line string) {
	if line == "" {
		return
	}
	if logSink.reader != nil {
		logSink.reader.read(line)
		logSink.changes = addChange(logSink.changes, line)
	}
	if logSink.level >= slog.LevelError {
		if len(logSink.recent) == recentMax {
			logSink.recent = logSink.recent[1:]
		}
		logSink.recent = append(logSink.recent, line)
	}
	h, level := logSink.handler, logSink.level
	if logSink.kept {
		level = min(level, slog.LevelInfo)
	}
	if level == slog.LevelWarn {
		if logSink.warned[line] {
			level = slog.LevelDebug
		} else if len(logSink.warned) < warnedMax {
			if logSink.warned == nil {
				logSink.warned = make(map[string]bool)
			}
			logSink.warned[line] = true
		}
	}
	if h == nil || level < logSink.least || !h.Enabled(context.Background(), level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, line, 0)
	_ = h.Handle(context.Background(), r) // a broken log cannot be reported
}

// keepErrors lowers errors to level info for the handler until stop is called. It
// is for calls that return such errors as data and go on.
func keepErrors() (stop func()) {
	set := func(kept bool) {
		logSink.Lock()
		defer logSink.Unlock()
		logSink.kept = kept
	}
	set(true)
	return func() { set(false) }
}

// takeRecent returns the errors logged since its last call.
func takeRecent() []string {
	logSink.Lock()
	defer logSink.Unlock()
	r := logSink.recent
	logSink.recent = nil
	return r
}

func slogLevel(level C.int) slog.Level {
	switch level {
	case C.GGML_LOG_LEVEL_ERROR:
		return slog.LevelError
	case C.GGML_LOG_LEVEL_WARN:
		return slog.LevelWarn
	case C.GGML_LOG_LEVEL_DEBUG:
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}
