//go:build cgo

package llamacpp

import (
	"context"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/llama"
)

// CheckRPC asks each of the RPC servers whether it is there, is free and speaks
// this library's protocol. One that does not is found within 15 seconds.
func CheckRPC(ctx context.Context, servers []string) error {
	for _, s := range servers {
		if err := llama.CheckRPCServer(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// busyFor is how long a server may take to answer a worker of a run, which has
// asked it before: it may still compute what a worker that was ended had sent, and
// serves one program at a time.
const busyFor = 90 * time.Second

// addRPC registers the devices of RPC servers, on the engine's thread.
func addRPC(job bench.Job) error {
	var answer time.Duration
	if len(job.Tests) > 0 {
		answer = busyFor
	}
	for _, s := range job.Settings.RPC {
		if err := llama.AddRPCServer(context.Background(), s, answer); err != nil {
			return err
		}
	}
	return nil
}
