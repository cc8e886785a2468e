// Package estimate predicts the speed of a model that is too large or too slow to run.
// The layers of a model are alike, so the time of a test grows linearly with their
// number. Thin models have the same layers but fewer of them. They are measured, and
// time = a + b·layers is fitted to each test. Longer tests follow from the work of the
// attention, which the header tells.
//
// An estimate is no record: it has a type of its own, and nothing compares it with
// records.
package estimate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Errors of New, besides synth.ErrThin.
var (
	ErrMemory = errors.New("not even a model with few layers fits memory")
	ErrTest   = errors.New("cannot be estimated")
	errBusy   = errors.New("models with more layers were not slower, because other processes disturbed them")
)

// Confidence is the wanted coverage of the intervals.
const Confidence = 0.95

// Spread is what an estimate may be off besides the spread of loads, a standard deviation
// as a share of the time: layers are not quite alike, and a thin model uses caches better.
//
// Source: chosen as a round number; `make estimate-check` measures it on a machine.
const Spread = 0.02

// Options say what to estimate and how.
type Options struct {
	Tests          []result.Test
	Rounds         int       // loads of the thin models, at least 1
	Prompt, Gen    int       // lengths from which those of longer tests are computed, in tokens; 0: 512 and 32
	Depths         []int     // numbers of layers of the thin models, smallest first; nil: chosen
	Check          bool      // measure the full model, too, in turn with the thin ones
	Job            bench.Job // common to all jobs: seed, settings, repetitions
	Context        gguf.Context
	AvailableBytes uint64        // of memory; 0: not known
	GPUs           []string      // whose memory that is; none: the CPU's
	CacheBytes     uint64        // of all caches of the CPU; 0: not known
	Price          *result.Price // of the machine; nil: not known
	Dir            string        // for headers of thin models
}

// Plan is the estimate of one model, before and after its thin models ran. It is used
// from one goroutine at a time.
type Plan struct {
	name     string
	full     *gguf.File
	kinds    synth.Kinds
	options  Options
	depths   []int               // of the thin models
	together bool                // memory holds all models at the same time
	tests    []result.Test       // of the thin models
	runs     map[run][][]float64 // seconds of the repetitions of each round
	failed   string              // why a model has no result; empty: none failed
}

// run is a test of a model.
type run struct {
	depth int
	test  result.Test
}

// New plans the estimate of a model by its header, which must be an outline: see
// synth.Outline.
func New(name string, outline *gguf.File, o Options) (*Plan, error) {
	p := &Plan{name: name, full: outline, options: o, runs: make(map[run][][]float64)}
	var err error
	if p.kinds, err = synth.KindsOf(outline); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, t := range o.Tests {
		err := outline.CheckTest(t, o.Job.Settings.Batch, o.Job.Settings.UBatch)
		if t.E2E {
			err = fmt.Errorf("end-to-end tests %w", ErrTest)
		}
		if err != nil {
			return nil, fmt.Errorf("%s, %v: %w", name, t, err)
		}
	}
	p.tests = o.measured(o.Tests...)
	return p, p.chooseDepths()
}

// The lengths that thin models measure, in tokens. Longer tests are computed from them.
const (
	longestPrompt = 1024 // that is measured as it is
	longestGen    = 64
	basePrompt    = 512
	farPrompt     = 2048 // for the cost of attention
	checkPrompt   = 1024 // to check it
	baseGen       = 32
	farGen        = 16 // at farDepth, and at checkDepth to check it
	farDepth      = 2048
	checkDepth    = 1024
)

// base are the tests from which longer ones are computed.
func (o Options) base() (prompt, gen result.Test) {
	return result.Test{Prompt: cmp.Or(o.Prompt, basePrompt)}, result.Test{Gen: cmp.Or(o.Gen, baseGen)}
}

// asIs tells whether thin models measure a test as it is.
func (o Options) asIs(t result.Test) bool {
	return t.Depth == 0 && (t.Gen == 0 && t.Prompt <= cmp.Or(o.Prompt, longestPrompt) || t.Prompt == 0 && t.Gen <= cmp.Or(o.Gen, longestGen))
}

// long tells whether attention is a part of a test's time that has to be measured.
func long(t result.Test) bool { return t.Context() > longestPrompt }

