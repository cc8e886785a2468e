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

// logSink is where the library's log goes. It is one per process, as the
// library's own setting is.
var logSink struct {
	sync.Mutex
	handler slog.Handler
	least   slog.Level      // that the handler gets
	reader  *Allocation     // of the call under way, which reads every line; nil between calls
	partial strings.Builder // a line whose end has not come yet
	level   slog.Level      // of the partial line
	recent  []string        // warnings and errors since takeRecent, at most recentMax
	kept    bool            // errors are kept for who asked; to the handler they are information
	warned  map[string]bool // warnings that the handler got, at most warnedMax
}

const (
	recentMax = 16
	warnedMax = 256
)

// SetLog sends every line that the library logs at level or above to h, with
// the attribute "source" = "libllama". A nil h discards them. A warning that was
// sent before is for debugging: the library repeats itself at every question. Lines arrive on
// any thread, one at a time; h must not call the library. Warnings and errors
// are also kept for the error of the call that they belong to. It may be called
// from any goroutine.
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
	default: // needed for errors, whatever h wants
		C.bl_log_level(C.GGML_LOG_LEVEL_WARN)
	}
	initLog()
}

var initLog = sync.OnceFunc(func() { C.bl_log_init() })

// readAllocation has a read what the library logs until stop is called, while
// one call that allocates is under way. Calls of several threads at once would
// be mixed up.
func readAllocation(a *Allocation) (stop func()) {
	set := func(a *Allocation) {
		logSink.Lock()
		defer logSink.Unlock()
		logSink.reader = a
		C.bl_log_all(C.bool(a != nil))
	}
	set(a)
	return func() { set(nil) }
}

// allocationSoFar is what the call under way has allocated.
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

// logLine takes one whole line; logSink is locked.
func logLine(line string) {
	if line == "" {
		return
	}
	if logSink.reader != nil {
		logSink.reader.read(line)
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
	_ = h.Handle(context.Background(), r) // nowhere to report a broken log to
}

// keepErrors has the handler get errors as information until stop is called: they
// are data of a call that goes on without what failed.
func keepErrors() (stop func()) {
	set := func(kept bool) {
		logSink.Lock()
		defer logSink.Unlock()
		logSink.kept = kept
	}
	set(true)
	return func() { set(false) }
}

// takeRecent returns the errors logged since it was last called.
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
