package main

import (
	"fmt"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
)

// versionLine is "llama.cpp 0.7.0 (Debian 11669), benchmark-llm v1.0.0": without
// the brackets when the build did not say, and with the packages in square ones
// when they are not the pinned.
func versionLine() string {
	library, err := llamacpp.Version()
	if err != nil {
		return fmt.Sprintf("%v, benchmark-llm %s", err, version)
	}
	commit, number := llamacpp.Build()
	build := ""
	if number > 0 {
		build = fmt.Sprintf(" (%s %d)", commit, number)
	}
	line := fmt.Sprintf("llama.cpp %s%s, benchmark-llm %s", library, build, version)
	if facts := llamacpp.Library(); facts["source"] != "" && facts["source"] != "pin" {
		line += fmt.Sprintf(" [%s: libllama0 %s, libggml0 %s]", facts["source"], facts["libllama0"], facts["libggml0"])
	}
	return line
}
