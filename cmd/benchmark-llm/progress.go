package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// progress consumes the events and outcomes of a run and shows them: a log line for
// every step and, on a terminal, the live line below the log.
type progress struct {
	threads  int
	runEnds  time.Time                       // zero: no limit
	fetching func() (acquire.Download, bool) // the download under way
	noLoad   bool                            // the model was not loaded
	several  bool                            // the run has several models
	skipped  notRun                          // not logged yet
	stopping bool                            // the test under way is being stopped
	loading  time.Time                       // when the load began, or its progress was last logged

	mu       sync.Mutex
	model    string // under way
	weights  result.Weights
	test     bench.TestStarted
	deadline time.Time // of the test; zero: none
	state    string    // "repetition 2/5  366.1 t/s"

	live   *liveLine // nil when stderr is no terminal
	before *slog.Logger
	closed sync.Once
}

// loadLogEvery is the least time between log lines about a load's progress.
const loadLogEvery = 10 * time.Second

// newProgress shows the live line only on a terminal that can redraw it, and never
// between lines of JSON.
func newProgress(stderr io.Writer, threads int, runEnds time.Time, fetching func() (acquire.Download, bool), g *globalOptions) *progress {
	p := &progress{threads: threads, runEnds: runEnds, fetching: fetching, state: "starting"}
	if !moves(stderr) || g.quiet || g.logFormat != "text" {
		return p
	}
	p.live = newLiveLine(stderr, p.line)
	p.before = slog.Default()
	level, _ := g.level() // it was checked when the command began
	slog.SetDefault(newLogger(p.live, g.logFormat, level, color(stderr)))
	return p
}

func (p *progress) redraw() {
	if p.live != nil {
		p.live.draw()
	}
}

// line is the text of the live line.
func (p *progress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := oneLine(p.state)
	if !p.deadline.IsZero() {
		s += fmt.Sprintf("  %s left", max(time.Until(p.deadline), 0).Round(time.Second))
	}
	if !p.runEnds.IsZero() {
		s += fmt.Sprintf("  run %s left", max(time.Until(p.runEnds), 0).Round(time.Second))
	}
	if d, ok := p.fetching(); ok {
		s += "  " + downloadText(d)
	}
	return s
}

// downloadText describes the download under way.
func downloadText(d acquire.Download) string {
	text := fmt.Sprintf("downloading %s %d %%", oneLine(d.Name), d.Done*100/max(d.Total, 1))
	if d.Paused {
		return text + " (paused)"
	}
	return text + fmt.Sprintf(" %s/s", humanize.IBytes(uint64(max(d.BytesPerSecond, 0))))
}

func (p *progress) set(format string, args ...any) {
	p.mu.Lock()
	p.state = fmt.Sprintf(format, args...)
	p.mu.Unlock()
	p.redraw()
}

// stage shows how far the test under way is. A test that is being stopped may still
// send such events; they are not shown.
func (p *progress) stage(format string, args ...any) {
	if !p.stopping {
		p.set(format, args...)
	}
}

// step logs a step at debug level if the live line shows it.
func (p *progress) step(message string, args ...any) {
	level := slog.LevelInfo
	if p.live != nil {
		level = slog.LevelDebug
	}
	slog.Log(context.Background(), level, message, args...)
}

// notRun are tests of one model that were not run for one reason. They share a log
// line.
type notRun struct {
	model, reason string
	status        result.Status
	tests         []string
}

// flush logs the tests that were not run.
func (p *progress) flush() {
	n := p.skipped
	p.skipped = notRun{}
	if len(n.tests) == 0 {
		return
	}
	level := slog.LevelWarn
	if p.noLoad && !p.several || n.status == result.Aborted {
		level = slog.LevelDebug // the error at the end says it
	}
	slog.Log(context.Background(), level, "tests not run", "model", n.model, "tests", strings.Join(n.tests, " "), "status", n.status, "reason", n.reason)
}

