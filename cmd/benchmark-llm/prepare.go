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
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// candidate is a model on its way to the engine.
type candidate struct {
	wanted suite.Entry
	job    bench.Job
	source fetch.Source // of its file; zero: generated weights
	header *gguf.File   // nil: not known yet
	paths  []string     // of its files that are here
	spare  spare        // with --weights auto, of one that is fetched
	item   int          // of the queue; notFetched
}

const notFetched = -1

// models are the models of a run.
type models struct {
	options *runOptions
	suite   suite.Suite  // without its models
	all     []candidate  // in the order they run
	queue   *fetch.Queue // nil when nothing is fetched

	emit     func(bench.Event) error // of the run
	deadline time.Time               // of the run; zero: none
	err      error                   // why the last model that is missing is

	passed   int64              // bytes of the queue, when a repetition began
	pending  []bench.TestBudget // of the model under way
	measured []suite.Measured   // of it
}

// newModels has room for the models of a suite.
func newModels(o *runOptions, s suite.Suite) *models {
	m := &models{options: o, suite: s, all: make([]candidate, 0, len(s.Models))}
	m.suite.Models = nil
	return m
}

// jobs are the models' jobs, in the order they run.
func (m *models) jobs() []bench.Job {
	jobs := make([]bench.Job, len(m.all))
	for i, c := range m.all {
		jobs[i] = c.job
	}
	return jobs
}

