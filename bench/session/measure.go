package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// Outlook returns the outlook on the time that is left. It takes events before those
// who show it.
func (r *Session) Outlook() *supervise.Outlook {
	return supervise.NewOutlook(r.Models.Jobs(), r.Models.SizesBytes(), r.deadline())
}

// Watchers take what a session measures.
type Watchers struct {
	Summary      supervise.Consumer // gets everything, the outcomes of earlier processes included
	Outlook      *supervise.Outlook
	Progress     supervise.Consumer // after Outlook
	Destinations supervise.Destinations

	Bad   func(model string, err error) // is told before the first step of models that cannot be run
	Ended func()                        // is called after the last step and before the destinations' End
}

// End is how a session ended.
type End struct {
	Err        error // ended the run early
	Accounting result.Accounting
	Missing    error // why the most recent missing model was not acquired
	Unwritten  error // why the directory or a destination lacks results
}

// Measure runs the models' jobs in workers and passes events and outcomes to the
// directory and to the watchers.
func (r *Session) Measure(ctx context.Context, to Watchers) (end End) {
	jobs, workers := r.Models.Jobs(), r.workers()
	workers.Deadline = r.deadline()
	workers.Apart = r.Models.GivenOrder() || r.TestSettings != nil
	account := &r.account
	account.Begin(r.Span.Started)

	all := to.Destinations
	if r.Dir != nil { // it comes first: what is printed is kept
		finish := func() error { return r.Dir.Finish(end.Accounting) }
		all = slices.Insert(slices.Clone(all), 0, &supervise.Destination{Name: "the run's directory", Records: true, HasEarlier: true, Consumer: r.Dir, End: finish})
	}
	workers.Consumers = supervise.Consumers{account, to.Summary, r.Models, to.Outlook, to.Progress, all}
	r.Models.Emit = func(e bench.Event) error { return workers.Consumers.Event(bench.Stamped{At: time.Now(), Event: e}) }
	names, errs := r.Models.Bad()
	for i, err := range errs {
		to.Bad(names[i], err)
	}
	watch := gpu.Watch("/", gpu.NVMLName, r.Sampling, r.gpus.Kernels)
	defer watch.Close()
	meter := host.NewEnergyMeter("/")
	defer meter.Close()
	if slices.ContainsFunc(jobs, func(j bench.Job) bool { return len(j.Tests) > 0 }) {
		observeIdle(ctx, meter, watch)
	}
	r.Models.Start()           // downloads begin
	for i := range r.earlier { // the reader of stdout gets earlier records too
		if err := errors.Join(to.Summary.Outcome(&r.earlier[i]), all.Earlier(&r.earlier[i])); err != nil && end.Err == nil {
			end.Err = err
		}
	}
	if end.Err == nil {
		end.Err = r.runModels(ctx, jobs, workers, watch, meter)
	}
	r.Models.Close()
	end.Accounting, end.Missing = account.Accounting(time.Now()), r.Models.Missing()
	to.Ended()
	if err := all.End(); end.Err == nil {
		end.Err = err
	}
	end.Unwritten = all.Failed()
	return end
}

// runModels measures with the sensors of the machine.
func (r *Session) runModels(ctx context.Context, jobs []bench.Job, workers supervise.Options, watch *gpu.Watcher, joules *host.EnergyMeter) error {
	cpus := r.Job.Settings.CPUs
	for _, s := range r.TestSettings { // all, if they differ
		if !slices.Equal(s.CPUs, cpus) {
			cpus = nil
			break
		}
	}
	meter := host.NewMeter("/", cpus)
	defer meter.Close()
	workers.Meter = meter
	counted := &energy{meter: joules}
	workers.Observe = func(s bench.Stamped) []bench.Event { return slices.Concat(counted.Observe(s), watch.Observe(s)) }
	workers.Downloaded = r.Models.Downloaded
	cool, err := coolDownOf(r.CoolDown, watch)
	if err != nil {
		return err
	}
	if cool != nil {
		workers.CoolDown = cool.Wait
	}
	return supervise.RunModels(ctx, jobs, r.Models.Ready, workers)
}
