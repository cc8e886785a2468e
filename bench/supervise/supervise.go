// Package supervise runs a job in a worker process and outlives it. The parent
// keeps every event as it arrives and is the last rung of the watchdog: a
// worker that crashes, hangs, stops writing or writes garbage costs the test it
// happened in, and another one does the rest.
//
// The protocol: the parent writes the job as one line of JSON to the worker's
// standard input. The worker writes events, one line each, to file descriptor 3
// and waits after each for one byte on its standard input, by which the parent
// says that the event is safe. So no repetition starts before the one before it
// is on disk, and the parent is idle while the clock runs. Standard input at its
// end tells the worker that the parent is gone.
package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Options are how to run workers.
type Options struct {
	Command  []string  // the worker's program and arguments
	Env      []string  // added to the environment, "KEY=value"
	Version  string    // of this program, for the records
	Deadline time.Time // of the run; zero: none
	Log      *slog.Logger

	// OOMKills counts the processes that the kernel ended for memory so far; nil
	// when nobody counts.
	OOMKills func() (count uint64, ok bool)

	// Observe is called with every event of a worker, while it waits; what it
	// returns are events of the parent's own, which come before it. May be nil.
	Observe func(bench.Stamped) []bench.Event

	// Downloaded is how many bytes downloads took since the repetition before, or
	// since the warm-up. It is called after each repetition and may be nil.
	Downloaded func() int64

	// Event is called with every event before the worker goes on; it has the
	// event safe when it returns. Outcome is called with every outcome. An error
	// of either ends the run.
	Event   func(bench.Stamped) error
	Outcome func(*result.Outcome) error
}

// The crash rule: a test is not retried after its second crash; after the third
// crash of a model its remaining tests are recorded as crashed. Loading counts
// as a test here, whose loss is that of all others. Every load of a model after
// its first is charged to what that left of the load budget.
const (
	crashesOfTest  = 2
	crashesOfModel = 3
)

// Run runs the job's tests in worker processes and reports an outcome for each:
// in the order of the tests, but for longer tests of a kind that crashed, which
// come last. It returns an error when a worker or its engine could not be
// started, or Event or Outcome failed; no worker is left then. When ctx ends, the
// worker is told to stop, and ended if it does not within StopWithin; the tests
// not completed are Aborted.
func Run(ctx context.Context, job bench.Job, o Options) error {
	return (&model{job: job, options: o, crashed: make(map[result.Test]int)}).run(ctx)
}

// Probe starts a worker to ask what its engine says of itself, with the job's
// settings and nothing to run. It returns ErrStart, ErrEngine, or how the worker
// was lost: a back-end may end its process.
func Probe(ctx context.Context, job bench.Job, o Options) (bench.EngineFacts, error) {
	job.Tests = nil
	var facts bench.EngineFacts
	o.Event = func(s bench.Stamped) error {
		if ready, ok := s.Event.(bench.EngineReady); ok {
			facts = ready.Facts
		}
		return nil
	}
	lost, err := (&attempt{job: job, options: o}).run(ctx)
	switch {
	case err != nil:
		return facts, err
	case ctx.Err() != nil:
		return facts, context.Cause(ctx)
	case lost != nil:
		return facts, errors.New(lost.reason)
	}
	return facts, nil
}

// model is the tests of one job, over all its workers.
type model struct {
	job     bench.Job // Tests are those that have no outcome yet, Past those that have
	options Options
	crashes int                 // of the model
	crashed map[result.Test]int // of each test; the zero Test is loading
	loads   time.Duration       // spent on loading
	started bool                // an engine has worked, of this model or another
}

func (m *model) run(ctx context.Context) error {
	for len(m.job.Tests) > 0 {
		if ctx.Err() != nil {
			return m.giveUp(m.job.Tests, loss{result.Aborted, stopReason(ctx)})
		}
		a, lost, err := m.attempt(ctx)
		switch {
		case errors.Is(err, ErrEngine) && m.started: // a device that was there is gone
			return m.giveUp(m.job.Tests, loss{result.Crashed, err.Error()})
		case err != nil:
			return err
		}
		m.started = true
		switch pending := m.job.Tests; {
		case len(pending) == 0:
			return nil
		case ctx.Err() != nil:
			return m.lose(a, pending, loss{result.Aborted, stopReason(ctx)})
		case a.loadFailed != nil:
			if a.loadFailed.Status == result.OutOfMemory && m.gentler(a.loadFailed.Reason) {
				continue
			}
			return m.giveUp(pending, loss{a.loadFailed.Status, a.loadFailed.Reason})
		case lost == nil: // a signal that was not ours
			return m.giveUp(pending, loss{result.Aborted, "the worker was told to stop by another process"})
		default:
			if err := m.recover(a, *lost); err != nil {
				return err
			}
		}
	}
	return nil
}

