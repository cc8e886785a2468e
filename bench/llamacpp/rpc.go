package llamacpp

import (
	"fmt"

	"github.com/sparecores/benchmark-llm/llama"
)

// Errors of New, Devices and CheckRPC that concern RPC servers.
var (
	ErrRPC   = llama.ErrRPCServer // one that cannot be reached, is busy, or is none
	ErrNoRPC = llama.ErrNoRPC     // this machine or build has no RPC back-end
)

// ParseRPC refuses a list of RPC servers that cannot be meant: one that is not
// HOST:PORT, or is named twice. It asks none of them.
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