// measured are the tests that thin models run to tell the time of others.
func (o Options) measured(tests ...result.Test) (run []result.Test) {
	basePrompt, baseGen := o.base()
	add := func(tests ...result.Test) {
		for _, t := range tests {
			if !slices.Contains(run, t) {
				run = append(run, t)
			}
		}
	}
	for _, t := range tests {
		if o.asIs(t) {
			add(t)
			continue
		}
		if t.Prompt > 0 {
			add(basePrompt)
			if long(t) {
				add(result.Test{Prompt: farPrompt}, result.Test{Prompt: checkPrompt})
			}
		}
		if t.Gen > 0 {
			add(baseGen)
			if long(t) {
				add(result.Test{Gen: farGen, Depth: farDepth}, result.Test{Gen: farGen, Depth: checkDepth})
			}
		}
	}
	return run
}

// memoryShare is the share of the available memory that a thin model may take.
const memoryShare = 0.8

// leaves is the size of the smaller thin model's layers, in sizes of the caches. The caches
// cannot hold twice their size. If the full model is smaller than that, they hold a part of
// it, and each layer more leaves them a smaller part: the time is not linear, and the thin
// models must be nearly as large as the full one. They have at most these shares of its
// layers, from which an error of a thin model grows little up to the full one.
const (
	leaves      = 2
	mostShallow = 3. / 4
	mostDeep    = 11. / 12
)

// chooseDepths chooses two numbers of layers, the larger three times the smaller if
// memory and the model allow it.
func (p *Plan) chooseDepths() error {
	possible := p.kinds.Depths()
	if len(possible) < 2 {
		return fmt.Errorf("%s: %w: it has too few layers", p.name, synth.ErrThin)
	}
	limit := memoryShare * float64(p.options.AvailableBytes)
	fits := func(needs ...gguf.Memory) bool {
		sum := 0.0
		for _, n := range needs {
			sum += float64(n.Total())
		}
		return p.options.AvailableBytes == 0 || sum <= limit
	}
	var needs []gguf.Memory // of fitting
	var fitting []int
	for _, depth := range possible {
		thin, err := p.kinds.Thin(p.full, depth)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		need := p.needs(thin)
		if len(fitting) >= 2 && !fits(need) {
			break
		}
		needs, fitting = append(needs, need), append(fitting, depth)
	}
	full := p.needs(p.full)
	switch {
	case !fits(needs[1]):
		return fmt.Errorf("%s: %w: %w", p.name, ErrMemory, &gguf.MemoryError{Need: needs[1], AvailableBytes: p.options.AvailableBytes})
	case p.options.Check && !fits(full):
		return fmt.Errorf("%s: the full model cannot be measured: %w", p.name, &gguf.MemoryError{Need: full, AvailableBytes: p.options.AvailableBytes})
	}
	p.depths = p.options.Depths
	if p.depths == nil {
		layer := float64(p.kinds.LayerBytes(p.full)) / float64(p.kinds.Layers-p.kinds.Lead)
		n := float64(p.kinds.Layers)
		shallow := nearest(fitting[:len(fitting)-1], min(leaves*float64(p.options.CacheBytes)/layer, mostShallow*n))
		deep := nearest(fitting, min(3*float64(shallow), mostDeep*n))
		if deep <= shallow {
			deep = fitting[slices.Index(fitting, shallow)+1]
		}
		p.depths = []int{shallow, deep}
	}
	var all []gguf.Memory
	for _, depth := range p.depths {
		i := slices.Index(fitting, depth)
		if i < 0 {
			return fmt.Errorf("%s: %w: %d layers", p.name, synth.ErrThin, depth)
		}
		all = append(all, needs[i])
	}
	if p.options.Check {
		all = append(all, full)
	}
	p.together = fits(all...)
	return nil
}

// needs is the memory of a model for the longest test.
func (p *Plan) needs(f *gguf.File) gguf.Memory {
	c := p.options.Context
	c.Tokens = result.Longest(p.tests...).Context()
	if f == p.full {
		c.Tokens = result.Longest(p.options.Tests...).Context()
	}
	return f.Memory(c)
}

// shortSpread is by how much the speed of a prompt shorter than a micro-batch differs from
// that of a longer one, a standard deviation as a share.
//
// Source: pp128 and pp512 of the four models of `make estimate-check` differ by up to a
// sixth.
const shortSpread = 0.1

