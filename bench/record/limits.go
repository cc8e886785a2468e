package record

import (
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
)

// Limits keeps the limits that workers of a run have measured. Later workers do not measure
// them again. The zero value is ready to use. It is used from one goroutine.
type Limits struct {
	known map[string][]result.DeviceLimits
}

// keyOf tells jobs apart that have their weights in other memory.
func keyOf(job bench.Job) string {
	return fmt.Sprintf("%s %v", job.Model.Load, job.Effective().NoRepack)
}

// Add takes the event of a worker of a job.
func (l *Limits) Add(job bench.Job, e bench.Event) {
	done, ok := e.(bench.LimitsDone)
	if !ok || len(done.Devices) == 0 {
		return
	}
	if l.known == nil {
		l.known = map[string][]result.DeviceLimits{}
	}
	l.known[keyOf(job)] = append(l.known[keyOf(job)], done.Devices...)
}

// Of returns the limits that a job need not measure.
func (l *Limits) Of(job bench.Job) []result.DeviceLimits { return slices.Clone(l.known[keyOf(job)]) }

// limitsOf compares a test with the limits of the device that holds the model. It is nil
// if the work of the test is not known, or no limits were measured.
func (a *Assembler) limitsOf(s bench.Settings, elapsed time.Duration) *result.Limits {
	known := slices.Concat(a.Job.LimitsKnown, a.limits)
	if a.test.Work == nil || len(known) == 0 || elapsed <= 0 {
		return nil
	}
	device := ""
	switch placed, offload := a.model.Placed, a.model.Offload; {
	case len(placed) == 0:
		device = roofline.CPU
	case len(placed) == 1 && offload != nil && offload.Layers == offload.Of:
		device = placed[0].Device
	}
	known = slices.DeleteFunc(known, func(d result.DeviceLimits) bool {
		other := d.Threads > 0 && (d.Threads != s.Threads || s.ThreadsBatch > 0 && s.ThreadsBatch != s.Threads)
		return d.Device != device || other
	})
	return roofline.Of(*a.test.Work, elapsed, device, known)
}
