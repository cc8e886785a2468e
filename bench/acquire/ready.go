package acquire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// waitForSilent is the longest wait, with Auto, for a file whose server did not answer
// before the run, retries included.
const waitForSilent = 5 * time.Second

// Ready makes the model of job i ready: it waits for the file, gives the tests their
// budgets, and reads the file into memory. The error is a *supervise.Missing, or an
// error of Emit.
func (m *Models) Ready(ctx context.Context, i int) (bench.Job, error) {
	c := &m.all[i]
	if c.bad != nil {
		m.missing = c.bad
		status := result.Failed
		switch {
		case c.bad.Kind == NotFetched:
			status = result.DownloadFailed
		case errors.Is(c.bad, gguf.ErrUnsupported), c.bad.Kind == NoShape:
			status = result.Unsupported
		}
		return c.job, &supervise.Missing{Status: status, Reason: oneLine(c.bad.Error())}
	}
	if c.item != notQueued {
		if err := m.arrive(ctx, c); err != nil {
			return c.job, err
		}
	}
	if c.header != nil {
		checkTests(&c.job, c.header)
		if len(c.job.Runnable()) == 0 { // the model is not loaded
			return c.job, nil
		}
		loadUnmapped(&c.job, c.header, len(c.file.Paths))
		planLimits(&c.job, c.header)
	}
	if err := m.fits(&c.job, c.header); err != nil {
		return c.job, err
	}
	if err := c.identify(); err != nil { // it may have changed since it was found
		return c.job, &supervise.Missing{Status: result.Failed, Reason: err.Error()}
	}
	read, err := m.readIn(ctx, c.job, c.file.Paths)
	if err != nil {
		return c.job, err
	}
	warnOfGaps(&c.job, c.header, c.file.Paths, read > 0)
	m.pending, m.measured = c.job.Runnable(), nil
	m.expect()
	return c.job, nil
}

// arrive waits for a model's file, and gives its tests budgets by its size.
func (m *Models) arrive(ctx context.Context, c *model) error {
	file, err := m.wait(ctx, c)
	switch {
	case err == nil:
		c.use(located{Weights: result.FileWeights, File: file, Header: file.Header})
	case m.options.Weights != Auto || ctx.Err() != nil:
		return err
	default:
		if err := m.fallBack(ctx, c, err); err != nil {
			return err
		}
		m.missing = nil
	}
	model := c.wanted
	model.SizeBytes = c.header.TensorBytes()
	budgeted := m.budget(c.job, model)
	c.job.LoadBudget = budgeted.LoadBudget
	for t := range c.job.Tests { // only those that are left; they keep their repetitions
		if k := slices.IndexFunc(budgeted.Tests, func(b bench.TestBudget) bool { return b.Test == c.job.Tests[t].Test }); k >= 0 {
			c.job.Tests[t].Budget = budgeted.Tests[k].Budget
		}
	}
	return nil
}

// fallBack gives a model synthetic weights because its file did not arrive.
func (m *Models) fallBack(ctx context.Context, c *model, why error) error {
	l := c.fallback
	l.Because = why
	if l.Header == nil {
		ctx, cancel := bench.WithinLimit(ctx, m.options.Deadline)
		defer cancel()
		var err error
		if l, err = m.options.fallback(ctx, c.wanted, why); err != nil {
			var missing *supervise.Missing
			if errors.As(why, &missing) {
				return &supervise.Missing{Status: missing.Status, Reason: fmt.Sprintf("%s; there is no header for synthetic weights either: %v", missing.Reason, err)}
			}
			return why
		}
	}
	c.use(l)
	return nil
}

// wait waits for a file of the queue.
func (m *Models) wait(ctx context.Context, c *model) (fetch.File, error) {
	name := c.job.Model.Name
	if err := m.Emit(bench.WaitStarted{Model: name}); err != nil {
		return fetch.File{}, err
	}
	start := time.Now()
	until, runEnds := m.waitUntil(c, start)
	file, err := m.queue.Wait(ctx, c.item, until)
	if err == nil {
		err = checkFile(file)
	}
	done := bench.WaitDone{Model: name, Status: result.OK, Elapsed: time.Since(start)}
	if err != nil {
		m.missing = &Error{NotFetched, "", err}
		done.Reason = err.Error()
		switch {
		case ctx.Err() != nil:
			done.Status = result.Aborted
		case errors.Is(err, fetch.ErrNoDisk):
			done.Status = result.NoDisk
		case errors.Is(err, gguf.ErrUnsupported):
			done.Status = result.Unsupported
		case errors.Is(err, fetch.ErrHopeless) && runEnds:
			done.Status = result.TimeLimit
		default:
			done.Status = result.DownloadFailed
		}
	}
	if err := m.Emit(done); err != nil {
		return file, err
	}
	if err != nil {
		return file, &supervise.Missing{Status: done.Status, Reason: done.Reason}
	}
	return file, nil
}

