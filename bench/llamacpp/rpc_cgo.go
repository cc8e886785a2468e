//go:build cgo

package llamacpp

import (
	"context"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/llama"
)

// CheckRPC asks each RPC server whether it is free and speaks the library's
// protocol. It returns the first error, at most 15 seconds after it asked that
// server.
func CheckRPC(ctx context.Context, servers []string) error {
	for _, s := range servers {
		if err := llama.CheckRPCServer(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// busyFor is the time that a server has to answer a worker of a run. The server
// serves one program at a time, and may still compute what an earlier worker sent
// before it was ended.
const busyFor = 90 * time.Second

// addRPC registers the devices of the job's RPC servers. It runs on the engine's
// thread.
func addRPC(job bench.Job) error {
	var answer time.Duration
	if len(job.Tests) > 0 {
		answer = busyFor
	}
	ctx := context.Background()
	if job.TimeLeft > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, job.TimeLeft, bench.ErrTimeLimit)
		defer cancel()
	}
	for _, s := range job.Settings.RPC {
		if err := llama.AddRPCServer(ctx, s, answer); err != nil {
			return err
		}
	}
	return nil
}
