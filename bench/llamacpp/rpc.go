package llamacpp

import (
	"fmt"

	"github.com/sparecores/benchmark-llm/llama"
)

// Errors of New, Devices and CheckRPC that concern RPC servers.
var (
	ErrRPC   = llama.ErrRPCServer // a server cannot be reached, is busy, or is no RPC server
	ErrNoRPC = llama.ErrNoRPC     // the RPC back-end is not installed, or not part of this build
)

// ParseRPC refuses a list of RPC servers in which one is not HOST:PORT or occurs
// twice. It asks none of them.
func ParseRPC(servers []string) error {
	seen := make(map[string]bool)
	for _, s := range servers {
		if err := llama.CheckEndpoint(s); err != nil {
			return err
		}
		if seen[s] {
			return fmt.Errorf("RPC server %s is named twice", s)
		}
		seen[s] = true
	}
	return nil
}