// prepare finds the models that are asked for, and queues those that are not
// here.
func (o *runOptions) prepare(ctx context.Context, s suite.Suite) (*models, error) {
	m := newModels(o, s)
	for _, wanted := range s.Models {
		c, err := m.candidate(ctx, wanted)
		if err != nil {
			return nil, err
		}
		m.all = append(m.all, c)
	}
	if err := m.enqueue(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// resumeModels takes up the models of an earlier run where it stopped.
func (o *runOptions) resumeModels(ctx context.Context, r resumed) (*models, error) {
	suite := r.about.Selection.Suite
	m := newModels(o, suite)
	for i, job := range r.about.Jobs {
		c := candidate{wanted: suite.Models[i]}
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
			c.source = parsed
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
		c.job = job
		var err error
		switch {
		case len(job.Tests) == 0:
		case job.Model.Weights == result.SyntheticWeights:
			if c.header, err = synth.ReadHeaderFile(job.Model.Path); err == nil {
				break
			}
			if c.header, c.job.Model.Path, err = o.outline(ctx, &c.wanted); err != nil {
				return nil, err
			}
		case c.source.Local():
			if err := o.findLocal(ctx, &c); err != nil {
				return nil, err
			}
		case o.auto():
			c.spare = o.spare(ctx, &c.wanted)
		}
		c.forgetSource()
		m.all = append(m.all, c)
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
	described := m.suite
	for _, c := range m.all {
		from := c.wanted.Source
		if c.source.Local() { // found in one of the models directories, from wherever
			from = c.job.Model.Path
			if abs, err := filepath.Abs(from); err == nil {
				from = abs
			}
		}
		sources = append(sources, modelSource{Source: from, SHA256: c.wanted.SHA256})
		described.Models = append(described.Models, c.wanted)
	}
	return selection{Suite: described, Weights: o.weights, ModelsDir: o.downloadDir(), Scale: o.scale, Timeout: o.timeout, DownloadTimeout: o.downloadTime}, sources
}

// candidate makes the job of a model, as far as it is known before its file is
// here.
func (m *models) candidate(ctx context.Context, wanted suite.Entry) (candidate, error) {
	o, c := m.options, candidate{wanted: wanted}
	var err error
	if c.source, err = fetch.ParseSource(wanted.Source); err != nil {
		return c, fail(exitModel, err, sourcesHint)
	}
	weights := result.Weights(o.weights)
	if o.auto() {
		weights = result.FileWeights // until it cannot be had
	}
	c.job = bench.Job{
		Model:       bench.Model{Name: wanted.Name, Weights: weights, Seed: o.seed},
		Repetitions: m.suite.Repetitions, NoWarmup: o.noWarmup, Seed: o.seed, Settings: o.settings, AllowCPU: o.allowCPU,
	}
	switch {
	case weights == result.SyntheticWeights || wanted.Name != c.source.Name():
	case c.source.Local():
		c.job.Model.Name = wanted.Source // as given, like llama-bench
	default:
		c.job.Model.Name = filepath.Join(o.downloadDir(), c.source.Name())
	}
	o.apply(&c.job, wanted.Tests)
	switch {
	case weights == result.SyntheticWeights:
		c.header, c.job.Model.Path, err = o.outline(ctx, &c.wanted)
	case c.source.Local():
		err = o.findLocal(ctx, &c)
	case o.auto():
		c.spare = o.spare(ctx, &c.wanted)
	}
	if err != nil {
		return c, err
	}
	c.forgetSource()
	if h := c.header; h != nil {
		c.wanted.SizeBytes, c.job.Model.Layers, c.job.Model.Largest = h.TensorBytes(), layers(h), largest(h)
	}
	c.job = m.budget(c.job, c.wanted)
	return c, nil
}

// forgetSource leaves a candidate with generated weights without a file to fetch.
func (c *candidate) forgetSource() {
	if c.job.Model.Weights == result.SyntheticWeights {
		c.source = fetch.Source{}
	}
}

// findLocal finds a candidate's file here.
func (o *runOptions) findLocal(ctx context.Context, c *candidate) error {
	file, err := fetch.Local(c.source.Path, o.dirs()...)
	switch {
	case err == nil:
		c.header, c.paths, c.job.Model.Path = file.Header, file.Paths, file.Path
		return nil
	case o.auto():
		return o.replace(ctx, c, err)
	default:
		return localFailure(c.source.Path, err)
	}
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

// enqueue queues what is not here, smallest file first, and says how
// much that is before the first byte.
func (m *models) enqueue(ctx context.Context) error {
	var items []fetch.Item
	for i := range m.all {
		c := &m.all[i]
		c.item = notFetched
		if c.source != (fetch.Source{}) && !c.source.Local() && len(c.job.Tests) > 0 {
			c.item = len(items)
			items = append(items, fetch.Item{Source: c.source, SHA256: c.wanted.SHA256})
		}
	}
	if len(items) == 0 {
		m.sortBySize()
		return nil
	}
	client := newClient(m.options.auto())
	options := fetch.QueueOptions{
		Dir:       m.options.downloadDir(),
		SpareCPUs: runtime.NumCPU() > m.options.settings.Threads,
		Fetch:     fetch.Options{TrustUnchanged: true},
	}
	if err := os.MkdirAll(options.Dir, 0o755); err != nil {
		return fail(exitModel, fmt.Errorf("models directory: %w", err), "choose another place with --models-dir")
	}
	m.queue = client.Prefetch(ctx, items, options)
	asking, cancel := context.WithTimeout(ctx, m.options.askedWithin())
	defer cancel()
	total, err := m.queue.Total(asking)
	for i := range m.all {
		c := &m.all[i]
		c.spare.silent = c.item != notFetched && (err != nil || total.Items[c.item].Err != nil)
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
	if err != nil || len(m.all) == 1 {
		return nil
	}
	known := true
	for i := range m.all {
		c := &m.all[i]
		if c.item == notFetched {
			continue
		}
		if t := total.Items[c.item]; t.Bytes > 0 && c.wanted.SizeBytes == 0 {
			c.wanted.SizeBytes = uint64(t.Bytes)
		}
		known = known && c.wanted.SizeBytes > 0
	}
	if known && m.sortBySize() {
		m.queue.Close() // it has not begun
		items = items[:0]
		for i := range m.all {
			if c := &m.all[i]; c.item != notFetched {
				c.item = len(items)
				items = append(items, fetch.Item{Source: c.source, SHA256: c.wanted.SHA256})
			}
		}
		m.queue = client.Prefetch(ctx, items, options)
	}
	return nil
}

// sortBySize puts smaller models first: the stop rules count on it. It tells
// whether anything moved.
func (m *models) sortBySize() bool {
	bySize := func(a, b candidate) int { return cmp.Compare(a.wanted.SizeBytes, b.wanted.SizeBytes) }
	if slices.IsSortedFunc(m.all, bySize) {
		return false
	}
	slices.SortStableFunc(m.all, bySize)
	return true
}
