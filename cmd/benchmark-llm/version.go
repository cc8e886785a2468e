package main

import (
	"fmt"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
)

// versionLine is "llama.cpp 0.7.0 (Debian 11669), benchmark-llm v1.0.0", with
// the packages in brackets when they are not the pinned ones.
func versionLine() string {
	library, err := llamacpp.Version()
	if err != nil {
		return fmt.Sprintf("%v, benchmark-llm %s", err, version)
	}
	commit, number := llamacpp.Build()
	line := fmt.Sprintf("llama.cpp %s (%s %d), benchmark-llm %s", library, commit, number, version)
	if facts := llamacpp.Library(); facts["source"] != "" && facts["source"] != "pin" {
		line += fmt.Sprintf(" [%s: libllama0 %s, libggml0 %s]", facts["source"], facts["libllama0"], facts["libggml0"])
	}
	return line
}
