//go:build cgo && cpu

package llamacpp

import "github.com/sparecores/benchmark-llm/llama"

const (
	backends    = llama.CPUBackend
	requireCUDA = false
)