// Event shows one event.
func (p *progress) Event(s bench.Stamped) error {
	if _, skip := s.Event.(bench.TestSkipped); !skip {
		p.flush()
	}
	switch e := s.Event.(type) {
	case bench.EngineReady:
		on := e.Facts.CPUInfo
		if e.Facts.GPUInfo != "" {
			on = e.Facts.GPUInfo
		}
		slog.Info("engine ready", "backends", e.Facts.Backends, "device", on, "cpu_variant", e.Facts.CPUVariant, "threads", p.threads)
		logWithoutCUDA(e.Facts.WithoutCUDA())
	case bench.WaitStarted:
		p.set("waiting for %s", e.Model)
		p.step("waiting for model file", "model", e.Model)
	case bench.WaitDone:
		if e.Status != result.OK {
			slog.Warn("no model file", "model", e.Model, "status", e.Status, "reason", e.Reason)
		} else if e.Elapsed > time.Second {
			slog.Info("model file ready", "model", e.Model, "took", e.Elapsed.Round(time.Second))
		}
	case bench.WarmDone:
		p.step("model file in memory", "model", e.Model, "size", humanize.IBytes(uint64(e.Bytes)), "took", e.Elapsed.Round(time.Millisecond))
	case bench.LoadStarted:
		p.mu.Lock()
		p.model, p.weights, p.noLoad = e.Model.Name, e.Model.Weights, false
		p.mu.Unlock()
		p.loading = time.Now()
		p.set("loading %s", e.Model.Name)
	case bench.LoadProgress:
		if now := time.Now(); p.live == nil && now.Sub(p.loading) >= loadLogEvery {
			p.loading = now
			slog.Info("loading model", "model", p.model, "percent", fmt.Sprintf("%.0f", e.Share*100))
		}
		p.set("loading %s  %.0f %%", p.model, e.Share*100)
	case bench.LoadDone:
		if p.noLoad = e.Status != result.OK; !p.noLoad {
			slog.Info("model loaded", "model", p.model, "weights", p.weights, "type", e.Facts.Type,
				"size", humanize.IBytes(e.Facts.SizeBytes), "took", e.Elapsed.Round(time.Millisecond))
		}
	case bench.PrecompileStarted:
		p.set("%s  precompiling", p.model)
		p.step("precompiling", "model", p.model, "shapes", len(e.Shapes))
	case bench.PrecompileDone:
		if e.Status != result.OK {
			slog.Warn("precompiling did not complete", "model", p.model, "status", e.Status, "reason", e.Reason)
		} else {
			slog.Info("precompiled", "model", p.model, "took", e.Elapsed.Round(time.Millisecond))
		}
	case bench.TestStarted:
		p.mu.Lock()
		p.test, p.deadline, p.stopping = e, time.Time{}, false
		if e.Budget > 0 {
			p.deadline = time.Now().Add(e.Budget)
		}
		p.mu.Unlock()
		p.set("%v  preparing", e.Test)
		budget := "none"
		if e.Budget > 0 {
			budget = e.Budget.Round(time.Second).String()
		}
		args := []any{"test", e.Test, "repetitions", e.Repetitions, "budget", budget}
		if e.Reason != "" {
			args = append(args, "decision", e.Reason)
		}
		if len(e.Done) > 0 {
			args = append(args, "completed", len(e.Done))
		}
		p.step("test started", args...)
	case bench.ContextReady:
		p.stage("%v  warming up", p.test.Test)
	case bench.WarmupDone:
		p.stage("%v  repetition %d/%d", p.test.Test, min(len(p.test.Done)+1, p.test.Repetitions), p.test.Repetitions)
	case bench.RepetitionDone:
		rate := p.test.Test.TokensPerSecond(e.Sample.Elapsed)
		n := e.Sample.Repetition
		p.step("repetition done", "test", p.test.Test, "repetition", fmt.Sprintf("%d/%d", n, p.test.Repetitions), "t/s", fmt.Sprintf("%.2f", rate))
		p.stage("%v  repetition %d/%d  %.2f t/s", p.test.Test, min(n+1, p.test.Repetitions), p.test.Repetitions, rate)
	case bench.AbortRequested:
		if e.Stopped {
			slog.Info("repeating the repetition, because the process was stopped", "test", p.test.Test)
			break
		}
		p.set("%v  stopping", p.test.Test)
		p.stopping = true
		slog.Debug("stopping test", "test", p.test.Test, "reason", e.Reason) // its outcome is logged too
	case bench.Continued:
		p.mu.Lock()
		if !p.deadline.IsZero() {
			p.deadline = p.deadline.Add(e.Stopped)
		}
		p.mu.Unlock()
		slog.Info("continued", "stopped", e.Stopped.Round(time.Millisecond)) // the live line is drawn again below it
	case bench.WorkerLost:
		p.set("the worker was lost")
		slog.Debug("worker lost", "reason", e.Reason) // a retry and the outcome are logged too
	}
	return nil
}

// Outcome shows the outcome of a test.
func (p *progress) Outcome(o *result.Outcome) error {
	p.mu.Lock()
	p.deadline = time.Time{}
	p.mu.Unlock()
	if o.Status != result.OK && len(o.Samples) == 0 && p.test.Test != o.Test {
		if n := &p.skipped; n.model != o.Model || n.status != o.Status || n.reason != o.Reason {
			p.flush()
			*n = notRun{model: o.Model, status: o.Status, reason: o.Reason}
		}
		p.skipped.tests = append(p.skipped.tests, o.Test.String())
		return nil
	}
	p.flush()
	p.test = bench.TestStarted{}
	if o.Status != result.OK {
		level := slog.LevelWarn
		if p.noLoad || o.Status == result.Aborted && len(o.Samples) == 0 {
			level = slog.LevelDebug // the same for every later test; the error at the end says it
		}
		slog.Log(context.Background(), level, "test did not complete",
			"test", o.Test, "status", o.Status, "reason", o.Reason, "completed", len(o.Samples))
		return nil
	}
	rate := fmt.Sprintf("%.2f", o.Record.AvgTS)
	if len(o.Samples) > 1 {
		rate += fmt.Sprintf(" ± %.2f", o.Record.StddevTS)
	}
	slog.Info("test done", "test", o.Test, "t/s", rate)
	for _, w := range o.Warnings {
		if w.Code != result.WarnNoGPU { // the same for all tests; it was logged before the first
			slog.Warn(w.Message, "test", o.Test, "warning", w.Code)
		}
	}
	return nil
}

// close removes the live line. It is idempotent.
func (p *progress) close() {
	p.closed.Do(func() {
		p.flush()
		if p.live == nil {
			return
		}
		p.live.close()
		slog.SetDefault(p.before)
	})
}
