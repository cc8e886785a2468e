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

	"github.com/dustin/go-humanize"

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

// Options are how the models of a run are acquired.
type Options struct {
	Finder
	Job          bench.Job      // what all jobs have in common: seed, settings, repetitions, and how end-to-end tests are done
	Timeout      *time.Duration // of each test; nil: by size and length
	Scale        float64        // of budgets by size and length
	DownloadTime time.Duration  // longest wait for one file; 0: no limit
	Deadline     time.Time      // of the run; zero: none
	SpareCPUs    bool           // the engine leaves CPUs idle
	OnDevices    bool           // weights may go to another device than the CPU
}

// Models are the models of a run, smallest first. Models consumes the events and
// outcomes of the run, from the goroutine that calls Ready.
type Models struct {
	// Emit takes the run's own events: waits for files. It is set before Ready.
	Emit func(bench.Event) error

	options Options
	suite   suite.Suite // without its models
	all     []model
	queue   *fetch.Queue // nil: nothing is fetched
	missing error        // why the most recent missing model could not be had

	passed   int64              // bytes of the queue when a repetition began
	pending  []bench.TestBudget // of the model under way
	measured []policy.Measured  // of the model under way
}

// model is a model on its way from a wanted one to a ready one.
type model struct {
	wanted suite.Entry
	job    bench.Job
	header *gguf.File // nil: not known yet
	paths  []string   // of its files on this machine
	fetch  bool       // its file is to be fetched
	item   int        // of the queue; notQueued

	// With Auto, of a model that is fetched.
	fallback Located // Header is nil if it is not known
	silent   bool    // its server did not answer
}

const notQueued = -1

// New finds the models of a suite and queues those that must be fetched. Close
// must be called. The error is an *Error, or the cause of ctx.
func New(ctx context.Context, s suite.Suite, o Options) (*Models, error) {
	m := newModels(s, o)
	for _, wanted := range s.Models {
		c, err := m.find(ctx, wanted)
		if err != nil {
			return nil, err
		}
		m.all = append(m.all, c)
	}
	return m, m.enqueue(ctx)
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
	Source string    // of the file, as run.json has it; empty: it has none
}

// Resume takes up the models of an interrupted run. Close must be called. The
// error is an *Error, or the cause of ctx.
func Resume(ctx context.Context, s suite.Suite, models []Interrupted, o Options) (*Models, error) {
	m := newModels(s, o)
	for _, left := range models {
		c, err := m.resume(ctx, left)
		if err != nil {
			return nil, err
		}
		m.all = append(m.all, c)
	}
	return m, m.enqueue(ctx)
}

// find makes the job of a model, as far as it is known before its file is here.
func (m *Models) find(ctx context.Context, wanted suite.Entry) (model, error) {
	o, src := m.options, wanted.Source
	c := model{wanted: wanted, job: o.Job, item: notQueued}
	c.job.Model = bench.Model{Name: wanted.Name, Weights: result.FileWeights, Seed: o.Job.Seed}
	switch {
	case o.Weights == Synthetic || wanted.Name != src.Name():
	case src.Local():
		c.job.Model.Name = src.Given // as given, like llama-bench
	default:
		c.job.Model.Name = filepath.Join(o.Dirs.Put, src.Name())
	}
	if !slices.ContainsFunc(wanted.Tests, func(t result.Test) bool { return t.E2E }) {
		c.job.E2E = nil
	}
	l, err := o.Locate(ctx, wanted)
	if err != nil {
		return c, err
	}
	c.use(l)
	if l.Fetch {
		c.findFallback(ctx, &o)
	}
	if c.header != nil {
		c.wanted.SizeBytes = c.header.TensorBytes()
	}
	c.job = m.budget(c.job, c.wanted)
	return c, nil
}

