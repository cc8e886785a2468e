package acquire

import (
	"slices"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
)

// planLimits gives the tests of a job their work, and the measurement of the machine's
// limits the types of the model's weights. It does nothing if the job wants no limits.
func planLimits(job *bench.Job, header *gguf.File) {
	if job.Limits == nil {
		return
	}
	job.Tests = slices.Clone(job.Tests)
	var works []*result.Work
	for i := range job.Tests {
		t := &job.Tests[i]
		if t.Unsupported == "" {
			t.Work = roofline.Work(header, t.Test, ContextOf(job.For(t.Test)))
			works = append(works, t.Work)
		}
	}
	plan := *job.Limits
	plan.Types = roofline.Wanted(works)
	job.Limits = &plan
}
