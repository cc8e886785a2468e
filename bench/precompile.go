package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// precompileLimit bounds all precompile passes together, in case a driver hangs. The
// tests compile what is missing then.
const precompileLimit = 15 * time.Minute

// precompile computes one untimed pass of every shape that the job's tests use, before
// any budget begins. The first use of a kernel can take seconds to minutes, because a
// GPU's driver compiles it or moves it to the device. precompile does nothing if no
// GPU holds a part of the model. A pass that fails is reported in PrecompileDone; the
// tests of its shape will fail too. A shape that ended a worker is left out.
func (j *jobRun) precompile(run context.Context, e Engine, model ModelFacts, emit func(Event) error) error {
	shapes := precompileShapes(j.job.Tests, j.job.For)
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
			done.Status, done.Reason = result.Timeout, fmt.Sprintf("precompile passes exceeded %s", budget.Round(time.Millisecond))
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

// precompileShapes are the shapes of the single micro-batches that tests consist of:
// those of a prompt or a depth, the last of which may be shorter, and one token. The
// shape decides which kernels a micro-batch uses. A prompt of 16,384 tokens has the
// same micro-batches as one of 512, so whole warm-ups would compile nothing more.
func precompileShapes(tests []TestBudget, settings func(result.Test) Settings) []result.Test {
	var shapes []result.Test
	add := func(t result.Test) {
		if !slices.Contains(shapes, t) {
			shapes = append(shapes, t)
		}
	}
	for _, t := range tests {
		s := settings(t.Test)
		batch := max(s.Batch, 1)
		ubatch := min(max(s.UBatch, 1), batch)
		addDecode := func(n int) { // tokens of one decode
			if n >= ubatch {
				add(result.Test{Prompt: ubatch, Settings: t.Test.Settings})
			}
			if n%ubatch > 0 {
				add(result.Test{Prompt: n % ubatch, Settings: t.Test.Settings})
			}
		}
		for _, n := range []int{t.Test.Prompt, t.Test.Depth} {
			if n >= batch {
				addDecode(batch)
			}
			addDecode(n % batch)
		}
		if t.Test.Gen > 0 {
			add(result.Test{Gen: 1, Settings: t.Test.Settings})
		}
	}
	slices.SortFunc(shapes, func(a, b result.Test) int { return cmp.Compare(b.Prompt, a.Prompt) })
	return shapes
}
