package main

import (
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
)

// rpcFlag is a list of RPC servers, HOST:PORT separated by commas. Each use adds to
// it.
type rpcFlag []string

func (r *rpcFlag) Type() string   { return "servers" }
func (r *rpcFlag) String() string { return strings.Join(*r, ",") }

func (r *rpcFlag) Set(text string) error {
	servers := slices.Concat(*r, strings.Split(text, ","))
	if err := llamacpp.ParseRPC(servers); err != nil {
		return err
	}
	*r = servers
	return nil
}

const rpcUsage = "RPC `servers` that provide more devices, as host:50052,…"

// Adds says that each use adds to the list.
func (*rpcFlag) Adds() {}
