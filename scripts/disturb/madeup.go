package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// The made-up faults run real tests, but the meter reads a root of this program's, in
// which a goroutine counts on.

// step is how often made-up counters change.
const step = 5 * time.Millisecond

// steal makes up CPUs whose hypervisor takes a part of the time.
func steal(ctx context.Context, o options, strength int) ([]result.Record, error) {
	share := []float64{0.5, 0.2, 0.1, 0.06}[strength]
	return o.madeUp(ctx, nil, func(root string, elapsed time.Duration) error {
		ticks := int(elapsed / (10 * time.Millisecond))
		stolen := int(share * float64(ticks))
		text := ""
		for cpu := range o.threads {
			text += fmt.Sprintf("cpu%d %012d 0 0 0 0 0 0 %012d 0 0\n", cpu, ticks-stolen, stolen)
		}
		return rewrite(filepath.Join(root, "proc/stat"), text)
	})
}

// frequency makes up CPUs whose clock is below their base frequency.
func frequency(ctx context.Context, o options, strength int) ([]result.Record, error) {
	low := []int{1_000_000, 1_500_000, 2_400_000, 2_800_000}[strength]
	return o.madeUp(ctx, nil, func(root string, _ time.Duration) error {
		for cpu := range o.threads {
			dir := filepath.Join(root, fmt.Sprintf("sys/devices/system/cpu/cpu%d/cpufreq", cpu))
			if err := rewrite(filepath.Join(dir, "base_frequency"), "3000000\n"); err != nil {
				return err
			}
			if err := rewrite(filepath.Join(dir, "scaling_cur_freq"), fmt.Sprintf("%07d\n", low)); err != nil {
				return err
			}
		}
		return nil
	})
}

// clockStep makes up a wall clock that is set again and again.
func clockStep(ctx context.Context, o options, strength int) ([]result.Record, error) {
	by := []time.Duration{time.Hour, time.Second, 128 * time.Millisecond, 5 * time.Millisecond}[strength]
	start := time.Now()
	clock := func() host.Clock {
		elapsed := time.Since(start)
		wall := elapsed + by*(elapsed/(100*time.Millisecond))
		return host.Clock{Monotonic: elapsed, Realtime: &wall, Boottime: &elapsed}
	}
	return o.madeUp(ctx, clock, func(string, time.Duration) error { return nil })
}

// madeUp runs the tests while the meter reads a made-up machine. change writes its
// files, at the beginning and then every step.
func (o options) madeUp(ctx context.Context, clock func() host.Clock, change func(root string, elapsed time.Duration) error) ([]result.Record, error) {
	root, err := os.MkdirTemp(o.dir, "root-")
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := change(root, 0); err != nil {
		return nil, err
	}
	var cpus []int
	for cpu := range o.threads {
		cpus = append(cpus, cpu)
	}
	meter := host.NewMeter(root, cpus)
	defer meter.Close()
	if clock != nil {
		meter.Clock = clock
	}
	changing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ticker := time.NewTicker(step); ; {
			select {
			case <-changing.Done():
				ticker.Stop()
				return
			case <-ticker.C:
				_ = change(root, time.Since(start)) // the next one shows if this failed
			}
		}
	}()
	defer func() { stop(); <-ended }()

	job := bench.Job{
		Model:       bench.Model{Name: model, Weights: result.SyntheticWeights, Seed: 1},
		Repetitions: o.repetitions, Seed: 1, Settings: bench.DefaultSettings(o.threads),
	}
	job.Settings.LoadMode = "none"
	for _, tokens := range o.prompts() {
		job.Tests = append(job.Tests, bench.TestBudget{Test: result.Test{Prompt: tokens}})
	}
	var records recorder
	ready := func(context.Context, int) (bench.Job, error) { return job, nil }
	err = supervise.RunModels(ctx, []bench.Job{job}, ready, supervise.Options{
		Command: []string{o.program, "worker"}, Log: slog.New(slog.DiscardHandler), Meter: meter, Consumers: supervise.Consumers{&records},
	})
	return records, err
}

// recorder keeps the records.
type recorder []result.Record

func (*recorder) Event(bench.Stamped) error { return nil }

func (r *recorder) Outcome(o *result.Outcome) error {
	if o.Record != nil {
		*r = append(*r, *o.Record)
	}
	return nil
}

// rewrite replaces a file's content in place, as the kernel does, in one call: texts of
// one length are never read in part.
func rewrite(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	return err
}
