package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// precompileLimit bounds the passes before the first test, for a driver that hangs:
// a pass that is not computed by then is left to its test.
const precompileLimit = 15 * time.Minute

// compile computes one untimed pass of every shape that the job's tests use,
// before any budget begins: at first use a GPU's driver compiles kernels, or
// moves them to the device, for seconds to minutes. Without a model on a GPU it
// does nothing. That a pass fails is told; the tests that need it will, too. What
// cost a worker is left to them.
func (j *jobRun) compile(run context.Context, e Engine, model ModelFacts, emit func(Event) error) error {
	shapes := precompileShapes(j.job.Tests, j.job.Effective())
	if lost := j.job.PrecompileSkip; lost != nil {
		shapes = slices.DeleteFunc(shapes, func(t result.Test) bool { return t == *lost })
	}
	if len(model.Placed) == 0 || len(shapes) == 0 || j.job.NoPrecompile {
		return nil
	}
	budget := precompileLimit
	if left, limited := j.left(); limited {
		budget = max(min(budget, left), 1)
	}
	if err := emit(PrecompileStarted{Shapes: shapes, Budget: budget}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(run, budget)
	defer cancel()
	start := time.Now()
	e.ClearAbort()
	stop := context.AfterFunc(ctx, e.Abort)
	done := PrecompileDone{Status: result.OK}
	for _, shape := range shapes {
		if err := emit(PrecompilePass{Shape: shape}); err != nil {
			return err
		}
		err := ctx.Err()
		if err == nil {
			err = e.Begin(shape)
		}
		if err == nil {
			_, err = e.Warmup()
		}
		if ctx.Err() != nil {
			done.Status, done.Reason = result.Timeout, overdue("computed", budget, result.Timeout)
			if run.Err() != nil {
				done.Status, done.Reason = result.Aborted, fmt.Sprintf("stopped: %v", context.Cause(run))
			}
			break
		}
		if err != nil {
			done.Status, done.Reason = statusOf(err), shape.String()+": "+err.Error()
		}
	}
	if err := e.End(); err != nil && done.Status == result.OK {
		done.Status, done.Reason = result.Failed, err.Error()
	}
	stop()
	done.Elapsed = time.Since(start)
	return emit(done)
}

// precompileShapes are the shapes of single passes through the graph that tests are
// made of: ubatches of a prompt or of a depth, the last one shorter, and one
// token. Their number is that of the kernels' choices, not of the tests.
func precompileShapes(tests []TestBudget, s Settings) []result.Test {
	batch := max(s.Batch, 1)
	ubatch := min(max(s.UBatch, 1), batch)
	var shapes []result.Test
	add := func(t result.Test) {
		if !slices.Contains(shapes, t) {
			shapes = append(shapes, t)
		}
	}
	chunk := func(n int) { // of one decode
		if n >= ubatch {
			add(result.Test{Prompt: ubatch})
		}
		if n%ubatch > 0 {
			add(result.Test{Prompt: n % ubatch})
		}
	}
	for _, t := range tests {
		for _, n := range []int{t.Test.Prompt, t.Test.Depth} {
			if n >= batch {
				chunk(batch)
			}
			chunk(n % batch)
		}
		if t.Test.Gen > 0 {
			add(result.Test{Gen: 1})
		}
	}
	slices.SortFunc(shapes, func(a, b result.Test) int { return cmp.Compare(b.Prompt, a.Prompt) })
	return shapes
}