// findFallback looks, with Auto, for what a model can be measured by if its file
// does not arrive. A failure is not one yet: the file may arrive.
func (c *model) findFallback(ctx context.Context, o *Options) {
	if o.Weights != Auto {
		return
	}
	l, err := o.Fallback(ctx, c.wanted, nil)
	if err != nil {
		slog.Debug("no header to fall back on", "model", c.wanted.Name, "reason", err)
		return
	}
	c.fallback = l
}

// use gives a model the weights that were found.
func (c *model) use(l Located) {
	job := &c.job
	job.Model.Weights, job.Model.Path = l.Weights, l.HeaderPath
	c.header, c.paths, c.fetch = l.Header, l.File.Paths, l.Fetch
	if l.File.Path != "" {
		job.Model.Path = l.File.Path
	}
	if c.header != nil {
		job.Model.Layers, job.Model.Largest = layers(c.header), largest(c.header)
	}
	if l.Weights != result.SyntheticWeights {
		return
	}
	// Only end-to-end tests need a vocabulary, and the library takes a moment to read it.
	job.Model.Words = job.E2E != nil
	if l.Because == nil {
		return
	}
	// The settings were asked for with a file in mind, and a stream cannot be mapped.
	if errors.As(l.Because, new(*supervise.Missing)) { // the end of the wait said why
		slog.Info("synthetic weights are used", "model", c.wanted.Name)
	} else {
		slog.Warn("synthetic weights are used", "model", c.wanted.Name, "reason", l.Because)
	}
	s := job.Effective()
	s.LoadMode = "none"
	job.Adjusted = &s
	job.Warn(result.Warning{
		Code:    result.WarnSyntheticWeights,
		Message: oneLine(fmt.Sprintf("the weights are synthetic, because the file could not be had: %v", l.Because)),
	})
	job.ForgetRepetitions() // they were measured with the file
}

// resume takes up a model where an earlier run stopped.
func (m *Models) resume(ctx context.Context, left Interrupted) (model, error) {
	o := m.options
	c := model{wanted: left.Wanted, job: left.Job, item: notQueued}
	if len(c.job.Tests) == 0 {
		return c, nil
	}
	if c.job.Model.Weights == result.SyntheticWeights {
		header, err := synth.ReadHeaderFile(c.job.Model.Path)
		if err == nil {
			c.header = header
			return c, nil
		}
		l, err := o.synthetic(ctx, c.wanted)
		if err != nil {
			return c, err
		}
		c.header, c.job.Model.Path = l.Header, l.HeaderPath
		return c, nil
	}
	src, err := sourceOf(left)
	if err != nil {
		return c, err
	}
	src.SHA256 = c.wanted.Source.SHA256
	c.wanted.Source = src
	l, err := o.Locate(ctx, c.wanted)
	if err != nil {
		return c, err
	}
	c.use(l)
	if l.Fetch {
		c.findFallback(ctx, &o)
	}
	return c, nil
}

// sourceOf is where the file of a model of an interrupted run came from.
func sourceOf(left Interrupted) (source.Source, error) {
	name, from := left.Job.Model.Name, left.Source
	if from == "" {
		return source.Source{}, &Error{NoSource, name, fmt.Errorf("run.json does not say where %s came from", name)}
	}
	if strings.Contains(from, host.Redacted) {
		if from = name; isMissing(from) { // a fetched file has its path as its name
			return source.Source{}, &Error{NoSource, name, fmt.Errorf("%s is not here, and its address was not kept with its secrets", name)}
		}
	}
	src, err := source.Parse(from)
	if err != nil {
		return src, &Error{NoSource, name, err}
	}
	return src, nil
}

// budget gives a job its tests and their budgets, by the size of its tensors.
func (m *Models) budget(job bench.Job, of suite.Entry) bench.Job {
	p := m.suite.Plan(of, of.SizeBytes, m.options.Timeout, m.options.Scale)
	job.LoadBudget, job.Tests = p.LoadBudget, nil
	for _, t := range p.Tests {
		job.Tests = append(job.Tests, bench.TestBudget{Test: t.Test, Budget: t.Budget})
	}
	return job
}