// nearest is the smallest value that is at least want, else the largest.
func nearest(values []int, want float64) int {
	i := slices.IndexFunc(values, func(n int) bool { return float64(n) >= want })
	if i < 0 {
		i = len(values) - 1
	}
	return values[i]
}

// First is the first test of models that run without warm-ups. Its time does not count:
// the first pass of a model also touches its weights for the first time.
var First = result.Test{Gen: 1}

// Jobs writes the headers of the thin models to files and makes the jobs of a round, from
// 0. Every other round has the reverse order. With Options.Check, the full model is one of
// them.
func (p *Plan) Jobs(round int) (jobs []bench.Job, err error) {
	if err := os.MkdirAll(p.options.Dir, 0o700); err != nil {
		return nil, err
	}
	for _, depth := range p.models() {
		header, tests := p.full, p.options.Tests
		if depth < p.kinds.Layers {
			tests = p.tests
			if header, err = p.kinds.Thin(p.full, depth); err != nil {
				return nil, err
			}
		}
		path := filepath.Join(p.options.Dir, fmt.Sprintf("%s.%d.gguf-header", filepath.Base(p.name), depth))
		if err := synth.WriteHeaderFile(path, header); err != nil {
			return nil, err
		}
		job := p.options.Job
		job.Model = bench.Model{Name: p.thinName(depth), Path: path, Weights: result.SyntheticWeights, Seed: job.Seed, Layers: depth + 1}
		if job.NoWarmup {
			tests = append([]result.Test{First}, tests...)
		}
		for _, t := range tests {
			job.Tests = append(job.Tests, bench.TestBudget{Test: t})
		}
		jobs = append(jobs, job)
	}
	if round%2 == 1 {
		slices.Reverse(jobs)
	}
	return jobs, nil
}

// models are the numbers of layers of all models that run.
func (p *Plan) models() []int {
	if p.options.Check {
		return append(slices.Clone(p.depths), p.kinds.Layers)
	}
	return p.depths
}

// thinName is the name of a thin model in the log.
func (p *Plan) thinName(depth int) string {
	return fmt.Sprintf("%s (%d of %d layers)", p.name, depth, p.kinds.Layers)
}

// taker takes the repetitions of one model.
type taker struct {
	plan  *Plan
	depth int
	round int
	test  result.Test // that runs
}

// Taker consumes the events of a job that Jobs has made for a round. Repetitions count
// also if their test does not end.
func (p *Plan) Taker(round int, job bench.Job) supervise.Consumer {
	return &taker{plan: p, depth: job.Model.Layers - 1, round: round}
}

func (t *taker) Event(s bench.Stamped) error {
	switch e := s.Event.(type) {
	case bench.TestStarted:
		t.test = e.Test
	case bench.RepetitionDone:
		of := run{t.depth, t.test}
		rounds := t.plan.runs[of]
		for len(rounds) <= t.round {
			rounds = append(rounds, nil)
		}
		rounds[t.round] = append(rounds[t.round], e.Sample.Elapsed.Seconds())
		t.plan.runs[of] = rounds
	}
	return nil
}

func (t *taker) Outcome(o *result.Outcome) error {
	if o.Status != result.OK {
		t.plan.failed = fmt.Sprintf("%v of %d layers: %s", o.Test, t.depth, o.Reason)
	}
	return nil
}

// Measure runs the models, repetition by repetition in turn if memory holds them
// together. If the times of a test do not rise with the number of layers, because the
// machine is busy, it runs up to twice as many rounds more. When ctx ends, the
// repetitions so far are kept, and the error is nil.
func (p *Plan) Measure(ctx context.Context, o supervise.Options) error {
	inTurns := func(ctx context.Context, jobs []bench.Job, consumers func(i int) supervise.Consumers) error {
		return supervise.RunInTurns(ctx, jobs, consumers, o)
	}
	for round := 0; round < p.options.Rounds || round < 3*p.options.Rounds && p.failed == "" && p.unclear(); round++ {
		o.Log.Info("measuring thin models", "model", p.name, "layers", strings.Trim(fmt.Sprint(p.models()), "[]"), "round", round+1)
		if err := p.Round(ctx, round, inTurns); err != nil {
			return err
		}
	}
	return nil
}

