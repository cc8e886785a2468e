package acquire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Options say how the models of a run are acquired.
type Options struct {
	Finder
	Settings     map[string]bench.Settings // of tests by their result.Test.Settings; nil: those of Job
	Job          bench.Job                 // common to all jobs: seed, settings, repetitions, end-to-end prompt
	Timeout      *time.Duration            // of each test; nil: by size and length
	Scale        float64                   // factor of budgets by size and length
	DownloadTime time.Duration             // longest wait for one file; 0: no limit
	Deadline     time.Time                 // of the run, which no wait exceeds; zero: none
	SpareCPUs    bool                      // the engine leaves CPUs idle
	OnDevices    bool                      // weights may go to other devices than the CPU
}

// Models are the models of a run, the smallest first. Models consumes the events and
// outcomes of the run, from the goroutine that calls Ready.
type Models struct {
	// Emit takes events of the parent: waits for files, and files read into memory. It
	// must be set before Ready is called.
	Emit func(bench.Event) error

	options Options
	suite   suite.Suite // without its models
	all     []model
	queue   *fetch.Queue // nil: nothing is fetched
	missing error        // why the most recent missing model is missing, an *Error; nil: none is

	downloaded int64              // bytes of the queue when the current repetition began
	pending    []bench.TestBudget // of the current model
	measured   []policy.Measured  // of the current model
	warmsAlone bool               // the current test warms up in a burst of its own
}

// model is a model that is being acquired.
type model struct {
	wanted suite.Entry
	job    bench.Job
	header *gguf.File // nil: not known yet
	file   fetch.File // on this machine; otherwise the zero File
	fetch  bool       // its file must be fetched
	item   int        // of the queue, or notQueued
	bad    *Error     // why the model cannot be run; nil: it can

	// Only with Auto, and if fetch is true.
	fallback located // Header is nil if it is not known
	silent   bool    // its server did not answer before the run
}

const notQueued = -1

// New finds the models of a suite and queues those that must be fetched. The caller
// must call Close. The error is an *Error, or the cause of ctx. A model that cannot be
// run is no error if another can; see Bad.
func New(ctx context.Context, s suite.Suite, o Options) (*Models, error) {
	m := newModels(s, o)
	requests, cancel := bench.WithinLimit(ctx, o.Deadline)
	defer cancel()
	for _, wanted := range s.Models {
		c, err := m.find(requests, wanted)
		if c.bad = ownFault(requests, err); err != nil && c.bad == nil {
			return nil, err
		}
		if c.bad != nil {
			c.job = m.budget(c.job, c.wanted)
		}
		m.all = append(m.all, c)
	}
	if err := m.allBad(); err != nil {
		return nil, err
	}
	return m, m.enqueue(ctx)
}

// ownFault returns the error of a model that costs only this model; nil: the error is
// another one, or none.
func ownFault(ctx context.Context, err error) (own *Error) {
	if ctx.Err() == nil && errors.As(err, &own) && own.Kind != NoDirectory {
		return own
	}
	return nil
}

// allBad returns the error of the first model if no model that has tests can be run.
func (m *Models) allBad() error {
	var first error
	for i := range m.all {
		c := &m.all[i]
		switch {
		case len(c.job.Tests) == 0: // an earlier process ran them
		case c.bad == nil:
			return nil
		case first == nil:
			first = c.bad
		}
	}
	return first
}

// Bad returns why models cannot be run, by their names. Their tests have no results.
func (m *Models) Bad() (names []string, errs []error) {
	for i := range m.all {
		if c := &m.all[i]; c.bad != nil && !slices.Contains(names, c.wanted.Name) {
			names, errs = append(names, c.wanted.Name), append(errs, c.bad)
		}
	}
	return names, errs
}

func newModels(s suite.Suite, o Options) *Models {
	o.Keep = true
	s.Models = nil
	return &Models{options: o, suite: s}
}

// Interrupted is a model of an interrupted run.
type Interrupted struct {
	Wanted suite.Entry
	Job    bench.Job // with what is left to do
	Source string    // of the file, from run.json; empty: not known
}

// Resume finds the models of an interrupted run. The caller must call Close. The error
// is an *Error, or the cause of ctx, as that of New.
func Resume(ctx context.Context, s suite.Suite, models []Interrupted, o Options) (*Models, error) {
	m := newModels(s, o)
	requests, cancel := bench.WithinLimit(ctx, o.Deadline)
	defer cancel()
	for _, left := range models {
		c, err := m.resume(requests, left)
		if c.bad = ownFault(requests, err); err != nil && c.bad == nil {
			return nil, err
		}
		m.all = append(m.all, c)
	}
	if err := m.allBad(); err != nil {
		return nil, err
	}
	return m, m.enqueue(ctx)
}

