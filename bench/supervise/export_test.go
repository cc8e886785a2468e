package supervise

import (
	"context"

	"github.com/sparecores/benchmark-llm/bench"
)

// Run runs the tests of one model that is ready.
func Run(ctx context.Context, job bench.Job, o Options) error { return newModel(job, o).run(ctx) }
