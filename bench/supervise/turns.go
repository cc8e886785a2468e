package supervise

import (
	"context"
	"errors"
	"sync"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// RunInTurns runs the jobs in one worker each. All models are loaded at the same time,
// and memory must hold them together. Only one worker works at a time: they take turns in
// the order of the jobs, after the load and after each repetition, or burst of short ones. So a machine that is
// slower for a while is slower for all of them.
//
// consumers returns the consumers of job i, which come before o.Consumers. No two
// consumers are called at the same time. When ctx ends, workers that wait for their turn
// are killed, and the outcome of their current test is not reported.
//
// The error is that of the first job that cannot be run; see RunModels.
func RunInTurns(ctx context.Context, jobs []bench.Job, consumers func(i int) Consumers, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Apart = true
	turns := make([]*turn, len(jobs))
	for i := range turns {
		turns[i] = &turn{ctx: ctx, mine: make(chan struct{}, 1)}
	}
	for i, t := range turns {
		t.next = turns[(i+1)%len(turns)]
	}
	errs := make([]error, len(jobs))
	var all sync.WaitGroup
	for i, t := range turns {
		own := o
		own.Consumers = append(append(consumers(i), o.Consumers...), t)
		all.Go(func() {
			defer t.leave()
			if err := t.wait(); err != nil {
				return
			}
			err := RunModels(ctx, jobs[i:i+1], func(context.Context, int) (bench.Job, error) { return jobs[i], nil }, own)
			if err != nil && !errors.Is(err, errTurnEnded) {
				errs[i] = err
				cancel()
			}
		})
	}
	if len(turns) > 0 {
		turns[0].mine <- struct{}{}
	}
	all.Wait()
	return errors.Join(errs...)
}

// errTurnEnded ends a worker that waits for its turn when the run ends.
var errTurnEnded = errors.New("the run ended before the worker's turn")

// turn passes the turn from one worker to the next. It is a Consumer of the worker's
// events, the last one.
type turn struct {
	ctx  context.Context // of all workers
	mine chan struct{}   // has a value while it is this worker's turn to begin
	next *turn
	left bool // the worker has ended; only who has the turn reads or writes it
	has  bool // the turn; of the worker's goroutine
}

// pass gives the turn to the next worker that has not ended; to none if all have.
func (t *turn) pass() {
	t.has = false
	to := t.next
	for to.left && to != t {
		to = to.next
	}
	if !to.left {
		to.mine <- struct{}{}
	}
}

// wait waits for the turn, or for the end of the run.
func (t *turn) wait() error {
	select {
	case <-t.mine:
		t.has = true
		return nil
	case <-t.ctx.Done():
		return errTurnEnded
	}
}

// leave passes the turn on for the last time. After the end of the run nobody waits.
func (t *turn) leave() {
	if t.has {
		t.left = true
		t.pass()
	}
}

// Event passes the turn on and waits until it returns, after the load and after each
// burst of repetitions.
func (t *turn) Event(s bench.Stamped) error {
	switch s.Event.(type) {
	case bench.LoadDone, bench.RepetitionDone:
		if s.More == 0 {
			t.pass()
			return t.wait()
		}
	}
	return nil
}

// Outcome does nothing.
func (*turn) Outcome(*result.Outcome) error { return nil }
