// Package benchtest helps tests. It has a scripted engine, with known speeds,
// hangs, errors and crashes at any step of a run. It also starts real RPC servers,
// and offers a CUDA without a GPU.
//
// The scripted engine waits only with time.Sleep and timers. Inside a
// testing/synctest bubble an hour therefore takes no time, and ends exactly.
package benchtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Forever is longer than any test. A Deaf step that takes Forever hangs.
const Forever = time.Duration(1<<63 - 1)

// Method is a method of bench.Engine.
type Method string

// The methods whose behaviour a script decides.
const (
	Limits Method = "limits"
	Load   Method = "load"
	Begin  Method = "begin"
	Warmup Method = "warmup"
	Repeat Method = "repeat"
	End    Method = "end"
	Close  Method = "close"
)

// Call is one call of the engine.
type Call struct {
	Method Method
	Test   result.Test // the test begun last; the zero Test before the first
	N      int         // number of the repetition, from 1, for Repeat; else 0
}

// String is the call in the form that tests list: "repeat 2 pp512".
func (c Call) String() string {
	switch c.Method {
	case Limits, Load, Close:
		return string(c.Method)
	case Repeat:
		return fmt.Sprintf("repeat %d %v", c.N, c.Test)
	default:
		return fmt.Sprintf("%s %v", c.Method, c.Test)
	}
}

// Step is the behaviour of one call. The zero Step succeeds at once.
type Step struct {
	Do    func()        // runs first, for example a crash or a signal; may be nil
	Takes time.Duration // duration unless it is aborted
	Err   error         // returned after Takes
	Lag   time.Duration // delay between an abort and the return
	Deaf  bool          // ignores aborts

	Primes time.Duration // duration of the untimed pass before a repetition that follows a rest

	Reports bool // Tokens reports the progress
	Offload int  // layers that Load tries to offload to devices

	Memory *result.Memory // of the test, from the step that begins it
}

// Script decides the step of each call.
type Script func(Call) Step

// AtSpeed is the script of an engine that computes prompts and generates tokens at
// the given speed. A warm-up computes the prompt and one token. A load takes one
// second. All other calls take no time.
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

// Except is the script with the steps that change returns in place of its own.
func (s Script) Except(change func(Call) (Step, bool)) Script {
	return func(c Call) Step {
		if step, ok := change(c); ok {
			return step
		}
		return s(c)
	}
}

// Engine is a bench.Engine that follows a script. It follows the rules of
// bench.Engine about goroutines.
type Engine struct {
	script Script
	engine bench.EngineFacts
	model  bench.ModelFacts

	mu        sync.Mutex
	aborting  chan struct{} // closed while the abort flag is set
	busy      bool
	calls     []Call
	test      result.Test
	memory    *result.Memory
	n         int
	rested    bool     // before the current repetition
	afterRest []string // repetitions that followed a rest
	step      Step     // current step
	began     time.Time
}

var (
	_ bench.Engine  = (*Engine)(nil)
	_ bench.Limiter = (*Engine)(nil)
)

// New makes an engine that follows a script and returns the given facts.
func New(s Script, engine bench.EngineFacts, model bench.ModelFacts) *Engine {
	return &Engine{script: s, engine: engine, model: model, aborting: make(chan struct{})}
}

// Calls lists the calls so far, in order. It omits Facts, Abort and ClearAbort.
func (e *Engine) Calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls := make([]string, len(e.calls))
	for i, c := range e.calls {
		calls[i] = c.String()
	}
	return calls
}

// Facts returns the engine facts given to New.
func (e *Engine) Facts() bench.EngineFacts { return e.engine }

// Limits follows the script and returns limits of the CPU for each type: 1 GB/s and 1
// GFLOP/s for the first, twice that for the second, and so on.
func (e *Engine) Limits(ctx context.Context, plan result.LimitsPlan) ([]result.DeviceLimits, error) {
	c, leave := e.enter(Limits)
	defer leave()
	step := e.script(c)
	if _, err := step.run(ctx.Done()); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	d := result.DeviceLimits{Device: "CPU", Threads: 2}
	for i, name := range plan.Types {
		rate := float64(i+1) * 1e9
		d.Types = append(d.Types, result.TypeLimits{Type: name, VectorBytesPerSecond: rate, MatrixOpsPerSecond: rate})
	}
	return []result.DeviceLimits{d}, nil
}

// Load follows the script and reports its progress ten times.
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

// Warmup follows the script and returns its duration.
func (e *Engine) Warmup() (time.Duration, error) { return e.follow(Warmup) }

// Repeat follows the script and returns its duration, without that of Step.Primes.
func (e *Engine) Repeat(n int, rested bool) (time.Duration, error) {
	e.mu.Lock()
	e.n, e.rested = n, rested
	e.mu.Unlock()
	return e.follow(Repeat)
}

// Priming returns the step's Primes if the last repetition followed a rest.
func (e *Engine) Priming() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.rested {
		return 0
	}
	return e.step.Primes
}

// AfterRest lists the repetitions so far that followed a rest, in the form of Calls.
func (e *Engine) AfterRest() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.afterRest)
}

// Context returns no facts: the settings are used as they were requested.
func (e *Engine) Context() bench.ContextFacts { return bench.ContextFacts{} }

// Generated returns the tokens of the last repetition of an end-to-end test, else
// nil. The tokens are 0, 1, …, one byte each. All tokens, including those of the
// prompt, take the same time.
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

// Tokens is the number of tokens that the current step has done, by its elapsed
// time. It is 0 if the step does not report.
func (e *Engine) Tokens() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.step.Reports || e.step.Takes <= 0 {
		return 0
	}
	share := float64(time.Since(e.began)) / float64(e.step.Takes)
	return int(min(share, 1) * float64(e.test.Tokens()))
}

// Memory returns the memory that the step of Begin has.
func (e *Engine) Memory() *result.Memory {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.memory
}

// End follows the script. It cannot be aborted.
func (e *Engine) End() error {
	e.mu.Lock()
	e.memory = nil
	e.mu.Unlock()
	return e.finish(End)
}

// Close follows the script. It cannot be aborted.
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

// ClearAbort clears the abort flag.
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
	if m == Begin {
		e.memory = step.Memory
	}
	primes := m == Repeat && e.rested
	if primes {
		e.afterRest = append(e.afterRest, c.String())
	}
	e.mu.Unlock()
	if primes {
		time.Sleep(step.Primes)
	}
	return step.run(aborted)
}

// enter records a call. It panics if another call has not returned yet, because an
// engine gets one call at a time.
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

// run executes the step and returns its duration.
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
	if !closed(aborted) { // select might choose the timer of a step that takes no time
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