// find makes the job of a model. The job is incomplete until the model's file is on
// this machine.
func (m *Models) find(ctx context.Context, wanted suite.Entry) (model, error) {
	o, src := m.options, wanted.Source
	c := model{wanted: wanted, job: o.Job, item: notQueued}
	c.job.Model = bench.Model{Name: wanted.Name, Weights: result.FileWeights, Seed: o.Job.Seed, Load: wanted.Load}
	c.job.Settings, c.job.Sweep = o.settingsOf(wanted)
	switch {
	case o.Weights == Synthetic || wanted.Name != src.Name():
	case src.Local():
		c.job.Model.Name = src.Given // as in llama-bench
	default: // the file's path, which records show
		c.job.Model.Filename = filepath.Join(o.Dirs.Download, src.Name())
		if file, ok := o.Client.Cached(src); ok {
			c.job.Model.Filename = file.Path
		}
	}
	if !slices.ContainsFunc(wanted.Tests, func(t result.Test) bool { return t.E2E }) {
		c.job.E2E = nil
	}
	l, err := o.locate(ctx, wanted)
	if err != nil {
		return c, err
	}
	c.use(l)
	if err := c.identify(); err != nil {
		return c, err
	}
	if l.Fetch {
		c.findFallback(ctx, &o)
	}
	if c.header != nil {
		c.wanted.SizeBytes = c.header.TensorBytes()
		if err := checkOverrides(c.job.Settings, c.header); err != nil {
			return c, &Error{NoTensor, c.wanted.Name, fmt.Errorf("%s: %w", c.wanted.Name, err)}
		}
	}
	c.job = m.budget(c.job, c.wanted)
	return c, nil
}

// settingsOf returns the settings with which a model is loaded, and those of its tests.
func (o *Options) settingsOf(wanted suite.Entry) (load bench.Settings, sweep map[string]bench.Settings) {
	load = o.Job.Settings
	for _, t := range wanted.Tests {
		s, ok := o.Settings[t.Settings]
		if !ok {
			continue
		}
		if sweep == nil {
			load, sweep = s, map[string]bench.Settings{}
		}
		sweep[t.Settings] = s
	}
	return load, sweep
}

// findFallback finds, with Auto, the fallback of a model whose file must be fetched.
// A failure is not reported, because the file may arrive.
func (c *model) findFallback(ctx context.Context, o *Options) {
	if o.Weights != Auto {
		return
	}
	l, err := o.fallback(ctx, c.wanted, nil)
	if err != nil {
		slog.Debug("no header for synthetic weights", "model", c.wanted.Name, "reason", err)
		return
	}
	c.fallback = l
}

// use gives a model the weights that locate found.
func (c *model) use(l located) {
	job := &c.job
	job.Model.Weights, job.Model.Path = l.Weights, l.HeaderPath
	c.header, c.file, c.fetch = l.Header, l.File, l.Fetch
	if l.File.Path != "" {
		job.Model.Path = l.File.Path
	}
	if c.header != nil {
		job.Model.Layers, job.Model.LargestBytes = layers(c.header), largest(c.header)
	}
	if l.Weights != result.SyntheticWeights {
		return
	}
	if l.Because != nil { // those of the file
		job.Model.Files = nil
	}
	// Only end-to-end tests need a vocabulary, and the library reads it for up to half a second.
	job.Model.Words = job.E2E != nil
	if l.Because == nil {
		return
	}
	if errors.As(l.Because, new(*supervise.Missing)) { // WaitDone has the reason
		slog.Info("using synthetic weights", "model", c.wanted.Name)
	} else {
		slog.Warn("using synthetic weights", "model", c.wanted.Name, "reason", l.Because)
	}
	// The settings are meant for a file. A stream cannot be mapped.
	s := job.Effective()
	s.LoadMode = "none"
	job.Adjusted = &s
	job.Warn(result.Warning{
		Code:    result.WarnSyntheticWeights,
		Message: oneLine(fmt.Sprintf("the weights are synthetic, because the file is not available: %v", l.Because)),
	})
	job.ForgetRepetitions() // they were measured with the file
}

