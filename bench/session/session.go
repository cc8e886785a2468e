// Package session takes a run from its options to its end: it asks the engine for its
// devices, gets the models, looks whether the machine is busy, makes the run's directory
// or opens an earlier one, and measures. It prints nothing: records and steps go to the
// consumers that its caller gives.
package session

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/rundir"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// Options say how a run is measured. A resumed run takes those that its directory keeps
// from there.
type Options struct {
	Job      bench.Job // the model, the tests and the repetitions come from the suite
	CoolDown string    // before each test, as supervise.ParseCoolDown reads it; empty: none
	Sampling time.Duration

	TestSettings map[string]bench.Settings // of tests by their result.Test.Settings; nil: those of Job

	Weights      string
	ModelsDir    string                                             // empty: the default
	Finder       func(w acquire.Weights, dir string) acquire.Finder // of weights and ModelsDir
	Timeout      *time.Duration                                     // of each test; nil: by size and length
	Scale        float64                                            // of the default time limits
	TimeLimit    time.Duration                                      // of the run, from Span.Started on; 0: none
	DownloadTime time.Duration                                      // of each wait for a file; 0: no limit
	WaitQuiet    time.Duration                                      // at most, for a quiet machine; 0: do not wait
	RequireQuiet bool                                               // a busy machine is an error

	ResultsDir string // as rundir.Start takes it
	NoResults  bool   // the run has no directory
	Limits     bool   // the machine's limits are measured
	Output     string // format of stdout, for the run that resumes this one; may be empty

	Span     rundir.Span                                       // this process
	Host     host.Facts                                        // before anything runs
	Workers  supervise.Options                                 // how workers are started; their environment is added to
	CheckRPC func(ctx context.Context, servers []string) error // connects to RPC servers
}

// Session is a run that is ready to measure. One goroutine uses it.
type Session struct {
	Options // as they hold, those of the directory included

	Dir     *rundir.Dir // nil: none
	Models  *acquire.Models
	gpus    gpu.Usage
	account record.Account   // of earlier processes of this run
	earlier []result.Outcome // final outcomes of earlier processes
}

