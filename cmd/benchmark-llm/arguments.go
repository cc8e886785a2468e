package main

import (
	"errors"
	"fmt"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/result"
)

var (
	oneOf       = commandline.OneOf
	noArguments = commandline.NoArguments
	flagsOf     = commandline.FlagsOf
	inGroup     = commandline.InGroup
)

// Groups of flags in the help.
const (
	groupWhat     = commandline.GroupWhat
	groupHow      = commandline.GroupHow
	groupWhere    = commandline.GroupWhere
	groupOutput   = commandline.GroupOutput
	groupAdvanced = commandline.GroupAdvanced
)

// settingFlags are the flags of settings, and the hints for numbers out of range.
var settingFlags = map[string]struct{ flag, hint string }{
	"type_k":     {flag: "--cache-type-k"},
	"type_v":     {flag: "--cache-type-v"},
	"split_mode": {flag: "--split-mode"},
	"load_mode":  {flag: "--load-mode"},
	"flash_attn": {flag: "--flash-attn"},
	"threads":    {"--threads", ""},
	"batch":      {"--batch-size", "try 2048, llama-bench's default"},
	"ubatch":     {"--ubatch-size", "try 512, llama-bench's default"},
	"poll":       {"--poll", "try 50, llama-bench's default"},
	"priority":   {"--prio", "try 0, the normal priority"},
	"gpu_layers": {"--n-gpu-layers", "use -1 for as many as fit"},
	"cpu_moe":    {"--n-cpu-moe", "use 0 to keep no experts on the CPU"},
	"main_gpu":   {"--main-gpu", devicesHint},
}

// settingFailure names the flag of a setting that is not allowed.
func settingFailure(err error) error {
	var setting *bench.SettingError
	if !errors.As(err, &setting) {
		return err
	}
	f := settingFlags[setting.Field]
	if setting.Field == "threads" {
		f.hint = "use at most the " + result.Count(setting.Max, "CPU") + " of this process"
	}
	if setting.Allowed != nil {
		return oneOf(f.flag, fmt.Sprint(setting.Value), setting.Allowed)
	}
	return usage(f.hint, "%s: %v is outside %d…%d", f.flag, setting.Value, setting.Min, setting.Max)
}