// resume finds the weights of a model of an interrupted run.
func (m *Models) resume(ctx context.Context, left Interrupted) (model, error) {
	o := m.options
	c := model{wanted: left.Wanted, job: left.Job, item: notQueued}
	if len(c.job.Tests) == 0 {
		return c, nil
	}
	var err error
	if c.wanted.Source, err = m.sourceOf(left); err != nil && c.job.Model.Weights != result.SyntheticWeights {
		return c, err
	}
	if c.job.Model.Weights == result.SyntheticWeights {
		header, err := synth.ReadHeaderFile(c.job.Model.Path)
		if err == nil {
			c.header = header
			return c, c.identify()
		}
		l, err := o.synthetic(ctx, c.wanted)
		if err != nil {
			return c, err
		}
		c.header, c.job.Model.Path = l.Header, l.HeaderPath
		return c, c.identify()
	}
	l, err := o.locate(ctx, c.wanted)
	if err != nil {
		return c, err
	}
	c.use(l)
	if l.Fetch {
		c.findFallback(ctx, &o)
		return c, nil
	}
	return c, c.identify()
}

// sourceOf returns the source of a model of an interrupted run.
func (m *Models) sourceOf(left Interrupted) (source.Source, error) {
	name, from := cmp.Or(left.Job.Model.Filename, left.Job.Model.Name), left.Source
	if from == "" && left.Job.Model.Weights == result.SyntheticWeights {
		from = left.Wanted.Source.Given // an older run
	}
	if from == "" {
		return source.Source{}, &Error{NoSource, name, fmt.Errorf("run.json does not say where %s came from", name)}
	}
	if strings.Contains(from, host.Redacted) {
		if from = name; left.Wanted.Source.Folder != "" {
			from = filepath.Join(m.options.Dirs.Download, name)
		}
		if isMissing(from) { // the name of a fetched file is its path
			return source.Source{}, &Error{NoSource, name, fmt.Errorf("%s is not on this machine, and the secrets of its address were not kept", name)}
		}
	}
	src, err := source.Parse(from)
	if err != nil {
		return src, &Error{NoSource, name, err}
	}
	src.SHA256 = left.Wanted.Source.SHA256
	if !src.Local() {
		src.Folder = left.Wanted.Source.Folder
	}
	return src, nil
}

// budget gives a job its tests and budgets, by the size of the model's tensors.
func (m *Models) budget(job bench.Job, wanted suite.Entry) bench.Job {
	p := m.suite.Plan(wanted, wanted.SizeBytes, m.options.Timeout, m.options.Scale)
	job.LoadBudget, job.Tests = p.LoadBudget, nil
	for _, t := range p.Tests {
		job.Tests = append(job.Tests, bench.TestBudget{Test: t.Test, Budget: t.Budget})
	}
	return job
}

// layers returns the number of layers that can be offloaded: the blocks and the output.
func layers(header *gguf.File) int {
	blocks, _ := header.Uint(header.Architecture() + ".block_count")
	return int(min(blocks, 1<<20)) + 1
}

// largest returns the size of the largest tensor in bytes.
func largest(header *gguf.File) (bytes uint64) {
	for _, t := range header.Tensors {
		bytes = max(bytes, t.Bytes())
	}
	return bytes
}

