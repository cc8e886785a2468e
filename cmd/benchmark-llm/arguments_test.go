package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLongFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"run -m a.gguf -ngl 99 -fa 1 -ub 256", "run -m a.gguf --n-gpu-layers 99 --flash-attn 1 --ubatch-size 256"},
		{"-ctk q8_0 -ctv q8_0 -dev CUDA0/CUDA1 -sm row -mg 1", "--cache-type-k q8_0 --cache-type-v q8_0 --device CUDA0/CUDA1 --split-mode row --main-gpu 1"},
		{"-nkvo 1 -nopo 0 --cpu-strict 1 -p 0", "--no-kv-offload=1 --no-op-offload=0 --cpu-strict=1 -p 0"},
		{"--no-host -p 16", "--no-host -p 16"}, // as this program's own switch
		{"-pg 512,128 -p16 -- -fa", "--pg 512,128 -p16 -- -fa"},
		{"-nkvo", "--no-kv-offload"},
	} {
		if d := cmp.Diff(strings.Fields(c.want), longFlags(strings.Fields(c.args))); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.args, d)
		}
	}
}

// Every long name is a flag of run.
func TestLlamaBenchFlagsExist(t *testing.T) {
	flags := newRunCommand(&globalOptions{}).Flags()
	for short, long := range llamaBenchFlags {
		if flags.Lookup(strings.TrimPrefix(long, "--")) == nil {
			t.Errorf("%s stands for %s, which is no flag", short, long)
		}
	}
	for _, long := range llamaBenchSwitches {
		if f := flags.Lookup(strings.TrimPrefix(long, "--")); f == nil || f.Value.Type() != "bool" {
			t.Errorf("%s is no switch", long)
		}
	}
}

// The modes of flash attention that llama-bench takes are taken.
func TestFlashModesOfLlamaBench(t *testing.T) {
	for _, mode := range []string{"1", "0", "-1", "on", "off", "auto"} {
		if !slices.Contains(flashModes, flashMode(mode)) {
			t.Errorf("-fa %s is not taken", mode)
		}
	}
}
