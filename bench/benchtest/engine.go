// Package benchtest is a scripted engine: known speeds, hangs, errors and
// crashes, at any step of a run; and real RPC servers. It is for tests only.
//
// Time passes in time.Sleep and timers alone, so that inside a testing/synctest
// bubble an hour takes no time and ends to the nanosecond.
package benchtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Forever is longer than any test: a Deaf step that takes Forever hangs.
const Forever = time.Duration(1<<63 - 1)

// Method is a method of bench.Engine.
type Method string

// The methods that a script shapes.
const (
	Load   Method = "load"
	Begin  Method = "begin"
	Warmup Method = "warmup"
	Repeat Method = "repeat"
	End    Method = "end"
	Close  Method = "close"
)

// Call is one call of the engine by the run.
type Call struct {
	Method Method
	Test   result.Test // begun last; the zero Test before that
	N      int         // of Repeat: which repetition of the test, from 1; else 0
}

// String is the call as tests list it: "repeat 2 pp512".
func (c Call) String() string {
	switch c.Method {
	case Load, Close:
		return string(c.Method)
	case Repeat:
		return fmt.Sprintf("repeat %d %v", c.N, c.Test)
	default:
		return fmt.Sprintf("%s %v", c.Method, c.Test)
	}
}

// Step is what one call does. The zero Step succeeds at once.
type Step struct {
	Do    func()        // runs first: a crash, a signal; may be nil
	Takes time.Duration // then it takes so long, unless it is aborted
	Err   error         // then it returns this
	Lag   time.Duration // how long it takes to notice that it was aborted
	Deaf  bool          // never notices: takes its whole time

	Reports bool // Tokens tells how far it is
	Offload int  // of Load: layers that it tries on devices
}

// Script tells what each call does.
type Script func(Call) Step

// AtSpeed is the script of an engine that computes so many tokens per second,
// generated ones as well as those of a prompt. A warm-up takes a prompt and one
// token; a load one second; all else no time.
func AtSpeed(tokensPerSecond float64) Script {
	takes := func(tokens int) time.Duration {
		return time.Duration(float64(tokens) / tokensPerSecond * float64(time.Second))
	}
	return func(c Call) Step {
		switch c.Method {
		case Load:
			return Step{Takes: time.Second}
		case Warmup:
			return Step{Takes: takes(c.Test.Prompt + min(1, c.Test.Gen))}
		case Repeat:
			return Step{Takes: takes(c.Test.Tokens())}
		default:
			return Step{}
		}
	}
}

// Except is the script with another step wherever change knows one.
func (s Script) Except(change func(Call) (Step, bool)) Script {
	return func(c Call) Step {
		if step, ok := change(c); ok {
			return step
		}
		return s(c)
	}
}

// Engine is a bench.Engine that follows a script.
type Engine struct {
	script Script
	engine bench.EngineFacts
	model  bench.ModelFacts

	mu       sync.Mutex
	aborting chan struct{} // closed while the abort flag is set
	busy     bool
	calls    []Call
	test     result.Test
	n        int
	step     Step // under way
	began    time.Time
}

var _ bench.Engine = (*Engine)(nil)

// New makes an engine that follows a script and says these facts.
func New(s Script, engine bench.EngineFacts, model bench.ModelFacts) *Engine {
	return &Engine{script: s, engine: engine, model: model, aborting: make(chan struct{})}
}

// Calls are the calls made so far, in order, without Facts and those of the
// abort flag.
func (e *Engine) Calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls := make([]string, len(e.calls))
	for i, c := range e.calls {
		calls[i] = c.String()
	}
	return calls
}

// Facts returns what New was given.
func (e *Engine) Facts() bench.EngineFacts { return e.engine }