// attempt runs the pending tests in one worker.
func (m *model) attempt(ctx context.Context) (*attempt, *loss, error) {
	job := m.job
	if job.LoadBudget > 0 {
		if job.LoadBudget -= m.loads; job.LoadBudget <= 0 {
			failed := bench.LoadDone{Status: result.Timeout, Reason: fmt.Sprintf("no time to load the model again: its budget of %s is spent",
				m.job.LoadBudget.Round(time.Millisecond))}
			return &attempt{loadFailed: &failed}, nil, nil
		}
	}
	if !m.options.Deadline.IsZero() {
		job.TimeLeft = max(time.Until(m.options.Deadline), 1)
	}
	a := &attempt{job: job, options: m.options, assembler: bench.Assembler{Version: m.options.Version, Job: job}}
	a.ended = func(o *result.Outcome) error {
		m.over(o.Test, a.past(o))
		return m.options.Outcome(o)
	}
	lost, err := a.run(ctx)
	m.loads += a.loading
	return a, lost, err
}

// over moves a test to those that have an outcome.
func (m *model) over(t result.Test, past bench.PastTest) {
	m.job.Tests = slices.DeleteFunc(slices.Clone(m.job.Tests), func(p bench.TestBudget) bool { return p.Test == t })
	m.job.Past = append(slices.Clone(m.job.Past), past)
}

// recover decides what the loss of a worker costs: nothing but time the first
// time, then the test under way or the next one, and without a model all tests. A
// pass before the first test costs time alone: a test that needs none like it
// may do well.
func (m *model) recover(a *attempt, lost loss) error {
	pending := m.job.Tests
	if a.pass != nil {
		m.options.Log.Warn("the worker was lost before the first test, trying again without what it computed",
			"model", m.job.Model.Name, "pass", *a.pass, "reason", lost.reason)
		m.job.NoPasses = m.job.LostPass != nil || lost.status == result.Timeout
		m.job.LostPass = a.pass
		return nil
	}
	hit, culprit := pending[:1], pending[0].Test
	if !a.loaded {
		hit, culprit = pending, result.Test{}
	}
	if lost.status == result.Crashed || lost.status == result.OutOfMemory {
		m.crashes++
		m.crashed[culprit]++
		again := m.crashed[culprit] < crashesOfTest && m.crashes < crashesOfModel
		if !a.loaded && m.offloadLess(a.offload, lost.reason) || again || !a.loaded && lost.status == result.OutOfMemory && m.gentler(lost.reason) {
			m.options.Log.Warn("the worker was lost, trying again", "test", pending[0].Test, "reason", lost.reason)
			if done, ok := a.assembler.Begun(); ok {
				m.job.Tests = slices.Clone(pending)
				m.job.Tests[0].Done = done // completed repetitions are kept
			}
			return nil
		}
	}
	if err := m.lose(a, hit, lost); err != nil {
		return err
	}
	if m.crashes >= crashesOfModel {
		return m.giveUp(m.job.Tests, loss{result.Crashed, fmt.Sprintf("not run after %d crashes: %s", m.crashes, lost.reason)})
	}
	// Longer tests of the kind may well crash too: the others come first.
	slices.SortStableFunc(m.job.Tests, func(a, b bench.TestBudget) int {
		return cmp.Compare(like(a.Test, culprit), like(b.Test, culprit))
	})
	return nil
}

// like is 1 when two tests differ in length alone, else 0.
func like(a, b result.Test) int {
	if a.Kind() == b.Kind() && a.Depth == b.Depth {
		return 1
	}
	return 0
}

