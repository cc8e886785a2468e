//go:build cgo && linux && (amd64 || arm64) && !cpu

package main

import (
	"context"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// A worker that a Vulkan driver holds is ended after its limit, and the next one is kept
// from Vulkan drivers.
func TestVulkanDriverHangs(t *testing.T) {
	t.Parallel()
	driver := benchtest.Lavapipe(t, 1, "FAKEVULKAN_HANG=0")
	program, err := exec.LookPath("benchmark-llm")
	if err != nil {
		t.Fatal(err)
	}
	workers := supervise.Options{Command: []string{program, "worker"}, Log: slog.New(slog.DiscardHandler), StartupLimit: 2 * time.Second}
	answer, err := gpu.Machine{Vulkan: true}.Ask(t.Context(), func(ctx context.Context, env []string) (bench.EngineFacts, error) {
		o := workers
		o.Env = slices.Concat(o.Env, driver, env)
		if len(env) > 0 { // without the driver it has all the time that it needs on a busy machine
			o.StartupLimit = 0
		}
		return supervise.Probe(ctx, bench.Job{AllowCPU: true}, o)
	})
	if err != nil {
		t.Fatal(err)
	}
	const reason = "a Vulkan driver cannot be opened: the worker did not start and was killed"
	if u := answer.Usage; !strings.HasPrefix(u.UnusedReason, reason) || !u.NoVulkan || answer.Engine.Backends != "CPU" {
		t.Errorf("%+v on %s", u, answer.Engine.Backends)
	}
}
