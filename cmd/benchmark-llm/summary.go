package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/rundir"
)

// summary consumes the events and outcomes of a run and says at the end how it went.
type summary struct {
	dir     string // of the run; empty: none
	report  string // its report for people
	events  string // its file of events
	results string // its file of records

	model      string           // under way
	load       *bench.LoadDone  // the last load that failed
	notLoaded  string           // its model
	first      *result.Outcome  // first test without a record
	measured   []result.Outcome // tests with a record
	incomplete int              // tests without a record
	missing    error            // why the most recent missing model was not acquired
	limited    bool             // a worker met a limit of the process
	noGPU      string           // why the last record was measured without the machine's GPU
	signal     *signalError     // that stopped the run
	accounting result.Accounting
	unwritten  error // why the directory, stdout or another file lacks results
	err        error // that ended the run early
}

// locate keeps where the run's files are. There are none if d is nil, or if the run
// failed at its start.
func (s *summary) locate(d *rundir.Dir) {
	if d != nil && !d.Idle() {
		s.dir, s.report, s.events, s.results = d.Path, d.ReportFile(), d.EventsFile(), d.ResultsFile()
	}
}

// Event keeps the last load that failed.
func (s *summary) Event(e bench.Stamped) error {
	switch e := e.Event.(type) {
	case bench.LoadStarted:
		s.model = e.Model.Name
	case bench.LoadDone:
		if e.Status != result.OK {
			s.load, s.notLoaded = &e, s.model
			s.limited = s.limited || e.Code == bench.ProcessLimit
		}
	case bench.WorkerLost:
		s.limited = s.limited || e.Code == bench.ProcessLimit
	}
	return nil
}

// Outcome keeps records and counts tests without one.
func (s *summary) Outcome(o *result.Outcome) error {
	for _, w := range o.Warnings {
		if w.Code == result.WarnGPUNotUsed || w.Code == result.WarnNoGPU {
			s.noGPU = w.Message
		}
	}
	if o.Status == result.OK {
		s.measured = append(s.measured, *o)
	} else {
		s.incomplete++
		if s.first == nil {
			s.first = o
		}
	}
	return nil
}

// stopped keeps the signal that ended the context of the run, if one did.
func (s *summary) stopped(ctx context.Context) {
	var stopped *signalError
	if errors.As(context.Cause(ctx), &stopped) {
		s.signal = &signalError{signal: stopped.signal}
		if s.dir != "" {
			s.signal.hint = "benchmark-llm run --resume " + s.dir + " continues it"
		}
	}
}

// result returns why no record was printed. If one was printed, it logs what went
// wrong and returns nil, or with strict an error if a test has no record.
func (s *summary) result(out *output, strict bool) error {
	if out.printed > 0 {
		s.log(out.printed)
		switch {
		case !strict:
			return nil
		case s.signal != nil:
			return fmt.Errorf("%s: %w", s.without(), s.signal)
		case s.incomplete > 0 || s.err != nil:
			return s.noRecord(&noRecordError{err: errors.New(s.without()), incomplete: true})
		case s.unwritten != nil:
			return s.unwritten
		}
		return nil
	}
	if _, ok := lookup(s.err); ok {
		return s.err
	}
	switch {
	case s.err != nil:
		return s.noRecord(&noRecordError{err: s.err})
	case out.err != nil: // the directory works, or there would be another error
		return fail(exitOutput, out.err, "read the records in "+s.results)
	case s.signal != nil:
		return fmt.Errorf("nothing was measured: %w", s.signal)
	case s.load != nil && s.load.Code == bench.NotOnGPU:
		return fail(exitLibrary, fmt.Errorf("%w: %s: %s", gpu.ErrNotUsed, s.notLoaded, s.load.Reason), seeSteps(s.events))
	case s.load != nil:
		err := fmt.Errorf("%s not loaded: %s", s.notLoaded, s.load.Reason)
		return s.noRecord(&noRecordError{err: err, loading: true, status: s.load.Status})
	case s.missing != nil:
		return s.missing
	case s.first != nil:
		o := s.first
		e := &noRecordError{status: o.Status, e2e: o.Test.E2E}
		if e.err = fmt.Errorf("nothing was measured: %s of %s: %s", o.Test, o.Model, o.Reason); e.code() == exitModel {
			e.err = fmt.Errorf("%s of %s: %s", o.Test, o.Model, o.Reason)
		}
		return s.noRecord(e)
	default:
		return s.noRecord(&noRecordError{err: errors.New("nothing was measured")})
	}
}

func (s *summary) noRecord(e *noRecordError) error {
	e.trace, e.limited = s.events, s.limited
	return e
}

// without says how many tests have no record.
func (s *summary) without() string {
	if s.incomplete == 1 {
		return "1 test has no record"
	}
	return result.Count(s.incomplete, "test") + " have no record"
}

// log logs how a run went that has printed records. Its last line names the report. The
// line before it is the result in brief, if the run is short enough for one.
func (s *summary) log(records int) {
	if s.err != nil {
		slog.Error("the run ended early", "error", s.err)
	}
	if s.load != nil {
		slog.Error("model not loaded", "model", s.notLoaded, "reason", s.load.Reason)
	}
	if s.noGPU != "" {
		slog.Warn(s.noGPU)
	}
	times := []any{"wall_s", inSeconds(s.accounting.Wall)}
	for _, p := range s.accounting.Parts() {
		times = append(times, p.Key, inSeconds(p.Time))
	}
	slog.Info("where the time went", times...)
	if line := report.Quote(s.measured); line != "" {
		slog.Info("result", "quote", line)
	}
	message, done := "done", []any{"records", records}
	if s.incomplete > 0 {
		done = append(done, "tests_without_record", s.incomplete)
	}
	if s.signal != nil && s.incomplete > 0 && s.dir != "" {
		message, done = "interrupted", append(done, "hint", s.signal.hint)
	}
	if s.dir != "" && !errors.Is(s.err, rundir.ErrWrite) && !errors.Is(s.unwritten, rundir.ErrWrite) {
		done = append(done, "report", s.report)
	}
	slog.Info(message, done...)
}