// gentler changes the settings of a model that did not fit into memory of the
// process to ones that need less of it. It tells whether there were any.
func (m *model) gentler(reason string) bool {
	s := m.job.Effective()
	if s.NoRepack {
		return false
	}
	// Repacked weights are a second copy in memory of the process, where a
	// mapped file needs none.
	s.NoRepack = true
	m.warn("no_repack", "weights not repacked for the CPU, because with that memory did not suffice (%s)", reason)
	m.job.Gentler = &s
	return true
}

// offloadLess limits the layers on devices after a worker was lost while it
// loaded with tried of them: to half of them, then to none. The engine looks for
// the largest number that fits, but an allocation that ends the process leaves
// nobody to look on. It tells whether it did.
func (m *model) offloadLess(tried int, reason string) bool {
	if tried == 0 || m.crashes >= crashesOfModel {
		return false
	}
	m.job.Offload = &bench.OffloadLimit{Layers: tried / 2, Tried: tried, Reason: reason}
	if m.crashes > 1 {
		m.job.Offload.Layers = 0
	}
	m.options.Log.Warn("trying again with fewer layers on devices", "model", m.job.Model.Name, "layers", m.job.Offload.Layers, "reason", reason)
	return true
}

// warn adds a warning to all records to come; it replaces one of the same code.
func (m *model) warn(code, format string, args ...any) {
	w := result.Warning{Code: code, Message: fmt.Sprintf(format, args...)}
	m.options.Log.Warn("trying again with gentler settings", "model", m.job.Model.Name, "because", w.Message)
	kept := slices.DeleteFunc(slices.Clone(m.job.Warnings), func(w result.Warning) bool { return w.Code == code })
	m.job.Warnings = append(kept, w)
}

// giveUp records tests that are not run.
func (m *model) giveUp(tests []bench.TestBudget, l loss) error {
	for _, t := range slices.Clone(tests) {
		skipped := bench.TestSkipped{Model: m.job.Model.Name, Test: t.Test, Status: l.status, Reason: l.reason}
		if err := m.options.Event(bench.Stamped{At: time.Now(), Event: skipped}); err != nil {
			return err
		}
		m.over(t.Test, bench.PastTest{Test: t.Test, Status: l.status})
		err := m.options.Outcome(&result.Outcome{Model: m.job.Model.Name, Test: t.Test, Status: l.status, Reason: l.reason, Samples: t.Done})
		if err != nil {
			return err
		}
	}
	return nil
}

// lose records tests as lost, the first one with its samples when it had begun.
func (m *model) lose(a *attempt, tests []bench.TestBudget, l loss) error {
	tests = slices.Clone(tests)
	if begun := a.assembler.Lost(l.status, l.reason); begun != nil {
		m.over(begun.Test, bench.PastTest{Test: begun.Test, Status: begun.Status})
		if err := m.options.Outcome(begun); err != nil {
			return err
		}
		tests = slices.DeleteFunc(tests, func(t bench.TestBudget) bool { return t.Test == begun.Test })
	}
	return m.giveUp(tests, l)
}

func stopReason(ctx context.Context) string { return fmt.Sprintf("stopped: %v", context.Cause(ctx)) }

// loss is why tests have no result.
type loss struct {
	status result.Status
	reason string
}

// attempt is one worker's life.
type attempt struct {
	job        bench.Job
	options    Options
	assembler  bench.Assembler
	ended      func(*result.Outcome) error // called with each outcome
	loading    time.Duration               // spent on it
	began      time.Time                   // of the load; zero when it is over
	setup      time.Duration               // of the test under way, before its first pass
	offload    int                         // layers tried on devices, in a load that is not over; 0: none
	pass       *result.Test                // under way before the first test
	loaded     bool                        // LoadDone arrived, with a model
	loadFailed *bench.LoadDone
	done       bool // JobDone arrived
	ladder     ladder
}

