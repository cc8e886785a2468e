package quick

import (
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// rates tell how fast the machine is. They are those of the step that ran last.
type rates struct {
	start time.Duration // of a process, with the end of the one before
	load  float64       // bytes a second, with the first pass
	ops   float64       // of a prompt, a second
	bytes float64       // of a generation, a second
}

// safety is the factor by which predictions are longer than the rates say: each model has
// other matrices, and other processes come and go.
const safety = 1.25

// predictThin predicts the time of a round of a model's thin models.
func (q *Quick) predictThin(m *model, l lengths) time.Duration {
	seconds := 0.0
	for _, thin := range m.headers {
		seconds += q.seconds(thin, result.Test{Prompt: l.prompt}, result.Test{Gen: l.gen})
	}
	return q.duration(seconds * safety)
}

// predictFull predicts the time of a measurement. ok is false if nothing is known of the
// model.
func (q *Quick) predictFull(m *model, repetitions int) (needs time.Duration, ok bool) {
	seconds := q.rates.start.Seconds() + q.loadSeconds(m.header)
	for _, row := range m.rows {
		if row.Speed == 0 {
			return 0, false
		}
		passes, tokens := float64(repetitions), float64(gen.Gen)
		if row.Test == prompt.String() {
			passes, tokens = passes+1, float64(prompt.Prompt) // with the warm-up
		}
		seconds += passes * tokens / row.Speed
	}
	return q.duration(seconds * safety), len(m.rows) > 0
}

// seconds is the time of a process that loads a model and runs tests once.
func (q *Quick) seconds(f *gguf.File, tests ...result.Test) float64 {
	sum := q.rates.start.Seconds() + q.loadSeconds(f)
	for _, t := range tests {
		w := f.Work(t, q.options.Context)
		switch {
		case t.Prompt > 0 && q.rates.ops > 0:
			sum += float64(w.Ops()) / q.rates.ops
		case t.Gen > 0 && q.rates.bytes > 0:
			sum += float64(w.Bytes()) / q.rates.bytes
		}
	}
	return sum
}

func (q *Quick) loadSeconds(f *gguf.File) float64 {
	if q.rates.load == 0 {
		return 0
	}
	return float64(f.TensorBytes()) / q.rates.load
}

func (q *Quick) duration(seconds float64) time.Duration {
	return time.Duration(min(seconds, 1e6) * float64(time.Second))
}

// learner learns the rates from the events of a job.
type learner struct {
	q       *Quick
	header  *gguf.File // nil: not known
	created time.Time
	load    time.Duration
	test    result.Test
}

func (q *Quick) learner(job bench.Job) supervise.Consumer {
	l := &learner{q: q, created: time.Now()}
	if job.Model.Path != "" {
		l.header, _ = synth.ReadHeaderFile(job.Model.Path) // without it nothing is learnt
	} else if shape, err := synth.Lookup(job.Model.Name); err == nil {
		l.header, _ = shape.File()
	}
	return l
}

func (l *learner) Event(s bench.Stamped) error {
	r := &l.q.rates
	switch e := s.Event.(type) {
	case bench.EngineReady:
		l.q.facts = e.Facts
		if r.start == 0 {
			r.start = 2 * time.Since(l.created) // it ends, too
		}
	case bench.LoadDone:
		l.load = e.Elapsed
	case bench.TestStarted:
		l.test = e.Test
	case bench.RepetitionDone:
		if l.header == nil || e.Sample.Elapsed <= 0 {
			return nil
		}
		w := l.header.Work(l.test, l.q.options.Context)
		if l.test == estimate.First { // it belongs to the load
			r.load = float64(l.header.TensorBytes()) / (l.load + e.Sample.Elapsed).Seconds()
		} else if l.test.Prompt > 0 {
			r.ops = float64(w.Ops()) / e.Sample.Elapsed.Seconds()
		} else {
			r.bytes = float64(w.Bytes()) / e.Sample.Elapsed.Seconds()
		}
	}
	return nil
}

func (*learner) Outcome(*result.Outcome) error { return nil }
