package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// models are the models of a run on their way to the engine.
type models struct {
	options *runOptions
	suite   suite.Suite
	jobs    []bench.Job // one for each model, in the order they run
	sources []fetch.Source
	items   []int        // of the queue; -1: not fetched
	headers []*gguf.File // nil: not known yet
	spares  []spare      // with --weights auto, of models that are fetched
	queue   *fetch.Queue // nil when nothing is fetched

	emit     func(bench.Event) error // of the run
	deadline time.Time               // of the run; zero: none
	err      error                   // why the last model that is missing is

	passed   int64              // bytes of the queue, when a repetition began
	pending  []bench.TestBudget // of the model under way
	measured []suite.Measured   // of it
}

// prepare finds the models that are asked for, and queues those that are not
// here.
func (o *runOptions) prepare(ctx context.Context, s suite.Suite) (*models, error) {
	m := &models{options: o, suite: s}
	for i := range s.Models {
		if err := m.add(ctx, &s.Models[i]); err != nil {
			return nil, err
		}
	}
	if err := m.enqueue(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// resumeModels takes up the models of an earlier run where it stopped.
func (o *runOptions) resumeModels(ctx context.Context, r resumed) (*models, error) {
	m := &models{options: o, suite: r.about.Selection.Suite}
	for i, job := range r.about.Jobs {
		var source fetch.Source
		if was, ok := r.replaced[job.Model.Name]; ok {
			job.Model, job.Gentler, job.Warnings = was.Model, streamed(job.Settings), replacement(was.Warnings)
		}
		if job.Model.Weights == result.FileWeights {
			if i >= len(r.about.Sources) {
				return nil, fail(exitNothing, fmt.Errorf("%s: its run.json does not say where %s came from", o.resume, job.Model.Name), "start a new run")
			}
			from := r.about.Sources[i].Source
			if strings.Contains(from, host.Redacted) && len(job.Tests) > 0 {
				if from = job.Model.Name; fileMissing(from) { // where a fetched file was put
					return nil, fail(exitModel, fmt.Errorf("%s is not here, and its address was not kept with its secrets", from),
						"start a new run, which uses all files that were fetched")
				}
			}
			parsed, err := fetch.ParseSource(from)
			if err != nil {
				return nil, fail(exitModel, err, "start a new run")
			}
			source = parsed
		}
		tests := job.Tests
		job.Tests = nil
		for _, t := range tests {
			key := testKey{job.Model.Name, t.Test}
			if k := slices.IndexFunc(r.outcomes, func(o result.Outcome) bool { return keyOf(o) == key }); k >= 0 {
				past := bench.PastTest{Test: t.Test, Status: r.outcomes[k].Status}
				if past.Status == result.OK {
					for _, s := range r.outcomes[k].Samples {
						past.Repetitions = append(past.Repetitions, s.Elapsed)
					}
				}
				job.Past = append(job.Past, past)
				continue
			}
			t.Done = r.begun[key].samples
			job.Tests = append(job.Tests, t)
		}
		var header *gguf.File
		var kept spare
		var err error
		switch wanted := &m.suite.Models[i]; {
		case len(job.Tests) == 0:
		case job.Model.Weights == result.SyntheticWeights:
			if header, err = synth.ReadHeaderFile(job.Model.Path); err == nil {
				break
			}
			if header, job.Model.Path, err = o.outline(ctx, wanted); err != nil {
				return nil, err
			}
		case source.Local():
			file, err := fetch.Local(source.Path, o.dirs()...)
			switch {
			case err == nil:
				header = file.Header
			case !o.auto():
				return nil, localFailure(source.Path, err)
			default:
				if job, header, err = o.instead(ctx, job, wanted, spare{}, err); err != nil {
					return nil, err
				}
				source = fetch.Source{}
			}
		case o.auto():
			kept = o.spare(ctx, wanted)
		}
		m.jobs = append(m.jobs, job)
		m.sources = append(m.sources, source)
		m.headers = append(m.headers, header)
		m.spares = append(m.spares, kept)
	}
	if err := m.enqueue(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func fileMissing(path string) bool {
	_, err := os.Stat(path)
	return err != nil
}

// describe is what run.json says of the models.
func (m *models) describe() (selection, []modelSource) {
	o := m.options
	var sources []modelSource
	for i, s := range m.sources {
		from := m.suite.Models[i].Source
		if s.Local() { // found in one of the models directories, from wherever
			from = m.jobs[i].Model.Path
			if abs, err := filepath.Abs(from); err == nil {
				from = abs
			}
		}
		sources = append(sources, modelSource{Source: from, SHA256: m.suite.Models[i].SHA256})
	}
	return selection{Suite: m.suite, Weights: o.weights, ModelsDir: o.downloadDir(), Scale: o.scale, Timeout: o.timeout, DownloadTimeout: o.downloadTime}, sources
}

// add makes the job of a model, as far as it is known before its file is here.
func (m *models) add(ctx context.Context, wanted *suite.Entry) error {
	o := m.options
	source, err := fetch.ParseSource(wanted.Source)
	if err != nil {
		return fail(exitModel, err, sourcesHint)
	}
	weights := result.Weights(o.weights)
	if o.auto() {
		weights = result.FileWeights // until it cannot be had
	}
	job := bench.Job{
		Model:       bench.Model{Name: wanted.Name, Weights: weights, Seed: o.seed},
		Repetitions: m.suite.Repetitions, NoWarmup: o.noWarmup, Seed: o.seed, Settings: o.settings, AllowCPU: o.allowCPU,
	}
	switch {
	case job.Model.Weights == result.SyntheticWeights || wanted.Name != source.Name():
	case source.Local():
		job.Model.Name = wanted.Source // as given, like llama-bench
	default:
		job.Model.Name = filepath.Join(o.downloadDir(), source.Name())
	}
	o.apply(&job, wanted.Tests)
	var header *gguf.File
	var kept spare
	switch {
	case job.Model.Weights == result.SyntheticWeights:
		if header, job.Model.Path, err = o.outline(ctx, wanted); err != nil {
			return err
		}
		source = fetch.Source{}
	case source.Local():
		file, err := fetch.Local(source.Path, o.dirs()...)
		switch {
		case err == nil:
			header, job.Model.Path = file.Header, file.Path
		case !o.auto():
			return localFailure(source.Path, err)
		default:
			if job, header, err = o.instead(ctx, job, wanted, spare{}, err); err != nil {
				return err
			}
			source = fetch.Source{}
		}
	case o.auto() && gguf.IsShard(source.Name()):
		if job, header, err = o.instead(ctx, job, wanted, spare{}, errShards); err != nil {
			return err
		}
		source = fetch.Source{}
	case o.auto():
		kept = o.spare(ctx, wanted)
	}
	if header != nil {
		wanted.SizeBytes, job.Model.Layers, job.Model.Largest = header.TensorBytes(), layers(header), largest(header)
	}
	m.jobs = append(m.jobs, m.budget(job, *wanted))
	m.sources = append(m.sources, source)
	m.headers = append(m.headers, header)
	m.spares = append(m.spares, kept)
	return nil
}

// budget gives a job its tests and their budgets, by the size of its tensors.
func (m *models) budget(job bench.Job, of suite.Entry) bench.Job {
	p := m.suite.Plan(of, of.SizeBytes, m.options.timeout, m.options.scale)
	job.LoadBudget, job.Tests = p.LoadBudget, nil
	for _, t := range p.Tests {
		job.Tests = append(job.Tests, bench.TestBudget{Test: t.Test, Budget: t.Budget})
	}
	return job
}

// layers are those that can be offloaded: the blocks and the output.
func layers(header *gguf.File) int {
	blocks, _ := header.Uint(header.Architecture() + ".block_count")
	return int(min(blocks, 1<<20)) + 1
}

// largest is the size of the largest tensor in bytes.
func largest(header *gguf.File) (most uint64) {
	for _, t := range header.Tensors {
		most = max(most, t.Bytes())
	}
	return most
}

// errShards is why the file of a model in several files is not used.
var errShards = errors.New("it is one of several, and only single files are fetched")

// localFailure is a file that is not here or not usable.
func localFailure(name string, err error) error {
	switch {
	case errors.Is(err, fetch.ErrNotFound):
		hint := "give the path of a GGUF file"
		if d, ok := suite.LookupModel(name); ok {
			hint = fmt.Sprintf("--weights synthetic measures it without its file; -m hf:%s/%s@%s fetches it", d.Repository, d.File, d.Revision)
		}
		return fail(exitModel, err, hint)
	case errors.Is(err, gguf.ErrTruncated):
		return fail(exitModel, err, "the file is incomplete: fetch it again")
	case errors.Is(err, fs.ErrPermission):
		return fail(exitModel, err, "the file must be readable")
	default:
		return fail(exitModel, err, "give the path of a GGUF file")
	}
}

// askedWithin bounds the questions to servers before the first test.
const askedWithin = 30 * time.Second

// enqueue queues what is not here, smallest file first, and says how
// much that is before the first byte.
func (m *models) enqueue(ctx context.Context) error {
	var items []fetch.Item
	m.items = make([]int, len(m.jobs))
	for i, source := range m.sources {
		m.items[i] = -1
		if source != (fetch.Source{}) && !source.Local() && len(m.jobs[i].Tests) > 0 {
			m.items[i] = len(items)
			items = append(items, fetch.Item{Source: source, SHA256: m.suite.Models[i].SHA256})
		}
	}
	if len(items) == 0 {
		m.sortBySize()
		return nil
	}
	client := &fetch.Client{Token: os.Getenv("HF_TOKEN"), UserAgent: "benchmark-llm/" + version, Log: slog.Default()}
	options := fetch.QueueOptions{
		Dir:       m.options.downloadDir(),
		SpareCPUs: runtime.NumCPU() > m.options.settings.Threads,
		Fetch:     fetch.Options{TrustUnchanged: true},
	}
	if err := os.MkdirAll(options.Dir, 0o755); err != nil {
		return fail(exitModel, fmt.Errorf("models directory: %w", err), "choose another place with --models-dir")
	}
	m.queue = client.Prefetch(ctx, items, options)
	asking, cancel := context.WithTimeout(ctx, askedWithin)
	defer cancel()
	total, err := m.queue.Total(asking)
	for i, item := range m.items {
		m.spares[i].silent = item >= 0 && (err != nil || total.Items[item].Err != nil)
	}
	switch {
	case ctx.Err() != nil:
		return downloadFailure(ctx, context.Cause(ctx))
	case err != nil && asking.Err() == nil:
		return fail(exitModel, fmt.Errorf("models directory: %w", err), "choose another place with --models-dir")
	case err == nil && total.Files > 0:
		slog.Info("to be fetched", "files", total.Files, "size", humanize.IBytes(uint64(total.Bytes)), "directory", options.Dir,
			"free", humanize.IBytes(uint64(max(total.Free, 0))))
	}
	if err != nil || len(m.jobs) == 1 {
		return nil
	}
	known := true
	for i := range m.jobs {
		item := m.items[i]
		if item < 0 {
			continue
		}
		if t := total.Items[item]; t.Bytes > 0 && m.suite.Models[i].SizeBytes == 0 {
			m.suite.Models[i].SizeBytes = uint64(t.Bytes)
		}
		known = known && m.suite.Models[i].SizeBytes > 0
	}
	if known && m.sortBySize() {
		m.queue.Close() // it has not begun
		items = items[:0]
		for i, source := range m.sources {
			if m.items[i] >= 0 {
				m.items[i] = len(items)
				items = append(items, fetch.Item{Source: source, SHA256: m.suite.Models[i].SHA256})
			}
		}
		m.queue = client.Prefetch(ctx, items, options)
	}
	return nil
}

// sortBySize puts smaller models first: the stop rules count on it. It tells
// whether anything moved.
func (m *models) sortBySize() bool {
	order := make([]int, len(m.jobs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(m.suite.Models[a].SizeBytes, m.suite.Models[b].SizeBytes)
	})
	if slices.IsSorted(order) {
		return false
	}
	m.suite.Models = reordered(m.suite.Models, order)
	m.jobs = reordered(m.jobs, order)
	m.sources = reordered(m.sources, order)
	m.items = reordered(m.items, order)
	m.headers = reordered(m.headers, order)
	m.spares = reordered(m.spares, order)
	return true
}

func reordered[T any](s []T, order []int) []T {
	r := make([]T, len(s))
	for i, from := range order {
		r[i] = s[from]
	}
	return r
}

// ready makes a model ready to be loaded: it waits for its file, gives the tests
// their budgets and reads the file into memory.
func (m *models) ready(ctx context.Context, i int) (bench.Job, error) {
	job, header := m.jobs[i], m.headers[i]
	if m.items[i] >= 0 {
		file, err := m.wait(ctx, i)
		switch {
		case err == nil:
			job.Model.Path, header = file.Path, file.Header
		case !m.options.auto() || ctx.Err() != nil:
			return job, err
		default:
			if job, header, err = m.options.instead(ctx, job, &m.suite.Models[i], m.spares[i], err); err != nil {
				return job, err
			}
			m.err = nil
		}
		m.headers[i] = header
		model := m.suite.Models[i]
		model.SizeBytes = header.TensorBytes()
		made := m.budget(job, model)
		job.LoadBudget = made.LoadBudget
		for t := range job.Tests { // those that are left, with what is done of them
			if k := slices.IndexFunc(made.Tests, func(b bench.TestBudget) bool { return b.Test == job.Tests[t].Test }); k >= 0 {
				job.Tests[t].Budget = made.Tests[k].Budget
			}
		}
		job.Model.Layers, job.Model.Largest = layers(header), largest(header)
	}
	if err := m.fits(job, header); err != nil {
		return job, err
	}
	if err := m.warm(ctx, job); err != nil {
		return job, err
	}
	m.pending, m.measured = slices.Clone(job.Tests), nil
	m.expect()
	return job, nil
}

// wait waits for a file of the queue.
func (m *models) wait(ctx context.Context, i int) (fetch.File, error) {
	name, item := m.jobs[i].Model.Name, m.items[i]
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
			ends = ends.Add(-m.likely(m.jobs[i].Tests, nil))
		}
		if last := start.Add(silentFor); m.spares[i].silent && (until.IsZero() || last.Before(until)) {
			until = last
		}
	}
	runEnds := !ends.IsZero() && (until.IsZero() || ends.Before(until))
	if runEnds {
		until = ends
	}
	file, err := m.queue.Wait(ctx, item, until)
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
func (m *models) fits(job bench.Job, header *gguf.File) error {
	available := host.Observe("/").MemoryAvailableBytes
	if available == nil || header == nil || len(job.Tests) == 0 || m.offloads() {
		return nil
	}
	least := slices.MinFunc(job.Tests, func(a, b bench.TestBudget) int { return cmp.Compare(a.Test.Context(), b.Test.Context()) })
	needs := suite.Plan{Tests: []suite.PlannedTest{{Test: least.Test}}}.Memory(header, job.Settings.UBatch)
	if job.Model.Weights == result.FileWeights && slices.Contains([]string{"auto", "mmap"}, job.Effective().LoadMode) {
		needs.Weights = 0
	}
	if err := needs.Fits(*available); err != nil {
		return &supervise.Missing{Status: result.OutOfMemory, Reason: err.Error()}
	}
	return nil
}

// offloads tells whether weights may go to another device than the CPU. It looks
// for drivers: opening a device here would hold memory that the worker needs.
func (m *models) offloads() bool {
	s := m.options.settings
	if s.GPULayers == 0 {
		return false
	}
	for _, driver := range []string{"/dev/nvidia0", "/dev/kfd", "/dev/dri", "/dev/dxg"} {
		if _, err := os.Stat(driver); err == nil {
			return true
		}
	}
	return len(s.RPC) > 0
}

// warm reads a file into memory before its load budget begins.
func (m *models) warm(ctx context.Context, job bench.Job) error {
	if job.Model.Weights != result.FileWeights || job.Settings.LoadMode == "dio" {
		return nil
	}
	var o fetch.WarmOptions
	if available := host.Observe("/").MemoryAvailableBytes; available != nil {
		o.AvailableBytes = int64(*available)
	}
	start := time.Now()
	read, err := fetch.Warm(ctx, job.Model.Path, o)
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
	i := slices.Index(m.items, item)
	return m.sources[i].Name()
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
