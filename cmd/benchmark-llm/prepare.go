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
)

// models are the models of a run on their way to the engine.
type models struct {
	options *runOptions
	suite   suite.Suite
	jobs    []bench.Job // one for each model, in the order they run
	sources []fetch.Source
	files   []fetch.File  // those that are here from the start
	items   []int         // of the queue; -1: not fetched
	needs   []gguf.Memory // of synthetic models, for their shortest test
	queue   *fetch.Queue  // nil when nothing is fetched

	emit     func(bench.Event) error // of the run
	deadline time.Time               // of the run; zero: none
	err      error                   // why the last model that is missing is

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
		if source.Local() && len(job.Tests) > 0 {
			if _, err := fetch.Local(source.Path, o.dirs()...); err != nil {
				return nil, localFailure(source.Path, err)
			}
		}
		m.jobs = append(m.jobs, job)
		m.sources = append(m.sources, source)
		m.files = append(m.files, fetch.File{})
		m.needs = append(m.needs, gguf.Memory{Weights: m.suite.Models[i].SizeBytes})
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
	return selection{Suite: m.suite, ModelsDir: o.downloadDir(), Scale: o.scale, Timeout: o.timeout, DownloadTimeout: o.downloadTime}, sources
}

// add makes the job of a model, as far as it is known before its file is here.
func (m *models) add(ctx context.Context, wanted *suite.Entry) error {
	o := m.options
	source, err := fetch.ParseSource(wanted.Source)
	if err != nil {
		return fail(exitModel, err, sourcesHint)
	}
	job := bench.Job{
		Model:       bench.Model{Name: wanted.Name, Weights: result.Weights(o.weights), Seed: o.seed},
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
	size := wanted.SizeBytes
	var file fetch.File
	var needs gguf.Memory
	switch {
	case job.Model.Weights == result.SyntheticWeights:
		header, path, err := o.outline(ctx, source, wanted)
		if err != nil {
			return err
		}
		job.Model.Path = path
		size, job.Model.Layers, job.Model.Largest = header.TensorBytes(), layers(header), largest(header)
		source = fetch.Source{}
		if len(wanted.Tests) > 0 {
			least := slices.MinFunc(wanted.Tests, func(a, b result.Test) int { return cmp.Compare(a.Context(), b.Context()) })
			needs = suite.Plan{Tests: []suite.PlannedTest{{Test: least}}}.Memory(header, o.settings.UBatch)
		}
	case source.Local():
		if file, err = fetch.Local(source.Path, o.dirs()...); err != nil {
			return localFailure(source.Path, err)
		}
		job.Model.Path, job.Model.Layers, job.Model.Largest = file.Path, layers(file.Header), largest(file.Header)
		size = file.Header.TensorBytes()
	}
	wanted.SizeBytes = size
	m.jobs = append(m.jobs, m.budget(job, *wanted))
	m.sources = append(m.sources, source)
	m.files = append(m.files, file)
	m.needs = append(m.needs, needs)
	return nil
}

// outline is the header of a model whose weights are generated: a default model's
// shape, or what the header of any file says. path is where the worker finds it;
// empty for a default model.
func (o *runOptions) outline(ctx context.Context, source fetch.Source, wanted *suite.Entry) (header *gguf.File, path string, err error) {
	shape, err := lookupShape(wanted.Name)
	if err != nil {
		if source.Local() && fileMissing(source.Path) {
			return nil, "", err
		}
		path, header, err = keepOutline(ctx, wanted.Source, o.downloadDir())
		return header, path, err
	}
	if header, err = shape.File(); err != nil {
		return nil, "", fail(exitModel, err, "")
	}
	return header, "", nil
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
	m.files = reordered(m.files, order)
	m.items = reordered(m.items, order)
	m.needs = reordered(m.needs, order)
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
	job := m.jobs[i]
	if item := m.items[i]; item >= 0 {
		file, err := m.wait(ctx, job.Model.Name, item)
		if err != nil {
			return job, err
		}
		model := m.suite.Models[i]
		model.SizeBytes = file.Header.TensorBytes()
		made := m.budget(job, model)
		job.LoadBudget = made.LoadBudget
		for t := range job.Tests { // those that are left, with what is done of them
			if k := slices.IndexFunc(made.Tests, func(b bench.TestBudget) bool { return b.Test == job.Tests[t].Test }); k >= 0 {
				job.Tests[t].Budget = made.Tests[k].Budget
			}
		}
		job.Model.Path, job.Model.Layers, job.Model.Largest = file.Path, layers(file.Header), largest(file.Header)
	}
	if err := m.fits(job, m.needs[i]); err != nil {
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
func (m *models) wait(ctx context.Context, name string, item int) (fetch.File, error) {
	if err := m.emit(bench.WaitStarted{Model: name}); err != nil {
		return fetch.File{}, err
	}
	start := time.Now()
	var until time.Time
	if limit := m.options.downloadTime; limit > 0 {
		until = start.Add(limit)
	}
	runEnds := !m.deadline.IsZero() && (until.IsZero() || m.deadline.Before(until))
	if runEnds {
		until = m.deadline
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

// fits refuses synthetic weights that the memory cannot hold: nothing is
// allocated to find that out, for the kernel might end the worker, or another
// process, in the middle. A file may be mapped and needs no memory of its own.
func (m *models) fits(job bench.Job, needs gguf.Memory) error {
	available := host.Observe("/").MemoryAvailableBytes
	if job.Model.Weights != result.SyntheticWeights || available == nil || m.offloads() {
		return nil
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

// event tells the downloads what the engine does.
func (m *models) event(e bench.Event) {
	if m.queue == nil {
		return
	}
	switch e.(type) {
	case bench.ContextReady:
		m.queue.Timing(m.options.noWarmup)
	case bench.WarmupDone:
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
	if m.queue == nil {
		return
	}
	policy := suite.DefaultPolicy()
	var left time.Duration
	for _, t := range m.pending {
		h := suite.History{Test: t.Test, Budget: t.Budget, Repetitions: m.suite.Repetitions, Warmup: !m.options.noWarmup}
		for _, done := range m.measured {
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
	m.queue.Expect(left)
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
