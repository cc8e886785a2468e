package acquire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Fit tells whether something fits; empty: it need not.
type Fit string

// The values of Fit.
const (
	Fits       Fit = "fits"
	DoesNotFit Fit = "does not fit"
	Unknown    Fit = "unknown"
)

func fitOf(fit bool) Fit {
	if fit {
		return Fits
	}
	return DoesNotFit
}

// Plan is what a run would do.
type Plan struct {
	Models      []PlannedModel `json:"models"` // in the order in which they run
	Repetitions int            `json:"repetitions"`
	Weights     Weights        `json:"weights"`

	Directory     string `json:"models_dir"`
	DownloadBytes int64  `json:"download_bytes"`       // still to be fetched, as far as known
	FreeBytes     *int64 `json:"free_bytes,omitempty"` // for downloads to the directory

	MemoryAvailableBytes *uint64         `json:"memory_available_bytes,omitempty"`
	Devices              []PlannedDevice `json:"devices,omitempty"`
	DevicesUnknown       string          `json:"devices_unknown,omitempty"` // why
	GPUNotUsed           string          `json:"gpu_not_used,omitempty"`    // why a GPU of this machine cannot be used
	GPUDoubts            []string        `json:"gpu_doubts,omitempty"`      // why a GPU that is used may not work

	UpperBoundSeconds *float64 `json:"upper_bound_s,omitempty"` // sum of budgets of models with known size; absent: no limit
	UnknownSizes      int      `json:"unknown_sizes,omitempty"` // number of models with unknown size
	LikelySeconds     *float64 `json:"likely_s,omitempty"`      // of tests that an earlier run measured
	Loads             int      `json:"loads"`                   // of models, with their settings
	LikelyTests       int      `json:"likely_tests,omitempty"`  // their number
	Tests             int      `json:"tests"`                   // of all models
	TimeLimitSeconds  *float64 `json:"time_limit_s,omitempty"`
}

// PlannedDevice is a device that may hold a model.
type PlannedDevice struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	FreeBytes uint64 `json:"free_bytes,omitempty"`
	Kernels   string `json:"kernels,omitempty"`  // of a CUDA device: "native", or "ptx", compiled by its driver at first use
	NotUsed   string `json:"not_used,omitempty"` // why it is used only if settings name it; empty: it is used
}

// PlannedModel is a model of a plan. Unless it is Bad, either its file is at Path, or DownloadBytes must
// be fetched from Source, or it needs no file.
type PlannedModel struct {
	Name          string `json:"name"`
	Settings      string `json:"settings,omitempty"` // with which it is loaded, if there are several
	Source        string `json:"source,omitempty"`
	Bad           string `json:"cannot_run,omitempty"` // why the model cannot be run
	Fallback      bool   `json:"fallback,omitempty"`   // synthetic weights are used if the file does not arrive
	Path          string `json:"path,omitempty"`
	DownloadBytes int64  `json:"download_bytes,omitempty"`
	About         bool   `json:"download_about,omitempty"` // DownloadBytes is the size of the tensors, slightly less than the file's
	Disk          Fit    `json:"disk,omitempty"`

	SizeBytes         uint64        `json:"size_bytes,omitempty"` // of its tensors; absent: unknown
	Tests             []PlannedTest `json:"tests"`
	LoadBudgetSeconds float64       `json:"load_budget_s,omitempty"`
	TestBudgetSeconds float64       `json:"test_budgets_s,omitempty"` // their sum

	Memory    *gguf.Memory `json:"memory,omitempty"`
	Longest   string       `json:"longest_test"` // by its context
	InMemory  Fit          `json:"fits_memory"`
	OnDevices Fit          `json:"fits_devices,omitempty"` // on all GPUs together; absent: there is none
	Notes     []string     `json:"notes,omitempty"`

	wanted suite.Entry
	header *gguf.File // nil: unknown
}

// PlannedTest is a test of a plan.
type PlannedTest struct {
	Name string `json:"name"`
	result.Test
	BudgetSeconds float64 `json:"budget_s,omitempty"`    // absent: no limit, or the model's size is unknown
	Unsupported   string  `json:"unsupported,omitempty"` // why the library cannot run it
}

// PlanOptions are options of NewPlan.
type PlanOptions struct {
	Finder
	Timeout   *time.Duration            // of each test; nil: by size and length
	Scale     float64                   // factor of budgets by size and length
	TimeLimit time.Duration             // of the run; 0: none
	Measured  Measured                  // by an earlier run; may be nil
	Settings  map[string]bench.Settings // of tests by their result.Test.Settings; nil: the default
}

// Measured are the results of an earlier run: the mean time of a repetition, by model
// and test. A model is found by its name in the records, and by its last part.
type Measured map[string]map[result.Test]time.Duration

// Add adds a record.
func (m Measured) Add(r *result.Record) {
	for _, name := range []string{r.ModelFilename, filepath.Base(r.ModelFilename)} { // see suite.NameApart
		if m[name] == nil {
			m[name] = make(map[result.Test]time.Duration)
		}
		m[name][r.Test()] = time.Duration(r.AvgNs)
	}
}

