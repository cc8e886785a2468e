//go:build cgo

package llamacpp

import (
	"context"

	"github.com/sparecores/benchmark-llm/llama"
)

// CheckRPC asks each of the RPC servers whether it is there, is free and speaks
// this library's protocol. It takes 15 seconds at most for each.
func CheckRPC(servers []string) error {
	for _, s := range servers {
		if err := llama.CheckRPCServer(context.Background(), s); err != nil {
			return err
		}
	}
	return nil
}

// addRPC registers the devices of RPC servers, on the engine's thread.
func addRPC(servers []string) error {
	for _, s := range servers {
		if err := llama.AddRPCServer(context.Background(), s); err != nil {
			return err
		}
	}
	return nil
}
