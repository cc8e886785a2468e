package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
	"github.com/sparecores/benchmark-llm/bench/session"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// progress consumes the events and outcomes of a run and shows them: a log line for
// every step and, on a terminal, the live line below the log.
type progress struct {
	threads  int
	outlook  *supervise.Outlook              // takes events before progress does
	fetching func() (acquire.Download, bool) // the download under way
	noLoad   bool                            // the model was not loaded
	noFile   string                          // why the last missing file is missing
	several  bool                            // the run has several models
	skipped  notRun                          // not logged yet
	stopping bool                            // the test under way is being stopped

	mu       sync.Mutex
	model    string // under way
	weights  result.Weights
	test     bench.TestStarted
	lastLine time.Time // start of the test, or its last repetition with a log line
	state    string    // "repetition 2/5  366.1 t/s"
	wait     string    // what the run waits for, as a log message; empty: nothing
	share    float64   // of a load, [0, 1]

	live   *liveLine     // nil when stderr is no terminal
	quit   chan struct{} // ends the log of waits; nil: there is a live line
	before *slog.Logger
	closed sync.Once
}

// logEvery is the shortest time between two log lines about the same repetitions, load
// or download.
const logEvery = 10 * time.Second

// newProgress shows the live line only on a terminal that can redraw it, and never
// between lines of JSON.
func newProgress(stderr io.Writer, threads int, outlook *supervise.Outlook, fetching func() (acquire.Download, bool), g *globalOptions) *progress {
	p := &progress{threads: threads, outlook: outlook, fetching: fetching, state: "starting"}
	if !moves(stderr) || g.quiet || g.still || g.logFormat != "text" {
		p.quit = make(chan struct{})
		go p.logWaits()
		return p
	}
	p.live = newLiveLine(stderr, p.line)
	p.before = slog.Default()
	level, _ := g.level() // it was checked when the command began
	slog.SetDefault(newLogger(p.live, g.logFormat, level, stderr))
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
	if left := p.outlook.At(time.Now()).String(); left != "" {
		s += "  " + left
	}
	if d, ok := p.fetching(); ok {
		s += "  " + downloadText(d)
	}
	return s
}

// logWaits logs from time to time what the run waits for.
func (p *progress) logWaits() {
	tick := time.NewTicker(logEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.logWait()
		case <-p.quit:
			return
		}
	}
}

// logWait logs what the run waits for, and how far that is.
func (p *progress) logWait() {
	p.mu.Lock()
	wait, args := p.wait, []any{"model", p.model}
	if wait == loadingModel {
		args = append(args, "done_percent", p.share*100)
	}
	p.mu.Unlock()
	if d, ok := p.fetching(); ok && wait == waitingForFile {
		args = append(args, "file", d.Name, "done_percent", float64(d.Done)*100/float64(max(d.Total, 1)), "speed_bytes_per_second", math.Round(d.BytesPerSecond))
	}
	if wait != "" {
		slog.Info(wait, args...)
	}
}

// What a run waits for, as log messages.
const (
	waitingForFile = "waiting for model file"
	loadingModel   = "loading model"
)