// NewPlan finds the models of a suite, and computes the disk space and the time that
// they need. It fetches and writes nothing. The error is an *Error, or the cause of ctx.
func NewPlan(ctx context.Context, s suite.Suite, o PlanOptions) (*Plan, error) {
	o.Keep = false
	p := &Plan{Repetitions: s.Repetitions, Weights: o.Weights, Directory: o.Dirs.Download}
	var first *Error // of a model that cannot be run
	good := false    // a model can be run
	for _, wanted := range s.Models {
		m, err := o.planModel(ctx, wanted)
		bad := ownFault(ctx, err)
		switch {
		case err != nil && bad == nil:
			return nil, err
		case bad != nil:
			m.Bad, first = bad.Error(), cmp.Or(first, bad)
		default:
			good = true
		}
		p.Models = append(p.Models, m)
	}
	if !good {
		return nil, first
	}
	p.readHeaders(ctx, &o)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !s.GivenOrder {
		p.sortBySize()
	}
	if err := p.disk(o.Client); err != nil {
		return nil, &Error{NoDirectory, "", fmt.Errorf("models directory: %w", err)}
	}
	p.times(&o, s)
	return p, nil
}

// planModel finds a model on this machine.
func (o *PlanOptions) planModel(ctx context.Context, wanted suite.Entry) (PlannedModel, error) {
	m := PlannedModel{Name: wanted.Name, Settings: wanted.Load, wanted: wanted}
	l, err := o.locate(ctx, wanted)
	if err != nil {
		return m, err
	}
	m.Path, m.header = l.File.Path, l.Header
	if l.Because != nil {
		m.Notes = append(m.Notes, fmt.Sprintf("synthetic weights: %v", l.Because))
	}
	if !l.Fetch {
		return m, nil
	}
	m.Source, m.Fallback = wanted.Source.String(), o.Weights == Auto
	file, err := o.Client.Here(wanted.Source, o.Dirs.Download)
	if err != nil && !errors.Is(err, fetch.ErrNotFound) {
		m.Notes = append(m.Notes, fmt.Sprintf("%v; it will be fetched again", err))
	}
	m.Path, m.header = file.Path, file.Header
	published, ok := suite.LookupModel(wanted.Name)
	if m.header != nil || !ok || published.Source() != wanted.Source {
		return m, nil
	}
	shape, err := synth.Lookup(published.File) // needs no network
	if err == nil {
		m.header, err = shape.File()
	}
	if err != nil {
		return m, &Error{NoShape, wanted.Name, err}
	}
	m.DownloadBytes, m.About = int64(published.SizeBytes), true
	return m, nil
}

// readHeaders reads the headers of models from their servers, all at once, unless they
// are known.
func (p *Plan) readHeaders(ctx context.Context, o *PlanOptions) {
	limit := o.Weights.requestTimeout()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the server does not answer within %v", limit))
	defer cancel()
	var requests sync.WaitGroup
	for i := range p.Models {
		m := &p.Models[i]
		if m.header != nil || m.Bad != "" {
			continue
		}
		requests.Go(func() {
			s, err := o.Client.Survey(ctx, m.wanted.Source, p.Directory)
			if err != nil {
				m.Notes = append(m.Notes, fmt.Sprintf("size unknown: %v", err))
				return
			}
			m.header = s.Header
			m.DownloadBytes, _ = s.Missing()
		})
	}
	requests.Wait()
	for i := range p.Models {
		m := &p.Models[i]
		if m.header != nil {
			m.SizeBytes = m.header.TensorBytes()
		}
	}
}

// sortBySize sorts models by size, as a run does. It does nothing if a size is unknown.
func (p *Plan) sortBySize() {
	if slices.ContainsFunc(p.Models, func(m PlannedModel) bool { return m.SizeBytes == 0 }) {
		return
	}
	slices.SortStableFunc(p.Models, func(a, b PlannedModel) int { return cmp.Compare(a.SizeBytes, b.SizeBytes) })
}

// toFetch tells whether the file of a model must be fetched.
func (m *PlannedModel) toFetch() bool { return m.Source != "" && m.Path == "" }

// disk compares the files that must be fetched, in the order of the run, with the free
// disk space.
func (p *Plan) disk(client *fetch.Client) error {
	if !slices.ContainsFunc(p.Models, func(m PlannedModel) bool { return m.toFetch() }) {
		return nil
	}
	free, err := client.Room(p.Directory)
	if err != nil {
		return err
	}
	p.FreeBytes = &free
	var used int64
	for i := range p.Models {
		m := &p.Models[i]
		switch {
		case !m.toFetch():
			continue
		case m.DownloadBytes == 0:
			m.Disk = Unknown
			continue
		case slices.ContainsFunc(p.Models[:i], func(o PlannedModel) bool { return o.wanted.Source == m.wanted.Source }):
			m.Disk, m.DownloadBytes = Fits, 0 // loaded with other settings, too
			continue
		}
		p.DownloadBytes += m.DownloadBytes
		m.Disk = fitOf(used+m.DownloadBytes <= free)
		switch {
		case m.Disk == Fits:
			used += m.DownloadBytes
		case m.Fallback:
			p.DownloadBytes -= m.DownloadBytes
			m.Notes = append(m.Notes, "synthetic weights: the disk has no room for its file")
		}
	}
	return nil
}

