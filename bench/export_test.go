package bench

import "context"

// Run runs one test of a job on an engine that has its model.
func Run(ctx context.Context, e Engine, job Job, t TestBudget, emit func(Stamped) error) error {
	_, err := newJobRun(e, job, nil, emit).run(ctx, e, t, "")
	return err
}

// EventTypes is the number of events there are.
var EventTypes = len(eventTypes)
