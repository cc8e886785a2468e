package main

import "slices"

// llamaBenchFlags are llama-bench's short flags of several letters, which the
// flag parser would read as several flags of one letter.
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

// llamaBenchSwitches are flags that llama-bench gives a value and this program
// need not: 1 or 0.
var llamaBenchSwitches = []string{"--no-kv-offload", "--no-op-offload", "--no-host", "--cpu-strict"}

// longFlags gives llama-bench's short flags their long names, so that a command
// line that works there works here.
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

// flashMode is a mode of flash attention by its name: llama-bench takes numbers
// too, and writes one in its records.
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
