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
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// progress tells a person what happens: a line of the log for every step, and
// on a terminal below it one line that moves.
type progress struct {
	threads  int
	runEnds  time.Time     // zero: no limit
	fetching func() string // the download under way; empty: none
	noLoad   bool          // the model could not be loaded
	several  bool          // models
	skipped  notRun        // not told yet
	stopping bool          // the test under way was told to

	mu       sync.Mutex
	model    string // under way
	weights  result.Weights
	test     bench.TestStarted
	deadline time.Time // of the test; zero: none
	state    string    // "repetition 2/5  366.1 t/s"

	live    *mpb.Progress // nil when stderr is no terminal
	bar     *mpb.Bar
	refresh chan any
	ticker  *time.Ticker
	before  *slog.Logger
	closed  sync.Once
}

// refreshEvery is how often the time left moves. The parent is idle otherwise,
// so that it does not wake a CPU that the worker computes on.
const refreshEvery = time.Second

// newProgress shows the moving line only where it can move, and not between
// lines of JSON.
func newProgress(stderr io.Writer, threads int, runEnds time.Time, fetching func() string, g *globalOptions) *progress {
	p := &progress{threads: threads, runEnds: runEnds, fetching: fetching, state: "starting"}
	if !moves(stderr) || g.quiet || g.logFormat != "text" {
		return p
	}
	p.refresh = make(chan any, 1)
	p.live = mpb.New(mpb.WithOutput(stderr), mpb.WithManualRefresh(p.refresh))
	p.bar = p.live.New(0, mpb.NopStyle(), mpb.BarRemoveOnComplete(),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.line() })))
	p.ticker = time.NewTicker(refreshEvery)
	go func() {
		for range p.ticker.C {
			p.redraw()
		}
	}()
	// Lines of the log appear above the moving one.
	p.before = slog.Default()
	level, _ := g.level() // checked when the command began
	slog.SetDefault(newLogger(fromFirstColumn{p.live}, g.logFormat, level, color(stderr)))
	return p
}

// fromFirstColumn starts every write in the first column: a ^C that the terminal
// echoed has moved the cursor.
type fromFirstColumn struct{ io.Writer }

func (w fromFirstColumn) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(append([]byte{'\r'}, b...))
	return max(n-1, 0), err
}

// redraw asks for a redraw without waiting for it.
func (p *progress) redraw() {
	if p.live == nil {
		return
	}
	select {
	case p.refresh <- time.Now():
	default:
	}
}

// line is the moving line.
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
	if text := p.fetching(); text != "" {
		s += "  " + oneLine(text)
	}
	return s
}

func (p *progress) set(format string, args ...any) {
	p.mu.Lock()
	p.state = fmt.Sprintf(format, args...)
	p.mu.Unlock()
	p.redraw()
}

// stage shows how far the test under way is, unless it was told to stop: what was
// begun before that may still end, and says so.
func (p *progress) stage(format string, args ...any) {
	if !p.stopping {
		p.set(format, args...)
	}
}

// step logs a step that the moving line shows too, where there is one.
func (p *progress) step(message string, args ...any) {
	level := slog.LevelInfo
	if p.live != nil {
		level = slog.LevelDebug
	}
	slog.Log(context.Background(), level, message, args...)
}

// notRun are tests of one model that were not run for one reason: one line.
type notRun struct {
	model, reason string
	status        result.Status
	tests         []string
}

// flush tells of the tests that were not run.
func (p *progress) flush() {
	n := p.skipped
	p.skipped = notRun{}
	if len(n.tests) == 0 {
		return
	}
	level := slog.LevelWarn
	if p.noLoad && !p.several || n.status == result.Aborted {
		level = slog.LevelDebug // told at the end
	}
	slog.Log(context.Background(), level, "not run", "model", n.model, "tests", strings.Join(n.tests, " "), "status", n.status, "reason", n.reason)
}