// layers is the number of layers that can be offloaded: the blocks and the output.
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

// enqueue queues the files that must be fetched, smallest model first, and says
// how much that is before the first byte.
func (m *Models) enqueue(ctx context.Context) error {
	var sources []source.Source
	var fetched []int // their models
	for i := range m.all {
		if c := &m.all[i]; c.fetch && len(c.job.Tests) > 0 {
			sources, fetched = append(sources, c.wanted.Source), append(fetched, i)
		}
	}
	dir := m.options.Dirs.Put
	var sizes []fetch.Size
	if len(sources) > 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return &Error{NoDirectory, "", fmt.Errorf("models directory: %w", err)}
		}
		asking, cancel := context.WithTimeout(ctx, m.options.Weights.askWithin())
		defer cancel()
		var err error
		sizes, err = m.options.Client.Sizes(asking, sources, dir)
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
		if err == nil {
			if err := m.tell(sizes); err != nil {
				return err
			}
		}
	}
	bySize := func(a, b int) int { return cmp.Compare(m.all[a].wanted.SizeBytes, m.all[b].wanted.SizeBytes) }
	order := make([]int, len(m.all))
	for i := range order {
		order[i] = i
	}
	if !slices.ContainsFunc(fetched, func(i int) bool { return m.all[i].wanted.SizeBytes == 0 }) { // the stop rules count on it
		slices.SortStableFunc(order, bySize)
	}
	all, queued, known := make([]model, len(m.all)), []source.Source(nil), []fetch.Size(nil)
	for place, i := range order {
		all[place] = m.all[i]
		if k := slices.Index(fetched, i); k >= 0 {
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

// tell logs how much must be fetched.
func (m *Models) tell(sizes []fetch.Size) error {
	dir := m.options.Dirs.Put
	free, err := m.options.Client.Room(dir)
	if err != nil {
		return &Error{NoDirectory, "", fmt.Errorf("models directory: %w", err)}
	}
	var missing int64
	files := 0
	for _, s := range sizes {
		missing, files = missing+s.Missing, files+s.Files
	}
	if files > 0 {
		slog.Info("to be fetched", "files", files, "size", humanize.IBytes(uint64(missing)), "directory", dir, "free", humanize.IBytes(uint64(max(free, 0))))
	}
	return nil
}

// Jobs are the models' jobs, in the order they run.
func (m *Models) Jobs() []bench.Job {
	jobs := make([]bench.Job, len(m.all))
	for i, c := range m.all {
		jobs[i] = c.job
	}
	return jobs
}

// EachJob lets change change every job, before the run.
func (m *Models) EachJob(change func(*bench.Job)) {
	for i := range m.all {
		change(&m.all[i].job)
	}
}

// Wanted are the models as they were wanted, in the order they run, and where
// each came from: a path is absolute.
func (m *Models) Wanted() (wanted []suite.Entry, from []string) {
	for _, c := range m.all {
		given := c.wanted.Source.Given
		if c.wanted.Source.Local() && c.job.Model.Weights == result.FileWeights { // found in one of the models directories, from wherever
			given = c.job.Model.Path
			if abs, err := filepath.Abs(given); err == nil {
				given = abs
			}
		}
		wanted, from = append(wanted, c.wanted), append(from, given)
	}
	return wanted, from
}

// Missing is why the most recent missing model could not be had; nil if none is
// missing. It is an *Error.
func (m *Models) Missing() error {
	if m.missing == nil {
		return nil
	}
	return &Error{NotFetched, "", m.missing}
}

// Start begins the downloads.
func (m *Models) Start() {
	if m.queue != nil {
		m.queue.Start()
	}
}

// Close ends the downloads; what has arrived stays. It is idempotent.
func (m *Models) Close() {
	if m.queue != nil {
		m.queue.Close()
	}
}

// oneLine is the text of an error as a warning takes it.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