// Note is a note about models.
type Note struct {
	Text   string
	Models []string // their names
}

// Notes returns the notes about all models. Models with the same note share it: they are
// on a host that does not answer, for example.
func (p *Plan) Notes() (notes []Note) {
	for _, m := range p.Models {
		for _, text := range m.Notes {
			i := slices.IndexFunc(notes, func(n Note) bool { return n.Text == text })
			if i < 0 {
				i, notes = len(notes), append(notes, Note{Text: text})
			}
			notes[i].Models = append(notes[i].Models, m.Name)
		}
	}
	return notes
}

// times computes the budgets of each model and their sum.
func (p *Plan) times(o *PlanOptions, s suite.Suite) {
	upperBound, limited := time.Duration(0), true
	var likely time.Duration
	for i := range p.Models {
		m := &p.Models[i]
		planned := s.Plan(m.wanted, m.SizeBytes, o.Timeout, o.Scale)
		m.Longest = planned.Longest().String()
		p.Loads++
		cannot := m.dropUnsupported(&planned, o.Settings)
		p.Tests += len(planned.Tests)
		likelyTime, tests := planned.Likely(o.Measured[m.wanted.Name])
		likely += likelyTime
		p.LikelyTests += tests
		for _, t := range planned.Tests {
			test := PlannedTest{Name: t.Test.String(), Test: t.Test}
			if m.SizeBytes > 0 {
				test.BudgetSeconds = t.Budget.Seconds()
				m.TestBudgetSeconds += t.Budget.Seconds()
			}
			m.Tests = append(m.Tests, test)
		}
		m.Tests = append(m.Tests, cannot...)
		if m.SizeBytes == 0 {
			p.UnknownSizes++
			continue
		}
		need := planned.Memory(m.header, ContextOf(settingsIn(o.Settings, planned.Longest())))
		m.Memory = &need
		m.LoadBudgetSeconds = planned.LoadBudget.Seconds()
		bound, ok := planned.UpperBound()
		upperBound += bound
		limited = limited && ok
	}
	if limited && p.UnknownSizes < len(p.Models) {
		p.UpperBoundSeconds = secondsOf(upperBound)
	}
	if p.LikelyTests > 0 {
		p.LikelySeconds = secondsOf(likely)
	}
	if o.TimeLimit > 0 {
		p.TimeLimitSeconds = secondsOf(o.TimeLimit)
	}
}

// settingsIn returns the settings of a test.
func settingsIn(of map[string]bench.Settings, t result.Test) bench.Settings {
	if s, ok := of[t.Settings]; ok {
		return s
	}
	return bench.DefaultSettings(0)
}

// dropUnsupported removes the tests that the library cannot run from a plan, and
// returns them. A note says why.
func (m *PlannedModel) dropUnsupported(planned *suite.Plan, of map[string]bench.Settings) (cannot []PlannedTest) {
	if m.header == nil {
		return nil
	}
	model := m.header.CheckModel()
	reasons := make(map[string][]string) // the tests of each
	var order []string
	planned.Tests = slices.DeleteFunc(planned.Tests, func(t suite.PlannedTest) bool {
		settings := settingsIn(of, t.Test)
		err := cmp.Or(model, m.header.CheckTest(t.Test, settings.Batch, settings.UBatch))
		if err == nil {
			return false
		}
		reason := err.Error()
		cannot = append(cannot, PlannedTest{Name: t.Test.String(), Test: t.Test, Unsupported: reason})
		if reasons[reason] == nil {
			order = append(order, reason)
		}
		reasons[reason] = append(reasons[reason], t.Test.String())
		return true
	})
	for _, reason := range order {
		m.Notes = append(m.Notes, fmt.Sprintf("cannot run %s: %s", strings.Join(reasons[reason], " "), reason))
	}
	return cannot
}

func secondsOf(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

// Fit decides for each model whether its longest test fits into the memory that is
// available now, and into the memory of GPUs. gpu is the free memory in bytes of all
// GPUs with memory of their own; nil: there are none.
func (p *Plan) Fit(gpu *uint64) {
	p.MemoryAvailableBytes = host.Observe("/").MemoryAvailableBytes
	for i := range p.Models {
		m := &p.Models[i]
		m.InMemory = Unknown
		if gpu != nil {
			m.OnDevices = Unknown
		}
		if m.Memory == nil {
			continue
		}
		need := m.Memory.Total()
		if p.MemoryAvailableBytes != nil {
			m.InMemory = fitOf(need <= *p.MemoryAvailableBytes)
		}
		if gpu != nil {
			m.OnDevices = fitOf(need <= *gpu)
		}
	}
}