// Load follows the script and tells its progress ten times on the way.
func (e *Engine) Load(ctx context.Context, tell func(bench.Event)) (bench.ModelFacts, error) {
	c, leave := e.enter(Load)
	defer leave()
	step := e.script(c)
	if step.Offload > 0 {
		tell(bench.OffloadTry{Layers: step.Offload, Of: e.model.Layers + 1})
	}
	const parts = 10
	part := step
	part.Takes, part.Err = step.Takes/parts, nil
	for i := range parts {
		if _, err := part.run(ctx.Done()); err != nil {
			return bench.ModelFacts{}, fmt.Errorf("load: %w", err)
		}
		part.Do = nil
		tell(bench.LoadProgress{Share: float64(i+1) / parts})
	}
	if step.Err != nil {
		return bench.ModelFacts{}, step.Err
	}
	return e.model, nil
}

// Begin follows the script.
func (e *Engine) Begin(t result.Test) error {
	e.mu.Lock()
	e.test, e.n = t, 0
	e.mu.Unlock()
	_, err := e.follow(Begin)
	return err
}

// Warmup follows the script and returns the time it took.
func (e *Engine) Warmup() (time.Duration, error) { return e.follow(Warmup) }

// Repeat follows the script and returns the time it took.
func (e *Engine) Repeat(n int) (time.Duration, error) {
	e.mu.Lock()
	e.n = n
	e.mu.Unlock()
	return e.follow(Repeat)
}

// Generated is what the last repetition generated, if its test is an end-to-end
// one: tokens 0, 1, …, one byte each, as evenly spread over its time as all its
// tokens, those of the prompt included.
func (e *Engine) Generated() *result.Generated {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.test.E2E {
		return nil
	}
	g := &result.Generated{Bytes: int64(e.test.Gen)}
	for i := range e.test.Gen {
		g.Tokens = append(g.Tokens, int32(i))
		g.At = append(g.At, e.step.Takes*time.Duration(e.test.Prompt+i+1)/time.Duration(e.test.Tokens()))
	}
	return g
}

// Tokens is how many tokens of the pass under way are done: as many as its time
// tells, if the step reports them.
func (e *Engine) Tokens() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.step.Reports || e.step.Takes <= 0 {
		return 0
	}
	share := float64(time.Since(e.began)) / float64(e.step.Takes)
	return int(min(share, 1) * float64(e.test.Tokens()))
}

// End follows the script; it cannot be aborted.
func (e *Engine) End() error { return e.finish(End) }

// Close follows the script; it cannot be aborted.
func (e *Engine) Close() error { return e.finish(Close) }

func (e *Engine) finish(m Method) error {
	c, leave := e.enter(m)
	defer leave()
	_, err := e.script(c).run(nil)
	return err
}

// Abort sets the abort flag.
func (e *Engine) Abort() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !closed(e.aborting) {
		close(e.aborting)
	}
}

// ClearAbort takes the abort flag away.
func (e *Engine) ClearAbort() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if closed(e.aborting) {
		e.aborting = make(chan struct{})
	}
}

func (e *Engine) follow(m Method) (time.Duration, error) {
	c, leave := e.enter(m)
	defer leave()
	e.mu.Lock()
	aborted := e.aborting
	step := e.script(c)
	e.step, e.began = step, time.Now()
	e.mu.Unlock()
	return step.run(aborted)
}

// enter records a call. It panics when another has not returned yet: an engine
// is called from one goroutine, one call at a time.
func (e *Engine) enter(m Method) (c Call, leave func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c = Call{Method: m, Test: e.test}
	if m == Repeat {
		c.N = e.n
	}
	if e.busy {
		panic(fmt.Sprintf("benchtest: %v while %v is running", c, e.calls[len(e.calls)-1]))
	}
	e.busy = true
	e.calls = append(e.calls, c)
	return c, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.busy = false
	}
}

// run does the step and returns how long it took.
func (s Step) run(aborted <-chan struct{}) (time.Duration, error) {
	start := time.Now()
	if s.Do != nil {
		s.Do()
	}
	if s.Deaf {
		aborted = nil
	}
	timer := time.NewTimer(s.Takes)
	defer timer.Stop()
	if !closed(aborted) { // or else a step that takes no time might win
		select {
		case <-timer.C:
			return time.Since(start), s.Err
		case <-aborted:
		}
	}
	time.Sleep(s.Lag)
	return time.Since(start), bench.ErrAborted
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
