// Package quick answers in about a minute how fast a machine runs the default models. It
// measures the models that fit the time and estimates the others from models with the
// same layers but fewer of them (package estimate).
//
// The time is a hard limit. A first probe and every step after it tell how fast the
// machine loads, computes and reads. From that the time of each next step is predicted,
// and only steps that fit are begun.
package quick

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Least is the least time in which anything can be told: a few seconds go to the start of
// processes and to their end.
const Least = 10 * time.Second

// ending is the time that is kept for the end: workers are stopped within
// supervise.StopWithin, then the table is printed.
const ending = supervise.StopWithin + 500*time.Millisecond

// Errors of New and Run.
var (
	ErrWithin  = fmt.Errorf("less than %v, the least in which a model can be measured", Least)
	ErrModel   = errors.New("not a default model")
	ErrNothing = errors.New("nothing was measured")
	errTime    = errors.New("the time is over")
)

// The tests of the table.
var (
	prompt = result.Test{Prompt: 512}
	gen    = result.Test{Gen: 128}
)

// Options say what to measure.
type Options struct {
	Models         []string // files of default models; none: all
	Within         time.Duration
	Began          time.Time // from which Within counts; zero: when Run is called
	Settings       bench.Settings
	Context        gguf.Context
	AvailableBytes uint64        // of memory; 0: not known
	Busy           string        // what disturbs the measurement; "": nothing
	Price          *result.Price // of the machine; nil: not known
	Dir            string        // for headers of thin models
	Run            estimate.Runner
	// Limits measures those of the machine; nil: they are not measured.
	Limits func(ctx context.Context) ([]result.DeviceLimits, error)
}

// Quick is a quick measurement.
type Quick struct {
	options *Options
	began   time.Time
	models  []*model // smallest first
	rates   rates
	facts   bench.EngineFacts
	limits  []result.DeviceLimits
	cause   error // of the end of Run; nil: everything was done

	mu    sync.Mutex
	doing string
}

// model is a default model and what is known of it.
type model struct {
	suite.Model
	header  *gguf.File
	thin    []int          // numbers of layers of its thin models
	headers []*gguf.File   // of its thin models
	plan    *estimate.Plan // nil: not estimated
	lengths lengths        // of plan
	rounds  int            // of plan
	round   time.Duration  // of the last one
	records []*result.Record
	rows    []estimate.Row // of the plan, after its last round
	reason  string         // why it has no estimate
}

// lengths are those that thin models run, in tokens.
type lengths struct{ prompt, gen int }

// levels are the lengths from the most exact to the shortest.
var levels = []lengths{{512, 16}, {128, 16}, {64, 8}, {16, 4}}

// New checks Within and Models; its error is an ErrWithin or an ErrModel. It plans
// nothing yet, and the other options may change until Run.
func New(o *Options) (*Quick, error) {
	if o.Within < Least {
		return nil, fmt.Errorf("%v is %w", o.Within, ErrWithin)
	}
	for _, name := range o.Models {
		if _, ok := suite.LookupModel(name); !ok {
			return nil, fmt.Errorf("%q is %w", name, ErrModel)
		}
	}
	q := &Quick{options: o, doing: "starting"}
	for _, m := range suite.Models() {
		if len(o.Models) > 0 && !slices.Contains(o.Models, m.File) {
			continue
		}
		shape, err := synth.Lookup(m.File)
		if err != nil {
			return nil, err
		}
		header, err := shape.File()
		if err != nil {
			return nil, err
		}
		kinds, err := synth.KindsOf(header)
		if err != nil {
			return nil, err
		}
		depths := kinds.Depths()
		own := &model{Model: m, header: header, thin: []int{depths[0], depths[min(2, len(depths)-1)]}}
		for _, depth := range own.thin {
			thin, err := kinds.Thin(header, depth)
			if err != nil {
				return nil, err
			}
			own.headers = append(own.headers, thin)
		}
		q.models = append(q.models, own)
	}
	return q, nil
}