// event shows one event.
func (p *progress) event(s bench.Stamped) {
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
		if reason := e.Facts.WithoutCUDA(); reason != "" {
			slog.Info("the CUDA back-end has no device", "reason", reason)
		}
	case bench.WaitStarted:
		p.set("waiting for %s", e.Model)
		p.step("waiting for the file", "model", e.Model)
	case bench.WaitDone:
		if e.Status != result.OK {
			slog.Warn("no file", "model", e.Model, "status", e.Status, "reason", e.Reason)
		} else if e.Elapsed > time.Second {
			slog.Info("file is here", "model", e.Model, "waited", e.Elapsed.Round(time.Second))
		}
	case bench.WarmDone:
		p.step("file in memory", "model", e.Model, "size", humanize.IBytes(uint64(e.Bytes)), "took", e.Elapsed.Round(time.Millisecond))
	case bench.LoadStarted:
		p.mu.Lock()
		p.model, p.weights, p.noLoad = e.Model.Name, e.Model.Weights, false
		p.mu.Unlock()
		p.set("loading %s", e.Model.Name)
	case bench.LoadProgress:
		p.set("loading %s  %.0f %%", p.model, e.Share*100)
	case bench.LoadDone:
		if p.noLoad = e.Status != result.OK; !p.noLoad {
			slog.Info("model loaded", "model", p.model, "weights", p.weights, "type", e.Facts.Type,
				"size", humanize.IBytes(e.Facts.SizeBytes), "took", e.Elapsed.Round(time.Millisecond))
		}
	case bench.CompileStarted:
		p.set("%s  compiling kernels, untimed", p.model)
		p.step("one untimed pass of each shape, at which the GPU's kernels are compiled", "model", p.model, "shapes", len(e.Shapes))
	case bench.CompileDone:
		if e.Status != result.OK {
			slog.Warn("kernels may not be compiled", "model", p.model, "status", e.Status, "reason", e.Reason)
		} else {
			slog.Info("kernels ready", "model", p.model, "took", e.Elapsed.Round(time.Millisecond))
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
			args = append(args, "done_before", len(e.Done))
		}
		p.step("test started", args...)
	case bench.ContextReady:
		p.stage("%v  warming up", p.test.Test)
	case bench.WarmupDone:
		p.stage("%v  repetition 1/%d", p.test.Test, p.test.Repetitions)
	case bench.RepetitionDone:
		rate := p.test.Test.TokensPerSecond(e.Sample.Elapsed)
		n := e.Sample.Repetition
		p.step("repetition", "test", p.test.Test, "n", fmt.Sprintf("%d/%d", n, p.test.Repetitions), "t/s", fmt.Sprintf("%.2f", rate))
		p.stage("%v  repetition %d/%d  %.2f t/s", p.test.Test, min(n+1, p.test.Repetitions), p.test.Repetitions, rate)
	case bench.AbortRequested:
		p.set("%v  stopping", p.test.Test)
		p.stopping = true
		slog.Debug("test given up", "test", p.test.Test, "reason", e.Reason) // its outcome tells
	case bench.WorkerLost:
		p.set("the worker was lost")
		slog.Debug("worker lost", "reason", e.Reason) // a retry and an outcome tell
	}
}

// outcome shows what became of a test.
func (p *progress) outcome(o *result.Outcome) {
	p.mu.Lock()
	p.deadline = time.Time{}
	p.mu.Unlock()
	if o.Status != result.OK && len(o.Samples) == 0 && p.test.Test != o.Test {
		if n := &p.skipped; n.model != o.Model || n.status != o.Status || n.reason != o.Reason {
			p.flush()
			*n = notRun{model: o.Model, status: o.Status, reason: o.Reason}
		}
		p.skipped.tests = append(p.skipped.tests, o.Test.String())
		return
	}
	p.flush()
	p.test = bench.TestStarted{}
	if o.Status != result.OK {
		level := slog.LevelWarn
		if p.noLoad || o.Status == result.Aborted && len(o.Samples) == 0 {
			level = slog.LevelDebug // the same for every test to come, and told at the end
		}
		slog.Log(context.Background(), level, "test not completed",
			"test", o.Test, "status", o.Status, "reason", o.Reason, "repetitions", len(o.Samples))
		return
	}
	rate := fmt.Sprintf("%.2f", o.Record.AvgTS)
	if len(o.Samples) > 1 {
		rate += fmt.Sprintf(" ± %.2f", o.Record.StddevTS)
	}
	slog.Info("test done", "test", o.Test, "t/s", rate)
	for _, w := range o.Warnings {
		if w.Code != bench.NoGPU { // the same for all, told when the engine was ready
			slog.Warn(w.Message, "test", o.Test, "warning", w.Code)
		}
	}
}

// close takes the moving line away. It is idempotent.
func (p *progress) close() {
	p.closed.Do(func() {
		p.flush()
		if p.live == nil {
			return
		}
		p.ticker.Stop()
		p.bar.Abort(true)
		p.redraw()
		p.live.Wait()
		slog.SetDefault(p.before)
	})
}