// waits notes what the run waits for; an empty text: nothing.
func (p *progress) waits(message string, share float64) {
	p.mu.Lock()
	p.wait, p.share = message, share
	p.mu.Unlock()
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
	if p.noLoad && !p.several || n.status == result.Aborted || n.reason == p.noFile && n.reason != "" {
		level = slog.LevelDebug // the error at the end says it, or the line about the model's file
	}
	slog.Log(context.Background(), level, "tests not run", "model", n.model, "tests", n.tests, "status", n.status, "reason", n.reason)
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
		session.LogBackends(e.Facts.WithoutCUDA(), e.Facts.Named)
	case bench.WaitStarted:
		p.mu.Lock()
		p.model = e.Model
		p.mu.Unlock()
		p.waits(waitingForFile, 0)
		p.set("waiting for %s", p.model)
		p.step(waitingForFile, "model", p.model)
	case bench.WaitDone:
		p.waits("", 0)
		if e.Status != result.OK {
			args := []any{"model", p.model, "status", e.Status}
			if e.Reason != p.noFile { // the same for several models: their host is dead
				args = append(args, "reason", e.Reason)
			}
			p.noFile = e.Reason
			slog.Warn("no model file", args...)
		} else if e.Elapsed > time.Second {
			slog.Info("model file ready", "model", p.model, "took_s", inSeconds(e.Elapsed))
		}
	case bench.ReadInDone:
		p.step("model file in memory", "model", e.Model, "size_bytes", e.Bytes, "took_s", inSeconds(e.Elapsed))
	case bench.LimitsStarted:
		p.set("measuring the machine's limits")
		p.step("measuring limits", "types", strings.Join(e.Types, ","))
	case bench.LimitsDone:
		if e.Status != result.OK {
			slog.Warn("limits not measured", "status", e.Status, "reason", e.Reason)
		}
		for _, d := range e.Devices {
			slog.Info("limits measured", "limits", roofline.Sentence(d), "took_s", inSeconds(e.Elapsed))
		}
	case bench.LoadStarted:
		p.mu.Lock()
		p.model, p.weights, p.noLoad = e.Model.Name, e.Model.Weights, false
		p.mu.Unlock()
		p.waits(loadingModel, 0)
		p.set("loading %s", p.model)
	case bench.LoadProgress:
		p.waits(loadingModel, e.Share)
		p.set("loading %s  %.0f %%", p.model, e.Share*100)
	case bench.LoadDone:
		p.waits("", 0)
		if p.noLoad = e.Status != result.OK; !p.noLoad {
			slog.Info("model loaded", "model", p.model, "weights", p.weights, "model_type", e.Facts.Type,
				"size_bytes", e.Facts.SizeBytes, "took_s", inSeconds(e.Elapsed))
		}
	case bench.PrecompileStarted:
		p.set("%s  precompiling", p.model)
		p.step("precompiling", "model", p.model, "shapes", len(e.Shapes))
	case bench.PrecompileDone:
		if e.Status != result.OK {
			slog.Warn("precompiling did not complete", "model", p.model, "status", e.Status, "reason", e.Reason)
		} else {
			slog.Info("precompiled", "model", p.model, "took_s", inSeconds(e.Elapsed))
		}
	case bench.CoolDownStarted:
		p.set("%v  cooling down", e.Test)
	case bench.CoolDownDone:
		if e.Elapsed > time.Second {
			p.step("cooled down", "took_s", inSeconds(e.Elapsed))
		}
	case bench.TestStarted:
		p.mu.Lock()
		p.test, p.lastLine, p.stopping = e, s.At, false
		p.mu.Unlock()
		p.set("%v  preparing", e.Test)
		args := []any{"test", e.Test, "repetitions", e.Repetitions}
		if e.Budget > 0 {
			args = append(args, "budget_s", inSeconds(e.Budget))
		}
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
		of := max(p.test.Repetitions, p.test.Most)
		p.stage("%v  repetition %d/%d", p.test.Test, min(len(p.test.Done)+1, of), of)
	case bench.RepetitionDone:
		rate := p.test.Test.TokensPerSecond(e.Sample.Elapsed)
		n, of := e.Sample.Repetition, max(p.test.Repetitions, p.test.Most)
		level := slog.LevelDebug
		if p.live == nil && s.At.Sub(p.lastLine) >= logEvery {
			level, p.lastLine = slog.LevelInfo, s.At
		}
		slog.Log(context.Background(), level, "repetition done", "test", p.test.Test, "repetition", n, "repetitions", of, "tokens_per_second", rate)
		p.stage("%v  repetition %d/%d  %s t/s", p.test.Test, min(n+1, of), of, result.FormatRate(rate))
	case bench.AbortRequested:
		if e.Stopped {
			slog.Info("repeating the repetition, because the process was stopped", "test", p.test.Test)
			break
		}
		p.set("%v  stopping", p.test.Test)
		p.stopping = true
		slog.Debug("stopping test", "test", p.test.Test, "reason", e.Reason) // its outcome is logged too
	case bench.Continued:
		slog.Info("continued", "stopped_s", inSeconds(e.Stopped)) // the live line is drawn again below it
	case bench.WorkerLost:
		p.waits("", 0)
		p.set("the worker was lost")
		slog.Debug("worker lost", "reason", e.Reason) // a retry and the outcome are logged too
	}
	return nil
}

// Outcome shows the outcome of a test.
func (p *progress) Outcome(o *result.Outcome) error {
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
	args := []any{"test", o.Test, "tokens_per_second", o.Record.AvgTS}
	if len(o.Samples) > 1 {
		args = append(args, "stddev_tokens_per_second", o.Record.StddevTS)
	}
	if p := o.Record.Ext.Precision; p != nil {
		args = append(args, "repetitions", len(o.Samples), "stopped_by", p.StoppedBy)
		if p.Reached != nil {
			args = append(args, "precision_percent", *p.Reached*100)
		}
	}
	if f := p.outlook.At(time.Now()); p.live == nil && f.Left > 0 && !f.AtLeast {
		args = append(args, "run_left_s", inSeconds(f.Left))
	}
	slog.Info("test done", args...)
	if v := o.Record.Ext.Verdict; v != nil && len(v.Reasons) > 0 {
		slog.Warn(v.Reasons[0].Message, "test", o.Test, "verdict", v.Verdict)
	}
	for _, w := range o.Warnings {
		if w.Code != result.WarnNoGPU { // the same for all tests; it was logged before the first
			slog.Warn(w.Message, "test", o.Test, "warning", w.Code)
		}
	}
	return nil
}

// inSeconds is a duration for the log, in seconds, rounded to milliseconds.
func inSeconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// close removes the live line. It is idempotent.
func (p *progress) close() {
	p.closed.Do(func() {
		p.flush()
		if p.live == nil {
			close(p.quit)
			return
		}
		p.live.close()
		slog.SetDefault(p.before)
	})
}