// waitUntil is when a wait for a file ends; zero: never. runEnds tells whether it ends
// because the run ends. With Auto, the wait leaves enough time for the model's tests.
func (m *Models) waitUntil(c *model, start time.Time) (until time.Time, runEnds bool) {
	if limit := m.options.DownloadTime; limit > 0 {
		until = start.Add(limit)
	}
	deadline := m.options.Deadline
	if m.options.Weights == Auto {
		// A file that is too late for its tests is useless; synthetic weights need no wait.
		if !deadline.IsZero() {
			deadline = deadline.Add(-m.likely(c.job.Tests, nil))
		}
		if last := start.Add(waitForSilent); c.silent && (until.IsZero() || last.Before(until)) {
			until = last
		}
	}
	if !deadline.IsZero() && (until.IsZero() || deadline.Before(until)) {
		return deadline, true
	}
	return until, false
}

// fits returns an error if a model's shortest test does not fit into memory. It
// computes this from the header, because a failed attempt might end the worker or
// another process. It refuses only what cannot work. Synthetic weights and files that
// are not mapped must fit together with the KV cache and compute buffers. Weights of a
// mapped file do not count: their pages can leave memory and come back. That is slow,
// but tests have budgets.
func (m *Models) fits(job *bench.Job, header *gguf.File) error {
	available := host.Observe("/").MemoryAvailableBytes
	if available == nil || header == nil || len(job.Runnable()) == 0 || m.options.OnDevices && job.Settings.Offloads() {
		return nil
	}
	return fitInto(job, header, *available, repackOf(host.CPUFeatures()))
}

// fitInto is fits for a given number of bytes and a CPU that repacks weights like r. If
// the weights fit only without repacking, fitInto turns it off.
func fitInto(job *bench.Job, header *gguf.File, available uint64, r gguf.Repack) error {
	shortest := slices.MinFunc(job.Runnable(), func(a, b bench.TestBudget) int { return cmp.Compare(a.Test.Context(), b.Test.Context()) })
	settings := job.Effective()
	c := contextOf(job.For(shortest.Test), r)
	c.Tokens = shortest.Test.Context()
	needs := header.Memory(c)
	c.Repack = gguf.RepackNone
	plain := header.Memory(c)
	if job.Model.Weights == result.FileWeights && slices.Contains([]string{"auto", "mmap"}, settings.LoadMode) {
		needs.Weights = 0
	}
	err := needs.Fits(available)
	if err == nil {
		return nil
	}
	if settings.NoRepack || plain.Fits(available) != nil {
		return &supervise.Missing{Status: result.OutOfMemory, Reason: err.Error()}
	}
	settings.NoRepack = true
	job.Adjusted = &settings
	w := result.Warning{
		Code:    result.WarnNoRepack,
		Message: fmt.Sprintf("weights were not repacked for the CPU, because repacked weights need more memory (%v)", err),
	}
	job.Warn(w)
	slog.Warn(w.Message, "model", job.Model.Name, "warning", w.Code)
	return nil
}

// ContextOf are the settings that decide a model's memory on this machine's CPU. The
// caller sets the length.
func ContextOf(s bench.Settings) gguf.Context { return contextOf(s, repackOf(host.CPUFeatures())) }

// contextOf is ContextOf for a CPU that repacks weights like r.
func contextOf(s bench.Settings, r gguf.Repack) gguf.Context {
	if s.NoRepack {
		r = gguf.RepackNone
	}
	return gguf.Context{
		UBatch: min(s.UBatch, s.Batch), K: cacheType(s.TypeK), V: cacheType(s.TypeV), FlashOff: s.FlashAttn == 0, Repack: r,
	}
}

// repackOf tells how the library repacks weights on a CPU with these flags.
func repackOf(features []string) gguf.Repack {
	switch {
	case slices.Contains(features, "amx_int8"):
		return gguf.RepackAMX
	case slices.Contains(features, "avx2"):
		return gguf.RepackAVX2
	}
	return gguf.RepackUnknown
}

// cacheType is a type of the KV cache by its name in the settings.
func cacheType(name string) gguf.Type {
	t, err := gguf.ParseType(name)
	if err != nil { // the engine refuses it
		return gguf.F16
	}
	return t
}