// run starts a worker and follows it to its end. lost is nil when it did all it
// could.
func (a *attempt) run(ctx context.Context) (lost *loss, err error) {
	w, err := start(a.options, a.job)
	if err != nil {
		return nil, err
	}
	defer w.end()
	defer a.loadEnded()
	a.ladder.set(startupLimit, result.Crashed, "did not start")
	defer a.ladder.stop()

	end := func(because loss) {
		lost = &because
		w.kill()
		a.ladder.set(killLimit, because.status, "could not be killed")
	}
	lines, stop := w.lines, ctx.Done()
	var exited <-chan struct{} // looked at when all that the worker wrote was read
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				lines, exited = nil, w.exited
				if lost == nil {
					a.ladder.exiting()
				}
				continue
			}
			if lost != nil {
				continue // what it still says after it was ended counts for nothing
			}
			var ev bench.Stamped
			if err := ev.UnmarshalLine(line); err != nil {
				end(loss{result.Crashed, fmt.Sprintf("the worker wrote something that is not an event (%v)", err)})
				continue
			}
			if err := a.observe(ev); err != nil {
				return nil, err
			}
			if err := a.take(ev); err != nil {
				return nil, err
			}
			if _, expired := ev.Event.(bench.GraceExpired); expired {
				end(a.ladder.loss)
				continue
			}
			w.acknowledge()
		case <-exited:
			return a.gone(w, lost)
		case <-a.ladder.C():
			if lost != nil {
				return a.gone(w, lost) // not even SIGKILL ends it
			}
			end(a.ladder.loss)
		case <-stop:
			stop = nil
			if lost == nil {
				w.terminate()
				a.ladder.stopWithin(StopWithin)
			}
		}
	}
}

// observe takes what the parent itself has seen until a worker's event.
func (a *attempt) observe(s bench.Stamped) error {
	if a.options.Observe == nil {
		return nil
	}
	for _, own := range a.options.Observe(s) {
		if err := a.take(bench.Stamped{At: s.At, Event: own}); err != nil {
			return err
		}
	}
	return nil
}

// take keeps an event, moves the ladder, and reports the outcome that the event
// completes.
func (a *attempt) take(s bench.Stamped) error {
	if e, ok := s.Event.(bench.RepetitionDone); ok && a.options.Downloaded != nil {
		e.Sample.DownloadedBytes = a.options.Downloaded()
		s.Event = e
	}
	if err := a.options.Event(s); err != nil {
		return err
	}
	a.ladder.follow(s.Event)
	switch e := s.Event.(type) {
	case bench.EngineFailed:
		return fmt.Errorf("%w: %s", ErrEngine, e.Reason)
	case bench.LoadStarted:
		a.began = time.Now()
	case bench.OffloadTry:
		a.offload = e.Layers
	case bench.LoadDone:
		a.loadEnded()
		if a.loaded = e.Status == result.OK; !a.loaded {
			a.loadFailed = &e
		}
	case bench.CompilePass:
		a.pass = &e.Shape
	case bench.CompileDone:
		a.pass = nil
	case bench.ContextReady:
		a.setup = e.Elapsed
	case bench.WarmupDone:
		if t, ok := a.assembler.Running(); ok && t.Kind() != result.PromptProcessing {
			a.setup += e.Elapsed // one token; a prompt's is a pass
		}
	case bench.JobDone:
		a.done = true
	}
	if o := a.assembler.Add(s); o != nil {
		return a.ended(o)
	}
	return nil
}

// loadEnded adds up the time spent on loading.
func (a *attempt) loadEnded() {
	if !a.began.IsZero() {
		a.loading, a.began = a.loading+time.Since(a.began), time.Time{}
	}
}

// past is a test as later workers need to know it.
func (a *attempt) past(o *result.Outcome) bench.PastTest {
	p := bench.PastTest{Test: o.Test, Status: o.Status}
	if o.Status == result.OK {
		p.Setup = a.setup
		for _, s := range o.Samples {
			p.Repetitions = append(p.Repetitions, s.Elapsed)
		}
	}
	return p
}

// gone tells how a worker was lost; because is why the parent ended it, nil when
// it did not.
func (a *attempt) gone(w *worker, because *loss) (*loss, error) {
	output := w.output.lines()
	switch {
	case because != nil:
	case a.done, a.loadFailed != nil:
		return nil, nil
	default:
		because = w.describe(output)
	}
	lost := bench.WorkerLost{Status: because.status, Reason: because.reason, Output: output}
	return because, a.options.Event(bench.Stamped{At: time.Now(), Event: lost})
}

// Errors of Run that concern no single test.
var (
	ErrStart  = errors.New("start worker")
	ErrEngine = errors.New("start engine")
)