// Run measures. It returns within Options.Within. When ctx ends, it returns earlier, and
// Result has what is known. The error is ErrNothing if that is nothing.
func (q *Quick) Run(ctx context.Context) error {
	q.mu.Lock()
	if q.began = q.options.Began; q.began.IsZero() {
		q.began = time.Now()
	}
	q.mu.Unlock()
	ctx, cancel := context.WithDeadlineCause(ctx, q.end(), errTime)
	defer cancel()
	err := q.steps(ctx)
	q.cause = context.Cause(ctx)
	if !slices.ContainsFunc(q.models, (*model).known) {
		for _, m := range q.models {
			if err == nil && m.reason != "" {
				err = fmt.Errorf("%s: %s", short(m.File), m.reason)
			}
		}
		if err == nil {
			return ErrNothing
		}
		return fmt.Errorf("%w: %w", ErrNothing, err)
	}
	return nil
}

// end is when no worker may run any more.
func (q *Quick) end() time.Time { return q.began.Add(q.options.Within - ending) }

func (q *Quick) left() time.Duration { return time.Until(q.end()) }

// known tells whether the model has a speed.
func (m *model) known() bool {
	return len(m.records) > 0 || slices.ContainsFunc(m.rows, func(r estimate.Row) bool { return r.Speed > 0 })
}

// steps does everything: a probe, an estimate of each model, measurements of those that
// fit, and further rounds of the estimates.
func (q *Quick) steps(ctx context.Context) error {
	if err := q.probe(ctx); err != nil {
		return err
	}
	order := q.order()
	for i, m := range order {
		if err := q.first(ctx, m, order[i+1:]); err != nil {
			return err
		}
	}
	q.measureLimits(ctx)
	for i, m := range q.models {
		if err := q.measure(ctx, m, q.models[i+1:]); err != nil {
			return err
		}
	}
	return q.refine(ctx)
}

// order is the order of the first estimates. The matrices of the smallest model are so
// small that each operation takes longer. What it shows would mislead the plan for the
// others, so it comes last.
func (q *Quick) order() []*model {
	return append(slices.Clone(q.models[1:]), q.models[0])
}

// probe runs a few tokens of one thin model. It tells roughly how fast the machine is.
func (q *Quick) probe(ctx context.Context) error {
	m := q.order()[0]
	plan, err := q.planOf(m, lengths{16, 4})
	if err != nil {
		return err
	}
	jobs, err := plan.Jobs(0)
	if err != nil {
		return err
	}
	q.begin(ctx, "probing the machine", m.File)
	return q.run(ctx, jobs[:1], func(int) supervise.Consumers { return nil })
}

// planOf plans the estimate of a model.
func (q *Quick) planOf(m *model, l lengths) (*estimate.Plan, error) {
	return estimate.New(m.File, m.header, estimate.Options{
		Tests: []result.Test{prompt, gen}, Rounds: 1, Prompt: l.prompt, Gen: l.gen, Depths: m.thin,
		Job:     bench.Job{Repetitions: 1, NoWarmup: true, Seed: 1, Settings: q.options.Settings, AllowCPU: true},
		Context: q.options.Context, AvailableBytes: q.options.AvailableBytes, Price: q.options.Price, Dir: q.options.Dir,
	})
}

// first makes the first estimate of a model, with the most exact lengths that leave later
// models the time for their shortest ones. A part of the time is kept for measurements.
func (q *Quick) first(ctx context.Context, m *model, later []*model) error {
	least := time.Duration(0)
	for _, other := range later {
		least += q.predictThin(other, levels[len(levels)-1])
	}
	for i, l := range levels {
		needs := q.predictThin(m, l)
		last := i == len(levels)-1
		if left := q.left(); last && needs > left {
			m.reason = fmt.Sprintf("not estimated: that would take about %v, and %v were left", needs.Round(time.Second), max(left, 0).Round(time.Second))
			return nil
		} else if !last && needs+least > left-q.options.Within*2/5 {
			continue
		}
		return q.round(ctx, m, l)
	}
	return nil
}

