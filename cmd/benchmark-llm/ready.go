package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// ready makes a model ready to be loaded: it waits for its file, gives the tests
// their budgets and reads the file into memory.
func (m *models) ready(ctx context.Context, i int) (bench.Job, error) {
	c := &m.all[i]
	if c.item != notFetched {
		if err := m.arrive(ctx, c); err != nil {
			return c.job, err
		}
	}
	if err := m.fits(&c.job, c.header); err != nil {
		return c.job, err
	}
	if err := m.warm(ctx, c.job, c.paths); err != nil {
		return c.job, err
	}
	m.pending, m.measured = slices.Clone(c.job.Tests), nil
	m.expect()
	return c.job, nil
}

// arrive waits for a candidate's file, and gives its tests the budgets of its
// size.
func (m *models) arrive(ctx context.Context, c *candidate) error {
	file, err := m.wait(ctx, c)
	switch {
	case err == nil:
		c.job.Model.Path, c.header, c.paths = file.Path, file.Header, file.Paths
	case !m.options.auto() || ctx.Err() != nil:
		return err
	default:
		if err := m.options.replace(ctx, c, err); err != nil {
			return err
		}
		m.err = nil
	}
	model := c.wanted
	model.SizeBytes = c.header.TensorBytes()
	made := m.budget(c.job, model)
	c.job.LoadBudget = made.LoadBudget
	for t := range c.job.Tests { // those that are left, with what is done of them
		if k := slices.IndexFunc(made.Tests, func(b bench.TestBudget) bool { return b.Test == c.job.Tests[t].Test }); k >= 0 {
			c.job.Tests[t].Budget = made.Tests[k].Budget
		}
	}
	c.job.Model.Layers, c.job.Model.Largest = layers(c.header), largest(c.header)
	return nil
}

// wait waits for a file of the queue.
func (m *models) wait(ctx context.Context, c *candidate) (fetch.File, error) {
	name := c.job.Model.Name
	if err := m.emit(bench.WaitStarted{Model: name}); err != nil {
		return fetch.File{}, err
	}
	start := time.Now()
	var until time.Time
	if limit := m.options.downloadTime; limit > 0 {
		until = start.Add(limit)
	}
	ends := m.deadline
	if m.options.auto() {
		// A file that comes too late for its tests is none; generated weights are there at once.
		if !ends.IsZero() {
			ends = ends.Add(-m.likely(c.job.Tests, nil))
		}
		if last := start.Add(silentFor); c.spare.silent && (until.IsZero() || last.Before(until)) {
			until = last
		}
	}
	runEnds := !ends.IsZero() && (until.IsZero() || ends.Before(until))
	if runEnds {
		until = ends
	}
	file, err := m.queue.Wait(ctx, c.item, until)
	done := bench.WaitDone{Model: name, Status: result.OK, Elapsed: time.Since(start)}
	if err != nil {
		m.err = err
		done.Reason = err.Error()
		switch {
		case ctx.Err() != nil:
			done.Status = result.Aborted
		case errors.Is(err, fetch.ErrNoDisk):
			done.Status = result.NoDisk
		case errors.Is(err, fetch.ErrHopeless) && runEnds:
			done.Status = result.TimeLimit
		default:
			done.Status = result.DownloadFailed
		}
	}
	if err := m.emit(done); err != nil {
		return file, err
	}
	if err != nil {
		return file, &supervise.Missing{Status: done.Status, Reason: done.Reason}
	}
	return file, nil
}

// fits refuses a model whose shortest test the memory cannot hold: nothing is
// allocated to find that out, for the kernel might end the worker, or another
// process, in the middle. Of a file that is mapped the weights do not count: a
// part of them in memory is enough, if slow, and its tests have budgets; but the
// KV cache and what passes through the graph need memory of their own.
func (m *models) fits(job *bench.Job, header *gguf.File) error {
	available := host.Observe("/").MemoryAvailableBytes
	if available == nil || header == nil || len(job.Tests) == 0 || m.offloads() {
		return nil
	}
	return fitInto(job, header, *available)
}

// fitInto is fits for so many bytes of memory. Where only a second copy of the
// token embedding is too much, which repacking needs, nothing is repacked.
func fitInto(job *bench.Job, header *gguf.File, available uint64) error {
	least := slices.MinFunc(job.Tests, func(a, b bench.TestBudget) int { return cmp.Compare(a.Test.Context(), b.Test.Context()) })
	needs := suite.Plan{Tests: []suite.PlannedTest{{Test: least.Test}}}.Memory(header, job.Settings.UBatch)
	once := needs
	once.Weights -= header.TiedBytes()
	settings := job.Effective()
	switch {
	case job.Model.Weights == result.FileWeights && slices.Contains([]string{"auto", "mmap"}, settings.LoadMode):
		needs.Weights = 0
	case settings.NoRepack:
		needs = once
	}
	err := needs.Fits(available)
	if err == nil {
		return nil
	}
	if settings.NoRepack || once.Fits(available) != nil {
		return &supervise.Missing{Status: result.OutOfMemory, Reason: err.Error()}
	}
	settings.NoRepack = true
	job.Gentler = &settings
	w := result.Warning{Code: "no_repack", Message: fmt.Sprintf("weights not repacked for the CPU, because that needs a second copy of the token embedding (%v)", err)}
	job.Warnings = append(slices.Clone(job.Warnings), w)
	slog.Warn(w.Message, "model", job.Model.Name, "warning", w.Code)
	return nil
}