// New prepares a new run of a suite.
func New(ctx context.Context, s suite.Suite, o Options) (*Session, error) {
	r := &Session{Options: o}
	if err := r.begin(ctx, s); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Resume prepares to continue an earlier run with its settings. run is a name as
// rundir.Find takes it.
func Resume(ctx context.Context, run string, o Options) (*Session, error) {
	r := &Session{Options: o}
	if err := r.goOn(ctx, run); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close ends downloads and releases the directory. A directory in which nothing happened
// is removed.
func (r *Session) Close() {
	if r.Models != nil {
		r.Models.Close()
	}
	if r.Dir != nil {
		r.Dir.Leave()
	}
}

// Name names the run: as its directory, or in the same way if it has none.
func (r *Session) Name() string {
	if r.Dir != nil {
		return filepath.Base(r.Dir.Path)
	}
	return rundir.NewName(r.Span.Started, os.Getpid())
}

// deadline returns when the run must end; zero: there is no limit.
func (r *Session) deadline() time.Time {
	if r.TimeLimit == 0 {
		return time.Time{}
	}
	return r.Span.Started.Add(r.TimeLimit)
}

// acquireOptions returns how models are acquired.
func (r *Session) acquireOptions() acquire.Options {
	job := r.Job
	job.Warnings = r.gpus.Warnings()
	s := job.Settings
	return acquire.Options{
		Finder: r.Finder(acquire.Weights(r.Weights), r.ModelsDir),
		Job:    job, Settings: r.TestSettings,
		Timeout: r.Timeout, Scale: r.Scale, DownloadTime: r.DownloadTime, Deadline: r.deadline(),
		SpareCPUs: runtime.NumCPU() > r.widest().Threads,
		OnDevices: r.widest().Offloads() && (len(s.RPC) > 0 || machineGPUs(r.Host).MayHold(r.gpus.UnusedReason)),
	}
}

// widest returns settings with the most threads and all devices that tests of the run use.
func (r *Session) widest() bench.Settings {
	s := r.Job.Settings
	none := slices.Equal(s.Devices, []string{bench.NoDevice})
	for _, t := range r.TestSettings {
		s.Threads, s.MainGPU = max(s.Threads, t.Threads), max(s.MainGPU, t.MainGPU)
		if t.GPULayers < 0 || s.GPULayers >= 0 && t.GPULayers > s.GPULayers {
			s.GPULayers = t.GPULayers
		}
		switch {
		case slices.Equal(t.Devices, []string{bench.NoDevice}):
		case none, len(t.Devices) == 0:
			s.Devices, none = t.Devices, false
		case len(s.Devices) > 0:
			for _, d := range t.Devices {
				if !slices.Contains(s.Devices, d) {
					s.Devices = append(slices.Clone(s.Devices), d)
				}
			}
		}
	}
	if r.TestSettings != nil { // what does not go together costs its tests
		s.TensorSplit, s.SplitMode, s.MainGPU = nil, "layer", 0
	}
	return s
}

// begin prepares a new run.
func (r *Session) begin(ctx context.Context, s suite.Suite) (err error) {
	if err := r.askDevices(ctx); err != nil {
		return err
	}
	if r.Limits {
		r.planLimits()
	}
	a := r.acquireOptions()
	a.Job.Repetitions = s.Repetitions
	if len(r.Host.GPUs) == 0 { // else a GPU's sensor may do
		if _, err := coolDownOf(r.CoolDown, nil); err != nil {
			return err
		}
	}
	if r.Models, err = acquire.New(ctx, s, a); err != nil {
		return err
	}
	if err := r.checkQuiet(ctx); err != nil {
		return err
	}
	about := rundir.Description{
		Span: r.Span, TimeLimit: r.TimeLimit, Output: r.Output, Jobs: r.Models.Jobs(), Host: r.Host,
		Selection: rundir.Selection{
			Suite: s, Weights: r.Weights, ModelsDir: a.Dirs.Download, Scale: r.Scale, Timeout: a.Timeout, DownloadTimeout: r.DownloadTime,
			GPUSampling: &r.Sampling, CoolDown: r.CoolDown,
		},
	}
	var from []string
	about.Selection.Suite.Models, from = r.Models.Wanted()
	for i, m := range about.Selection.Suite.Models {
		about.Sources = append(about.Sources, rundir.Source{Source: from[i], SHA256: m.Source.SHA256})
	}
	if r.NoResults {
		slog.Info("the run has no directory, so it cannot be resumed")
		return nil
	}
	r.Dir, err = rundir.Start(r.ResultsDir, about)
	return err
}

// goOn prepares to continue an earlier run.
func (r *Session) goOn(ctx context.Context, run string) error {
	now := r.Span
	now.Host = &r.Host
	path, err := rundir.Find(run, r.ResultsDir)
	if err != nil {
		return err
	}
	dir, about, left, err := rundir.Open(path, now)
	if err != nil {
		return err
	}
	r.Dir, r.account, r.earlier, r.Output = dir, left.Account, left.Outcomes, about.Output
	r.Weights = about.Selection.Weights
	r.ModelsDir, r.Scale, r.DownloadTime = about.Selection.ModelsDir, about.Selection.Scale, about.Selection.DownloadTimeout
	r.TimeLimit, r.Timeout = about.TimeLimit, about.Selection.Timeout
	first := about.Jobs[0]
	r.Job.Settings, r.Job.AllowCPU, r.Job.RequireGPU = first.Settings, first.AllowCPU, first.RequireGPU
	for _, job := range about.Jobs {
		for name, s := range job.Sweep {
			if r.TestSettings == nil {
				r.TestSettings = map[string]bench.Settings{}
			}
			r.TestSettings[name] = s
		}
	}
	r.Job.NoWarmup, r.Job.Warmups, r.Job.Limits = first.NoWarmup, first.Warmups, first.Limits
	r.CoolDown = about.Selection.CoolDown
	if s := about.Selection.GPUSampling; s != nil {
		r.Sampling = *s
	}
	if left.Unfinished() > 0 {
		if err := r.askDevices(ctx); err != nil {
			return err
		}
		if err := r.checkQuiet(ctx); err != nil {
			return err
		}
	}
	var models []acquire.Interrupted
	for i, job := range left.Jobs {
		m := acquire.Interrupted{Wanted: about.Selection.Suite.Models[i], Job: job}
		if i < len(about.Sources) {
			m.Source = about.Sources[i].Source
		}
		m.Job.RequireGPU, m.Job.Warnings = r.Job.RequireGPU, r.gpus.Replace(job.Warnings)
		models = append(models, m)
	}
	r.Models, err = acquire.Resume(ctx, about.Selection.Suite, models, r.acquireOptions())
	return err
}

// workers returns how workers are run.
func (r *Session) workers() supervise.Options {
	w := r.Workers
	w.Env = slices.Concat(w.Env, r.workerEnv())
	return w
}