// round runs a round of a model's estimate. Other lengths than before begin it anew.
func (q *Quick) round(ctx context.Context, m *model, l lengths) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Result says that the time is over
	}
	plan, rounds := m.plan, m.rounds
	if plan == nil || m.lengths != l {
		var err error
		if plan, err = q.planOf(m, l); err != nil {
			m.reason = err.Error()
			return nil //nolint:nilerr // the table has the reason
		}
		rounds = 0
	}
	q.begin(ctx, "estimating", m.File)
	began := time.Now()
	err := plan.Round(ctx, rounds, q.run)
	rows := plan.Rows()
	if ctx.Err() != nil && !slices.ContainsFunc(rows, func(r estimate.Row) bool { return r.Speed > 0 }) {
		return nil // Result says why
	}
	if m.rows == nil || !slices.ContainsFunc(rows, func(r estimate.Row) bool { return r.Speed == 0 }) {
		m.plan, m.lengths, m.rounds, m.rows = plan, l, rounds+1, rows
	}
	m.round = time.Since(began)
	return err
}

// limitsTime is how long the limits of a quiet machine take, with some reserve.
const limitsTime = 4 * time.Second

// measureLimits measures the limits of the machine, if they fit the time. Without them
// the table is as good.
func (q *Quick) measureLimits(ctx context.Context) {
	known := slices.ContainsFunc(q.models, (*model).known)
	if q.options.Limits == nil || !known || q.left() < limitsTime || ctx.Err() != nil {
		return
	}
	q.begin(ctx, "measuring limits", "")
	limits, err := q.options.Limits(ctx)
	if err != nil && ctx.Err() == nil {
		slog.Warn("the limits of the machine were not measured", "error", err)
	}
	q.limits = limits
}

// repetitions that a measured model may have, the most first.
var repetitions = []int{5, 3, 2}

// measure measures a model as a normal run does, if that fits the time. It has fewer
// repetitions if that lets the next model be measured, too.
func (q *Quick) measure(ctx context.Context, m *model, larger []*model) error {
	if need := m.memory(q.options.Context).Total(); q.options.AvailableBytes > 0 && need > q.options.AvailableBytes {
		return nil
	}
	fewest := repetitions[len(repetitions)-1]
	next := time.Duration(0)
	if len(larger) > 0 {
		next, _ = q.predictFull(larger[0], fewest)
	}
	for i, r := range repetitions {
		needs, ok := q.predictFull(m, r)
		last := i == len(repetitions)-1
		if !ok || needs > q.left() || !last && needs+next > q.left() && next < q.left() {
			continue
		}
		job := bench.Job{
			Model:       bench.Model{Name: m.File, Weights: result.SyntheticWeights, Seed: 1, Layers: m.layers() + 1},
			Tests:       []bench.TestBudget{{Test: prompt}, {Test: gen}},
			Repetitions: r, Seed: 1, Settings: q.options.Settings, AllowCPU: true,
		}
		q.begin(ctx, "measuring", m.File)
		return q.run(ctx, []bench.Job{job}, func(int) supervise.Consumers { return supervise.Consumers{keeper{m}} })
	}
	return nil
}

// keeper keeps the records of a model.
type keeper struct{ m *model }

func (keeper) Event(bench.Stamped) error { return nil }

func (k keeper) Outcome(o *result.Outcome) error {
	if o.Record != nil {
		k.m.records = append(k.m.records, o.Record)
	}
	return nil
}

// refine runs further rounds of the estimates while they fit, those first that have the
// fewest.
func (q *Quick) refine(ctx context.Context) error {
	for ctx.Err() == nil {
		var best *model
		for _, m := range q.models {
			if m.plan == nil || len(m.records) == 2 {
				continue
			}
			if l := q.better(m); q.needs(m, l) < q.left() && (best == nil || m.rounds < best.rounds) {
				best = m
			}
		}
		if best == nil || best.rounds >= mostRounds {
			return nil
		}
		if err := q.round(ctx, best, q.better(best)); err != nil {
			return err
		}
	}
	return nil
}

// mostRounds of an estimate are enough.
const mostRounds = 5

// better are the lengths of the next round: the most exact that fit.
func (q *Quick) better(m *model) lengths {
	for _, l := range levels {
		if l == m.lengths || q.needs(m, l) < q.left() {
			return l
		}
	}
	return m.lengths
}

// needs predicts the time of a model's next round.
func (q *Quick) needs(m *model, l lengths) time.Duration {
	if l == m.lengths {
		return m.round + m.round/10
	}
	return q.predictThin(m, l)
}