// A Runner runs jobs in turn, as supervise.RunInTurns does.
type Runner func(ctx context.Context, jobs []bench.Job, consumers func(i int) supervise.Consumers) error

// Round runs the models once. Rounds count from 0. When ctx ends, the repetitions so far
// are kept, and the error is nil.
func (p *Plan) Round(ctx context.Context, round int, run Runner) error {
	jobs, err := p.Jobs(round)
	if err != nil {
		return err
	}
	size := 1
	if p.together {
		size = len(jobs)
	}
	for some := range slices.Chunk(jobs, size) {
		if ctx.Err() != nil {
			return nil
		}
		if err := run(ctx, some, func(i int) supervise.Consumers { return supervise.Consumers{p.Taker(round, some[i])} }); err != nil {
			return err
		}
	}
	return nil
}

// unclear tells whether the times of a test do not rise with the number of layers.
func (p *Plan) unclear() bool {
	return slices.ContainsFunc(p.tests, func(t result.Test) bool {
		_, err := p.layered(t)
		return errors.Is(err, errBusy)
	})
}

// samples are the rounds of a test that all thin models have completed.
func (p *Plan) samples(depth int, t result.Test) (all []stats.Sample) {
	for round, seconds := range p.runs[run{depth, t}] {
		complete := !slices.ContainsFunc(p.depths, func(d int) bool {
			rounds := p.runs[run{d, t}]
			return len(rounds) <= round || len(rounds[round]) == 0
		})
		if s, err := stats.New(seconds); err == nil && complete {
			all = append(all, s)
		}
	}
	return all
}

// Row is the estimate of one test. Its speed is in tokens per second.
type Row struct {
	Kind      string   `json:"kind"` // "estimate"
	Estimated bool     `json:"estimated"`
	Model     string   `json:"model"`
	Test      string   `json:"test"`
	Speed     float64  `json:"ts,omitempty"` // absent: Reason says why
	Low       float64  `json:"ts_low,omitempty"`
	High      float64  `json:"ts_high,omitempty"`
	Level     float64  `json:"confidence,omitempty"`
	Layers    int      `json:"layers"`
	Measured  []int    `json:"measured_layers"`
	From      []string `json:"from"` // the tests of the thin models
	Samples   []Times  `json:"samples,omitempty"`
	CheckOff  *float64 `json:"check_off,omitempty"`        // measured/computed-1 of the time at the point that checks lengths
	Needs     uint64   `json:"memory_bytes"`               // weights, cache and compute buffers of the full model
	Available uint64   `json:"memory_available,omitempty"` // bytes
	GPUs      []string `json:"gpus,omitempty"`             // whose memory that is; none: the CPU's
	Fits      *bool    `json:"fits_memory,omitempty"`
	Cost      *Cost    `json:"cost,omitempty"`
	Full      *Full    `json:"full,omitempty"` // absent: the full model was not measured
	Reason    string   `json:"reason,omitempty"`
}

