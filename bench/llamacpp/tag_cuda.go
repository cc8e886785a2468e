//go:build cgo && cuda && !cpu

package llamacpp

import "github.com/sparecores/benchmark-llm/llama"

const (
	backends    = llama.AllBackends
	requireCUDA = true
)
