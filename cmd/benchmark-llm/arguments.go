package main

import (
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// llamaBenchFlags are llama-bench's short flags of several letters. The flag parser
// would read them as several flags of one letter.
var llamaBenchFlags = map[string]string{
	"-ub":    "--ubatch-size",
	"-ctk":   "--cache-type-k",
	"-ctv":   "--cache-type-v",
	"-fa":    "--flash-attn",
	"-ngl":   "--n-gpu-layers",
	"-ncmoe": "--n-cpu-moe",
	"-sm":    "--split-mode",
	"-mg":    "--main-gpu",
	"-ts":    "--tensor-split",
	"-dev":   "--device",
	"-lm":    "--load-mode",
	"-rpc":   "--rpc",
	"-pg":    "--pg",
	"-nkvo":  "--no-kv-offload",
	"-nopo":  "--no-op-offload",
}

// llamaBenchSwitches are flags that take 0 or 1 in llama-bench, and need no value
// here.
var llamaBenchSwitches = []string{"--no-kv-offload", "--no-op-offload", "--no-host", "--cpu-strict"}

// longFlags replaces llama-bench's short flags with their long names, so that its
// command lines work here.
func longFlags(args []string) []string {
	long := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(long, args[i:]...)
		}
		if name, ok := llamaBenchFlags[arg]; ok {
			arg = name
		}
		if slices.Contains(llamaBenchSwitches, arg) && i+1 < len(args) && (args[i+1] == "0" || args[i+1] == "1") {
			i++
			arg += "=" + args[i]
		}
		long = append(long, arg)
	}
	return long
}

// flashMode returns the name of a mode of flash attention. llama-bench takes numbers
// too.
func flashMode(text string) string {
	switch text {
	case "1":
		return "on"
	case "0":
		return "off"
	case "-1":
		return "auto"
	default:
		return text
	}
}

// spreadSources turns --model-urls A B C, which people and pipelines write, into one
// flag per model. A word that may be something else ends the list.
func spreadSources(args []string) []string {
	const flag = "--model-urls"
	var spread []string
	for i := 0; i < len(args); i++ {
		spread = append(spread, args[i])
		if args[i] == "--" {
			return append(spread, args[i+1:]...)
		}
		if args[i] == flag && i+1 < len(args) {
			i++
			spread = append(spread, args[i])
		} else if !strings.HasPrefix(args[i], flag+"=") {
			continue
		}
		for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") && source.Explicit(args[i+1]) {
			i++
			spread = append(spread, flag, args[i])
		}
	}
	return spread
}