// Cost is what a million tokens cost at the estimated speed and at the ends of its
// interval, in the currency of the price.
type Cost struct {
	PerMillion float64 `json:"per_million_tokens"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Currency   string  `json:"currency,omitempty"`
}

func (r *Row) add(layers int, t result.Test, rounds [][]float64) {
	if len(rounds) > 0 {
		r.Samples = append(r.Samples, Times{layers, t.String(), rounds})
	}
}

// Times are those of a test of a model, in seconds, for each round and repetition.
type Times struct {
	Layers int         `json:"layers"`
	Test   string      `json:"test"`
	Rounds [][]float64 `json:"rounds_s"`
}

// Full is the measured speed of the full model, in turn with the thin ones.
type Full struct {
	Speed float64 `json:"ts"`
	Off   float64 `json:"estimate_off"` // estimated/measured-1, the median over the repetitions in turn
	Again float64 `json:"again_off"`    // the first half of its repetitions against the second: speed/speed-1
}

// Rows are the estimates, in the order of the tests.
func (p *Plan) Rows() (rows []Row) {
	for _, t := range p.options.Tests {
		c := p.options.Context
		c.Tokens = t.Context()
		row := Row{
			Kind: "estimate", Estimated: true, Model: p.name, Test: t.String(), Layers: p.kinds.Layers, Measured: p.depths,
			Needs: p.full.Memory(c).Total(), Available: p.options.AvailableBytes, GPUs: p.options.GPUs,
		}
		for _, from := range p.options.measured(t) {
			row.From = append(row.From, from.String())
			for _, depth := range p.depths {
				row.add(depth, from, p.runs[run{depth, from}])
			}
		}
		row.add(p.kinds.Layers, t, p.runs[run{p.kinds.Layers, t}])
		if row.Available > 0 {
			fits := row.Needs <= row.Available
			row.Fits = &fits
		}
		time, err := p.time(t)
		switch {
		case err != nil && p.failed != "":
			row.Reason = p.failed
		case err != nil:
			row.Reason = err.Error()
		default:
			tokens := float64(t.Tokens())
			row.Speed, row.Low, row.High, row.Level = tokens/time.seconds, tokens/time.High, tokens/time.Low, time.Confidence
			row.CheckOff = time.checkOff
			row.Full = p.measuredFull(t, row.Speed)
			if price := p.options.Price; price != nil {
				row.Cost = &Cost{price.PerMillion(row.Speed), price.PerMillion(row.High), price.PerMillion(row.Low), price.Currency}
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// measuredFull is the measured speed of the full model; nil if it was not measured.
func (p *Plan) measuredFull(t result.Test, estimated float64) *Full {
	seconds := slices.Concat(p.runs[run{p.kinds.Layers, t}]...)
	all, err := stats.New(seconds)
	if err != nil {
		return nil
	}
	full := &Full{Speed: float64(t.Tokens()) / all.Median()}
	full.Off = estimated/full.Speed - 1
	var off []float64
	for round, all := range p.runs[run{p.kinds.Layers, t}] {
		for k, seconds := range all {
			if e, ok := p.repetition(t, round, k); ok {
				off = append(off, seconds/e-1)
			}
		}
	}
	if inTurn, err := stats.New(off); err == nil {
		full.Off = inTurn.Median()
	}
	first, err1 := stats.New(seconds[:len(seconds)/2])
	second, err2 := stats.New(seconds[len(seconds)/2:])
	if err1 == nil && err2 == nil {
		full.Again = second.Median()/first.Median() - 1
	}
	return full
}

// repetition is the time of the full model by one repetition of the thin models.
func (p *Plan) repetition(t result.Test, round, k int) (seconds float64, ok bool) {
	var groups []stats.Group
	for _, depth := range p.depths {
		rounds := p.runs[run{depth, t}]
		if round >= len(rounds) || k >= len(rounds[round]) {
			return 0, false
		}
		s, err := stats.New(rounds[round][k : k+1])
		if err != nil {
			return 0, false
		}
		groups = append(groups, stats.Group{X: p.weight(depth), Runs: []stats.Sample{s}})
	}
	line, err := stats.NewLine(groups, stats.DefaultLoads())
	return line.At(float64(p.kinds.Layers)), err == nil && p.together
}

// estimated is the time of a test, with its interval.
type estimated struct {
	seconds float64
	stats.Interval
	checkOff *float64
}

// wider makes the interval wide enough for a further error, a share.
func (e estimated) wider(share float64) estimated {
	widen := func(x float64) float64 { return math.Hypot(math.Log(x/e.seconds), 2*share) }
	e.Low, e.High = e.seconds*math.Exp(-widen(e.Low)), e.seconds*math.Exp(widen(e.High))
	return e
}

// scaled is the time of a test with so many times the work.
func (e estimated) scaled(factor float64) estimated {
	e.seconds, e.Low, e.High = e.seconds*factor, e.Low*factor, e.High*factor
	return e
}

func (e estimated) plus(o estimated) estimated {
	if e.seconds == 0 {
		return o
	}
	off := e.checkOff
	if off == nil || o.checkOff != nil && math.Abs(*o.checkOff) > math.Abs(*off) {
		off = o.checkOff
	}
	return estimated{e.seconds + o.seconds, stats.Interval{Low: e.Low + o.Low, High: e.High + o.High, Confidence: e.Confidence}, off}
}

// time estimates the time of a test of the full model.
func (p *Plan) time(t result.Test) (sum estimated, err error) {
	if p.options.asIs(t) {
		return p.layered(t)
	}
	basePrompt, baseGen := p.options.base()
	if t.Prompt > 0 {
		prompt := result.Test{Prompt: t.Prompt, Depth: t.Depth}
		part, err := p.lengthened(prompt, basePrompt, result.Test{Prompt: farPrompt}, result.Test{Prompt: checkPrompt}, long(t))
		if err != nil {
			return part, err
		}
		sum = sum.plus(part)
	}
	if t.Gen > 0 {
		gen := result.Test{Gen: t.Gen, Depth: t.Depth + t.Prompt}
		part, err := p.lengthened(gen, baseGen, result.Test{Gen: farGen, Depth: farDepth}, result.Test{Gen: farGen, Depth: checkDepth}, long(t))
		if err != nil {
			return part, err
		}
		sum = sum.plus(part)
	}
	return sum, nil
}

// layered estimates the time of a test that the thin models measured.
func (p *Plan) layered(t result.Test) (e estimated, err error) {
	var groups []stats.Group
	for _, depth := range p.depths {
		groups = append(groups, stats.Group{X: p.weight(depth), Runs: p.samples(depth, t)})
	}
	line, err := stats.NewLine(groups, stats.DefaultLoads())
	x := float64(p.kinds.Layers)
	e.seconds = line.At(x)
	switch {
	case errors.Is(err, stats.ErrNoLine), err == nil && !(e.seconds > 0):
		return e, fmt.Errorf("%v: %w", t, errBusy)
	case errors.Is(err, stats.ErrEmpty):
		return e, fmt.Errorf("%v was not measured", t)
	case err != nil:
		return e, fmt.Errorf("%v: %w", t, err)
	}
	e.Interval = line.Interval(x, Confidence, Spread)
	return e, nil
}

// weight is the number of full-size layers that a thin model's layers weigh: the
// quantisation gives some more bits.
func (p *Plan) weight(depth int) float64 {
	thin, err := p.kinds.Thin(p.full, depth)
	if err != nil {
		return float64(depth)
	}
	mean := float64(p.kinds.LayerBytes(p.full)) / float64(p.kinds.Layers-p.kinds.Lead)
	in := synth.Kinds{Layers: depth, Lead: p.kinds.Lead}
	return float64(p.kinds.Lead) + float64(in.LayerBytes(thin))/mean
}

// lengthened estimates the time of a test from shorter ones: time = α·linear +
// β·attention, in the units of the work. For a prompt, these are the operations of
// products with weights and of the attention; for a generation, the bytes of weights and
// of the cache. A short test has little attention: its bytes or operations count as those
// of weights do. base and far give α and β, and check shows how far that is off.
func (p *Plan) lengthened(t, base, far, check result.Test, attention bool) (e estimated, err error) {
	b, err := p.layered(base)
	if err != nil {
		return b, err
	}
	if !attention {
		linear, other := p.parts(t)
		baseLinear, baseOther := p.parts(base)
		e = b.scaled((linear + other) / (baseLinear + baseOther))
		if base.Prompt > 0 && base.Prompt < basePrompt {
			e = e.wider(shortSpread)
		}
		return e, nil
	}
	f, err := p.layered(far)
	if err != nil {
		return f, err
	}
	c, err := p.layered(check)
	if err != nil {
		return c, err
	}
	predict := func(t result.Test) float64 {
		linear, other := p.parts(t)
		bl, bo := p.parts(base)
		fl, fo := p.parts(far)
		det := bl*fo - fl*bo
		beta := max(0, (bl*f.seconds-fl*b.seconds)/det) // attention costs no less than nothing
		alpha := (b.seconds - beta*bo) / bl
		return alpha*linear + beta*other
	}
	off := c.seconds/predict(check) - 1
	e = b.scaled(predict(t) / b.seconds)
	e.checkOff = &off
	return e.wider(off), nil
}

// parts are the two parts of a test's work that cost time of their own.
func (p *Plan) parts(t result.Test) (linear, attention float64) {
	w := p.full.Work(t, p.options.Context)
	if t.Gen > 0 {
		return float64(w.WeightBytes), float64(w.CacheBytes)
	}
	return float64(w.Operations), float64(w.AttentionOps)
}