// readIn reads a model's files into memory before its load budget begins. It returns how
// many bytes it read.
func (m *Models) readIn(ctx context.Context, job bench.Job, paths []string) (read int64, err error) {
	if job.Model.Weights != result.FileWeights || job.Settings.LoadMode == "dio" {
		return 0, nil
	}
	var o fetch.ReadInOptions
	if available := host.Observe("/").MemoryAvailableBytes; available != nil {
		o.AvailableBytes = int64(*available)
	}
	start := time.Now()
	limited, cancel := bench.WithinLimit(ctx, m.options.Deadline)
	defer cancel()
	read, err = fetch.ReadIn(limited, paths, o)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, bench.ErrTimeLimit):
		return read, &supervise.Missing{Status: result.TimeLimit, Reason: fmt.Sprintf("not loaded: %v", err)}
	default:
		return read, &supervise.Missing{Status: result.Failed, Reason: err.Error()}
	}
	return read, m.Emit(bench.ReadInDone{Model: job.Model.Name, Bytes: read, Elapsed: time.Since(start)})
}

// Downloaded returns how many bytes were downloaded since its last call, or since the
// burst began.
func (m *Models) Downloaded() int64 {
	if m.queue == nil {
		return 0
	}
	before := m.downloaded
	m.downloaded = m.queue.Passed()
	return m.downloaded - before
}

// Event tells the queue when repetitions are timed.
func (m *Models) Event(s bench.Stamped) error {
	if m.queue == nil {
		return nil
	}
	switch e := s.Event.(type) {
	case bench.TestStarted:
		m.warmsAlone = m.warmsUpAlone(e.Test)
	case bench.ContextReady:
		m.downloaded = m.queue.Passed()
		m.queue.Timing(!m.warmsAlone)
	case bench.WarmupDone:
		if s.More == 0 { // it ran alone
			m.downloaded = m.queue.Passed()
		}
		m.queue.Timing(true)
	case bench.TestDone, bench.LoadDone, bench.WorkerLost, bench.JobDone:
		m.queue.Timing(false)
	}
	return nil
}

// warmsUpAlone tells whether the warm-up of a test lasts longer than a burst, because a
// pass of a shorter test did. The repetitions of other tests follow their warm-up directly.
func (m *Models) warmsUpAlone(t result.Test) bool {
	return !m.options.Job.NoWarmup && t.Kind() == result.PromptProcessing &&
		slices.ContainsFunc(m.measured, func(done policy.Measured) bool {
			return done.Test.ShorterInSeries(t) && len(done.Repetitions) > 0 && slices.Min(done.Repetitions) >= bench.BurstTime
		})
}

// Outcome removes a test from the pending tests of the current model.
func (m *Models) Outcome(o *result.Outcome) error {
	m.pending = slices.DeleteFunc(m.pending, func(b bench.TestBudget) bool { return b.Test == o.Test })
	if o.Status == result.OK {
		m.measured = append(m.measured, policy.Measured{Test: o.Test, Repetitions: result.Elapsed(o.Samples)})
	}
	m.expect()
	return nil
}

// unknownShare is the share of its budget that a test is assumed to need if no
// measurement predicts it. Most machines are much faster than the targets of budgets.
const unknownShare = 0.25

// expect tells the queue how long the current model will likely take. Too long is
// better than too short: a wait costs time, but a download beside a repetition makes
// its figure wrong on a machine without idle CPUs.
func (m *Models) expect() {
	if m.queue != nil {
		m.queue.Expect(m.likely(m.pending, m.measured))
	}
}

// likely predicts the time of pending tests from measured tests of the same model.
func (m *Models) likely(pending []bench.TestBudget, measured []policy.Measured) time.Duration {
	stop := policy.Default()
	var left time.Duration
	for _, t := range pending {
		p := policy.Prospect{Test: t.Test, Budget: t.Budget, Repetitions: m.suite.Repetitions, Warmups: m.options.Job.WarmupPasses()}
		for _, done := range measured {
			if done.Test.ShorterInSeries(t.Test) {
				p.Shorter = append(p.Shorter, done)
			}
		}
		likely, ok := stop.Likely(p)
		if !ok {
			likely = time.Duration(unknownShare * float64(t.Budget))
		}
		left += likely
	}
	return left
}

// Download is the current download.
type Download struct {
	Name           string // of the file
	Done, Total    int64  // bytes
	BytesPerSecond float64
	Paused         bool // while repetitions are timed
}

// Downloading returns the current download; ok is false if there is none. Any
// goroutine may call it.
func (m *Models) Downloading() (d Download, ok bool) {
	if m.queue == nil {
		return d, false
	}
	s := m.queue.State()
	if s.Item < 0 || s.Progress.Total <= 0 {
		return d, false
	}
	i := slices.IndexFunc(m.all, func(c model) bool { return c.item == s.Item })
	return Download{
		Name: filepath.Base(m.all[i].wanted.Source.Name()), Done: s.Progress.Done, Total: s.Progress.Total,
		BytesPerSecond: s.Progress.BytesPerSecond, Paused: s.Hold == fetch.Paused,
	}, true
}