// run runs jobs and learns from them.
func (q *Quick) run(ctx context.Context, jobs []bench.Job, consumers func(i int) supervise.Consumers) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Result says that the time is over
	}
	err := q.options.Run(ctx, jobs, func(i int) supervise.Consumers {
		return append(supervise.Consumers{q.learner(jobs[i])}, consumers(i)...)
	})
	if ctx.Err() != nil {
		return nil //nolint:nilerr // what a stopped worker says about it does not matter
	}
	return err
}

// begin says what is under way.
func (q *Quick) begin(ctx context.Context, doing, model string) {
	if ctx.Err() != nil {
		return
	}
	args := []any{"left_s", max(q.left(), 0).Round(time.Second).Seconds()}
	if model != "" {
		args = append(args, "model", model)
	}
	slog.Info(doing, args...)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.doing = strings.TrimSpace(doing + " " + short(model))
}

// Line says what is under way and how much time is left. Any goroutine may call it while
// Run runs.
func (q *Quick) Line() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return fmt.Sprintf("%2.0f s left · %s", max(time.Until(q.began.Add(q.options.Within)), 0).Seconds(), q.doing)
}

func (m *model) layers() int {
	n, _ := m.header.Uint(m.header.Architecture() + ".block_count")
	return int(n)
}

func (m *model) memory(c gguf.Context) gguf.Memory {
	c.Tokens = prompt.Context()
	return m.header.Memory(c)
}

// speedOf is a speed with the interval where that of another run is expected.
func speedOf(r *result.Record, price *result.Price) (s Speed, err error) {
	sample, err := stats.New(r.SamplesTS)
	if err != nil {
		return s, err
	}
	runs, err := stats.NewRuns([]stats.Sample{sample}, stats.DefaultLoads())
	if err != nil {
		return s, err
	}
	again := runs.Over(runs).Interval(estimate.Confidence)
	s = Speed{Test: r.Test().String(), TS: runs.Speed(), Low: runs.Speed() * again.Low, High: runs.Speed() * again.High, Confidence: again.Confidence, Repetitions: len(r.SamplesTS)}
	s.Cost = costOf(s, price)
	return s, nil
}

func costOf(s Speed, price *result.Price) *estimate.Cost {
	if price == nil {
		return nil
	}
	return &estimate.Cost{PerMillion: price.PerMillion(s.TS), Low: price.PerMillion(s.High), High: price.PerMillion(s.Low), Currency: price.Currency}
}

// Result is what is known.
func (q *Quick) Result() Result {
	r := Result{
		Kind: "quick", WithinS: q.options.Within.Seconds(), TookS: time.Since(q.began).Round(time.Millisecond).Seconds(),
		Machine: cmp.Or(q.facts.GPUInfo, q.facts.CPUInfo), Threads: q.options.Settings.Threads, Build: fmt.Sprintf("%s (%d)", q.facts.BuildCommit, q.facts.BuildNumber),
		AvailableBytes: q.options.AvailableBytes, Busy: q.options.Busy, Limits: q.limits,
	}
	for _, m := range q.models {
		row := Row{Model: m.File, Name: short(m.File), Params: m.Params, MemoryBytes: m.memory(q.options.Context).Total(), Reason: m.reason}
		if q.options.AvailableBytes > 0 {
			fits := row.MemoryBytes <= q.options.AvailableBytes
			row.Fits = &fits
		}
		for _, e := range m.rows {
			if e.Speed == 0 {
				row.Reason = "not estimated: " + e.Reason
				continue
			}
			row.set(Speed{Test: e.Test, Estimated: true, TS: e.Speed, Low: e.Low, High: e.High, Confidence: e.Level, From: e.From, Layers: e.Measured, Rounds: m.rounds, Cost: e.Cost})
		}
		if q.cause != nil && (row.Prompt == nil || row.Gen == nil) {
			row.Reason = cmp.Or(m.reason, "the time was over")
			if !errors.Is(q.cause, errTime) {
				row.Reason = "interrupted"
			}
		}
		for _, record := range m.records {
			if s, err := speedOf(record, q.options.Price); err == nil {
				row.set(s)
			}
		}
		r.Rows = append(r.Rows, row)
	}
	r.Quote = r.quote()
	return r
}