// offloads tells whether weights may go to another device than the CPU. It looks
// for drivers: opening a device here would hold memory that the worker needs.
func (m *models) offloads() bool {
	s := m.options.settings
	switch {
	case !s.Offloads():
		return false
	case len(s.RPC) > 0:
		return true
	case m.options.gpus.unused != "": // what drivers there are serve none that the engine lists
		return false
	case gpuFactsHere(m.options.host).present():
		return true
	}
	for _, driver := range drivers {
		if nodes, err := filepath.Glob(driver); err == nil && len(nodes) > 0 {
			return true
		}
	}
	return false
}

// drivers are nodes of other GPUs' drivers than NVIDIA's, and WSL's of all.
var drivers = []string{"/dev/kfd", "/dev/dri", "/dev/dxg"}

// warm reads a model's files into memory before its load budget begins.
func (m *models) warm(ctx context.Context, job bench.Job, paths []string) error {
	if job.Model.Weights != result.FileWeights || job.Settings.LoadMode == "dio" {
		return nil
	}
	var o fetch.WarmOptions
	if available := host.Observe("/").MemoryAvailableBytes; available != nil {
		o.AvailableBytes = int64(*available)
	}
	start := time.Now()
	read, err := fetch.Warm(ctx, paths, o)
	if err != nil && ctx.Err() == nil {
		return &supervise.Missing{Status: result.Failed, Reason: err.Error()}
	}
	return m.emit(bench.WarmDone{Model: job.Model.Name, Bytes: read, Elapsed: time.Since(start)})
}

// downloaded is how many bytes downloads took since the last call, or since the
// repetitions began.
func (m *models) downloaded() int64 {
	if m.queue == nil {
		return 0
	}
	before := m.passed
	m.passed = m.queue.Passed()
	return m.passed - before
}

// event tells the downloads what the engine does.
func (m *models) event(e bench.Event) {
	if m.queue == nil {
		return
	}
	switch e.(type) {
	case bench.ContextReady:
		m.passed = m.queue.Passed()
		m.queue.Timing(m.options.noWarmup)
	case bench.WarmupDone:
		m.passed = m.queue.Passed()
		m.queue.Timing(true)
	case bench.TestDone, bench.LoadDone, bench.WorkerLost, bench.JobDone:
		m.queue.Timing(false)
	}
}

// outcome takes a test from those of the model under way.
func (m *models) outcome(o *result.Outcome) {
	m.pending = slices.DeleteFunc(m.pending, func(b bench.TestBudget) bool { return b.Test == o.Test })
	if o.Status == result.OK {
		var repetitions []time.Duration
		for _, s := range o.Samples {
			repetitions = append(repetitions, s.Elapsed)
		}
		m.measured = append(m.measured, suite.Measured{Test: o.Test, Repetitions: repetitions})
	}
	m.expect()
}

// unknownShare is what a test is taken to need of its budget when nothing
// measured says: most machines are far above the targets that budgets come from.
const unknownShare = 0.25

// expect tells the downloads how long the model under way likely still takes. Too
// much rather than too little: a wait costs time, a download beside a repetition
// on a machine without idle CPUs costs the truth of its figure.
func (m *models) expect() {
	if m.queue != nil {
		m.queue.Expect(m.likely(m.pending, m.measured))
	}
}

// likely is the time that tests of a model likely take, by what was measured of
// it.
func (m *models) likely(pending []bench.TestBudget, measured []suite.Measured) time.Duration {
	policy := suite.DefaultPolicy()
	var left time.Duration
	for _, t := range pending {
		h := suite.History{Test: t.Test, Budget: t.Budget, Repetitions: m.suite.Repetitions, Warmup: !m.options.noWarmup}
		for _, done := range measured {
			if done.Test.Kind() == t.Test.Kind() && done.Test.Depth == t.Test.Depth && done.Test.Tokens() < t.Test.Tokens() {
				h.Shorter = append(h.Shorter, done)
			}
		}
		likely, ok := policy.Likely(h)
		if !ok {
			likely = time.Duration(unknownShare * float64(t.Budget))
		}
		left += likely
	}
	return left
}

// fetching is the download under way, for a person; empty when there is none.
func (m *models) fetching() string {
	if m.queue == nil {
		return ""
	}
	s := m.queue.State()
	if s.Item < 0 || s.Progress.Total <= 0 {
		return ""
	}
	text := fmt.Sprintf("fetching %s %d %%", filepath.Base(m.queueName(s.Item)), s.Progress.Done*100/s.Progress.Total)
	if s.Hold == fetch.Paused {
		return text + " (paused)"
	}
	return text + fmt.Sprintf(" %s/s", humanize.IBytes(uint64(max(s.Progress.BytesPerSecond, 0))))
}

func (m *models) queueName(item int) string {
	i := slices.IndexFunc(m.all, func(c candidate) bool { return c.item == item })
	return m.all[i].source.Name()
}

// start begins the downloads.
func (m *models) start() {
	if m.queue != nil {
		m.queue.Start()
	}
}

// close ends the downloads; what has arrived stays. It is idempotent.
func (m *models) close() {
	if m.queue != nil {
		m.queue.Close()
	}
}