// enqueue queues the files that must be fetched, the smallest model first. It logs how
// many bytes they have. The downloads begin with Start.
func (m *Models) enqueue(ctx context.Context) error {
	var sources []source.Source
	var fetched []int // their models
	for i := range m.all {
		if c := &m.all[i]; c.fetch && len(c.job.Tests) > 0 && !slices.Contains(sources, c.wanted.Source) {
			sources, fetched = append(sources, c.wanted.Source), append(fetched, i)
		}
	}
	dir := m.options.Dirs.Download
	var sizes []fetch.Size
	if len(sources) > 0 {
		requests, cancel := context.WithTimeout(ctx, m.options.Weights.requestTimeout())
		defer cancel()
		requests, cancel = bench.WithinLimit(requests, m.options.Deadline)
		defer cancel()
		var err error
		sizes, err = m.options.Client.Sizes(requests, sources, dir)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for k, i := range fetched {
			c := &m.all[i]
			c.silent = err != nil || sizes[k].Err != nil
			if err == nil && len(m.all) > 1 && c.wanted.SizeBytes == 0 {
				c.wanted.SizeBytes = uint64(max(sizes[k].Bytes, 0))
			}
		}
		needed := func(s fetch.Size) bool { return s.Err != nil || s.Files > 0 }
		if err != nil || slices.ContainsFunc(sizes, needed) {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return &Error{NoDirectory, "", fmt.Errorf("models directory: %w", err)}
			}
		}
		if err == nil {
			if err := m.logSizes(sizes); err != nil {
				return err
			}
		}
	}
	for i := range m.all { // the jobs of a model share its file
		if k := slices.Index(sources, m.all[i].wanted.Source); k >= 0 && m.all[i].fetch {
			m.all[i].silent, m.all[i].wanted.SizeBytes = m.all[fetched[k]].silent, m.all[fetched[k]].wanted.SizeBytes
		}
	}
	bySize := func(a, b int) int { return cmp.Compare(m.all[a].wanted.SizeBytes, m.all[b].wanted.SizeBytes) }
	order := make([]int, len(m.all))
	for i := range order {
		order[i] = i
	}
	if !m.suite.GivenOrder && !slices.ContainsFunc(fetched, func(i int) bool { return m.all[i].wanted.SizeBytes == 0 }) { // the stop rules need this order
		slices.SortStableFunc(order, bySize)
	}
	all, queued, known := make([]model, len(m.all)), []source.Source(nil), []fetch.Size(nil)
	for place, i := range order {
		all[place] = m.all[i]
		if !m.all[i].fetch || len(m.all[i].job.Tests) == 0 {
			continue
		}
		if k := slices.Index(queued, m.all[i].wanted.Source); k >= 0 {
			all[place].item = k
			continue
		}
		if k := slices.Index(sources, m.all[i].wanted.Source); k >= 0 {
			all[place].item = len(queued)
			queued = append(queued, sources[k])
			if sizes != nil {
				known = append(known, sizes[k])
			}
		}
	}
	m.all = all
	if len(queued) > 0 {
		m.queue = m.options.Client.Prefetch(ctx, queued, fetch.QueueOptions{
			Dir: dir, Sizes: known, SpareCPUs: m.options.SpareCPUs, Fetch: fetch.Options{TrustUnchanged: true},
		})
	}
	return nil
}

// logSizes logs how many bytes must be fetched.
func (m *Models) logSizes(sizes []fetch.Size) error {
	dir := m.options.Dirs.Download
	free, err := m.options.Client.Room(dir)
	if err != nil {
		return &Error{NoDirectory, "", fmt.Errorf("models directory: %w", err)}
	}
	var missing int64
	files := 0
	for _, s := range sizes {
		missing, files = missing+s.Missing, files+s.Files
	}
	if files > 0 && m.options.Dirs.temporary {
		slog.Warn("models go to a temporary directory, because neither /models nor the user's cache can be written", "models_dir", dir)
	}
	if files > 0 {
		slog.Info("fetching models", "files", files, "size_bytes", missing, "models_dir", dir, "free_bytes", max(free, 0))
	}
	return nil
}

// Jobs returns the models' jobs, in the order in which they run.
func (m *Models) Jobs() []bench.Job {
	jobs := make([]bench.Job, len(m.all))
	for i, c := range m.all {
		jobs[i] = c.job
	}
	return jobs
}

// SizesBytes returns the sizes of the models' tensors, in the order in which they run; 0:
// not known.
func (m *Models) SizesBytes() []uint64 {
	sizes := make([]uint64, len(m.all))
	for i, c := range m.all {
		sizes[i] = c.wanted.SizeBytes
	}
	return sizes
}

// GivenOrder tells whether the models run in the order in which they were given. Then
// none of them rules out another.
func (m *Models) GivenOrder() bool { return m.suite.GivenOrder }

// Wanted returns the models as they were wanted, in the order in which they run, and
// the source of each. Paths are absolute.
func (m *Models) Wanted() (wanted []suite.Entry, from []string) {
	for _, c := range m.all {
		given := c.wanted.Source.Given
		if c.wanted.Source.Local() && c.job.Model.Weights == result.FileWeights { // found in one of the models directories
			given = cmp.Or(c.job.Model.Path, c.wanted.Source.Path)
			if abs, err := filepath.Abs(given); err == nil {
				given = abs
			}
		}
		wanted, from = append(wanted, c.wanted), append(from, given)
	}
	return wanted, from
}

// Missing explains why the most recent missing model is missing; nil: none is. It is an
// *Error.
func (m *Models) Missing() error { return m.missing }

// Start begins the downloads.
func (m *Models) Start() {
	if m.queue != nil {
		m.queue.Start()
	}
}

// Close ends the downloads and keeps what has arrived. It is idempotent.
func (m *Models) Close() {
	if m.queue != nil {
		m.queue.Close()
	}
}

// oneLine joins the lines of a text, for a warning.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
